"""The shared limiter on a real server: it counts as the local one does, over all who ask, and never keeps anybody
waiting."""

from __future__ import annotations

import asyncio
import random
import signal
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace

import hiredis
import pytest

from seawall.cache.command import GCRA, GCRA_SHA, packed
from seawall.guard.throttle import decide
from seawall.kernel.seam.limiter import SECOND_US, Allowance, Limiter, Rate
from stall import Stopwatch

from .conftest import Running
from .server import Server

SLOW = Rate(5, 500.0)


async def asked(limiter: Limiter, *limits: tuple[bytes, Rate]) -> list[Allowance]:
    loop = asyncio.get_running_loop()
    future: asyncio.Future[Sequence[Allowance]] = loop.create_future()
    limiter.ask(limits, future.set_result)
    async with asyncio.timeout(5):
        return list(await future)


async def allowed(limiter: Limiter, *limits: tuple[bytes, Rate]) -> bool:
    return all(one.allowed for one in await asked(limiter, *limits))


def evaluate(server: Server, now_us: int, keys: list[bytes], *words: int) -> list[int]:
    """The script, asked past all of our own code, at a time of our choice; nothing that it keeps expires."""
    time_, expiry = b"redis.call('TIME')", b"math.ceil((tat[i] - now) / 1000)"
    assert GCRA.count(time_) == GCRA.count(expiry) == 1
    script = GCRA.replace(time_, b"{%d, %d}" % divmod(now_us, SECOND_US)).replace(expiry, b"3600000")
    raw = server.say("EVAL", script.decode(), str(len(keys)), *[k.decode() for k in keys], *map(str, words))
    reader = hiredis.Reader()
    reader.feed(raw)
    reply = reader.gets()
    assert isinstance(reply, list), reply
    return reply


async def test_two_collectors_share_one_allowance_to_the_last(running: Running) -> None:
    async with running() as a, running() as b:

        async def of_redis(ask: Callable[[bytes], Awaitable[list[bool]]]) -> list[bool]:
            """What it says of a new key; a busy machine may not hear it within 150 ms, and then says nothing of it."""
            for attempt in range(10):
                alone = [rig.count("seawall_limiter_local_total") for rig in (a, b)]
                told = await ask(b"k%d" % attempt)
                if [rig.count("seawall_limiter_local_total") for rig in (a, b)] == alone:
                    return told
            raise AssertionError("Redis was never heard within 150 ms")

        async def in_turn(key: bytes) -> list[bool]:
            return [await allowed((a, b)[n % 2].shared.limiter, (key, SLOW)) for n in range(8)]

        async def at_once(key: bytes) -> list[bool]:
            return await asyncio.gather(*[allowed((a, b)[n % 2].shared.limiter, (b"m" + key, SLOW)) for n in range(40)])

        assert await of_redis(in_turn) == [True] * 5 + [False] * 3
        assert sum(await of_redis(at_once)) == 5


async def test_nothing_is_counted_unless_all_keys_allow_it(running: Running) -> None:
    async with running(patient=True) as rig:
        limiter = rig.shared.limiter
        tight, wide = (b"source", Rate(2, 200.0)), (b"tenant", Rate(10, 1000.0))
        told = [await allowed(limiter, tight, wide) for _ in range(5)]
        assert told == [True, True, False, False, False]
        [left] = await asked(limiter, wide)
        assert left.remaining == 7  # two and this one


async def test_questions_of_one_turn_go_in_one_call(running: Running, server: Server) -> None:
    async with running(patient=True) as rig:
        await allowed(rig.shared.limiter, (b"k", SLOW))
        server.say("CONFIG", "RESETSTAT")
        await asyncio.gather(*[allowed(rig.shared.limiter, (b"%d" % n, SLOW), (b"t", SLOW)) for n in range(50)])
        assert b"cmdstat_evalsha:calls=1," in server.say("INFO", "commandstats")


