"""Hostile and unlucky clients: slow, silent, greedy, gone. None of them may cost anybody else."""

from __future__ import annotations

import asyncio
import contextlib
import json
import resource
import socket
import struct
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from seawall.collector import overflow
from seawall.store.source import Edition
from stall import Stopwatch

from .rig import QUICK, Client, Rig, SourceTable, client, request, running, until

H = b"POST /in/tok HTTP/1.1\r\nHost: h\r\n"


async def accepted(rig: Rig) -> None:
    """A healthy POST gets its 202 in well under a second."""
    watch = Stopwatch()
    async with client(rig) as c:
        await c.send(request(body=b"healthy"))
        answer = await c.answer()
        assert answer is not None
        assert answer.status == 202
    assert watch.s < 1.0


async def drip(c: Client, data: bytes, *, every_s: float) -> None:
    for byte in data:
        if c.writer.is_closing():
            return
        await c.send(bytes((byte,)))
        await asyncio.sleep(every_s)


async def test_a_silent_connection_is_closed(tmp_path: Path) -> None:
    async with running(tmp_path) as rig, client(rig) as c:
        watch = Stopwatch()
        assert await c.ended() == b""
        assert watch.wall_s > 0.2
        assert watch.s < 1.5


async def test_a_slow_head_is_408(tmp_path: Path) -> None:
    async with running(tmp_path) as rig, client(rig) as c:
        slow = asyncio.create_task(drip(c, H + b"X-A: " + b"a" * 1000, every_s=0.01))
        answer = await c.answer()
        assert answer is not None
        assert (answer.status, answer.headers["connection"]) == (408, "close")
        slow.cancel()
        assert rig.count("seawall_connections_cut_total") == 1


async def test_a_slow_body_is_408_by_rate_and_by_time(tmp_path: Path) -> None:
    async with running(tmp_path) as rig, client(rig) as c:
        await c.send(H + b"Content-Length: 100000\r\n\r\n")
        slow = asyncio.create_task(drip(c, b"a" * 1000, every_s=0.02))
        answer = await c.answer()
        assert answer is not None
        assert answer.status == 408
        assert b"slower" in answer.body
        slow.cancel()
    settings = replace(QUICK, body_rate_min_bytes=1)
    async with running(tmp_path, settings=settings) as rig, client(rig) as c:
        await c.send(H + b"Transfer-Encoding: chunked\r\n\r\n")
        slow = asyncio.create_task(drip(c, b"1\r\na\r\n" * 1000, every_s=0.005))
        answer = await c.answer()
        assert answer is not None
        assert answer.status == 408
        assert b"longer" in answer.body
        slow.cancel()
        assert rig.records == []


async def test_a_kept_connection_may_idle_and_is_then_closed(tmp_path: Path) -> None:
    async with running(tmp_path, settings=replace(QUICK, head_s=0.1)) as rig, client(rig) as c:
        await c.send(request(body=b"1"))
        assert (await c.answer()).status == 202  # type: ignore[union-attr]
        await asyncio.sleep(0.2)
        await c.send(request(body=b"2"))
        assert (await c.answer()).status == 202  # type: ignore[union-attr]
        assert await c.ended() == b""


async def test_no_deadline_runs_while_this_process_stands_still(tmp_path: Path) -> None:
    """A request that waited in the socket meanwhile is answered, half a head may go on, and both connections stay."""
    async with running(tmp_path) as rig, client(rig) as idle, client(rig) as half:
        await idle.send(request())
        assert (await idle.answer()).status == 202  # type: ignore[union-attr]
        await half.send(request()[:20])
        await asyncio.sleep(0.1)
        await idle.send(request("/in/nobody"))
        time.sleep(1.0)
        assert (await idle.answer()).status == 404  # type: ignore[union-attr]
        await half.send(request()[20:])
        await idle.send(request())
        for c in (idle, half):
            answer = await c.answer()
            assert answer is not None, "the connection ended without an answer"
            assert answer.status == 202


async def test_two_hundred_idle_sockets_do_not_stop_a_healthy_post(tmp_path: Path) -> None:
    settings = replace(QUICK, head_s=30.0)
    async with running(tmp_path, settings=settings) as rig:
        idle = [socket.create_connection(("127.0.0.1", rig.port)) for _ in range(200)]
        for s in idle[:100]:
            s.send(b"POST /in/tok HT")
        await accepted(rig)
        for s in idle:
            s.close()
        await until(lambda: rig.metrics.gauge("seawall_connections_count", "").now() == 0)


