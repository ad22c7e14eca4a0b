"""A collector on a real socket, with a journal in memory and sources of its own, for the tests of this folder."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import socket
import ssl
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

from seawall.collector import Collector, Settings, Snapshot
from seawall.guard import Supervisor
from seawall.guard.shed import ShedList
from seawall.journal.filesystem import LocalFilesystem
from seawall.kernel.alert import Alerts
from seawall.kernel.approval import Links
from seawall.kernel.clock import Clock, SystemClock
from seawall.kernel.error import Unavailable
from seawall.kernel.event import EventIds, Record, decode
from seawall.kernel.metric import Metrics
from seawall.kernel.seam.approval import Approvals
from seawall.kernel.seam.backlog import Backlog
from seawall.kernel.seam.event import EventBrief
from seawall.kernel.seam.flag import Switch, always
from seawall.kernel.seam.limiter import Limiter
from seawall.kernel.seam.ticket import Answer, Reply
from seawall.store.source import Edition, Loaded, token_hash
from seawall.store.vault import Vault
from seawall.testing import MemoryJournal

QUICK = Settings(
    head_s=0.3, request_s=0.8, body_grace_s=0.3, body_rate_min_bytes=1024, idle_s=0.4, write_s=0.3, ack_s=0.5,
    linger_s=0.3, sweep_s=0.02, refresh_s=0.05, stale_s=30.0, store_timeout_s=0.5,
)  # fmt: skip
"""Deadlines short enough to be met in a test."""


class SourceTable:
    """The sources that the store would have. ``away`` makes it fail like a store that isn't there."""

    def __init__(self) -> None:
        self.rows: dict[bytes, Loaded] = {}
        self.now = 1
        self.stamp = ""
        self.away = False
        self.loads = 0
        self.versions = 0
        self.heard: dict[str, int] = {}

    def add(
        self, token: str, *, kind: str = "none", secret: bytes | None = None, settings: str = "{}", name: str = "",
        removed: bool = False, secrets: tuple[tuple[int, bytes], ...] = (), trouble: str = "", tenant: str = "default",
    ) -> Loaded:  # fmt: skip
        self.now += 1
        row = Loaded(
            id=os.urandom(16), name=name or token, kind=kind, tenant=tenant, token_hash=token_hash(token),
            settings=settings, version=self.now, removed=removed, trouble=trouble,
            secrets=secrets or (((1, secret),) if secret is not None else ()),
        )  # fmt: skip
        self.rows[row.token_hash] = row
        return row

    def _check(self) -> None:
        if self.away:
            raise Unavailable("PostgreSQL", "it is away")

    async def edition(self, *, timeout_s: float) -> Edition:
        self._check()
        self.versions += 1
        return Edition(self.now, self.stamp)

    async def load(self, *, timeout_s: float) -> tuple[Edition, list[Loaded]]:
        self._check()
        self.loads += 1
        return Edition(self.now, self.stamp), list(self.rows.values())

    async def seen(self, collector: str, version: int, *, timeout_s: float) -> None:
        self._check()
        self.heard[collector] = version

    async def forget(self, collector: str, *, timeout_s: float) -> None:
        self._check()
        self.heard.pop(collector, None)


class Waiters:
    """Held requests; the test answers them."""

    def __init__(self) -> None:
        self.held: dict[bytes, Answer] = {}
        self.patience_ms: dict[bytes, int] = {}
        self.dropped: list[bytes] = []
        self.replies: dict[bytes, Reply] = {}
        self.away = False

    def hold(self, ticket_id: bytes, *, wait_ms: int, answer: Answer) -> None:
        self.held[ticket_id] = answer
        self.patience_ms[ticket_id] = wait_ms

    def drop(self, ticket_id: bytes, answer: Answer) -> None:
        self.held.pop(ticket_id, None)
        self.dropped.append(ticket_id)

    async def look_up(self, ticket_id: bytes, *, timeout_s: float) -> Reply | None:
        if self.away:
            await asyncio.sleep(3600)
        return self.replies.get(ticket_id)


class EventTable:
    """What became of events."""

    def __init__(self) -> None:
        self.known: dict[bytes, EventBrief] = {}
        self.away = False

    async def status(self, id: bytes, *, timeout_s: float) -> EventBrief | None:
        if self.away:
            raise Unavailable("PostgreSQL", "it is away")
        return self.known.get(id)


@dataclass
class Rig:
    """A running collector and what it stands on."""

    collector: Collector
    journal: MemoryJournal
    snapshot: Snapshot
    sources: SourceTable
    waiting: Waiters
    events: EventTable
    metrics: Metrics
    supervisor: Supervisor
    alerts: Alerts
    shed: ShedList

    @property
    def port(self) -> int:
        return self.collector.port

    @property
    def records(self) -> list[Record]:
        return [decode(p) for p in self.journal.payloads]

    def count(self, name: str, **labels: str) -> float:
        return self.metrics.counter(name, "", **labels).value


