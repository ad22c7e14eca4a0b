"""The listening socket, and what comes before HTTP on a connection: a PROXY header from a balancer, a TLS handshake.

Without either, connections go straight to the parser. With one, each is let in by a short task of its own, which has a
deadline and holds a place among the connections from its first moment: whoever stops in the middle of a handshake
counts like everybody else.
"""

from __future__ import annotations

import asyncio
import errno
import socket
from collections.abc import Callable

from seawall.collector import proxy
from seawall.collector.certificate import Certificate
from seawall.collector.crowd import Crowd, Place
from seawall.collector.exchange import Front
from seawall.collector.network import Networks
from seawall.collector.parser import Connection
from seawall.kernel.error import Misconfigured
from seawall.kernel.log import fields, logger

log = logger("collector")

BACKLOG = 1024
AT_ONCE = 64
"""Connections accepted in one turn of the event loop, before others have theirs."""

SHORT_S = 1.0
"""How long nothing is accepted when there are no descriptors or no memory left."""


class Door:
    """Lets connections in.

    Args:
        listen: HOST:PORT (port 0 picks a free one), or a socket that listens already.
        certificate: None: no TLS.
        proxies: Whose connections begin with a PROXY header.
        refused: Called for a connection that got no place, or didn't get through; with which of them it was.
    """

    def __init__(
        self, front: Front, crowd: Crowd, *, listen: str | socket.socket, certificate: Certificate | None,
        proxies: Networks, refused: Callable[[str], None],
    ) -> None:  # fmt: skip
        self._front = front
        self._crowd = crowd
        self._listen = listen
        self._certificate = certificate
        self._proxies = proxies
        self._refused = refused
        self._server: asyncio.Server | None = None
        self._socket: socket.socket | None = None
        self._entering: set[asyncio.Task[None]] = set()
        self._again: asyncio.TimerHandle | None = None

    @property
    def port(self) -> int:
        """The port that is listened on."""
        assert self._socket is not None, "the collector isn't open"
        return int(self._socket.getsockname()[1])

    async def open(self) -> None:
        """Listen. Raises Misconfigured."""
        if self._certificate is not None:
            await asyncio.to_thread(self._certificate.open)
        own = self._socket = bound(self._listen)
        loop = asyncio.get_running_loop()
        if self._certificate is None and not self._proxies:
            self._server = await loop.create_server(lambda: Connection(self._front), sock=own, backlog=BACKLOG)
        else:
            own.setblocking(False)
            loop.add_reader(own, self._accept)

    def close(self) -> None:
        """Accept nothing more, and drop who isn't in yet. Harmless when called twice."""
        for task in self._entering:
            task.cancel()
        if self._again is not None:
            self._again.cancel()
        if self._server is not None:
            self._server.close()
        elif self._socket is not None and self._socket.fileno() >= 0:
            asyncio.get_running_loop().remove_reader(self._socket)
            self._socket.close()

    def _accept(self) -> None:
        assert self._socket is not None, "its reader is gone with it"
        for _ in range(AT_ONCE):
            try:
                own, address = self._socket.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:
                if error.errno not in (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM):
                    raise
                self._pause(error)
                return
            self._enter(own, str(address[0]))

    def _pause(self, error: OSError) -> None:
        """Clients wait in the socket's queue: asked at once again, accepting would only fail as often as it can."""
        log.error("no connection can be accepted for a moment", extra=fields(cause=str(error)))
        loop, own = asyncio.get_running_loop(), self._socket
        assert own is not None, "it was just asked"
        loop.remove_reader(own)
        self._again = loop.call_later(SHORT_S, loop.add_reader, own, self._accept)

    def _enter(self, own: socket.socket, address: str) -> None:
        limits, proxied = self._front.settings, self._proxies.holds(address)
        place = self._crowd.reserve(
            None if proxied else address.encode(),
            all_max=limits.connections_max, each_max=limits.connections_per_ip_max,
        )  # fmt: skip
        if place is None:
            # Nothing can be said before the handshake, which is what a flood wants us to compute.
            own.close()
            self._refused("full")
            return
        own.setblocking(False)
        task = asyncio.create_task(self._let_in(own, address, place, proxied=proxied), name="collector.enter")
        self._entering.add(task)
        task.add_done_callback(self._entering.discard)

    async def _let_in(self, own: socket.socket, address: str, place: Place, *, proxied: bool) -> None:
        limit_s = self._front.settings.handshake_s
        handed = False
        try:
            if proxied:
                async with asyncio.timeout(limit_s):
                    address = await _client(own) or address
            own.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            context = self._certificate.context if self._certificate is not None else None
            handed = True  # its transport closes it from now on
            await asyncio.get_running_loop().connect_accepted_socket(
                lambda: Connection(self._front, peer=address.encode(), place=place), own,
                ssl=context, ssl_handshake_timeout=limit_s if context else None,
            )  # fmt: skip
        except (OSError, proxy.NoHeader) as error:  # also TimeoutError, ssl.SSLError
            self._refused("header" if isinstance(error, proxy.NoHeader) or not handed else "handshake")
            log.debug("a connection didn't get in", extra=fields(peer=address, cause=str(error)))
        finally:
            place.leave()
            if not handed:
                own.close()


async def _client(own: socket.socket) -> str | None:
    """The address in the PROXY header with which a connection begins; not a byte behind it is taken."""
    so_far = b""
    while (found := proxy.client(so_far)) is None:
        await _readable(own)
        try:
            ahead = own.recv(proxy.HEADER_BYTES_MAX, socket.MSG_PEEK)
            if not ahead:
                raise proxy.NoHeader("it was closed before its PROXY header")
            so_far += own.recv(proxy.belonging(so_far, ahead))
        except BlockingIOError:
            continue
    return found[0]


async def _readable(own: socket.socket) -> None:
    loop = asyncio.get_running_loop()
    ready: asyncio.Future[None] = loop.create_future()
    loop.add_reader(own, _set, ready)
    try:
        await ready
    finally:
        loop.remove_reader(own)


def _set(ready: asyncio.Future[None]) -> None:
    if not ready.done():
        ready.set_result(None)


def bound(listen: str | socket.socket) -> socket.socket:
    """A socket that listens. Raises Misconfigured."""
    if isinstance(listen, socket.socket):
        return listen
    host, _, port = listen.rpartition(":")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host.strip("[]"), int(port)), family=family, backlog=BACKLOG)
    except (OSError, ValueError, OverflowError) as error:
        raise Misconfigured([f"listen = {listen!r}: {error}"]) from error