async def test_running_out_of_files_does_not_end_accepting(tmp_path: Path) -> None:
    settings = replace(QUICK, head_s=30.0)
    async with running(tmp_path, settings=settings) as rig:
        await accepted(rig)
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        ours = [socket.socket() for _ in range(30)]
        spare = socket.socket()
        # Descriptors are given out from below, so this leaves room for five more.
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(s.fileno() for s in (*ours, spare)) + 6, hard))
        try:
            for s in ours:
                s.connect(("127.0.0.1", rig.port))
            await asyncio.sleep(0.1)
            for s in ours:
                s.close()
            loop = asyncio.get_running_loop()
            spare.setblocking(False)
            await loop.sock_connect(spare, ("127.0.0.1", rig.port))
            await loop.sock_sendall(spare, request(body=b"after"))
            async with asyncio.timeout(5):
                assert (await loop.sock_recv(spare, 1000)).startswith(b"HTTP/1.1 202")
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
            spare.close()


async def test_connections_over_a_cap_are_told_so_and_room_comes_back(tmp_path: Path) -> None:
    settings = replace(QUICK, head_s=30.0, connections_per_ip_max=3)
    async with running(tmp_path, settings=settings) as rig:
        async with client(rig) as a, client(rig) as b, client(rig) as c, client(rig) as over:
            await over.send(request(body=b"x" * 100_000))
            answer = await over.answer()
            assert answer is not None and answer.status == 503
            assert answer.headers["connection"] == "close" and int(answer.headers["retry-after"]) >= 1
            assert json.loads(answer.body)["type"] == "urn:seawall:problem:too-many-connections"
            assert await over.ended() == b""
            assert rig.count("seawall_connections_refused_total") == 1
            assert rig.count("seawall_answers_total", status="503") == 1
            for held in (a, b, c):
                await held.send(request())
                assert (await held.answer()).status == 202  # type: ignore[union-attr]
        await until(lambda: rig.metrics.gauge("seawall_connections_count", "").now() == 0)
        await accepted(rig)


async def test_a_connection_over_a_cap_that_asks_nothing_is_told_and_closed_soon(tmp_path: Path) -> None:
    settings = replace(QUICK, head_s=30.0, connections_max=1)
    async with running(tmp_path, settings=settings) as rig, client(rig), client(rig) as over:
        watch = Stopwatch()
        said = await over.ended()
        assert said.startswith(b"HTTP/1.1 503 ")
        assert watch.s < overflow.LINGER_S + 0.5


async def test_a_flood_over_a_cap_is_reset_beyond_the_few_that_are_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(overflow, "TOLD_MAX", 5)
    settings = replace(QUICK, head_s=30.0, connections_per_ip_max=1)
    async with running(tmp_path, settings=settings) as rig, client(rig) as first:
        flood = [Client(*await asyncio.open_connection("127.0.0.1", rig.port)) for _ in range(50)]
        answers = await asyncio.gather(*(c.ended() for c in flood))
        assert sum(said.startswith(b"HTTP/1.1 503 ") for said in answers) == 5
        assert answers.count(b"") == 45
        await asyncio.gather(*(c.close() for c in flood))
        await first.send(request())
        assert (await first.answer()).status == 202  # type: ignore[union-attr]
        late = Client(*await asyncio.open_connection("127.0.0.1", rig.port))
        await late.send(request())
        assert (await late.answer()).status == 503  # type: ignore[union-attr]
        await late.close()


async def test_stopping_does_not_wait_for_those_over_a_cap(tmp_path: Path) -> None:
    async with running(tmp_path, settings=replace(QUICK, connections_max=1)) as rig, client(rig) as one:
        over = Client(*await asyncio.open_connection("127.0.0.1", rig.port))
        await until(lambda: rig.count("seawall_connections_refused_total") == 1)
        await one.close()
        await rig.collector.stop(5.0)
        assert await over.ended() == b""
        await over.close()


