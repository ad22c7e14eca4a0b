"""What to do when a log isn't what its position says: read all of it again, and say so.

Its folder was put back from a copy, or two collectors write copies of it; a topic was made anew, or Kafka lost the
newest records of a partition. What was accepted since would be passed over as soon as its place lies before the
position; read again, what is in the store already collapses.
"""

from __future__ import annotations

from typing import Protocol

from seawall.guard.patience import patiently, rest
from seawall.guard.spell import Spells
from seawall.guard.supervisor import Heart
from seawall.kernel.error import Unavailable, Uncertain, Unstorable
from seawall.kernel.log import fields, logger
from seawall.kernel.seam.journal import Displaced, Replaced, WentBack
from seawall.router.alarm import read_anew, replaced, went_back
from seawall.router.meter import Meter
from seawall.router.range import STORE, Anew, Ranges

log = logger("router")

PAUSE_S = 1.0


class Desk(Protocol):
    """What it needs of the router's desk."""

    @property
    def meter(self) -> Meter: ...

    @property
    def spells(self) -> Spells: ...


async def begin_anew(heart: Heart, name: str, ranges: Ranges, desk: Desk, error: Displaced) -> None:
    """Put the log's position back to its start, unless that was done a short while ago.

    Two copies of a log, each with its router, put each other back by turns. In the growing pauses between (see
    `Ranges.begin_anew`) either of them reads to its end, so neither loses anything; and readiness tells of it.
    """
    try:
        begun = await patiently(heart, ranges.begin_anew(error), what=STORE)
    except (Unavailable, Uncertain, Unstorable) as failure:  # Unstorable: a part of that number came meanwhile
        log.warning("the log's position isn't put back yet", extra=fields(log=name, cause=str(failure)))
        await rest(heart, PAUSE_S, reason=f"log {name}: {error}")
        return
    if begun is Anew.LATER:
        await rest(heart, PAUSE_S, reason=f"log {name}: {error}; is there a second copy of this log at work?")
        return
    if begun is Anew.DONE:
        desk.meter.anew.value += 1
        _say(name, desk, error)
    await heart.beat()


def _say(name: str, desk: Desk, error: Displaced) -> None:
    said = fields(log=name, cause=str(error))
    if isinstance(error, WentBack):
        desk.meter.went_back.value += 1
        log.error(
            "the log lost records that were read of it: all that it keeps is read again, and copies collapse",
            extra=said,
        )  # fmt: skip
        went_back(desk.spells, name, str(error))
    elif isinstance(error, Replaced):
        log.warning("the log is a new one under an old name: it is read from its start", extra=said)
        replaced(desk.spells, name, str(error))
    else:
        log.warning(
            "the log was put back from a copy, or there is a second copy of it: all of it is read again, and copies "
            "collapse; what only the lost part held is lost with it",
            extra=said,
        )
        read_anew(desk.spells, name)
