"""The waiting part of a run: it is put away in the store, holds no slot there, and is called again when it is time."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

import msgspec

from seawall.kernel.correlation import Value
from seawall.kernel.seam.run import Run


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """Which event is waited for, and how long."""

    type: str
    fields: tuple[tuple[str, Value], ...]  # in the order of kernel.correlation.ways
    timeout_us: int | None  # None: for ever
    lookback_us: int  # one that was accepted so long before counts too


class Arrived(msgspec.Struct, frozen=True, kw_only=True):
    """The event that came."""

    id: str
    type: str
    source: str
    tenant: str
    received_us: int
    headers: bytes
    body: bytes


class Heard(msgspec.Struct, frozen=True, kw_only=True):
    """How a wait stands; its end is what is remembered of it."""

    event: Arrived | None = None
    over: bool = False  # none came in time
    until_us: int | None = None  # by the store's clock: when to look again; None: when the run is called again


class WaitingRun(Run, Protocol):
    """One execution of one run that may also wait."""

    def store_us(self) -> int:
        """What the store's clock says now, in microseconds since 1970: the one clock by which all executions of a run
        wait, whatever happens to the clocks of the machines that they are on."""

    async def rest(self, until_us: int, *, look_s: float = math.inf) -> None:
        """Return when the store's clock says so.

        While all of the run's tasks do nothing but this, it is put away: this execution ends by cancellation, and
        another one is begun when the first of the moments has come, or an event that one of its waits wants.

        Args:
            until_us: By ``store_us``.
            look_s: Return so early while the run can't be put away.

        Raises:
            CancelledError: The run is put away, or isn't ours any more.

        Durability: the run's next execution is committed before this one is forgotten.
        """

    async def listen(self, name: str, nth: int, wanted: Wanted) -> Heard:
        """Open a wait, or see how it stands; from its opening on no event that is wanted can be missed.

        Args:
            name, nth: As a step is kept.

        Raises:
            ValueError: Events of this type are waited for by too many different fields.

        Durability: what is said is committed. An end is final.
        Cancelled: the run is being put away; the wait may be open.
        """
