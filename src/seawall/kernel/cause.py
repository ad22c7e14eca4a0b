"""Why a run or an event is where no success is: kept as a number beside its status, and said as a word by everybody."""

from __future__ import annotations

from enum import IntEnum
from typing import Final


class Cause(IntEnum):
    """Below 32 of runs, from there on of events. Numbers are stored: none may come to mean another thing."""

    ATTEMPTS = 1  # failed as often as its workflow allows
    NON_RETRYABLE = 2  # it raised what says that trying again can't help
    TIMEOUT = 3  # its last attempt took longer than the workflow allows
    KILLED = 4  # its process kept dying while it was alone in it
    UNSTORABLE = 5  # the store refuses its outcome
    EVENT_GONE = 6
    CANCELLED = 7  # by somebody's hand
    TOTAL_TIMEOUT = 8  # all of it took longer than its workflow allows, its waits and retries with it
    PARENT_ENDED = 9  # the run that had begun it ended before it

    DECODE = 32  # its record can't be read
    REFUSED = 33  # the store refuses it, or handling it ended processes
    MOMENT = 34  # received at no possible time
    REVOKED = 35  # its secret or its source had been ended before
    CONFLICT = 36  # another body came under its key before
    DEPTH = 37  # a queue has as many runs as it may; it goes on by itself

    @property
    def word(self) -> str:
        return self.name.lower().replace("_", "-")


OF_RUNS: Final = tuple(cause for cause in Cause if cause < 32)
OF_EVENTS: Final = tuple(cause for cause in Cause if cause >= 32)

_SHIFT: Final = 4
_MASK: Final = (1 << _SHIFT) - 1


def with_cause(status: int, cause: Cause | None) -> int:
    """Both in one number, as statements take them that store many rows: an array more would cost each run something,
    and nearly none of them has a cause."""
    return int(status) if cause is None else int(status) | cause << _SHIFT


def status_of(number: int) -> int:
    """The status of ``with_cause``."""
    return number & _MASK


def cause_of(number: int) -> Cause:
    """The cause of ``with_cause``, which was given one."""
    return Cause(number >> _SHIFT)


def word_of(cause: int | None) -> str | None:
    """The word for a stored number; that of a newer Seawall is said as it is."""
    if cause is None:
        return None
    try:
        return Cause(cause).word
    except ValueError:
        return str(cause)
