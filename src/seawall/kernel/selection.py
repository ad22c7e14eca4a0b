"""A selection: which runs or events somebody means, as they write it, and as parameters of fixed statements.

::

    source=gh, type=github.*, state=failed|dead, since=2h
    tenant="a, b" and queue=runbooks

Terms are joined by ``,`` or ``and``: all of them must hold. A value may be one of several, joined by ``|``; one with
other characters than letters, digits and ``._:@/+-*`` stands in double quotes. ``*`` is anything, in types alone.

When: ``since`` and ``until`` mean the moment at which the event was accepted, which its id has in it. So they bound
what is looked at, also for runs: those of a day lie together.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, TypeVar

from seawall.kernel.cause import OF_EVENTS, OF_RUNS, Cause
from seawall.kernel.error import Rejected
from seawall.kernel.event import DAY_MS
from seawall.kernel.limit import TYPE_CHARS_MAX
from seawall.kernel.moment import moment_us
from seawall.kernel.status import DAY_SHIFT, EventStatus, RunStatus

N = TypeVar("N", bound=int)

TEXT_CHARS_MAX: Final = 2_000
VALUES_MAX: Final = 50
"""Of one word."""

SINCE_S: Final = 86_400
"""How far back ended runs and events are looked for, when nothing else is said."""

ENDED: Final = frozenset((RunStatus.SUCCEEDED, RunStatus.FAILED, RunStatus.CANCELLED, RunStatus.DEAD))
UNFINISHED: Final = frozenset(RunStatus) - ENDED
READY: Final = "ready"

_WORD = re.compile(r"\s*([A-Za-z_]+)\s*=\s*")
_VALUE = re.compile(r'"((?:[^"\\]|\\.)*)"|([\w.:@/+*-]+)')
_OR = re.compile(r"\s*\|\s*")
_AND = re.compile(r"\s*,\s*|\s+and\s+", re.IGNORECASE)
_LAST_US: Final = (1 << 48) * 1000 - 1
_RUN_ID_MAX: Final = 2**63 - 1

RUN_STATES: Final[Mapping[str, Collection[RunStatus]]] = {
    READY: (RunStatus.QUEUED, RunStatus.RUNNING),
    **{status.word: (status,) for status in RunStatus},
}
EVENT_STATES: Final[Mapping[str, Collection[EventStatus]]] = {
    status.name.lower(): (status,) for status in EventStatus if status is not EventStatus.ACCEPTED
}

_NAMES: Final = ("source", "type", "tenant", "queue", "workflow", "version")
_TIMES: Final = ("since", "until")
_OF_RUNS: Final = (*_NAMES, "state", "cause", *_TIMES)
_OF_EVENTS: Final = ("source", "type", "tenant", "state", "cause", *_TIMES)


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """What is meant. A tuple's values are alternatives; None: any."""

    source: tuple[str, ...] | None = None  # names
    type: tuple[str, ...] | None = None  # with * for anything
    tenant: tuple[str, ...] | None = None
    queue: tuple[str, ...] | None = None
    workflow: tuple[str, ...] | None = None
    version: tuple[str, ...] | None = None
    states: frozenset[int] | None = None  # RunStatus or EventStatus
    causes: frozenset[Cause] | None = None
    since_us: int | None = None  # when the event was accepted, microseconds since 1970
    until_us: int | None = None

    @property
    def likes(self) -> list[str] | None:
        """Types as patterns of SQL's ``like``."""
        return None if self.type is None else [_like(pattern) for pattern in self.type]

    @property
    def statuses(self) -> list[int] | None:
        return None if self.states is None else sorted(self.states)

    @property
    def cause_numbers(self) -> list[int] | None:
        return None if self.causes is None else sorted(self.causes)

    @property
    def event_ids(self) -> tuple[bytes, bytes]:
        """First event id that is meant, and first one behind those that are."""
        low = 0 if self.since_us is None else min(self.since_us, _LAST_US) // 1000
        high = _LAST_US // 1000 if self.until_us is None else min(self.until_us, _LAST_US) // 1000
        return low.to_bytes(6, "big") + bytes(10), high.to_bytes(6, "big") + bytes(10)

    @property
    def run_ids(self) -> tuple[int, int]:
        """First run id of the first day, and first one behind the last day."""
        first, last = (int.from_bytes(id[:6], "big") // DAY_MS for id in self.event_ids)
        return min(first << DAY_SHIFT, _RUN_ID_MAX), min((last + 1) << DAY_SHIFT, _RUN_ID_MAX)


def of_runs(text: str, *, now_us: int) -> Selection:
    """What a text says of runs.

    Raises:
        Rejected: 422, with the word that isn't known and those that are.
    """
    return _selection(_terms(text, _OF_RUNS), RUN_STATES, OF_RUNS, now_us)


def of_events(text: str, *, now_us: int) -> Selection:
    """What a text says of events. Raises as ``of_runs``."""
    return _selection(_terms(text, _OF_EVENTS), EVENT_STATES, OF_EVENTS, now_us)


def _selection(
    terms: Mapping[str, tuple[str, ...]], states: Mapping[str, Collection[int]], causes: Sequence[Cause], now_us: int
) -> Selection:
    names = {name: terms[name] for name in _NAMES if name in terms}
    since_us, until_us = (_moment(name, terms, now_us) for name in _TIMES)
    if since_us is not None and until_us is not None and since_us >= until_us:
        raise _bad("since must be before until")
    return Selection(
        **names, states=_numbers("state", terms, states), since_us=since_us, until_us=until_us,
        causes=_numbers("cause", terms, {cause.word: (cause,) for cause in causes}),
    )  # fmt: skip


def _numbers(
    name: str, terms: Mapping[str, tuple[str, ...]], words: Mapping[str, Collection[N]]
) -> frozenset[N] | None:
    if name not in terms:
        return None
    unknown = [value for value in terms[name] if value not in words]
    if unknown:
        raise _bad(f"{name}={unknown[0]} isn't known; there are {', '.join(words)}")
    return frozenset(number for value in terms[name] for number in words[value])


def _moment(name: str, terms: Mapping[str, tuple[str, ...]], now_us: int) -> int | None:
    if name not in terms:
        return None
    if len(terms[name]) > 1:
        raise _bad(f"{name} is one moment")
    try:
        return moment_us(terms[name][0], now_us=now_us)
    except ValueError as error:
        raise _bad(f"{name} is {error}") from error


def _terms(text: str, known: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """Values by word."""
    if len(text) > TEXT_CHARS_MAX or "\0" in text or text.encode("utf-8", "replace").decode() != text:
        raise _bad(f"it is text of at most {TEXT_CHARS_MAX} characters, without NUL")
    found: dict[str, tuple[str, ...]] = {}
    text = text.strip()
    at = 0
    while at < len(text):
        word = _WORD.match(text, at)
        if word is None:
            raise _bad(f"at {text[at : at + 30]!r} a word, = and a value are missing; words: {', '.join(known)}")
        name = word[1].lower()
        if name not in known:
            raise _bad(f"{name[:TYPE_CHARS_MAX]!r} isn't known here; there are {', '.join(known)}")
        if name in found:
            raise _bad(f"{name} is given twice; write {name}=ONE|OTHER")
        found[name], at = _values(name, text, word.end())
        joint = _AND.match(text, at)
        if joint is None and at < len(text):
            raise _bad(f'at {text[at : at + 30]!r}: terms are joined by , or and; other characters stand in "…"')
        if joint is not None:
            at = joint.end()
            if at == len(text):
                raise _bad("it ends with a joint, and nothing behind it")
    return found


def _values(name: str, text: str, at: int) -> tuple[tuple[str, ...], int]:
    """Alternatives from ``at`` on, and where they end."""
    values: list[str] = []
    while True:
        value = _VALUE.match(text, at)
        if value is None:
            raise _bad(f'{name} has no value at {text[at : at + 30]!r}; one with other characters stands in "…"')
        values.append(value[2] if value[1] is None else re.sub(r"\\(.)", r"\1", value[1]))
        if not values[-1] or len(values[-1]) > TYPE_CHARS_MAX or len(values) > VALUES_MAX:
            raise _bad(f"{name} has 1 to {VALUES_MAX} values of 1 to {TYPE_CHARS_MAX} characters")
        at = value.end()
        more = _OR.match(text, at)
        if more is None:
            return tuple(values), at
        at = more.end()


def _like(pattern: str) -> str:
    return re.sub(r"([\\%_])", r"\\\1", pattern).replace("*", "%")


def _bad(detail: str) -> Rejected:
    return Rejected(422, "Bad selection", detail)
