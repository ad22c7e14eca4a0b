"""Asks the store for runs that can't go on without its answer."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

from seawall.kernel.error import Unavailable, Uncertain

T = TypeVar("T")

PAUSE_S = 0.2


class Asking:
    """Asks until there is an answer: for as long as whoever wants it isn't cancelled.

    Args:
        most: Questions at once: more keep the process's loops from the store.
    """

    def __init__(self, most: int) -> None:
        self._places = asyncio.Semaphore(most)
        self._unheard = 0

    @property
    def in_vain(self) -> bool:
        """Somebody has asked, and had no answer yet."""
        return self._unheard > 0

    async def until_answered(self, ask: Callable[[], Awaitable[T]]) -> T:
        """What ``ask`` gives, when the store answers. It is asked again, so it must be safe to repeat."""
        unheard = 0
        try:
            while True:
                try:
                    async with self._places:
                        return await ask()
                except (Unavailable, Uncertain):
                    self._unheard += 1 - unheard
                    unheard = 1
                    await asyncio.sleep(PAUSE_S)
        finally:
            self._unheard -= unheard