async def test_a_client_that_does_not_read_is_cut(tmp_path: Path) -> None:
    sources = SourceTable()
    sources.add("tok", settings='{"accepted_body":"' + "x" * 4000 + '"}')
    settings = replace(QUICK, pipeline_max=1000)
    async with running(tmp_path, settings=settings, sources=sources) as rig:
        loop = asyncio.get_running_loop()
        with socket.socket() as s:
            s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            s.setblocking(False)
            await loop.sock_connect(s, ("127.0.0.1", rig.port))
            flood = asyncio.create_task(loop.sock_sendall(s, request() * 20_000))
            await until(lambda: rig.count("seawall_connections_cut_total") == 1, within_s=5.0)
            flood.cancel()
            with contextlib.suppress(asyncio.CancelledError, ConnectionError):
                await flood
        await accepted(rig)


async def test_pipelining_is_bounded(tmp_path: Path) -> None:
    settings = replace(QUICK, pipeline_max=4, ack_s=60.0)
    body = b"b" * 1000
    async with running(tmp_path, settings=settings) as rig, client(rig) as c:
        rig.journal.hold()
        flood = asyncio.create_task(c.send(request(body=body) * 1000))
        await asyncio.sleep(0.2)
        # What was in the piece that reached the bound is taken too; no more is read.
        assert len(rig.journal._pending) <= 4 + 16
        rig.journal.release()
        for _ in range(1000):
            answer = await c.answer()
            assert answer is not None
            assert answer.status == 202
        await flood
        assert [r.body for r in rig.records] == [body] * 1000


async def test_bodies_have_a_common_bound(tmp_path: Path) -> None:
    settings = replace(QUICK, bodies_bytes_max=1 << 20, request_s=10.0, body_grace_s=10.0)
    async with running(tmp_path, settings=settings) as rig, client(rig) as a, client(rig) as b:
        big = b"x" * 700_000
        await a.send(H + b"Content-Length: %d\r\n\r\n" % len(big) + big[:-1])
        await until(lambda: rig.metrics.gauge("seawall_bodies_bytes", "").now() == len(big) - 1)
        await b.send(H + b"Content-Length: %d\r\n\r\n" % len(big) + big)
        answer = await b.answer()
        assert answer is not None
        assert answer.status == 503
        await a.send(b"x")
        assert (await a.answer()).status == 202  # type: ignore[union-attr]
        await until(lambda: rig.metrics.gauge("seawall_bodies_bytes", "").now() == 0)
        await accepted(rig)


async def test_bodies_under_unknown_tokens_count_while_the_store_is_asked(tmp_path: Path) -> None:
    class Hung(SourceTable):
        async def edition(self, *, timeout_s: float) -> Edition:
            if self.away:
                await asyncio.sleep(timeout_s)
            return await super().edition(timeout_s=timeout_s)

    table, settings = Hung(), replace(QUICK, bodies_bytes_max=1 << 20, store_timeout_s=2.0)
    table.add("tok")
    body = b"x" * 15_000  # in one piece, as most bodies come
    async with running(tmp_path, sources=table, settings=settings) as rig, contextlib.AsyncExitStack() as stack:
        table.away = True
        clients = [await stack.enter_async_context(client(rig)) for _ in range(100)]
        for c in clients:
            await c.send(request("/in/unknown", body=body))
        bodies = rig.metrics.gauge("seawall_bodies_bytes", "")
        await until(lambda: bodies.now() > (1 << 20) - len(body))
        refused = [answer for c in clients[70:] if (answer := await c.answer()) is not None]
        assert {answer.status for answer in refused} == {503}
        assert bodies.now() <= 1 << 20
        await accepted(rig)
        table.away = False
        answers = [await c.answer() for c in clients[:69]]
        assert {answer.status for answer in answers if answer is not None} == {404}
        await until(lambda: bodies.now() == 0)


async def test_a_refused_large_body_still_gets_its_answer(tmp_path: Path) -> None:
    # Closing with unread bytes would reset the connection, and the client might never see why.
    async with running(tmp_path) as rig, client(rig) as c:
        send = asyncio.create_task(c.send(H + b"Content-Length: 3000000\r\n\r\n" + b"x" * 3_000_000))
        answer = await c.answer()
        assert answer is not None
        assert answer.status == 413
        await send


