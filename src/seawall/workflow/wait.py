"""What a run waits for without holding a slot. Each wait is remembered like a step, so that a replay knows its end."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from datetime import UTC, datetime

import msgspec

from seawall.kernel import limit
from seawall.kernel.correlation import LOOKBACK_MAX_S, Value, ways
from seawall.kernel.pointer import quoted
from seawall.kernel.seam.wait import Arrived, Heard, WaitingRun, Wanted
from seawall.workflow.branch import Branch, current
from seawall.workflow.event import Event

SLEEP_MAX_S = 366 * 86_400.0
FOREVER_US = 100 * 366 * 86_400 * 1_000_000
LOOK_S = 2.0
"""How often a wait is looked at while its run can't be put away."""

_encode = msgspec.json.Encoder().encode


class Rest(msgspec.Struct):
    """What is kept of a sleep."""

    until_us: int  # by the store's clock


_decode = msgspec.json.Decoder(Rest).decode
_decode_heard = msgspec.json.Decoder(Heard).decode


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

    async def wait_for(
        self, type: str, *, key: Value | None = None, match: Mapping[str, Value] | None = None,
        timeout: float | None = None, lookback: float = 0.0, name: str = "ctx.wait_for",
    ) -> Event | None:  # fmt: skip
        """Wait, without a slot, for an event of this tenant; as in ``sleep`` the workflow is put away meanwhile.

        ::

            answer = await ctx.wait_for("incident.acknowledged", match={"/incident/id": id}, timeout=600)

        An event counts when it was accepted after the wait began, or at most ``lookback`` before, and has these values;
        the earliest one ends the wait. The run's own event doesn't count, nor one that ended another wait of it.

        Args:
            type: The event's type, exactly.
            key: What its body's field ``key`` must be: short for ``match={"key": key}``.
            match: By field (a name, or a JSON Pointer as ``/incident/id``) what it must be: text, whole number or bool.
            timeout: Seconds until it is given up, at most 366 days; None: never. An event that was accepted before
                counts, however late it is routed, and so nobody is told that none came before all that came is routed
                (at most 15 minutes later).
            lookback: Seconds, at most a day. Events are found by fields that some run has waited by before they came.
            name: Under which it is remembered, as for a step.

        Returns:
            The event, or None: none came in time. A replay gets the same.

        Raises:
            ValueError, TypeError: That is nothing to wait for.
            RuntimeError: A step called it.

        Durability: an event can't be missed from the moment that the wait is open, across crashes of everything.
        """
        wanted = _wanted(name, type, key, match, timeout, lookback)
        branch = self._waiting(name)
        kept, nth = branch.occurrence(checked_name(name))
        memo = self._run.recall(kept, nth)
        if memo is None:
            branch.busy += 1  # while it is being opened, nothing that sleeps beside it may put the run away
            try:
                heard = await self._heard(kept, nth, wanted)
            finally:
                branch.busy -= 1
        else:
            heard = _decode_heard(memo.result)
        return None if heard.event is None else _event(heard.event)

    async def _heard(self, key: str, nth: int, wanted: Wanted) -> Heard:
        """The end of a wait, kept."""
        run = self._run
        began_us = run.now_us()
        while not ((heard := await run.listen(key, nth, wanted)).event or heard.over):
            until_us = run.store_us() + FOREVER_US if heard.until_us is None else heard.until_us
            await run.rest(until_us, look_s=LOOK_S)
        done = run.keep(key, nth, _encode(heard), failed=False, attempt=1, started_us=began_us, wait=True)
        assert done is not None
        await done
        return heard

    def _here(self) -> Branch:
        return current.get() or self.branch

    def _waiting(self, name: str) -> Branch:
        branch = self._here()
        if branch.nth >= 0:
            raise RuntimeError(f"{name}: a step can't wait without its slot: let the workflow wait between two steps")
        return branch

    async def _sleep(self, name: str, until_us: Callable[[], int]) -> None:
        key, nth = self._waiting(name).occurrence(checked_name(name))
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


def _wanted(
    name: str, type: str, key: Value | None, match: Mapping[str, Value] | None, timeout: float | None, lookback: float
) -> Wanted:
    if not isinstance(type, str) or not 0 < len(type) <= limit.TYPE_CHARS_MAX or not type.isprintable():
        raise ValueError(f"{name}: type={type!r}: 1 to {limit.TYPE_CHARS_MAX} printable characters are needed")
    given = dict(match or {}) | ({} if key is None else {"key": key})
    for field, value in given.items():
        if not isinstance(field, str) or not isinstance(value, str | int):
            raise TypeError(f"{name}: {field!r}: {value!r}: a field's name, and text, a whole number or a bool")
        if not field.isprintable():
            raise ValueError(f"{name}: {field!r}: a field's name of printable characters is needed")
    values = {field if field.startswith("/") else "/" + quoted(field): value for field, value in given.items()}
    if not 0 <= lookback <= LOOKBACK_MAX_S:
        raise ValueError(f"{name}: lookback={lookback!r}: 0 to {LOOKBACK_MAX_S:g} seconds are possible")
    return Wanted(
        type=type,
        fields=tuple((field, values[field]) for field, _ in ways(values)),
        timeout_us=None if timeout is None else int(_seconds(name, timeout, 0, 0, 0) * 1_000_000),
        lookback_us=int(lookback * 1_000_000),
    )


def _event(arrived: Arrived) -> Event:
    return Event(
        id=arrived.id, type=arrived.type, tenant=arrived.tenant, source=arrived.source,
        received_at=datetime.fromtimestamp(arrived.received_us / 1_000_000, tz=UTC), headers=arrived.headers,
        body=arrived.body,
    )  # fmt: skip
