"""Names to addresses, and the few other calls that block, in threads of their own: a tenant's name server that never
answers must not take the threads of anybody else's steps."""

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

THREADS_MAX = 16
WAITING_MAX = 256
"""Calls that wait for a thread; one more fails at once, to be tried later."""

Resolve = Callable[[str, int], Awaitable[Sequence[str]]]
"""All addresses of a name, in the order in which to try them. No answer is remembered: each call asks anew."""


class Desk:
    """A bounded number of threads."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(THREADS_MAX, thread_name_prefix="step-desk")
        self._inside = 0

    async def call(self, function: Callable[[], T]) -> T:
        """Call a plain function in a thread. The caller has the deadline; a call that hangs keeps its thread.

        Raises:
            StepUnavailable: Too many are waiting.
        """
        if self._inside >= THREADS_MAX + WAITING_MAX:
            raise StepUnavailable("too many names are being looked up", cause=None, sent=False, retry_after_s=1.0)
        self._inside += 1
        loop = asyncio.get_running_loop()
        future = self._pool.submit(function)

        def left(_: object) -> None:
            with contextlib.suppress(RuntimeError):  # the loop has ended before
                loop.call_soon_threadsafe(self._left)

        future.add_done_callback(left)  # not when our caller gives up: the thread may go on
        return await asyncio.wrap_future(future)

    async def resolve(self, host: str, port: int) -> Sequence[str]:
        """All addresses of a name.

        Raises:
            StepUnavailable: It has none, or nobody says.
        """
        try:
            found = await self.call(lambda: socket.getaddrinfo(host, port, type=socket.SOCK_STREAM))
        except (OSError, UnicodeError) as error:
            raise StepUnavailable(f"{host} can't be resolved", cause=Cause.ERROR, sent=False) from error
        return list(dict.fromkeys(str(address[0]) for *_, address in found))

    def close(self) -> None:
        """Give the threads up; those that hang can't be stopped."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _left(self) -> None:
        self._inside -= 1
