"""Moments at which a workflow begins by itself, and what becomes of those that come while it can't. Pure.

Zones are those of the ``tzdata`` package, and every moment is one of UTC: the wall clock only says which. An entry that
names hours runs once where the wall clock skips them (as soon as it goes on), and once where it repeats them; one for
every hour runs each hour that passes.
"""

from __future__ import annotations

import hashlib
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import msgspec
from cronsim import CronSim, CronSimError

OVERLAPS = ("skip", "queue", "cancel")
CATCH_UPS = ("none", "one", "all")

LATE_US = 60_000_000
"""A moment that is later than this was missed: nobody was there for it."""

MISSED_MAX = 100
"""Missed moments that ``catch_up="all"`` makes up for, the latest ones."""

LOOKED_MAX = 2000
"""Moments looked at in one decision; a line that stood still for longer begins again a day ago."""

KNOWN_MAX = 16
"""Moments from which a schedule knows how it goes on."""

AGAIN_US = 1_000_000
"""How soon it is looked again whether the former run has ended."""

_DAY_US = 86_400_000_000
_encode = msgspec.json.Encoder().encode
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True, kw_only=True)
class Cron:
    """A schedule, as an app declares it. Its workflow has the same name."""

    name: str
    expression: str
    zone: str
    overlap: str
    catch_up: str
    tenant: str | None  # None: every tenant that has a source, each at a time of its own


def cron_of(name: str, expression: str, zone: str, overlap: str, catch_up: str, tenant: str | None) -> Cron:
    """A declaration, checked.

    Raises:
        ValueError, TypeError: Says what is wrong.
    """
    for what, value, words in (("overlap", overlap, OVERLAPS), ("catch_up", catch_up, CATCH_UPS)):
        if value not in words:
            raise ValueError(f"cron {name}: {what}={value!r}; one of {', '.join(words)}")
    if not isinstance(expression, str) or not isinstance(zone, str):
        raise TypeError(f"cron {name}: {expression!r}, tz={zone!r}: text is needed")
    try:
        Schedule(expression, zone)
    except ValueError as error:
        raise ValueError(f"cron {name}: {error}") from None
    return Cron(name=name, expression=expression, zone=zone, overlap=overlap, catch_up=catch_up, tenant=tenant)


class Schedule:
    """When an expression is due.

    Raises:
        ValueError: The expression or the zone is none.
    """

    def __init__(self, expression: str, zone: str) -> None:
        fields = expression.split()
        if len(fields) != 5:
            raise ValueError(f"{expression!r}: five fields are needed (minute, hour, day, month, day of the week)")
        if fields[1] != "*":
            # The library goes by the wall clock only when neither minute nor hour begins with a star. Said so, they
            # mean the same, and such an entry runs in a skipped hour too, and once in a doubled one.
            fields[0] = _spelt(fields[0], "0-59")
            fields[1] = _spelt(fields[1], "0-23")
        self._expression = " ".join(fields)
        self._known: dict[int, tuple[list[int], Iterator[int]]] = {}
        try:
            self._zone = ZoneInfo(zone)
        except (KeyError, ValueError, OSError) as error:  # a name that is a path, a folder, or longer than any
            raise ValueError(f"{zone!r} is no time zone; Europe/Berlin or UTC are some") from error
        try:
            next(CronSim(self._expression, datetime(2026, 1, 1, tzinfo=self._zone)))
        except (CronSimError, StopIteration) as error:
            raise ValueError(f"{expression!r}: {error or 'no such day comes in 50 years'}") from error

    def after(self, us: int) -> Iterator[int]:
        """Moments behind one, in microseconds since 1970, each once, in order; endless."""
        last = us
        for local in CronSim(self._expression, (_EPOCH + timedelta(microseconds=us)).astimezone(self._zone)):
            at = int((local.astimezone(UTC) - _EPOCH).total_seconds()) * 1_000_000
            # Entries of a skipped hour all come to its end, and a doubled hour begins before where we are.
            if at > last:
                last = at
                yield at

    def moments(self, first_us: int, now_us: int) -> Sequence[int]:
        """A moment and those behind it, up to the second one that is later than now; if these are very many, those of
        the last day. Lines of one schedule mostly stand at the same moment, so this is looked for once for all of them:
        after an outage of days there are thousands.
        """
        known = self._known.get(first_us)
        if known is None or known[0][0] > max(first_us, now_us):  # the clock went back, by days
            if len(self._known) >= KNOWN_MAX:
                self._known.clear()
            known = self._known[first_us] = [first_us], self.after(first_us)
        found, behind = known
        while len(found) < 3 or found[-2] <= now_us:
            found.append(next(behind))
            if len(found) > LOOKED_MAX and found[-1] <= now_us:
                last = found[-1]
                found, behind = self._known[first_us] = [last], self.after(max(last, now_us - _DAY_US))
        return found

    def said(self, us: int) -> str:
        """A moment by its wall clock, as ISO 8601."""
        return (_EPOCH + timedelta(microseconds=us)).astimezone(self._zone).isoformat()