@dataclass
class Answered:
    """One answer off the wire."""

    status: int
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""


class Client:
    """A socket that says exactly what it is told to."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def send(self, raw: bytes) -> None:
        self.writer.write(raw)
        with contextlib.suppress(ConnectionError):
            await self.writer.drain()

    async def answer(self, *, within_s: float = 5.0) -> Answered | None:
        """The next answer; None when the connection ended (cleanly or by a reset) without one."""
        async with asyncio.timeout(within_s):
            try:
                head = await self.reader.readuntil(b"\r\n\r\n")
            except (asyncio.IncompleteReadError, ConnectionError):
                return None
            lines = head.decode("latin-1").split("\r\n")
            status = int(lines[0].split(" ")[1])
            headers = {k.lower(): v.strip() for k, _, v in (line.partition(":") for line in lines[1:] if line)}
            body = b""
            if "content-length" in headers:
                body = await self.reader.readexactly(int(headers["content-length"]))
            return Answered(status, headers, body)

    async def ended(self, *, within_s: float = 5.0) -> bytes:
        """Everything up to the connection's end."""
        async with asyncio.timeout(within_s):
            try:
                return await self.reader.read(-1)
            except ConnectionError:
                return b""

    async def close(self) -> None:
        self.writer.close()
        with contextlib.suppress(ConnectionError):
            await self.writer.wait_closed()


@contextlib.asynccontextmanager
async def client(rig: Rig, *, tls: ssl.SSLContext | None = None, hello: bytes = b"") -> AsyncIterator[Client]:
    """A connection; ``hello`` is sent before TLS begins."""
    own = socket.create_connection(("127.0.0.1", rig.port), timeout=5)
    own.sendall(hello)
    own.setblocking(False)
    name = "localhost" if tls is not None else None
    reader, writer = await asyncio.open_connection(sock=own, ssl=tls, server_hostname=name)
    c = Client(reader, writer)
    try:
        yield c
    finally:
        await c.close()


def request(
    target: str = "/in/tok", body: bytes = b"", headers: dict[str, str] | None = None, *, method: str = "POST"
) -> bytes:
    lines = [f"{method} {target} HTTP/1.1", "Host: h", f"Content-Length: {len(body)}"]
    lines += [f"{k}: {v}" for k, v in (headers or {}).items()]
    return "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + body


@contextlib.asynccontextmanager
async def running(
    folder: Path, *, settings: Settings = QUICK, sources: SourceTable | None = None, clock: Clock | None = None,
    journal: MemoryJournal | None = None, ready: bool = True, limiter: Limiter | None = None,
    backlog: Backlog | None = None, holding: Switch = always, kept_days: int = 30, approvals: Approvals | None = None,
    links: Links | None = None,
) -> AsyncIterator[Rig]:  # fmt: skip
    """A collector with one source ``tok`` of kind none, unless sources are given."""
    table = sources if sources is not None else SourceTable()
    if sources is None:
        table.add("tok")
    clock = clock or SystemClock()
    metrics, held, events = Metrics(), Waiters(), EventTable()
    alerts = Alerts(metrics, clock)
    shed = ShedList(clock=clock, metrics=metrics, alerts=alerts)
    journal = journal or MemoryJournal()
    snapshot = Snapshot(
        settings, name="c1", sources=table, vault=Vault(b"k" * 32), filesystem=LocalFilesystem(),
        file=folder / "snapshot", clock=clock, metrics=metrics,
    )  # fmt: skip
    collector = Collector(
        settings, listen="127.0.0.1:0", journal=journal, snapshot=snapshot, waiting=held, events=events, clock=clock,
        metrics=metrics, ids=EventIds(clock), random=random.Random(7), limiter=limiter, alerts=alerts,
        shed=shed, backlog=backlog, holding=holding, kept_days=kept_days, approvals=approvals, links=links,
    )  # fmt: skip
    supervisor = Supervisor(metrics)
    collector.register(supervisor)
    rig = Rig(collector, journal, snapshot, table, held, events, metrics, supervisor, alerts, shed)
    async with collector, supervisor:
        if ready:
            await until(lambda: all(h.ready for h in supervisor.health() if h.essential) and not snapshot.stale)
        yield rig


async def until(true: object, *, within_s: float = 5.0) -> None:
    assert callable(true)
    async with asyncio.timeout(within_s):
        while not true():
            await asyncio.sleep(0.002)
