"""What the store's server says of itself, for the doctor."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from seawall.store.pool import Store
from seawall.store.statement import statements

_SQL = statements("server")


COMMIT_OF = "synchronous_commit of "


async def examined(store: Store, roles: Sequence[str], *, timeout_s: float) -> Mapping[str, str]:
    """Its settings by name as our own session has them, ``recovering`` (true or false) and ``now_us``, its wall clock.
    For each of ``roles`` for which another is chosen, COMMIT_OF its name: the ``synchronous_commit`` that it begins
    with, since whoever asks sees only the one of its own role.

    Raises:
        Unavailable: It doesn't answer in time.
    """
    rows = await store.fetch(_SQL["examine"], timeout_s=timeout_s)
    chosen = await store.fetch(_SQL["examine_roles"], list(roles), timeout_s=timeout_s)
    return {row["name"]: row["setting"] for row in rows} | {
        f"{COMMIT_OF}{row['role']}": row["setting"] for row in chosen if row["setting"] is not None
    }
