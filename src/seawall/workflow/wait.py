"""What a run waits for without holding a slot. Each wait is remembered like a step, so that a replay knows its end."""

from __future__ import annotations

import math
from collections.abc import Callable
from datetime import datetime

import msgspec

from seawall.kernel import limit
from seawall.kernel.seam.wait import WaitingRun
from seawall.workflow.branch import Branch, current

SLEEP_MAX_S = 366 * 86_400.0

_encode = msgspec.json.Encoder().encode


class Rest(msgspec.Struct):
    """What is kept of a sleep."""

    until_us: int  # by the store's clock


_decode = msgspec.json.Decoder(Rest).decode


class Waits:
    """The part of a context that waits."""

    __slots__ = ("_run", "branch")

    def __init__(self, run: WaitingRun) -> None:
        self._run = run
        self.branch = Branch(run=run.id)
        """The run's own task: whoever calls the workflow makes it `current` there."""

    async def sleep(
        self, seconds: float = 0.0, *, minutes: float = 0.0, hours: float = 0.0, days: float = 0.0,
        name: str = "ctx.sleep",
    ) -> None:  # fmt: skip
        """Wait, without a slot: the workflow is put away, and called again from its beginning when it is time.

        What it was doing beside its steps is cut off by cancellation (a ``finally`` is run), so take effects in steps.
        It is put away when all its tasks wait or have ended; one that others were begun in is taken to wait for them.
        Up to a second is waited in memory.

        Args:
            seconds, minutes, hours, days: Together at most 366 days, from when the workflow first comes here.
            name: Under which it is remembered, as for a step.

        Raises:
            ValueError, TypeError: That is no such time.
            RuntimeError: A step called it.

        Durability: the moment is kept by the commit that puts the run away. No attempt's ``timeout_s`` goes on while it
            waits.
        """
        delay_us = int(_seconds(name, seconds, minutes, hours, days) * 1_000_000)
        await self._sleep(name, lambda: self._run.store_us() + delay_us)

    async def sleep_until(self, moment: datetime, *, name: str = "ctx.sleep_until") -> None:
        """As ``sleep``, until a moment, which says its time zone. One that has passed is no wait."""
        until_us = _moment_us(name, moment)
        await self._sleep(name, lambda: until_us)

    def _here(self) -> Branch:
        return current.get() or self.branch

    async def _sleep(self, name: str, until_us: Callable[[], int]) -> None:
        branch = self._here()
        if branch.nth >= 0:
            raise RuntimeError(f"{name}: a step can't wait without its slot: let the workflow wait between two steps")
        key, nth = branch.occurrence(checked_name(name))
        memo = self._run.recall(key, nth)
        if memo is not None:
            await self._run.rest(_decode(memo.result).until_us)
            return
        rest = Rest(until_us())
        self._run.keep(key, nth, _encode(rest), failed=False, attempt=1, started_us=self._run.now_us(), wait=False)
        await self._run.rest(rest.until_us)


def checked_name(name: str) -> str:
    if not 0 < len(name) <= limit.NAME_CHARS_MAX or not name.isprintable():
        raise ValueError(f"step name={name!r}: 1 to {limit.NAME_CHARS_MAX} printable characters are needed")
    return name


def _seconds(name: str, *parts: float) -> float:
    """A time to wait, of its seconds, minutes, hours and days.

    Raises:
        TypeError, ValueError: It is no such thing.
    """
    if not all(isinstance(part, int | float) for part in parts):
        raise TypeError(f"{name}: {parts!r}: numbers are needed")
    total_s = sum(part * unit_s for part, unit_s in zip(parts, (1, 60, 3600, 86_400), strict=True))
    if not (math.isfinite(total_s) and 0 <= total_s <= SLEEP_MAX_S):
        raise ValueError(f"{name}: {total_s:g} seconds; 0 to {SLEEP_MAX_S:g} (366 days) are possible")
    return total_s


def _moment_us(name: str, moment: datetime) -> int:
    """A moment, in microseconds since 1970.

    Raises:
        TypeError, ValueError: It is no moment, or doesn't say in which time zone.
    """
    if not isinstance(moment, datetime):
        raise TypeError(f"{name}: {moment!r}: a datetime is needed")
    if moment.tzinfo is None:
        raise ValueError(f"{name}: {moment.isoformat()} says no time zone: give it one, datetime.now(UTC) for instance")
    return int(moment.timestamp() * 1_000_000)
