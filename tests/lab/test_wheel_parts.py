"""Parts that need no system package: the wheel's Redis-compatible server, the embedded PostgreSQL, and the proxy.

What they show of Redis itself is shown again on Redis by ``make test-parts``.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from seawall.kernel.error import Rejected, Unavailable
from seawall.lab.part import catalog, doctor, resp
from seawall.lab.part.fault import Fault
from seawall.lab.part.postgres import Postgres
from seawall.lab.part.proxy import FaultProxy
from seawall.lab.part.redis import Redis


def test_a_redis_comes_up_alone_keeps_what_it_was_told_and_takes_settings(tmp_path: Path) -> None:
    with Redis(tmp_path / "redis", wheel=True, settings={"maxmemory": "3mb"}) as part:
        assert part.engine.name.startswith("valkey")
        assert part.ask("r1", "SET", "key", "value") == "OK"
        assert part.ask("r1", "CONFIG", "GET", "maxmemory") == ["maxmemory", "3145728"]
        assert part.ask("r1", "GET", "nothing") is None
        with pytest.raises(resp.Refused, match="ERR unknown command"):
            part.ask("r1", "NONSENSE")
        part.stop("r1")
        with pytest.raises(OSError, match="timed out"):
            part.ask("r1", "PING", timeout_s=0.2)
        part.cont("r1")
        part.settle()


def test_sentinels_agree_at_once_and_elect_the_replica(tmp_path: Path) -> None:
    with Redis(tmp_path / "redis", replica=True, wheel=True) as part:
        part.settle()
        assert part.primary() == "r1"
        part.ask("r1", "SET", "key", "value")
        part.settle()
        part.kill("r1")
        assert part.unsettled()
        latest = time.monotonic() + 20
        while _primary(part) != "r2":
            assert time.monotonic() < latest
            time.sleep(0.05)
        assert part.ask("r2", "GET", "key") == "value"


def _primary(part: Redis) -> str:
    try:
        return part.primary()
    except Unavailable:
        return ""


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[Postgres]:
    part = Postgres(tmp_path / "postgres", bouncer=False)
    try:
        with part:
            yield part
    finally:
        part.wipe()


def test_a_replica_has_what_was_written_and_takes_over(pair: Postgres) -> None:
    pair.settle()
    assert pair.primary() == "a"
    pair.write("a", "first")
    pair.settle()
    assert pair.read("b") == "first"
    with pytest.raises(Unavailable, match="read-only"):
        pair.write("b", "no")
    pair.kill("a")
    pair.promote("b")
    assert pair.primary() == "b"
    pair.write("b", "second")
    pair.rejoin("a")
    pair.settle()
    assert pair.read("a") == "second"


def test_a_server_that_another_process_starts_again_is_where_it_was(pair: Postgres) -> None:
    """As a watchdog does, which knows the folder and the kind."""
    before = pair.port("a")
    pair.kill("a")
    again = catalog.parts(pair.folder.parent, ["postgres"])[0]
    again.start("a")
    assert isinstance(again, Postgres) and again.nodes == ("a", "b") and again.port("a") == pair.port("a") == before
    pair.settle()
    assert pair.primary() == "a"


def test_a_stopped_server_holds_its_backends_too(pair: Postgres) -> None:
    pair.stop("a")
    with pytest.raises(Unavailable):
        pair.read("a")
    pair.cont("a")
    pair.write("a", "again")
    assert pair.read("a") == "again"


def test_the_proxys_process_breaks_lines_and_keeps_them_over_a_restart(tmp_path: Path) -> None:
    deep = tmp_path / ("deep" * 30)
    with Redis(tmp_path / "redis", wheel=True) as redis, FaultProxy(deep) as proxy:
        port = proxy.link("redis", redis.port("r1"))
        assert resp.ask(port, "PING") == "PONG"
        proxy.set("redis", Fault(kind="hole", way="down"))
        with pytest.raises(OSError, match="timed out"):
            resp.ask(port, "PING", timeout_s=0.3)
        assert proxy.links()["redis"]["faults"] == [{"kind": "hole", "way": "down"}]
        assert "redis" in proxy.unsettled()
        with pytest.raises(Rejected, match="no such link"):
            proxy.set("kafka", Fault(kind="hole"))
        proxy.kill("proxy")
        proxy.start("proxy")
        assert proxy.links()["redis"]["port"] == port
        assert resp.ask(port, "PING") == "PONG", "faults don't outlive the proxy"


def test_the_doctor_names_a_cure_for_all_that_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    checks = {check.name: check for check in doctor.examine(tmp_path / "parts")}
    missing = {name for name, check in checks.items() if not check.ok}
    assert {"java", "mvn", "redis-server", "pgbouncer"} <= missing
    assert all(checks[name].cure and checks[name].parts for name in missing)
    assert not (tmp_path / "parts").exists(), "nothing is made"


def test_an_unknown_part_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(Rejected, match="rabbit; there are kafka"):
        catalog.parts(tmp_path, ["rabbit"])
    assert catalog.made(tmp_path) == []
