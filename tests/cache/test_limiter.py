"""The shared limiter on a real server: it counts as the local one does, over all who ask, and never keeps anybody
waiting."""

from __future__ import annotations

import asyncio
import random
import signal
import time
from collections.abc import Sequence

import hiredis
import pytest

from seawall.cache.command import GCRA, GCRA_SHA, packed
from seawall.guard.throttle import decide
from seawall.kernel.seam.limiter import SECOND_US, Allowance, Limiter, Rate

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


def evaluate(server: Server, keys: list[bytes], *words: int) -> list[int]:
    """The script, asked past all of our own code."""
    raw = server.say("EVAL", GCRA.decode(), str(len(keys)), *[k.decode() for k in keys], *map(str, words))
    reader = hiredis.Reader()
    reader.feed(raw)
    reply = reader.gets()
    assert isinstance(reply, list), reply
    return reply


async def test_two_collectors_share_one_allowance_to_the_last(running: Running) -> None:
    async with running() as a, running() as b:
        told = [await allowed((a, b)[n % 2].shared.limiter, (b"k", SLOW)) for n in range(8)]
        assert told == [True] * 5 + [False] * 3
        both = await asyncio.gather(*[allowed((a, b)[n % 2].shared.limiter, (b"m", SLOW)) for n in range(40)])
        assert sum(both) == 5
        assert a.count("seawall_limiter_local_total") == b.count("seawall_limiter_local_total") == 0


async def test_nothing_is_counted_unless_all_keys_allow_it(running: Running) -> None:
    async with running() as rig:
        limiter = rig.shared.limiter
        tight, wide = (b"source", Rate(2, 200.0)), (b"tenant", Rate(10, 1000.0))
        told = [await allowed(limiter, tight, wide) for _ in range(5)]
        assert told == [True, True, False, False, False]
        [left] = await asked(limiter, wide)
        assert left.remaining == 7  # two and this one


async def test_questions_of_one_turn_go_in_one_call(running: Running, server: Server) -> None:
    async with running() as rig:
        await allowed(rig.shared.limiter, (b"k", SLOW))
        server.say("CONFIG", "RESETSTAT")
        await asyncio.gather(*[allowed(rig.shared.limiter, (b"%d" % n, SLOW), (b"t", SLOW)) for n in range(50)])
        assert b"cmdstat_evalsha:calls=1," in server.say("INFO", "commandstats")


@pytest.mark.parametrize("seed", range(5))
def test_the_script_decides_as_our_own_arithmetic_does(server: Server, seed: int) -> None:
    """Differential: random questions over few keys, each compared with ``decide`` at the server's own time, which the
    answers give away: what was kept and how far it lies ahead."""
    rng = random.Random(seed)
    rates = {b"a": Rate(3, 0.003), b"b": Rate(7, 0.05), b"c": Rate(1000, 1.0), b"d": Rate(1, 7000.0)}
    kept: dict[bytes, int] = {}
    for _ in range(150):
        keys = rng.sample(sorted(rates), rng.randint(1, 4))
        questions = [rng.sample(range(len(keys)), rng.randint(1, len(keys))) for _ in range(rng.randint(1, 6))]
        told = [rng.choice([0, 0, rng.randrange(2 * rates[key].window_us)]) for key in keys]
        words = [
            w for k, ahead in zip(keys, told, strict=True) for w in (rates[k].interval_us, rates[k].window_us, ahead)
        ]
        words += [w for q in questions for w in (len(q), *[n + 1 for n in q])]
        reply = evaluate(server, keys, *words)
        now = evaluated_at(server, keys, kept, reply, questions)
        tats = {
            key: min(max(kept.get(key, 0), now + ahead, now), now + rates[key].window_us)
            for key, ahead in zip(keys, told, strict=True)
        }
        at = 0
        for question in questions:
            flag, *aheads = reply[at : at + 1 + len(question)]
            at += 1 + len(question)
            names = [keys[n] for n in question]
            found = [decide(tats[name], now, rates[name]) for name in names]
            assert aheads == [tats[name] - now for name in names]
            assert [decide(ahead, 0, rates[n]).allowed for ahead, n in zip(aheads, names, strict=True)] == [
                one.allowed for one in found
            ]
            assert bool(flag) == all(one.allowed for one in found)
            if flag:
                tats.update({name: one.tat_us for name, one in zip(names, found, strict=True)})
        kept.update({key: tat for key, tat in tats.items() if tat > now})


def evaluated_at(
    server: Server, keys: list[bytes], kept: dict[bytes, int], reply: list[int], questions: list[list[int]]
) -> int:
    """The server's time of a call: found from a number it has written and how far ahead that was."""
    at = 0
    aheads: dict[int, int] = {}
    charged: dict[int, int] = {}
    for question in questions:
        for place, number in enumerate(question):
            aheads.setdefault(number, reply[at + 1 + place])
            charged[number] = charged.get(number, 0) + reply[at]
        at += 1 + len(question)
    for number, ahead in aheads.items():
        raw = server.say("GET", keys[number].decode())
        if not raw.startswith(b"$-1"):
            written = int(raw.split(b"\r\n")[1])
            interval = {b"a": 1000, b"b": 7143, b"c": 1000, b"d": 7_000_000_000}[keys[number]]
            return written - charged[number] * interval - ahead
    raise AssertionError(f"nothing was written for {keys}")


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
    async with running(loops=True) as rig:
        limiter = rig.shared.limiter
        assert [await allowed(limiter, (b"k", SLOW)) for _ in range(3)] == [True] * 3
        server.kill()
        # Two are left, wherever they are asked for.
        assert [await allowed(limiter, (b"k", SLOW)) for _ in range(4)] == [True, True, False, False]
        assert [await allowed(limiter, (b"fresh", SLOW)) for _ in range(4)] == [True] * 4
        server.start()  # it has forgotten everything
        await until(lambda: rig.state == "closed" and rig.shared.limiter.asked_at > 0)
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
            began = time.monotonic()
            await until(lambda: rig.state == "open", within_s=3)
            opened_s = time.monotonic() - began
        assert opened_s <= 1.0
        assert max(latencies, default=0.0) <= 0.25, sorted(latencies)[-5:]
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
    for number in range(500):
        server.say("SET", f"x{number}", "x" * 2000)
    server.say("SAVE")
    server.kill()
    server.start("--key-load-delay", "10000", "--loading-process-events-interval-bytes", "1024")


async def test_it_is_asked_again_soon_after_and_by_nobody_s_event(running: Running, server: Server) -> None:
    async with running(loops=True) as rig:
        await until(lambda: rig.count("seawall_dependency_calls_total") > 0)
        rig.network.hole = True
        await until(lambda: rig.state == "open")
        began = time.monotonic()
        assert await allowed(rig.shared.limiter, (b"k", SLOW))
        assert time.monotonic() - began < 0.05
        assert rig.count("seawall_limiter_local_total", cause="rejected") == 1
        rig.network.hole = False
        await until(lambda: rig.state == "closed")
        assert await allowed(rig.shared.limiter, (b"k", SLOW))
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
        await crowd(rig.shared.limiter, latencies, for_s=0.14)
        assert max(latencies) <= 0.25


def test_the_digest_is_that_of_the_script() -> None:
    assert len(GCRA_SHA) == 40 and packed("SCRIPT", "LOAD", GCRA)
