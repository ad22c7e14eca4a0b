"""Toolboxes with parts of the tests' own, and servers on loopback that say what a test wants them to."""

from __future__ import annotations

import asyncio
import contextlib
import random
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from seawall.guard.panel import Panel
from seawall.kernel.alert import Alerts
from seawall.kernel.clock import Clock, SystemClock
from seawall.kernel.metric import Metrics
from seawall.step import Settings, Toolbox

LOOPBACK = "127.0.0.0/8"
ANY = ("1-65535",)


@dataclass
class Made:
    """A toolbox, and what it was made of."""

    tools: Toolbox
    metrics: Metrics
    alerts: Alerts
    panel: Panel

    def count(self, name: str, **labels: str) -> float:
        return self.metrics.counter(name, "", **labels).value


@contextlib.asynccontextmanager
async def toolbox(
    *,
    allow: Sequence[str] = (LOOPBACK,),
    secrets: Mapping[str, str] | None = None,
    resolve: Callable[[str, int], Awaitable[Sequence[str]]] | None = None,
    own_ports: Callable[[], Collection[int]] = tuple,
    clock: Clock | None = None,
    **settings: Any,
) -> AsyncIterator[Made]:
    """A lent toolbox that reaches loopback, on any port."""
    metrics, clock = Metrics(), clock or SystemClock()
    alerts, panel = Alerts(metrics, clock), Panel()
    wanted = Settings(**{"allow": tuple(allow), "ports": ANY, **settings})
    tools = Toolbox(
        wanted, clock=clock, rng=random.Random(1), metrics=metrics, alerts=alerts, panel=panel, own_ports=own_ports,
        secrets=secrets, resolve=resolve,
    )  # fmt: skip
    async with tools:
        yield Made(tools, metrics, alerts, panel)


@dataclass
class Request:
    """What a server was sent."""

    line: str
    headers: dict[str, str]
    body: bytes


@dataclass
class Server:
    """Counts its connections, and keeps what it was sent."""

    port: int = 0
    connections: int = 0
    requests: list[Request] = field(default_factory=list)

    def url(self, path: str = "/", host: str = "127.0.0.1") -> str:
        return f"http://{host}:{self.port}{path}"


Write = Callable[[bytes], Awaitable[None]]
Says = Callable[[Request, Write], Awaitable[None]]


def answer(status: int = 200, body: bytes = b"", **headers: str) -> bytes:
    """A plain answer, whole; ``_`` in a header's name stands for ``-``."""
    lines = [f"HTTP/1.1 {status} It", f"Content-Length: {len(body)}"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + body


@contextlib.asynccontextmanager
async def serving(
    says: Says | bytes | None = None, *, hosts: Sequence[str] = ("127.0.0.1",), tls: ssl.SSLContext | None = None,
    port: int = 0,
) -> AsyncIterator[Server]:  # fmt: skip
    """A server; ``says`` writes what follows on a request: bytes, or whatever a function writes. None: just 200."""
    made = Server()
    inside: set[asyncio.Task[None]] = set()

    async def accepted(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        made.connections += 1
        task = asyncio.current_task()
        assert task is not None
        inside.add(task)
        with contextlib.suppress(OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            request = await _request(reader)
            made.requests.append(request)

            async def write(data: bytes) -> None:
                writer.write(data)
                await writer.drain()

            if callable(says):
                await says(request, write)
            else:
                await write(answer() if says is None else says)
        writer.transport.abort()
        inside.discard(task)

    servers = []
    for host in hosts:
        server = await asyncio.start_server(accepted, host, port or made.port, ssl=tls)
        made.port = server.sockets[0].getsockname()[1]
        servers.append(server)
    try:
        yield made
    finally:
        for server in servers:
            server.close()
        for task in list(inside):
            task.cancel()
        await asyncio.gather(*inside, return_exceptions=True)


async def _request(reader: asyncio.StreamReader) -> Request:
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    line, *rest = head.removesuffix("\r\n\r\n").split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (one.partition(":") for one in rest)}
    body = await reader.readexactly(int(headers.get("content-length", "0")))
    return Request(line, headers, body)


def has_v6() -> bool:
    with contextlib.suppress(OSError), socket.socket(socket.AF_INET6) as probe:
        probe.bind(("::1", 0))
        return True
    return False
