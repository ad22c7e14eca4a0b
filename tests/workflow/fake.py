"""An execution in memory: the other side of the run seam, without a store or threads."""

from __future__ import annotations

import asyncio
import math
import random
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from seawall import Context
from seawall.kernel.seam.pulse import Pulse
from seawall.kernel.seam.run import Memo
from seawall.kernel.seam.ticket import Reply
from seawall.kernel.seam.wait import Heard, Wanted


class MemoryRun:
    """Keeps steps in a dict that outlives it, as the store does."""

    def __init__(self, kept: dict[tuple[str, int], Memo] | None = None, *, attempt: int = 1) -> None:
        self.id = 7
        self.attempt = attempt
        self.kept = {} if kept is None else kept
        self.before, self.asked = len(self.kept), 0
        self.pauses: list[float] = []
        self.replies: list[Reply] = []
        self.waits: list[bool] = []
        self.rests: list[int] = []
        self.timeouts: list[float] = []
        self.told: bytes | None = None
        self.clock_us = 1_000_000
        self.listened: list[tuple[str, int, Wanted]] = []
        self.heard = Heard()

    async def pulse(self, name: str, nth: int, every_s: float) -> Pulse:
        return Pulse(every_s, time.monotonic, self.told)

    def recall(self, name: str, nth: int) -> Memo | None:
        memo = self.kept.get((name, nth))
        self.asked += memo is not None
        return memo

    def has_more(self) -> bool:
        return self.asked < self.before

    async def call(
        self, function: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any], *, timeout_s: float,
        pulse: Pulse | None = None,
    ) -> object:  # fmt: skip
        self.timeouts.append(timeout_s)
        value = function(*args, **kwargs)
        return await value if asyncio.iscoroutine(value) else value

    def keep(
        self, name: str, nth: int, result: bytes, *, failed: bool, attempt: int, started_us: int, wait: bool
    ) -> Awaitable[None] | None:
        assert (name, nth) not in self.kept
        self.kept[name, nth] = Memo(result, failed)
        self.waits.append(wait)
        return asyncio.sleep(0) if wait else None

    async def pause(self, seconds: float) -> None:
        self.pauses.append(seconds)

    def reply(self, reply: Reply) -> None:
        self.replies.append(reply)

    def now_us(self) -> int:
        return 0

    def store_us(self) -> int:
        return self.clock_us

    async def listen(self, name: str, nth: int, wanted: Wanted) -> Heard:
        self.listened.append((name, nth, wanted))
        return self.heard

    async def rest(self, until_us: int, *, look_s: float = math.inf) -> None:
        if until_us > self.clock_us:
            self.rests.append(until_us)
            raise asyncio.CancelledError("put away")

    def context(self) -> Context:
        return Context(self, event_id="0193", workflow="deploy", chance=random.Random(1))
