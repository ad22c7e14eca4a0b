"""Names to addresses, and the few other calls that block, in threads of their own.

A name server that never answers holds a thread for as long as the system's resolver is patient. It may be a tenant's
own, so it must not take the threads of everybody else's steps: those who ask for one name share one look-up, and the
names of one domain have a few at once.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from seawall.guard.breaker import Cause
from seawall.step.error import StepUnavailable

T = TypeVar("T")

THREADS_MAX = 32
DOMAIN_THREADS_MAX = 4
"""Look-ups at once of names that share their last two labels; more of them wait for one of those."""

WAITING_MAX = 256
"""Calls that wait for a thread; one more fails at once, to be tried later."""

Resolve = Callable[[str, int], Awaitable[Sequence[str]]]
"""All addresses of a name, in the order in which to try them. No answer is remembered: each call asks anew."""


class Desk:
    """A bounded number of threads."""

    def __init__(self, threads: int, name: str) -> None:
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix=name)
        self._most = threads + WAITING_MAX
        self._inside = 0

    def begin(self, function: Callable[[], T]) -> asyncio.Future[T]:
        """Call a plain function in a thread; cancelling the future doesn't stop the thread.

        Raises:
            StepUnavailable: Too many are waiting.
        """
        if self._inside >= self._most:
            raise StepUnavailable("too many calls wait for a thread", cause=None, sent=False, retry_after_s=1.0)
        self._inside += 1
        loop = asyncio.get_running_loop()
        future = self._pool.submit(function)

        def left(_: object) -> None:
            with contextlib.suppress(RuntimeError):  # the loop has ended before
                loop.call_soon_threadsafe(self._left)

        future.add_done_callback(left)  # not when our caller gives up: the thread may go on
        return asyncio.wrap_future(future)

    def close(self) -> None:
        """Give the threads up; those that hang can't be stopped."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _left(self) -> None:
        self._inside -= 1


class Resolver:
    """The system's resolver.

    Args:
        addresses: Of a name, blocking; raises OSError when it has none.
    """

    def __init__(self, addresses: Callable[[str], Sequence[str]] | None = None) -> None:
        self._addresses = addresses or _addresses
        self._desk = Desk(THREADS_MAX, "step-name")
        self._asked: dict[str, asyncio.Future[Sequence[str]]] = {}

    async def resolve(self, host: str, port: int) -> Sequence[str]:
        """All addresses of a name. The caller has the deadline.

        Raises:
            StepUnavailable: It has none, nobody says, or too many names are being asked for.
        """
        while (shared := self._asked.get(host)) is None:
            same = [future for name, future in self._asked.items() if _domain(name) == _domain(host)]
            if len(same) < DOMAIN_THREADS_MAX:
                shared = self._ask(host)
                break
            await asyncio.wait(same, return_when=asyncio.FIRST_COMPLETED)
        try:
            return await asyncio.shield(shared)
        except (OSError, UnicodeError) as error:
            raise StepUnavailable(f"{host} can't be resolved", cause=Cause.ERROR, sent=False) from error

    def close(self) -> None:
        """Give the threads up."""
        self._desk.close()

    def _ask(self, host: str) -> asyncio.Future[Sequence[str]]:
        future = self._asked[host] = self._desk.begin(lambda: self._addresses(host))

        def answered(done: asyncio.Future[Sequence[str]]) -> None:
            self._asked.pop(host, None)
            if not done.cancelled():
                done.exception()  # all who asked may have given up: then nobody else looks at it

        future.add_done_callback(answered)
        return future


def _domain(host: str) -> str:
    return ".".join(host.rsplit(".", 2)[-2:])


def _addresses(host: str) -> Sequence[str]:
    found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(address[0]) for *_, address in found))
