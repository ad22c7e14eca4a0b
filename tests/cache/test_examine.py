"""What the doctor reads, and what the meter counts, of a real server."""

from __future__ import annotations

import asyncio

import pytest

from seawall.cache.examine import SAMPLE, examined
from seawall.cache.meter import slow
from seawall.cache.setting import Settings
from seawall.kernel.error import Unavailable

from .conftest import Running
from .server import Server, free_port
from .test_limiter import SLOW, allowed, until


def url(server: Server) -> Settings:
    return Settings(url=f"redis://127.0.0.1:{server.port}")


async def test_the_doctor_sees_policy_slow_log_and_strangers_keys(server: Server, running: Running) -> None:
    assert await examined(url(server), timeout_s=2) == {
        "maxmemory": "0", "maxmemory_policy": "noeviction", "slowlog-log-slower-than": "10000", "sampled": "0",
        "foreign": "0",
    }  # fmt: skip
    async with running() as rig:
        await allowed(rig.shared.limiter, (b"k", SLOW))
    server.say("CONFIG", "SET", "maxmemory-policy", "allkeys-lru")
    server.say("CONFIG", "SET", "slowlog-log-slower-than", "-1")
    said = await examined(url(server), timeout_s=2)
    assert said["maxmemory_policy"] == "allkeys-lru" and said["slowlog-log-slower-than"] == "-1"
    assert (said["sampled"], said["foreign"]) == (str(SAMPLE), "0")
    for n in range(50):
        server.say("SET", f"views/{n}", "html")
    assert int((await examined(url(server), timeout_s=2))["foreign"]) > 10


async def test_the_doctor_isn_t_kept_waiting() -> None:
    with pytest.raises(Unavailable, match="is unavailable"):
        await examined(Settings(url=f"redis://:secret@127.0.0.1:{free_port()}"), timeout_s=1)


async def test_who_keeps_redis_busy_is_counted_once_with_command_and_name(server: Server, running: Running) -> None:
    server.say("CONFIG", "SET", "slowlog-log-slower-than", "5000")
    async with running(loops=True, poll_s=0.1, patient=True) as rig:
        await until(lambda: rig.count("seawall_redis_clients_count") > 0)
        await asyncio.to_thread(server.say, "DEBUG", "SLEEP", "0.02")
        await asyncio.to_thread(server.say, "DEBUG", "SLEEP", "0.02")
        await until(lambda: rig.count("seawall_redis_slow_total", command="DEBUG") == 2)
        assert rig.count("seawall_redis_slow_total", command="DEBUG", client="127.0.0.1") == 2
        assert 0.04 <= rig.count("seawall_redis_slow_seconds_total", command="DEBUG") < 1
        reads = rig.metrics.gauge("seawall_redis_commands_rate_count", "")
        assert rig.count("seawall_redis_memory_bytes") > 100_000 and reads.now() >= 0
        await asyncio.sleep(0.3)
        assert rig.count("seawall_redis_slow_total", command="DEBUG") == 2
        assert rig.count("seawall_redis_polls_failed_total") == 0


def test_a_slow_log_that_says_something_else_is_passed_over() -> None:
    good: list[object] = [7, 1, 12_000, [b"keys", b"*"], b"10.0.0.1:99", b"billing"]
    assert list(slow([[1, 2], good, None, [7, 1, b"x", [b"get"]], [8, 1, 5, [b"get"]]])) == [  # type: ignore[list-item]
        (7, 12_000, "KEYS", "billing"),
        (8, 5, "GET", "unknown"),
    ]
    assert list(slow(b"OK")) == []