def _spelt(field: str, all: str) -> str:
    return ",".join(all + part[1:] if part.startswith("*") else part for part in field.split(","))


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One schedule for one tenant, as the store has it."""

    name: str
    tenant: str
    moment_us: int  # the next one
    spread: bool  # tenants have times of their own
    blocked: bool  # the moment waits for the former run
    running: bool  # the former run hasn't ended
    paused: bool
    overlap: str
    catch_up: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """What becomes of a line that is due."""

    moment_us: int  # the next one
    due_us: int  # when that is looked at
    begins_us: int | None = None  # the moment of which a run begins now
    cancels: bool = False  # the former run
    blocked: bool = False
    skipped: int = 0  # moments that came while the former run hadn't ended
    missed: int = 0  # moments at which nobody was there


def decide(line: Line, schedule: Schedule, now_us: int) -> Decision:
    """What to do of a line that is due, and what comes next."""
    pending, later = _pending(line, schedule, now_us)
    if line.paused:
        return _next(line, later)
    first_us = due_us(line, pending[0], (*pending, *later)[1])
    waits = line.overlap == "queue" or (line.catch_up == "all" and now_us - first_us > LATE_US)
    if line.running and line.overlap != "cancel":
        if waits:
            kept = pending if line.catch_up == "all" else pending[-1:]
            kept = kept[-MISSED_MAX:]
            return Decision(
                moment_us=kept[0], due_us=now_us + AGAIN_US, blocked=True, skipped=len(pending) - len(kept)
            )  # fmt: skip
        return _next(line, later, skipped=len(pending))
    late = now_us - due_us(line, pending[-1], later[0]) > LATE_US
    begins, rest, missed = _chosen(line, pending, late=late)
    cancels = line.running and begins is not None
    return _next(line, (*rest, *later), begins_us=begins, cancels=cancels, missed=missed)


def _pending(line: Line, schedule: Schedule, now_us: int) -> tuple[list[int], list[int]]:
    """Moments that are due, and the two behind them."""
    moments = schedule.moments(line.moment_us, now_us)
    last = max(0, bisect_right(moments, now_us) - 1)
    if last and due_us(line, moments[last], moments[last + 1]) > now_us:
        last -= 1
    return list(moments[: last + 1]), list(moments[last + 1 : last + 3])


def _chosen(line: Line, pending: list[int], *, late: bool) -> tuple[int | None, list[int], int]:
    """Of the moments that are due: which begins, which stay, and how many were missed for good."""
    if line.catch_up == "all":
        kept = pending[-MISSED_MAX:]
        return kept[0], kept[1:], len(pending) - len(kept)
    if late and line.catch_up == "none" and not line.blocked:
        return None, [], len(pending)
    return pending[-1], [], len(pending) - 1


def _next(
    line: Line, later: Sequence[int], *, begins_us: int | None = None, cancels: bool = False, skipped: int = 0,
    missed: int = 0,
) -> Decision:  # fmt: skip
    return Decision(
        moment_us=later[0], due_us=due_us(line, later[0], later[1]), begins_us=begins_us, cancels=cancels,
        skipped=skipped, missed=missed,
    )  # fmt: skip


def due_us(line: Line, moment_us: int, behind_us: int) -> int:
    """When a moment is due: at once, or at the tenant's own place in the time until the next one."""
    if not line.spread:
        return moment_us
    return moment_us + int((behind_us - moment_us) * share(line.name, line.tenant))


def share(name: str, tenant: str) -> float:
    """A tenant's place in the time between two moments, 0 up to 1: always the same, and evenly spread."""
    digest = hashlib.blake2b(f"{name}\0{tenant}".encode("utf-8", "replace"), digest_size=8).digest()
    return int.from_bytes(digest, "big") / 2**64


def body_of(schedule: Schedule, name: str, moment_us: int, last_us: int | None) -> bytes:
    """The body of the event by which a run begins."""
    last = None if last_us is None else schedule.said(last_us)
    return _encode({"cron": name, "moment": schedule.said(moment_us), "last": last})
