"""What a selection names, as the ids by which tables are read."""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

from seawall.kernel.selection import Selection
from seawall.store.pool import Store
from seawall.store.statement import statements

_SQL = statements("narrow")


async def workflow_ids(store: Store, narrow: Selection, *, timeout_s: float) -> list[int] | None:
    """Ids of workflows that are meant; None: any. Raises Unavailable, as all here."""
    if narrow.workflow is None and narrow.version is None:
        return None
    names, versions = texts(narrow.workflow), texts(narrow.version)
    found: list[int] = await store.value(_SQL["workflow_ids"], names, versions, timeout_s=timeout_s)
    return found


async def queue_ids(store: Store, queues: Sequence[str] | None, *, timeout_s: float) -> list[int] | None:
    """Ids of queues; None: any."""
    if queues is None:
        return None
    found: list[int] = await store.value(_SQL["queue_ids"], texts(queues), timeout_s=timeout_s)
    return found


async def source_ids(store: Store, sources: Sequence[str] | None, *, timeout_s: float) -> list[UUID] | None:
    """Ids of sources given by name or id; empty: there is none. None: any."""
    if sources is None:
        return None
    found: list[UUID] = []
    names: list[str] = []
    for source in sources:
        try:
            # Taken as it is: events outlive their source's row when the store was restored to an older state.
            found.append(UUID(source))
        except ValueError:
            names.append(source)
    if names:
        found += [row["id"] for row in await store.fetch(_SQL["source_ids"], names, timeout_s=timeout_s)]
    return found


def texts(words: Sequence[str] | None) -> list[str] | None:
    """As an array of a statement; None: null."""
    return None if words is None else list(words)
