from __future__ import annotations

import asyncio
import contextlib
import itertools
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from seawall.kernel.signature import DEFAULT, KINDS, Verified
from seawall.lab.checker.ledger import Ledger, Run, read
from seawall.lab.checker.verify import verify
from seawall.lab.part.port import free
from seawall.lab.platform import Platform
from seawall.lab.traffic import Plan, Target, Traffic
from seawall.lab.traffic.traffic import whose

from .platform_server import FakePlatform

SECRET = b"whsec_c2Vhd2FsbC1zZWF3YWxsLXNlYXdhbGw="


@pytest.fixture
def fake() -> Iterator[FakePlatform]:
    with FakePlatform() as made:
        yield made


def _plan(**changed: float) -> Plan:
    return Plan(**{"rate": 400, "seconds": 0.5, "seed": 11, "connections": 8, "bytes_max": 2000, **changed})


async def _send(fake: FakePlatform, ledger: Path, plan: Plan, port: int | None = None) -> Run:
    address = ("127.0.0.1", port or fake._server.server_port)
    target = Target(address=lambda: address, path="/in/t", secret=SECRET)
    with Ledger(ledger) as book:
        book.begin("r", {"source_id": "s1", "seed": plan.seed, "type": plan.type, "bytes_max": plan.bytes_max})
        await Traffic(plan, target, book, run="r").send()
    return read(ledger).runs[0]


def test_arrivals_are_a_function_of_the_seed_at_the_rate_asked_for() -> None:
    plan = Plan(rate=1000, seconds=20, seed=4)
    times = list(plan.arrivals())
    assert times == list(plan.arrivals())
    assert times == sorted(times)
    assert 19_000 < len(times) < 21_000
    assert list(Plan(rate=1000, seconds=20, seed=5).arrivals()) != times


async def test_every_event_and_its_answer_stand_in_the_ledger(fake: FakePlatform, tmp_path: Path) -> None:
    plan = _plan()
    run = await _send(fake, tmp_path / "L", plan)
    assert len(run.attempts) == len(list(plan.arrivals()))
    assert {a.status for a in run.attempts} == {202}
    assert run.end is not None
    assert run.end["acked"] == len(run.attempts)
    with Platform(fake.find) as platform:
        verdict = await asyncio.to_thread(verify, platform, read(tmp_path / "L"), timeout_s=5.0)
    assert verdict.holds
    assert verdict.finished == len(run.attempts)


async def test_a_generator_that_stands_still_says_for_how_long(fake: FakePlatform, tmp_path: Path) -> None:
    stood = list[float]()

    def address() -> tuple[str, int]:
        if not stood:
            time.sleep(0.3)  # all of the generator: its loop is held
            stood.append(traffic.late_s)
        return ("127.0.0.1", fake._server.server_port)

    with Ledger(tmp_path / "L") as book:
        book.begin("r", {"source_id": "s1", "seed": 11, "type": "lab.event", "bytes_max": 40})
        traffic = Traffic(
            _plan(bytes_max=40), Target(address=address, path="/in/t", secret=SECRET), book, run="r"
        )  # fmt: skip
        assert traffic.late_s == 0.0
        await traffic.send()
    # The next of 400 arrivals a second was due just after it stopped; it is told while it lasts, and for a while after.
    assert stood[0] > 0.2 and traffic.late_s >= stood[0]


@pytest.mark.parametrize(("header", "word"), [(b"retry-after: 2\r\n", "503"), (b"", "503 bare")])
async def test_a_refusal_that_does_not_say_when_to_try_again_is_told_apart(
    fake: FakePlatform, tmp_path: Path, header: bytes, word: str
) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 503 No\r\n" + header + b"content-length: 0\r\nconnection: close\r\n\r\n")
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        run = await _send(fake, tmp_path / "L", _plan(rate=40, bytes_max=40), port)
    assert run.end is not None
    assert run.end["answers"] == {word: len(run.attempts)} and {a.status for a in run.attempts} == {503}


async def test_requests_are_signed_as_a_real_sender_signs(tmp_path: Path) -> None:
    seen: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        headers = dict(line.split(b": ", 1) for line in head.split(b"\r\n")[1:-2])
        data = await reader.readexactly(int(headers[b"content-length"]))
        verified = KINDS["standard"].verify([(1, SECRET)], headers, data, time.time(), DEFAULT)
        assert isinstance(verified, Verified)
        seen.append(verified.key.encode())
        writer.write(b'HTTP/1.1 202 Accepted\r\ncontent-length: 10\r\nconnection: close\r\n\r\n{"id":"e"}')
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        plan = _plan(seconds=0.1, connections=2)
        address = server.sockets[0].getsockname()
        target = Target(address=lambda: address, path="/in/t", secret=SECRET)
        with Ledger(tmp_path / "L") as ledger:
            ledger.begin("r", {})
            tally = await Traffic(plan, target, ledger, run="r").send()
    assert tally.acked() == len(seen) == len(list(plan.arrivals()))