async def test_a_refused_client_that_stays_is_cut_after_a_moment(tmp_path: Path) -> None:
    async with running(tmp_path) as rig, client(rig) as c:
        await c.send(b"garbage\r\n\r\n")
        assert (await c.answer()).status == 400  # type: ignore[union-attr]
        await until(lambda: rig.metrics.gauge("seawall_connections_count", "").now() == 0)


async def test_a_client_that_closes_its_side_first_gets_its_answers(tmp_path: Path) -> None:
    async with running(tmp_path) as rig, client(rig) as c:
        rig.journal.hold()
        await c.send(request(body=b"1") + request(body=b"2"))
        c.writer.write_eof()
        await until(lambda: len(rig.journal._pending) == 2)
        rig.journal.release()
        assert [(await c.answer()).status for _ in range(2)] == [202, 202]  # type: ignore[union-attr]
        assert await c.ended() == b""


async def test_a_client_that_resets_before_the_commit_costs_nothing(tmp_path: Path) -> None:
    async with running(tmp_path) as rig:
        rig.journal.hold()
        async with client(rig) as c:
            await c.send(request(body=b"x"))
            await until(lambda: len(rig.journal._pending) == 1)
            linger = struct.pack("ii", 1, 0)  # close with a reset
            c.writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            c.writer.transport.abort()
        await until(lambda: rig.metrics.gauge("seawall_connections_count", "").now() == 0)
        rig.journal.release()
        await until(lambda: rig.count("seawall_accepted_late_total") == 1)
        assert len(rig.records) == 1


# ── Stopping ─────────────────────────────────────────────────────────────────────────────────────────────────────────


@contextlib.asynccontextmanager
async def stopping(rig: Rig, budget_s: float) -> AsyncIterator[None]:
    task = asyncio.create_task(rig.collector.stop(budget_s))
    await asyncio.sleep(0)
    try:
        yield
    finally:
        async with asyncio.timeout(budget_s + 1.0):
            await task


async def test_stopping_answers_every_held_request_with_202(tmp_path: Path) -> None:
    sources = SourceTable()
    sources.add("tok", settings='{"wait_ms_max":5000}')
    async with running(tmp_path, sources=sources) as rig, contextlib.AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(client(rig)) for _ in range(20)]
        for c in clients:
            await c.send(request(body=b"x", headers={"Prefer": "wait=5"}))
        await until(lambda: len(rig.waiting.held) == 20)
        async with stopping(rig, 2.0):
            for c in clients:
                answer = await c.answer()
                assert answer is not None, "a held request was reset"
                assert answer.status == 202
                assert answer.headers["location"].startswith("/in/tickets/")
                assert answer.headers["connection"] == "close"
                assert await c.ended() == b""
        assert len(rig.waiting.dropped) == 20


@pytest.mark.parametrize("over", [202, 504])
async def test_who_would_wait_and_becomes_safe_while_stopping_is_told_where_to_ask(over: int, tmp_path: Path) -> None:
    """And never that nothing was stored."""
    sources = SourceTable()
    sources.add("tok", settings=f'{{"wait_ms_max":20000,"wait_over_status":{over}}}')
    async with running(tmp_path, sources=sources) as rig, client(rig) as durable, client(rig) as half:
        wait = {"Prefer": "wait=20"}
        rig.journal.hold()
        await durable.send(request(body=b"x", headers=wait))
        await half.send(request(body=b"abcd", headers=wait)[:-2])
        await until(lambda: len(rig.journal._pending) == 1)
        async with stopping(rig, 3.0):
            await half.send(b"cd")
            rig.journal.release()
            for c in (durable, half):
                answer = await c.answer()
                assert answer is not None
                assert (answer.status, answer.headers["location"][:12]) == (over, "/in/tickets/")
        assert len(rig.records) == 2 and not rig.waiting.held


async def test_stopping_finishes_requests_in_flight(tmp_path: Path) -> None:
    async with running(tmp_path) as rig, client(rig) as durable, client(rig) as half, client(rig) as idle:
        port = rig.port
        await idle.send(request())
        assert (await idle.answer()).status == 202  # type: ignore[union-attr]
        rig.journal.hold()
        await durable.send(request(body=b"x"))
        await half.send(H + b"Content-Length: 4\r\n\r\nab")
        await until(lambda: len(rig.journal._pending) == 1)
        async with stopping(rig, 3.0):
            assert await idle.ended() == b""
            await half.send(b"cd")
            rig.journal.release()
            assert (await durable.answer()).status == 202  # type: ignore[union-attr]
            answer = await half.answer()
            assert answer is not None
            assert answer.status == 202, "its head was admitted before the stop"
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", port), timeout=1.0)