@pytest.mark.parametrize("seed", range(5))
def test_the_script_decides_as_our_own_arithmetic_does(server: Server, seed: int) -> None:
    """Differential: random questions over few keys, at random times, also a clock that goes back; each is compared with
    ``decide``."""
    rng, now = random.Random(seed), 1_800_000_000 * SECOND_US
    rates = {
        b"a": Rate(3, 0.003),
        b"b": Rate(7, 0.05),
        b"c": Rate(1000, 1.0),
        b"d": Rate(1, 7000.0),
        b"e": Rate(3, 9e8),
    }
    kept: dict[bytes, int] = {}
    told: set[bool] = set()
    for _ in range(200):
        now += rng.choice([0, 1, 500, 7143, 40_000, -20_000, rng.randrange(3 * SECOND_US)])
        keys = rng.sample(sorted(rates), rng.randint(1, 4))
        questions = [rng.sample(keys, rng.randint(1, len(keys))) for _ in range(rng.randint(1, 6))]
        aheads = {key: rng.choice([0, 0, rng.randrange(2 * rates[key].window_us)]) for key in keys}
        words = [w for key in keys for w in (rates[key].interval_us, rates[key].window_us, aheads[key])]
        words += [w for names in questions for w in (len(names), *[keys.index(name) + 1 for name in names])]
        reply = evaluate(server, now, keys, *words)
        # Both sides' numbers are one from here on, and none lies further ahead than its rate allows.
        tats = {key: min(max(kept.get(key, 0), now + aheads[key], now), now + rates[key].window_us) for key in keys}
        for names in questions:
            found = [decide(tats[name], now, rates[name]) for name in names]
            allowed_ = all(one.allowed for one in found)
            before = [tats[name] - now for name in names]
            flag, said, reply = reply[0], reply[1 : 1 + len(names)], reply[1 + len(names) :]
            assert (bool(flag), said) == (allowed_, before)
            # What the asker makes of it.
            assert [decide(ahead, 0, rates[n]) for ahead, n in zip(said, names, strict=True)] == [
                replace(one, tat_us=one.tat_us - now if one.allowed else said[place]) for place, one in enumerate(found)
            ]
            told.add(allowed_)
            if allowed_:
                tats.update({name: one.tat_us for name, one in zip(names, found, strict=True)})
        assert reply == []
        kept.update({key: tat for key, tat in tats.items() if tat > now})
    assert told == {True, False}


async def test_what_says_nothing_any_more_is_forgotten_by_redis(running: Running, server: Server) -> None:
    async with running(patient=True) as rig:
        await allowed(rig.shared.limiter, (b"k", SLOW), (b"soon", Rate(1, 0.01)))
        left_ms = int(server.say("PTTL", "seawall:rate:k").strip(b":\r\n"))
        assert 90_000 < left_ms <= 100_000
        await until(lambda: server.say("DBSIZE") == b":1\r\n")


async def test_a_distance_told_to_and_fro_does_not_grow(running: Running) -> None:
    async with running() as rig:
        rig.network.delay_s = 0.01
        rate = Rate(100, 1.0)
        began, passed = time.monotonic(), 0
        for _ in range(50):
            passed += await allowed(rig.shared.limiter, (b"k", rate))
        ahead_us = (await asked(rig.shared.limiter, (b"k", rate)))[0].reset_us
        due_us = 51 * rate.interval_us - (time.monotonic() - began) * SECOND_US
        assert passed == 50 and ahead_us <= max(due_us, 0) + 3 * rate.interval_us


async def test_no_jump_when_it_goes_away_nor_when_it_is_back(running: Running, server: Server) -> None:
    async with running(loops=True, patient=True) as rig:
        limiter = rig.shared.limiter
        assert [await allowed(limiter, (b"k", SLOW)) for _ in range(3)] == [True] * 3
        server.kill()
        # Two are left, wherever they are asked for.
        assert [await allowed(limiter, (b"k", SLOW)) for _ in range(4)] == [True, True, False, False]
        assert [await allowed(limiter, (b"fresh", SLOW)) for _ in range(4)] == [True] * 4
        server.start()  # it has forgotten everything
        await until(lambda: rig.state == "closed")
        before = rig.count("seawall_limiter_shared_total")
        assert [await allowed(limiter, (b"k", SLOW)) for _ in range(2)] == [False] * 2
        assert [await allowed(limiter, (b"fresh", SLOW)) for _ in range(2)] == [True, False]
        assert rig.count("seawall_limiter_shared_total") == before + 4


