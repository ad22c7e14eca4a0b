"""Heartbeats of long steps on their way into the store: many in one statement, each at most every few seconds."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any, TypeVar

from seawall.guard import Heart
from seawall.guard.patience import patiently
from seawall.kernel.clock import Clock
from seawall.kernel.error import Unavailable, Uncertain
from seawall.kernel.seam.pulse import Pulse
from seawall.store.driver import DEPENDENCY
from seawall.store.pool import Store
from seawall.store.progress import Told, last, note
from seawall.worker.asking import Asking

if TYPE_CHECKING:
    from seawall.worker.execution import Execution

T = TypeVar("T")

NOTE_S = 3.0
"""How old what is kept of a step may become while it goes on."""

LOOK_S = 0.5
ROWS_MAX = 1000
"""Steps in one statement."""

READS_MAX = 2
"""Steps that ask at once what is kept of them."""

STORE_PAUSE_S = 0.2

KEEP_S = 1.0
"""How long who was cancelled waits for what it told last to be kept: whoever cancels waits for that."""


class Beating(Pulse):
    """A try of a step, and what of it is in the store."""

    __slots__ = ("execution", "kept", "name", "note_at", "noted_at", "nth")

    def __init__(
        self, execution: Execution, name: str, nth: int, every_s: float, clock: Clock, progress: bytes | None
    ) -> None:  # fmt: skip
        super().__init__(every_s, clock.monotonic, progress, deserted=execution.is_over)
        self.execution = execution
        self.name = name
        self.nth = nth
        self.noted_at = self.at  # the last beat that is in the store; the first is none of the step's own
        self.note_at = 0.0  # not to be written before
        self.kept: asyncio.Future[None] | None = None  # somebody waits for that

    def begin(self) -> None:
        super().begin()
        self.noted_at = self.at

    @property
    def new(self) -> bool:
        """It has told something that isn't in the store, and that anybody will ask for."""
        return self.at != self.noted_at and not self._deserted()

    def settle(self) -> None:
        """Let go on who waits for what it told last, once that is kept: a statement may have had the beat before."""
        if self.kept is not None and not self.kept.done() and not self.new:
            self.kept.set_result(None)


class Beats:
    """Steps with heartbeats that are under way in one process."""

    def __init__(self, store: Store, *, clock: Clock) -> None:
        self._store = store
        self._clock = clock
        self._under_way: set[Beating] = set()
        self._reads = Asking(READS_MAX)
        self._kick = asyncio.Event()
        self._away = False  # it didn't take what was told last
        self.hasty = False
        """The process stops: whatever is told is written at once, as it may be the last of its step here."""

    async def pulse(self, execution: Execution, name: str, nth: int, every_s: float) -> Pulse:
        """For one try of a step, with what an earlier one has told. Waits for the store, as long as its run may."""
        told = await self._reads.until_answered(lambda: last(self._store, execution.id, name, nth))
        return Beating(execution, name, nth, every_s, self._clock, told)

    @property
    def in_vain(self) -> bool:
        """A step waits for an answer of the store, or for what it told to be kept, and the store is away."""
        return self._reads.in_vain or (self._away and any(one.kept is not None for one in self._under_way))

    async def listened(self, pulse: Pulse, call: Coroutine[Any, Any, T]) -> T:
        """Keep what a try tells while it is being called. When it fails, what it told last is in the store before that
        is known: it is made again from there. Cancelled: that was tried for `KEEP_S`, as its run may be tried again."""
        assert isinstance(pulse, Beating), "whoever calls a step made its pulse"
        self._under_way.add(pulse)
        try:
            return await call
        except (Exception, asyncio.CancelledError) as error:
            pulse.over = True  # a thread of it may go on, and tells nothing more
            if pulse.new:
                pulse.kept = asyncio.get_running_loop().create_future()
                self._kick.set()
                cancelled = isinstance(error, asyncio.CancelledError)
                await asyncio.wait([pulse.kept], timeout=KEEP_S if cancelled else None)
            raise
        finally:
            pulse.over = True
            self._under_way.discard(pulse)

    async def run(self, heart: Heart) -> None:
        """The supervised loop."""
        while True:
            try:
                await patiently(heart, self._note(), what=DEPENDENCY)
                self._away = False
                await heart.beat()
            except (Unavailable, Uncertain) as error:
                self._away = True
                heart.unready(str(error))
                await asyncio.sleep(STORE_PAUSE_S)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(LOOK_S):
                    await self._kick.wait()
            self._kick.clear()

    async def _note(self) -> None:
        now = self._clock.monotonic()
        due = [one for one in self._under_way if one.new and (self.hasty or one.kept is not None or now >= one.note_at)]
        for start in range(0, len(due), ROWS_MAX):
            part = due[start : start + ROWS_MAX]
            seen = [one.at for one in part]  # a thread may beat at any moment
            await note(self._store, [_told(one, now - at) for one, at in zip(part, seen, strict=True)])
            for one, at in zip(part, seen, strict=True):
                one.noted_at, one.note_at = at, now + NOTE_S
        for one in self._under_way:
            one.settle()


def _told(one: Beating, age_s: float) -> Told:
    age_ms = max(0, int(age_s * 1000))
    return Told(one.execution.held.lease, one.execution.id, one.name, one.nth, one.progress, age_ms)