async def test_stopping_tells_who_is_not_done_in_time(tmp_path: Path) -> None:
    settings = replace(QUICK, body_grace_s=10.0, request_s=10.0)
    async with running(tmp_path, settings=settings) as rig, client(rig) as submitted, client(rig) as half:
        rig.journal.hold()
        await submitted.send(request(body=b"x"))
        await half.send(H + b"Content-Length: 4\r\n\r\nab")
        await until(lambda: len(rig.journal._pending) == 1)
        watch = Stopwatch()
        async with stopping(rig, 0.8):
            answer = await submitted.answer()
            assert answer is not None
            assert (answer.status, answer.headers["seawall-outcome"]) == (503, "uncertain")
            answer = await half.answer()
            assert answer is not None
            assert answer.status == 503
            assert "seawall-outcome" not in answer.headers
        assert watch.s < 1.5


async def test_a_deadline_that_passes_while_stopping_is_told_too(tmp_path: Path) -> None:
    async with running(tmp_path) as rig, client(rig) as half:
        await half.send(H + b"Content-Length: 4\r\n\r\nab")
        await until(lambda: rig.metrics.gauge("seawall_bodies_bytes", "").now() == 2)
        async with stopping(rig, 5.0):
            answer = await half.answer()
            assert answer is not None
            assert answer.status == 408


async def test_stopping_twice_and_before_the_start_is_harmless(tmp_path: Path) -> None:
    async with running(tmp_path) as rig:
        await asyncio.gather(rig.collector.stop(1.0), rig.collector.stop(1.0))
        await rig.collector.stop(1.0)


async def test_a_client_that_closes_behind_a_held_request_gets_the_answers_after_it_and_is_let_go(
    tmp_path: Path,
) -> None:
    sources = SourceTable()
    sources.add("ask", settings='{"wait_ms_max":20000}')
    async with running(tmp_path, sources=sources) as rig, client(rig) as c:
        await c.send(request("/in/ask", b"x", {"Prefer": "wait=20"}))
        await until(lambda: len(rig.waiting.held) == 1)
        await c.send(b"GET /livez HTTP/1.1\r\nHost: h\r\n\r\n")
        c.writer.write_eof()
        answer = await c.answer()
        assert answer is not None and answer.status == 200
        assert await c.ended() == b""
        await until(lambda: rig.metrics.gauge("seawall_connections_count", "").now() == 0)
    assert rig.waiting.held == {}


async def test_a_client_that_closed_its_side_is_waited_for_no_longer_than_a_request(tmp_path: Path) -> None:
    async with running(tmp_path, settings=replace(QUICK, ack_s=60.0)) as rig, client(rig) as c:
        rig.journal.hold()
        await c.send(request(body=b"x"))
        c.writer.write_eof()
        assert await c.ended(within_s=3.0) == b""
        await until(lambda: rig.metrics.gauge("seawall_connections_count", "").now() == 0)


async def test_thousands_of_tiny_headers_are_refused_before_their_head_ends(tmp_path: Path) -> None:
    async with running(tmp_path, settings=replace(QUICK, head_s=30.0)) as rig, client(rig) as c:
        await c.send(H + b"ab:cd\r\n" * 5000)
        answer = await c.answer()
        assert answer is not None
        assert (answer.status, answer.headers["connection"]) == (431, "close")
        assert b"too many headers" in answer.body


@pytest.mark.parametrize("target", ["/livez", "/in/tok", "/nowhere"])
async def test_an_answer_to_head_has_no_body_that_the_next_answer_would_be_read_from(
    tmp_path: Path, target: str
) -> None:
    async with running(tmp_path) as rig, client(rig) as c:
        await c.send(f"HEAD {target} HTTP/1.1\r\nHost: h\r\n\r\n".encode())
        await c.send(request(body=b"next"))
        head = await c.reader.readuntil(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 40")
        answer = await c.answer()
        assert answer is not None and answer.status == 202