async def test_a_held_request_knows_its_own_answer_from_anothers_and_from_a_ticket(
    fake: FakePlatform, tmp_path: Path
) -> None:
    words = itertools.cycle(("own", "wrong", "ticket"))
    given: dict[str, str] = {}

    def reply(key: str) -> str:
        given[key] = next(words)
        return {"own": key, "wrong": "somebody", "ticket": ""}[given[key]]

    fake.reply = reply
    seen: list[str] = []
    plan = _plan(wait_s=5.0, seconds=0.2)
    address = ("127.0.0.1", fake._server.server_port)
    target = Target(address=lambda: address, path="/in/t", secret=SECRET)
    with Ledger(tmp_path / "L") as book:
        about = {"source_id": "s1", "seed": plan.seed, "type": plan.type, "bytes_max": plan.bytes_max, "wait_s": 5.0}
        book.begin("r", about)
        await Traffic(plan, target, book, run="r", seen=lambda word, _: seen.append(word)).send()
    assert sorted(seen) == sorted(given.values())
    attempts = {a.key: a for a in read(tmp_path / "L").runs[0].attempts}
    for key, word in given.items():
        a = attempts[key]
        assert {"own": a.whose == key, "wrong": a.whose == "somebody", "ticket": bool(a.ticket)}[word]
        assert a.event_id == next(e["id"] for e in fake.events if e["dedupe_key"] == key)
    late = {a.event_id: a.key for a in attempts.values() if a.ticket}
    fake.tickets = {id: (200, b'{"key":"%b"}' % key.encode()) for id, key in late.items()}
    with Platform(fake.find) as platform:
        verdict = await asyncio.to_thread(verify, platform, read(tmp_path / "L"), timeout_s=5.0)
    counts = {word: sum(given[key] == word for key in given) for word in ("own", "wrong", "ticket")}
    assert (verdict.own, verdict.wrong, verdict.late) == (counts["own"], counts["wrong"], counts["ticket"])
    assert (verdict.ticket, verdict.silent, verdict.lost) == (0, 0, 0)
    assert not verdict.holds


@pytest.mark.parametrize(
    ("said", "named"),
    [
        (b'{"key":"r_1","sha256":"ab"}', "r_1"),
        (b'{"key":"r_1"}', "r_1"),
        (b'{"key":"r_1","sha256":"cd"}', "r_1 with other bytes"),
        (b'{"sha256":"ab"}', ""),
        (b"[1]", ""),
        (b"{", ""),
    ],
)
def test_an_answer_that_was_made_of_other_bytes_is_nobodys_own(said: bytes, named: str) -> None:
    assert whose(said, "ab") == named


async def test_a_closed_connection_is_an_unsure_answer_and_sending_goes_on(fake: FakePlatform, tmp_path: Path) -> None:
    numbers = itertools.count()
    fake.answer = lambda key: 0 if next(numbers) % 5 == 0 else 202
    run = await _send(fake, tmp_path / "L", _plan())
    by_status = {s: sum(a.status == s for a in run.attempts) for s in (0, 202)}
    assert by_status[0] >= 20
    assert by_status[202] >= 80
    assert {a.note for a in run.attempts if a.status == 0} <= {"closed", "reset"}


async def test_nobody_listening_is_recorded_and_does_not_end_the_run(tmp_path: Path) -> None:
    [port] = free(1)
    with FakePlatform() as fake:
        run = await _send(fake, tmp_path / "L", _plan(seconds=0.2), port)
    assert run.attempts
    assert {(a.status, a.note) for a in run.attempts} == {(0, "refused")}


async def test_a_repeat_keeps_its_id_and_only_when_asked_for(fake: FakePlatform, tmp_path: Path) -> None:
    failed: set[str] = set()

    def once(key: str) -> int:
        if key in failed:
            return 202
        failed.add(key)
        return 503

    fake.answer = once
    run = await _send(fake, tmp_path / "L", _plan(seconds=0.1, retries=2))
    tries = {key: [a.status for a in run.attempts if a.key == key] for key in failed}
    assert set(map(tuple, tries.values())) == {(503, 202)}
    fake.answer = lambda key: 503
    run = await _send(fake, tmp_path / "M", _plan(seconds=0.1))
    assert {a.attempt for a in run.attempts} == {0}


async def test_a_slow_platform_does_not_slow_the_arrivals(tmp_path: Path) -> None:
    """No coordinated omission: what waits for a connection is late, and its lateness counts."""
    served = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.closing(writer), contextlib.suppress(asyncio.IncompleteReadError):
            while head := await reader.readuntil(b"\r\n\r\n"):
                length = next(int(h.split(b":")[1]) for h in head.split(b"\r\n") if h.startswith(b"content-length"))
                await reader.readexactly(length)
                await asyncio.sleep(0.02)
                writer.write(b"HTTP/1.1 202 Accepted\r\ncontent-length: 2\r\n\r\n{}")
        served.set()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    plan = _plan(rate=200, seconds=0.5, connections=1)
    address = server.sockets[0].getsockname()
    with Ledger(tmp_path / "L") as ledger:
        ledger.begin("r", {})
        traffic = Traffic(plan, Target(address=lambda: address, path="/", secret=SECRET), ledger, run="r")
        tally = await traffic.send()
    server.close()
    await served.wait()
    # One connection serves 50 a second; 100 come in half a second, so the last one waits for more than a second.
    assert tally.sent == len(list(plan.arrivals()))
    assert tally.quantile_ms(0.99) > 800  # type: ignore[operator]


async def test_a_full_line_is_counted_as_unsent(tmp_path: Path) -> None:
    open_now: set[asyncio.Task[None] | None] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        open_now.add(asyncio.current_task())
        with contextlib.closing(writer), contextlib.suppress(ConnectionError):
            await reader.read()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    plan = Plan(rate=500, seconds=0.2, seed=1, connections=1, line_max=5, answer_timeout_s=0.3)
    address = server.sockets[0].getsockname()
    with Ledger(tmp_path / "L") as ledger:
        ledger.begin("r", {})
        traffic = Traffic(plan, Target(address=lambda: address, path="/", secret=SECRET), ledger, run="r")
        tally = await traffic.send()
    server.close()
    await asyncio.gather(*(task for task in open_now if task is not None))
    assert tally.unsent > 50
    assert tally.sent + tally.unsent == len(list(plan.arrivals()))
