"""One moment of the store, for pg_dump and for whoever must know where the router stood at that moment."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass

from seawall.kernel.error import Unavailable, Uncertain
from seawall.kernel.log import fields, logger
from seawall.kernel.seam.journal import Position
from seawall.store import pool
from seawall.store.pool import Session, Store
from seawall.store.statement import statements

log = logger("store")

_SQL = statements("backup")


@dataclass(frozen=True, slots=True)
class Moment:
    """A snapshot that other sessions can look at while it is held."""

    snapshot: str  # for ``pg_dump --snapshot``
    positions: Sequence[Position]  # of each log, where what is still to be routed begins


@contextlib.asynccontextmanager
async def moment(dsn: str, *, timeout_s: float) -> AsyncIterator[Moment]:
    """Hold one moment of the store, for at most ``timeout_s``. Nothing is written.

    Raises:
        Unavailable: The store is away. Not when it goes away at the very end: whoever looked at the moment has seen it.
    """
    used = False
    try:
        async with (
            Store(pool.Settings(dsn=dsn, connections_max=1), role="backup") as store,
            store.transaction(timeout_s=timeout_s) as session,
        ):
            found = await _look(session)
            yield found
            used = True
    except (Unavailable, Uncertain) as error:
        if not used:
            raise
        log.debug("the held moment was gone before it was let go", extra=fields(cause=str(error)))


async def _look(session: Session) -> Moment:
    for first in ("hold_still", "be_patient"):
        await session.execute(_SQL[first])
    snapshot: str = await session.value(_SQL["export"])
    rows = await session.fetch(_SQL["oldest_positions"]) if await session.value(_SQL["is_migrated"]) else []
    return Moment(snapshot, [Position(row["log_id"].bytes, row["segment"], row["offset"], row["salt"]) for row in rows])
