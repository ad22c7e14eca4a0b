"""The waiting part of a run: it is put away in the store, holds no slot there, and is called again when it is time."""

from __future__ import annotations

from typing import Protocol

from seawall.kernel.seam.run import Run


class WaitingRun(Run, Protocol):
    """One execution of one run that may also wait."""

    def store_us(self) -> int:
        """What the store's clock says now, in microseconds since 1970: the one clock by which all executions of a run
        wait, whatever happens to the clocks of the machines that they are on."""

    async def rest(self, until_us: int) -> None:
        """Return when the store's clock says so.

        While all of the run's tasks do nothing but this, it is put away: this execution ends by cancellation, and
        another one is begun when the first of the moments has come.

        Args:
            until_us: By ``store_us``.

        Raises:
            CancelledError: The run is put away, or isn't ours any more.

        Durability: the run's next execution is committed before this one is forgotten.
        """
