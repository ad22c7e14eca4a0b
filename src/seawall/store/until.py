"""Moments at which runs end, however they stand then: their workflow's total timeout, counted from their first start.

Nothing of this is read or written for runs of other workflows.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

from seawall.kernel.cause import Cause, with_cause
from seawall.kernel.status import RunStatus
from seawall.store.cancel import Marked, mark
from seawall.store.pool import Session, Store
from seawall.store.statement import statements

_SQL = statements("until")

RUNS_MAX: Final = 1000
"""Runs in one call of `expire`."""

TIMED_OUT: Final = with_cause(RunStatus.FAILED, Cause.TOTAL_TIMEOUT)


class Begun(NamedTuple):
    """A run that is about to be called."""

    run_id: int
    total_ms: int
    parent: int | None


async def begin(session: Session, begun: Sequence[Begun]) -> None:
    """Have the time of these runs begin, of those for which it hasn't.

    Raises:
        Unavailable, Uncertain: Safe to repeat.

    Durability: committed before return.
    """
    columns = [b.run_id for b in begun], [b.total_ms for b in begun], [b.parent for b in begun]
    await session.execute(_SQL["begin"], *columns)


async def look(store: Store) -> tuple[bool, bool]:
    """Whether any run's time is over, and whether any run ends with the one that began it.

    Raises:
        Unavailable: Safe to repeat.
    """
    row = await store.row(_SQL["look"])
    assert row is not None
    return row["late"], row["kin"]


async def expire(store: Store) -> tuple[Marked, dict[int, int]]:
    """First half of ending runs whose time is over, at most `RUNS_MAX`; `cancel.settle` is the other.

    Returns:
        What became of them, and of some by which run they were begun.

    Raises:
        Unavailable: Nothing was done.
        Uncertain: Safe to repeat.

    Durability: what has ended, and what is to end, is committed before return.
    """
    async with store.transaction() as session:
        late = await session.fetch(_SQL["due"], RUNS_MAX)
        whys = [f"TimeoutError: it took longer than {row['total_ms'] / 1000:g} s altogether" for row in late]
        ids = [row["run_id"] for row in late]
        marked = await mark(session, ids, whys, ends_as=TIMED_OUT) if ids else Marked()
    return marked, {row["run_id"]: row["parent_id"] for row in late if row["parent_id"] is not None}


async def prune_ended(store: Store, *, after: int, rows_max: int) -> tuple[int, int]:
    """Forget moments of runs that have ended, of the next ``rows_max`` rows; returns how many went, and where to go on.

    Raises:
        Unavailable, Uncertain: Safe to repeat.
    """
    row = await store.row(_SQL["prune_ended"], after, rows_max)
    assert row is not None
    return row["gone"], row["next"]
