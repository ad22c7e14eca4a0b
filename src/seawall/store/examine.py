"""What the store's server says of itself, for the doctor."""

from __future__ import annotations

from collections.abc import Mapping

from seawall.store.pool import Store
from seawall.store.statement import statements

_SQL = statements("server")


async def examined(store: Store, *, timeout_s: float) -> Mapping[str, str]:
    """Its settings by name, ``recovering`` (true or false) and ``now_us``, its wall clock.

    Raises:
        Unavailable: It doesn't answer in time.
    """
    rows = await store.fetch(_SQL["examine"], timeout_s=timeout_s)
    return {row["name"]: row["setting"] for row in rows}
