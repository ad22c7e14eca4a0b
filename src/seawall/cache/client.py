"""The process' one connection to Redis: made when it is needed, shared by all who ask, made anew when it broke.

Nothing is tried twice in here. A client that repeats a command by itself makes 300 ms of timeout into 800, and a
breaker behind it sees a success.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Callable, Sequence

from seawall.cache.command import Word, packed
from seawall.cache.link import Link, Reply, require
from seawall.cache.setting import Settings, Target
from seawall.guard.loop import heed
from seawall.kernel.error import Unavailable


class Client:
    """Sends commands, pipelined. Its caller bounds the time (guard.dependency); connecting is bounded in here.

    Args:
        name: What the server calls this client, in its slow log for instance.
        opening: Commands that are said on each new connection, packed.
        link: Makes a connection.

    Raises:
        Misconfigured: The package that it needs isn't installed.
    """

    def __init__(
        self, settings: Settings, target: Target, *, name: str, opening: Sequence[bytes] = (),
        link: Callable[[], Link] = Link,
    ) -> None:  # fmt: skip
        require()
        self._greeting = opening
        self._made = link
        self._connect_s = settings.connect_s
        self._target = target
        self._name = name
        self.turn = 0  # which of the hosts is tried next
        self._link: Link | None = None
        self._opening: asyncio.Task[Link] | None = None
        self._found: dict[str, asyncio.Task[list[str]]] = {}
        self._tls = ssl.create_default_context() if target.tls else None

    async def ask(self, *command: Word) -> Reply:
        """The reply to one command.

        Raises:
            Unavailable: An error reply, such as LOADING, READONLY or OOM. The server did nothing.
            OSError: No connection, or it broke: the command may have been done.
            TimeoutError: No connection within ``connect_s``.

        Cancelled: the command may have been done. The connection is given up: what hangs is rarely cured by waiting,
            and a new one is through a hole in the network as soon as there is a way.
        """
        [reply] = await self.ask_all([packed(*command)])
        return reply

    async def ask_all(self, commands: Sequence[bytes]) -> list[Reply]:
        """The replies to commands that are sent together, packed. As ``ask``, for all of them: the first error counts,
        and says nothing of the others."""
        link = await self.connected()
        sent = link.send(commands)
        try:
            return [await future for future in sent]
        except asyncio.CancelledError:
            if any(future.cancelled() for future in sent):
                link.abort(TimeoutError("no reply in time"))
            raise
        except Unavailable as error:
            if error.cause.startswith(("NOSCRIPT", "READONLY")):
                # The server has forgotten our script, or became a replica: both are put right by connecting anew.
                link.abort(ConnectionResetError(error.cause))
            raise

    async def connected(self) -> Link:
        """The connection, made if there is none. Raises as ``ask``."""
        link = self._link
        return link if link is not None and link.lost is None else await self._opened()

    def drop(self, why: str) -> None:
        """Give the connection up: the next command makes a new one."""
        if self._link is not None:
            self._link.abort(ConnectionResetError(why))

    async def close(self) -> None:
        """Disconnect. Harmless when called twice, or before anything was asked."""
        tasks = [task for task in (self._opening, *self._found.values()) if task is not None and not task.done()]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=1.0)
        if self._link is not None:
            self._link.abort(ConnectionAbortedError("closed"))

    async def _opened(self) -> Link:
        """A new connection; all who want one at the same time wait for the same."""
        if self._opening is None or self._opening.done():
            self._opening = asyncio.create_task(self._open(), name="cache.connect")
            self._opening.add_done_callback(heed)
        return await asyncio.shield(self._opening)

    async def _open(self) -> Link:
        """Hosts in turn: the next is begun when one has failed, or was silent for its part of the time. After a
        fail-over the old address may swallow all we send (incident I1), and would take the time of the new one."""
        count = len(self._target.hosts)
        order = [(self.turn + offset) % count for offset in range(count)]
        # When none answers, the next try begins with another.
        self.turn = (self.turn + 1) % count
        trying: dict[asyncio.Task[Link], int] = {}
        why: BaseException = ConnectionRefusedError("no address")
        try:
            async with asyncio.timeout(self._connect_s):
                while order or trying:
                    if order:
                        number = order.pop(0)
                        host, port = self._target.hosts[number]
                        trying[asyncio.create_task(self._connected(host, port), name="cache.connect.host")] = number
                    part_s = self._connect_s / count if order else None
                    done, _ = await asyncio.wait(trying, timeout=part_s, return_when=asyncio.FIRST_COMPLETED)
                    for task in done:
                        why = self._taken(task, trying.pop(task)) or why
                    if self._link is not None and self._link.lost is None:
                        return self._link
        finally:
            for task in trying:
                task.add_done_callback(_unwanted)
                task.cancel()
        raise why

    def _taken(self, task: asyncio.Task[Link], number: int) -> BaseException | None:
        """Take the connection to a host, unless there is one; why there is none to take."""
        error = task.exception()
        if error is not None and not isinstance(error, (OSError, Unavailable)):
            raise error
        if error is None and self._link is not None and self._link.lost is None:
            _unwanted(task)
        elif error is None:
            self.turn, self._link = number, task.result()
        return error

    async def _connected(self, host: str, port: int) -> Link:
        why: Exception = ConnectionRefusedError(f"{host} has no address")
        for address in await self._addresses(host):
            try:
                _, link = await asyncio.get_running_loop().create_connection(
                    self._made, address, port, ssl=self._tls, server_hostname=host if self._tls else None
                )
            except OSError as error:
                why = error
                continue
            try:
                await self._greet(link)
            except BaseException:
                link.abort(ConnectionAbortedError("greeting failed"))
                raise
            return link
        raise why

    async def _greet(self, link: Link) -> None:
        """Everything that belongs to a connection, in one round trip."""
        target = self._target
        login = ["AUTH", target.user or "default", target.password] if target.password else []
        told = link.send(
            [
                packed("HELLO", 2, *login, "SETNAME", self._name),
                packed("SELECT", target.database),
                *self._greeting,
            ]
        )
        try:
            hello, *_ = [await reply for reply in told]
        except Unavailable as error:
            # The code only: the text repeats what was sent, and a password is in it.
            raise Unavailable("redis", error.cause.partition(" ")[0]) from None
        pairs = zip(hello[0::2], hello[1::2], strict=False) if isinstance(hello, list) else ()
        if any(name == b"role" and said != b"master" for name, said in pairs):
            raise Unavailable("redis", "READONLY: it is a replica")

    async def _addresses(self, host: str) -> list[str]:
        """What a name stands for. A resolver that hangs keeps one thread, however often we ask meanwhile."""
        try:
            socket.inet_pton(socket.AF_INET6 if ":" in host else socket.AF_INET, host)
        except OSError:
            task = self._found.get(host)
            if task is None or task.done():
                task = self._found[host] = asyncio.create_task(_resolved(host), name="cache.resolve")
                task.add_done_callback(heed)
            return await asyncio.shield(task)
        return [host]


def _unwanted(task: asyncio.Task[Link]) -> None:
    """Another host was there first."""
    if not task.cancelled() and task.exception() is None:
        task.result().abort(ConnectionAbortedError("another one was taken"))


async def _resolved(host: str) -> list[str]:
    found = await asyncio.get_running_loop().getaddrinfo(host, None, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(address[0]) for *_, address in found))
