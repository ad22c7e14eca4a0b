"""The lab's load balancer: ``python -m seawall.lab.zone.balancer FOLDER``. Requests go to its hosts in turn.

As balancers usually do: each host is checked every second, is taken out after three checks in a row that failed or took
longer than a second, and let in again after two that passed; three requests in a row without an answer take it out too.
A check is a real event to a source of the lab's own, since one that asks only whether the process lives says nothing of
how long senders wait. ``balancer.json`` says which hosts; ``rotation.json`` which of them somebody has taken out by
hand; ``balancer.stats`` is written four times a second.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import secrets
import signal
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import httptools

from seawall.lab.part.node import whole
from seawall.lab.part.port import LOOPBACK
from seawall.lab.traffic.connection import Answer, Connection, NoAnswer
from seawall.lab.zone.gate import ended

HOSTS, ROTATION, STATS = "balancer.json", "rotation.json", "balancer.stats"
EVERY_S = 1.0
TIMEOUT_S = 1.0
OUT, IN = 3, 2
PASSIVE = 3
ANSWER_S = 30.0
TELL_S = 0.25
REQUEST_BYTES_MAX = 4 * 1024 * 1024
CLIENTS_MAX = 1000
IDLE_MAX = 256
TYPE = "lab.health"
REASONS = {200: "OK", 202: "Accepted", 502: "Bad Gateway", 503: "Service Unavailable"}


@dataclass(slots=True)
class Host:
    """One host, and what is known of it."""

    name: str
    address: tuple[str, int]
    healthy: bool = True
    rotated: bool = True  # nobody has taken it out by hand
    row: int = 0  # checks in a row that say otherwise
    silent: int = 0  # requests in a row without an answer
    requests: int = 0
    checks: int = 0  # that were sent to it
    failed: int = 0  # answered 5xx, or not at all
    check_s: float = 0.0
    took_s: float = 0.0  # of all answers
    idle: list[Connection] = field(default_factory=list)

    def drop(self) -> None:
        """Close its connections that nobody uses."""
        while self.idle:
            self.idle.pop().close()

    def stats(self) -> dict[str, object]:
        return {
            "in": self.healthy, "rotated": self.rotated, "requests": self.requests, "failed": self.failed,
            "checks": self.checks, "check_ms": self.check_s * 1000, "took_ms": self.took_s * 1000,
        }  # fmt: skip


class Balancer:
    """All hosts of one folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        said = json.loads((folder / HOSTS).read_text("utf-8"))
        self._port = int(said["port"])
        self._check = folder / "check"
        self._hosts = [Host(name, (str(ip), int(port))) for name, (ip, port) in said["hosts"].items()]
        self._turn = itertools.count()
        self._clients: set[asyncio.Task[None]] = set()
        self._flips: list[tuple[str, bool, str]] = []

    async def run(self) -> None:
        """Until cancelled.

        Raises:
            OSError: The port is somebody else's.
        """
        server = await asyncio.start_server(self._serve, LOOPBACK, self._port, backlog=512)
        try:
            async with asyncio.TaskGroup() as group:
                for host in self._hosts:
                    group.create_task(self._watch(host), name=f"check.{host.name}")
                group.create_task(self._tell(), name="tell")
        finally:
            server.close()
            await ended(self._clients)  # each leaves its connection behind
            for host in self._hosts:
                host.drop()

    # ── Requests ───────────────────────────────────────────────────────────────────────────────────────────────────
    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        if len(self._clients) >= CLIENTS_MAX:
            writer.transport.abort()
            return
        self._clients.add(task)
        try:
            while request := await _request(reader):
                answer = await self._forward(request)
                writer.write(_text(answer))
                await writer.drain()
        except (OSError, httptools.HttpParserError, asyncio.CancelledError):
            pass  # it left, or doesn't speak HTTP, or we are ending
        finally:
            self._clients.discard(task)
            writer.close()

    async def _forward(self, request: bytes) -> Answer:
        """By one host; by the next one when nothing was sent to it."""
        for host in self._choice():
            began = time.monotonic()
            host.requests += 1
            connection = host.idle.pop() if host.idle else Connection()
            try:
                answer = await connection.exchange(host.address, request, timeout_s=ANSWER_S)
            except NoAnswer as error:
                connection.close()
                self._failed(host, error.note)
                if error.note == "refused":
                    continue
                return Answer(status=502, body=b'{"title": "no answer from the host"}')
            host.took_s += time.monotonic() - began
            host.failed += answer.status >= 500
            host.silent = 0
            if len(host.idle) < IDLE_MAX:
                host.idle.append(connection)
            return answer
        return Answer(status=503, body=b'{"title": "no host is in"}')

    def _choice(self) -> Sequence[Host]:
        there = [host for host in self._hosts if host.healthy and host.rotated]
        # As most balancers: with nobody healthy, anybody is better than nobody.
        there = there or [host for host in self._hosts if host.rotated]
        first = next(self._turn) % max(1, len(there))
        return there[first:] + there[:first]

    def _failed(self, host: Host, why: str) -> None:
        host.failed += 1
        host.silent += 1
        if host.silent >= PASSIVE and host.healthy:
            self._flip(host, f"{host.silent} requests in a row without an answer ({why})")

    # ── Checks ─────────────────────────────────────────────────────────────────────────────────────────────────────
    async def _watch(self, host: Host) -> None:
        connection = Connection()
        try:
            while True:
                began = time.monotonic()
                host.checks += 1
                passed = await self._passes(host, connection)
                host.check_s = time.monotonic() - began
                host.row = 0 if passed == host.healthy else host.row + 1
                if host.row >= (OUT if host.healthy else IN):
                    self._flip(host, f"{host.row} checks in a row, the last one of {host.check_s * 1000:.0f} ms")
                await asyncio.sleep(max(0.0, EVERY_S - host.check_s))
        finally:
            connection.close()

    async def _passes(self, host: Host, connection: Connection) -> bool:
        try:
            path = self._check.read_text("ascii").strip()
            head = f"POST {path} HTTP/1.1\r\nce-type: {TYPE}\r\nwebhook-id: {secrets.token_hex(8)}\r\n"
            head += "content-type: application/json\r\ncontent-length: 2\r\n"
            body = "{}"
        except OSError:
            head, body = "GET /readyz HTTP/1.1\r\n", ""
        try:
            request = f"{head}host: seawall\r\n\r\n{body}".encode()
            answer = await connection.exchange(host.address, request, timeout_s=TIMEOUT_S)
        except NoAnswer:
            return False
        return 200 <= answer.status < 300

    def _flip(self, host: Host, why: str) -> None:
        host.healthy, host.row, host.silent = not host.healthy, 0, 0
        self._flips.append((host.name, host.healthy, why))
        if not host.healthy:
            host.drop()

    async def _tell(self) -> None:
        while True:
            out = _out(self._folder / ROTATION)
            for host in self._hosts:
                host.rotated = host.name not in out
            said = {"hosts": {host.name: host.stats() for host in self._hosts}, "flips": self._flips}
            # A full disk keeps no request from being served.
            with contextlib.suppress(OSError):
                whole(self._folder / STATS, json.dumps(said))
            await asyncio.sleep(TELL_S)