async def test_flushall_gives_nobody_a_second_burst(running: Running, server: Server) -> None:
    async with running() as rig:
        assert [await allowed(rig.shared.limiter, (b"k", SLOW)) for _ in range(6)][-1] is False
        server.say("FLUSHALL")
        server.say("SCRIPT", "FLUSH")
        assert not await allowed(rig.shared.limiter, (b"k", SLOW))
        assert not await allowed(rig.shared.limiter, (b"k", SLOW))
        assert rig.state == "closed"


async def until(true: object, *, within_s: float = 8.0) -> None:
    assert callable(true)
    async with asyncio.timeout(within_s):
        while not true():
            await asyncio.sleep(0.005)


async def crowd(limiter: Limiter, latencies: list[float], *, for_s: float) -> None:
    """A question every 5 ms under a key of its own; all must be allowed."""

    async def one(number: int) -> None:
        began = time.monotonic()
        assert await allowed(limiter, (b"%d" % number, SLOW), (b"all", Rate(1_000_000)))
        latencies.append(time.monotonic() - began)

    began = time.monotonic()
    async with asyncio.TaskGroup() as group:
        number = 0
        while time.monotonic() - began < for_s:
            group.create_task(one(number))
            number += 1
            await asyncio.sleep(0.005)


@pytest.mark.parametrize("busy", [True, False])
@pytest.mark.parametrize(
    "fault", ["killed", "stopped", "slow", "hole", "readonly", "maxmemory", "loading", "not-redis", "busy-script"]
)
async def test_a_fault_opens_the_breaker_within_a_second_and_harms_nobody(
    running: Running, server: Server, fault: str, busy: bool
) -> None:
    async with running(loops=True) as rig:
        limiter = rig.shared.limiter
        await until(lambda: rig.count("seawall_dependency_calls_total") > 0)
        latencies: list[float] = []
        whole = Stopwatch()
        async with asyncio.TaskGroup() as group:
            if busy:
                group.create_task(crowd(limiter, latencies, for_s=1.5))
                await asyncio.sleep(0.2)
            match fault:
                case "killed":
                    server.kill()
                case "stopped":
                    server.send(signal.SIGSTOP)
                case "slow":
                    rig.network.delay_s = 2.0
                case "hole":
                    rig.network.hole = True
                case "readonly":
                    server.say("REPLICAOF", "127.0.0.1", "1")
                case "maxmemory":
                    server.say("CONFIG", "SET", "maxmemory", "1")
                case "loading":
                    await asyncio.to_thread(load_slowly, server)
                case "not-redis":
                    server.kill()
                    group.create_task(another(server.port))
                case "busy-script":
                    server.say("CONFIG", "SET", "busy-reply-threshold", "1")
                    server.say("EVAL", "while true do end", "0", wait_s=0.01)
            watch = Stopwatch()
            await until(lambda: rig.state == "open", within_s=3)
            assert watch.s <= 1.0
        assert max(latencies, default=0.0) <= 0.25 + whole.stalled_s, sorted(latencies)[-5:]
        if busy:
            assert len(latencies) > 100
        assert rig.alerts.active()[0].name == "breaker-open"
        wanted = {
            "killed": {"refused", "reset"}, "stopped": {"timeout"}, "slow": {"timeout"}, "hole": {"timeout"},
            "readonly": {"error"}, "maxmemory": {"error"}, "loading": {"error"}, "not-redis": {"reset"},
            "busy-script": {"error"},
        }  # fmt: skip
        await until(
            lambda: any(rig.count("seawall_dependency_fallbacks_total", cause=cause) for cause in wanted[fault])
        )


async def another(port: int) -> None:
    """Something else on the server's port, for a second and a half."""

    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        writer.close()
        await writer.wait_closed()

    async with await asyncio.start_server(refuse, "127.0.0.1", port):
        await asyncio.sleep(1.5)


