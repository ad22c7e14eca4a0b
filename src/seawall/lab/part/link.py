"""Lines to servers that can be broken on purpose: each listens on a port of loopback and hands on to another."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from types import TracebackType

from seawall.kernel.error import Rejected, Unavailable
from seawall.lab.part.credit import Credit
from seawall.lab.part.fault import FAULTS_MAX, Fault
from seawall.lab.part.pipe import Close, End, Pipe, abort
from seawall.lab.part.port import LOOPBACK, free

CONNECTIONS_MAX = 1000
"""For each link; one more is reset, and counted. A connection holds at most four buffers of ``pipe.BUFFER_BYTES``."""

LINKS_MAX = 64
CONNECT_S = 5.0
BACKLOG = 128
TRIES = 20


@dataclass(slots=True)
class Counts:
    """What a link saw since it began."""

    accepted: int = 0
    open: int = 0
    reset_full: int = 0  # more than CONNECTIONS_MAX
    unconnected: int = 0  # the server behind didn't take the connection
    bytes_up: int = 0
    bytes_down: int = 0
    bytes_held: int = 0  # waiting in queues now


class _Connection:
    """One client, and its connection to the server behind."""

    def __init__(self, link: Link, client: End) -> None:
        self.client, self.server = client, End()
        self.close = Close((self.client, self.server), self._done)
        self.pipes: tuple[Pipe, Pipe] | None = None
        self.task: asyncio.Task[None] | None = None
        self._link = link

    def join(self) -> None:
        """Both ends are there: from here on bytes move."""
        up = Pipe("up", self.client, self.server, self.close)
        down = Pipe("down", self.server, self.client, self.close)
        self.pipes = (up, down)
        self.change()

    def change(self) -> None:
        for pipe in self.pipes or ():
            pipe.change(self._link.faults, self._link.credit)

    def _done(self) -> None:
        if self.task is not None:
            self.task.cancel()
        self._link.forget(self)


class _Accepted(End):
    """A client's end: it isn't read before the server behind has taken the connection."""

    def __init__(self, link: Link) -> None:
        super().__init__()
        self._link = link

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self.read(wanted=False)
        self._link.accept(self)


class Link:
    """One line. Made by `Proxy.link`.

    Attributes:
        port: Where clients come.
        upstream: (host, port) of the server behind; may be changed, for connections to come.
        faults: What is wrong with it now.
    """

    def __init__(self, name: str, upstream: tuple[str, int], port: int) -> None:
        self.name = name
        self.upstream = upstream
        self.port = port
        self.faults: tuple[Fault, ...] = ()
        self.credit: Credit | None = None
        self.counts = Counts()
        self._connections: set[_Connection] = set()
        self._server: asyncio.Server | None = None
        self._healed = asyncio.Event()
        self._healed.set()

    async def open(self) -> None:
        """Listen, unless it does.

        Raises:
            Unavailable: The port is somebody else's.
        """
        if self._server is not None:
            return
        try:
            self._server = await asyncio.get_running_loop().create_server(
                lambda: _Accepted(self), LOOPBACK, self.port, reuse_address=True, backlog=BACKLOG
            )
        except OSError as error:
            raise Unavailable(f"port {self.port}", str(error)) from error

    async def set(self, *faults: Fault) -> None:
        """These faults, and no other, from now on: for the connections that are there, and for those to come.

        Raises:
            Rejected: More than ``FAULTS_MAX``; nothing changed.
            Unavailable: After ``refuse``, somebody else took the port.
        """
        if len(faults) > FAULTS_MAX:
            raise Rejected(400, "too many faults", f"{len(faults)}; at most {FAULTS_MAX}")
        self.faults = faults
        self._grant(next((each for each in faults if each.kind == "credit"), None))
        (self._healed.clear if self._has("hole") else self._healed.set)()
        if self._has("refuse"):
            self._stop_listening()
        else:
            await self.open()
        for each in list(self._connections):
            if self._has("reset"):
                each.close(True)
            else:
                each.change()

    async def clear(self) -> None:
        """Nothing is wrong with it any more. Raises as `set`."""
        await self.set()

    def status(self) -> dict[str, object]:
        """Port, server behind, faults and counts."""
        self._count()
        faults = [fault.said() for fault in self.faults]
        left = {"credit_left": self.credit.left(asyncio.get_running_loop().time())} if self.credit else {}
        return {"port": self.port, "upstream": f"{self.upstream[0]}:{self.upstream[1]}", "faults": faults,
                **asdict(self.counts), **left}  # fmt: skip

    def close(self) -> None:
        """Listen no more, and reset what is open. Harmless when called twice."""
        self._stop_listening()
        for each in list(self._connections):
            each.close(True)

    # ── For connections ────────────────────────────────────────────────────────────────────────────────────────────
    def accept(self, client: End) -> None:
        """A client is there."""
        assert client.transport is not None
        self.counts.accepted += 1
        if self._has("reset") or len(self._connections) >= CONNECTIONS_MAX:
            self.counts.reset_full += not self._has("reset")
            abort(client.transport)
            return
        made = _Connection(self, client)
        self._connections.add(made)
        made.task = asyncio.get_running_loop().create_task(self._connect(made), name=f"link {self.name}")

    def forget(self, connection: _Connection) -> None:
        """It is closed."""
        self._connections.discard(connection)
        for pipe in connection.pipes or ():
            self._add(pipe)

    async def _connect(self, made: _Connection) -> None:
        """Connect to the server behind; not before a hole is gone, since nothing would get there."""
        await self._healed.wait()
        try:
            async with asyncio.timeout(CONNECT_S):
                await asyncio.get_running_loop().create_connection(lambda: made.server, *self.upstream)
        except OSError:
            self.counts.unconnected += 1
            made.task = None
            made.close(True)
            return
        made.task = None
        if made.client.transport is None:
            # It left meanwhile, and had no pipe yet that would have told the other end.
            made.close(False)
            return
        made.join()

    def _grant(self, fault: Fault | None) -> None:
        """Credits are kept while the same fault stays, whatever else is wrong with the line."""
        if fault is None:
            self.credit = None
        elif self.credit is None or self.credit.fault != fault:
            self.credit = Credit(fault, asyncio.get_running_loop().time())

    def _has(self, kind: str) -> bool:
        return any(fault.kind == kind for fault in self.faults)

    def _stop_listening(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None

    def _add(self, pipe: Pipe) -> None:
        if pipe.way == "up":
            self.counts.bytes_up += pipe.passed
        else:
            self.counts.bytes_down += pipe.passed
        pipe.passed = 0

    def _count(self) -> None:
        self.counts.open = len(self._connections)
        self.counts.bytes_held = sum(pipe.held for each in self._connections for pipe in each.pipes or ())
        for each in self._connections:
            for pipe in each.pipes or ():
                self._add(pipe)


class Proxy:
    """Links by name, in this event loop. An async context manager; its end closes every connection by RST."""

    def __init__(self) -> None:
        self.links: dict[str, Link] = {}

    async def __aenter__(self) -> Proxy:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        for each in self.links.values():
            each.close()

    async def link(self, name: str, upstream: int, *, host: str = LOOPBACK, port: int = 0) -> Link:
        """Make a line to a server, or point one that is there at another server (for connections to come).

        Args:
            upstream: The server's port.
            port: Where clients come; 0 for a free one.

        Raises:
            Rejected: More than ``LINKS_MAX``.
            Unavailable: The port, or each that seemed free, is taken.
        """
        if (known := self.links.get(name)) is not None:
            known.upstream = (host, upstream)
            return known
        if len(self.links) >= LINKS_MAX:
            raise Rejected(400, "too many links", f"at most {LINKS_MAX}")
        made = Link(name, (host, upstream), port)
        for _ in range(TRIES if port == 0 else 0):
            # Below the kernel's own range, so that after ``refuse`` it is still free.
            made.port = free(1)[0]
            with contextlib.suppress(Unavailable):
                await made.open()
                break
        await made.open()
        self.links[name] = made
        return made

    def status(self) -> Mapping[str, Mapping[str, object]]:
        """Every link's, by name."""
        return {name: link.status() for name, link in sorted(self.links.items())}