class _Reading:
    """One request: whether it is whole."""

    def __init__(self) -> None:
        self.whole = False

    def on_message_complete(self) -> None:
        self.whole = True


async def _request(reader: asyncio.StreamReader) -> bytes:
    """The next request, byte for byte; b"" at the end. Senders of the lab don't send a second one before an answer."""
    reading, found = _Reading(), b""
    parser = httptools.HttpRequestParser(reading)
    while not reading.whole:
        data = await reader.read(64 * 1024)
        if not data or len(found) > REQUEST_BYTES_MAX:
            return b""
        found += data
        parser.feed_data(data)
    return found


def _text(answer: Answer) -> bytes:
    """An answer as it goes back."""
    left_out = ("connection", "keep-alive", "transfer-encoding", "content-length")
    lines = [f"HTTP/1.1 {answer.status} {REASONS.get(answer.status, 'Answer')}"]
    lines += [f"{name}: {value}" for name, value in answer.headers.items() if name not in left_out]
    return "\r\n".join([*lines, f"content-length: {len(answer.body)}"]).encode("latin-1") + b"\r\n\r\n" + answer.body


def _out(path: Path) -> list[str]:
    """Hosts that somebody has taken out."""
    try:
        return [str(name) for name in json.loads(path.read_text("utf-8"))]
    except (OSError, ValueError, TypeError):
        return []


async def _main(folder: Path) -> None:
    balancer = asyncio.ensure_future(Balancer(folder).run())
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, balancer.cancel)
    with contextlib.suppress(asyncio.CancelledError):
        await balancer


if __name__ == "__main__":
    asyncio.run(_main(Path(sys.argv[1])))