def load_slowly(server: Server) -> None:
    """Start it anew with data that takes seconds to read."""
    server.say("DEBUG", "POPULATE", "5000", "x", "1500")
    server.say("SAVE")
    server.kill()
    server.start("--key-load-delay", "2000", "--loading-process-events-interval-bytes", "1024")


async def test_it_is_asked_again_soon_after_and_by_nobody_s_event(running: Running, server: Server) -> None:
    async with running(loops=True) as rig:
        await until(lambda: rig.count("seawall_dependency_calls_total") > 0)
        rig.network.hole = True
        await until(lambda: rig.state == "open")
        watch = Stopwatch()
        assert await allowed(rig.shared.limiter, (b"k", SLOW))
        assert watch.s < 0.05
        assert rig.count("seawall_limiter_local_total", cause="rejected") == 1
        rig.network.hole = False
        await until(lambda: rig.state == "closed")
        for attempt in range(10):  # a busy machine may not hear it within 150 ms
            assert await allowed(rig.shared.limiter, (b"k%d" % attempt, SLOW))
            if rig.count("seawall_limiter_shared_total"):
                break
        assert rig.count("seawall_limiter_shared_total") == 1
        assert not rig.alerts.active()


async def test_closing_answers_who_waits(running: Running) -> None:
    async with running() as rig:
        rig.network.hole = True
        waiting = [asyncio.ensure_future(allowed(rig.shared.limiter, (b"%d" % n, SLOW))) for n in range(1000)]
        await asyncio.sleep(0.01)
        rig.shared.limiter.close()
        assert all(await asyncio.gather(*waiting))


async def test_who_gathers_behind_a_call_that_hangs_waits_no_longer(running: Running) -> None:
    async with running() as rig:
        await allowed(rig.shared.limiter, (b"k", SLOW))
        rig.network.hole = True
        latencies: list[float] = []
        whole = Stopwatch()
        await crowd(rig.shared.limiter, latencies, for_s=0.14)
        assert max(latencies) <= 0.25 + whole.stalled_s


def test_the_digest_is_that_of_the_script() -> None:
    assert len(GCRA_SHA) == 40 and packed("SCRIPT", "LOAD", GCRA)


async def test_while_shared_limits_are_shed_each_process_decides_alone_and_then_they_count_together_again(
    running: Running,
) -> None:
    async with running(patient=True) as rig:
        rig.shed.force("shared-limits", "off")
        told = [await allowed(rig.shared.limiter, (b"k", SLOW)) for _ in range(7)]
        assert told == [True] * 5 + [False] * 2
        assert rig.count("seawall_limiter_shared_total") == 0
        rig.shed.force("shared-limits", "auto")
        assert not await allowed(rig.shared.limiter, (b"k", SLOW)), "what was let through alone is told"
        assert rig.count("seawall_limiter_shared_total") == 1


async def test_switched_off_nobody_asks_redis_and_switched_on_they_share_again(running: Running) -> None:
    switch = [False]

    def on(*, tenant: str = "", source: str = "") -> bool:
        return switch[0]

    async with running(on=on, patient=True) as a, running(patient=True) as b:
        assert [await allowed(a.shared.limiter, (b"k", SLOW)) for _ in range(6)] == [True] * 5 + [False]
        assert a.count("seawall_limiter_shared_total") == 0
        assert await allowed(b.shared.limiter, (b"k", SLOW)), "it wasn't told"
        switch[0] = True
        assert not await allowed(a.shared.limiter, (b"k", SLOW))
        assert not await allowed(b.shared.limiter, (b"k", SLOW)), "what passed meanwhile is told with the next question"


async def test_redis_is_ready_when_it_has_answered_and_its_breaker_is_closed(running: Running) -> None:
    async with running(patient=True) as rig:
        assert not rig.shared.ready
        assert await rig.shared.limiter.probe()
        assert rig.shared.ready
        rig.panel.force("redis", "open")
        assert not rig.shared.ready
