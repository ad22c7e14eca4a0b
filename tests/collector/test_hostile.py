"""Hostile peers in numbers, against a collector in a process of its own: a healthy sender is answered within a second,
and memory stays below a bound that is said here for each kind.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import resource
import ssl
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from stall import Stopwatch

from .authority import Authority
from .rig import Client, request

KIB = 1024
MIB = 1024 * KIB
HEALTHY_S = 1.0
LOOKS = 20
ATTEMPTS = 3
"""A quiet machine needs one (200 slow readers: 0.2 s); beside three other tests a core may be slow for seconds."""

H = b"POST /in/tok HTTP/1.1\r\nHost: h\r\n"
AUTHORITY = Authority()


@dataclass
class Server:
    """The process, and where it listens."""

    port: int
    pid: int
    tls: ssl.SSLContext | None = None

    @property
    def rss_bytes(self) -> int:
        return int(Path(f"/proc/{self.pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE")

    async def connect(self, number: int = 0, *, plain: bool = False) -> Client:
        """A connection from one of a few addresses, so that no cap of one address is met."""
        local = (f"127.0.0.{2 + number % 5}", 0)
        tls = None if plain else self.tls
        name = "localhost" if tls is not None else None
        return Client(
            *await asyncio.open_connection("127.0.0.1", self.port, local_addr=local, ssl=tls, server_hostname=name)
        )


@contextlib.contextmanager
def serving(**settings: object) -> Iterator[tuple[int, int]]:
    """(port, pid)."""
    child = subprocess.Popen(
        [sys.executable, Path(__file__).with_name("peer_server.py"), json.dumps(settings)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])},
    )  # fmt: skip
    assert child.stdin is not None and child.stdout is not None
    try:
        yield int(child.stdout.readline()), child.pid
    finally:
        child.stdin.close()
        try:
            assert child.wait(timeout=15) == 0
        finally:
            child.kill()
            child.stdout.close()


@pytest.fixture(autouse=True)
def _descriptors() -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 8192), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


async def healthy_s(server: Server) -> float:
    """How long the slowest of some healthy senders waited for its answer, with a connection of its own each; without
    the time in which the machine kept the server, or this test, from running."""
    slowest = 0.0
    for _ in range(LOOKS):
        watch = Stopwatch([server.pid])
        c = await server.connect()
        await c.send(request(body=b"healthy"))
        answer = await c.answer(within_s=30.0)
        slowest = max(slowest, watch.s)
        assert answer is not None
        assert answer.status == 202
        await c.close()
    return slowest


async def idle(server: Server, number: int) -> Client:
    return await server.connect(number)


async def slow_head(server: Server, number: int) -> Client:
    c = await server.connect(number)
    await c.send(H + b"X-A: " + b"a" * 8000)
    return c


async def slow_body(server: Server, number: int) -> Client:
    c = await server.connect(number)
    await c.send(H + b"Content-Length: 1000000\r\n\r\n" + b"x" * 32 * KIB)
    return c


async def slow_reader(server: Server, number: int) -> Client:
    c = await server.connect(number)
    c.writer.transport.pause_reading()  # type: ignore[attr-defined]
    c.writer.write(request("/in/no", b"x", {"X-A": "a" * 100}) * 2000)
    return c


async def half_open(server: Server, number: int) -> Client:
    c = await server.connect(number)
    await c.send((H, request(body=b"x")[:-1], b"")[number % 3])
    if c.writer.can_write_eof():
        c.writer.write_eof()
    return c


async def silent_handshake(server: Server, number: int) -> Client:
    c = await server.connect(number, plain=True)
    await c.send(b"\x16\x03\x01\x02\x00\x01" if number % 2 else b"")
    return c


@contextlib.asynccontextmanager
async def attacked(
    server: Server, peer: Callable[[Server, int], Awaitable[Client]], count: int
) -> AsyncIterator[list[Client]]:
    peers: list[Client] = []
    try:
        for start in range(0, count, 100):
            peers += await asyncio.gather(*(peer(server, n) for n in range(start, min(count, start + 100))))
        yield peers
    finally:
        for c in peers:
            c.writer.transport.abort()
        await asyncio.sleep(0)


@pytest.mark.parametrize(
    ("peer", "count", "tls", "growth_bytes_max"),
    [
        # 12 KiB for each connection: parser, protocol, transport.
        pytest.param(idle, 2000, False, 24 * MIB, id="2,000 idle"),
        # What has come of a head is kept: 8 KiB, and the connection.
        pytest.param(slow_head, 1000, False, 36 * MIB, id="1,000 slow heads"),
        # What has come of a body is kept: 32 KiB, and the connection; all of them together under bodies_bytes_max.
        pytest.param(slow_body, 1000, False, 64 * MIB, id="1,000 slow bodies"),
        # Answers pile up to the transport's high-water mark, requests to one read; then neither is gone on with.
        pytest.param(slow_reader, 200, False, 90 * MIB, id="200 slow readers"),
        pytest.param(half_open, 2000, False, 24 * MIB, id="2,000 half-open"),
        # OpenSSL's own state is most of it.
        pytest.param(idle, 500, True, 48 * MIB, id="500 idle over TLS"),
        pytest.param(silent_handshake, 2000, True, 160 * MIB, id="2,000 handshakes that stop"),
    ],
)
async def test_a_healthy_sender_is_answered_and_memory_is_bounded(
    peer: Callable[[Server, int], Awaitable[Client]], count: int, tls: bool, growth_bytes_max: int, tmp_path: Path
) -> None:
    settings: dict[str, object] = {}
    if tls:
        certificate, key = AUTHORITY.put(tmp_path)
        settings = {"tls_certificate": str(certificate), "tls_key": str(key)}
    slowest = []
    for _ in range(ATTEMPTS):
        with serving(**settings) as (port, pid):
            server = Server(port, pid, AUTHORITY.client() if tls else None)
            await healthy_s(server)
            before = server.rss_bytes
            async with attacked(server, peer, count):
                slowest.append(await healthy_s(server))
                grown = server.rss_bytes - before
        print(f"{count} {peer.__name__} tls={tls}: healthy {slowest[-1] * 1000:.0f} ms, grown {grown / MIB:.1f} MiB")
        assert grown < growth_bytes_max
        if slowest[-1] < HEALTHY_S:
            return
    pytest.fail(f"in none of {ATTEMPTS} attempts every healthy sender was answered within a second: {slowest}")
