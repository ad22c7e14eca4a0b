"""Waiting for what began before: transactions that are under way, by the locks that they hold.

Whoever has committed a mark that such a transaction may not have seen waits until all of those have ended. What begins
later sees it.
"""

from __future__ import annotations

import asyncio

from seawall.store.pool import Store
from seawall.store.statement import statements

SETTLE_S = 3.0
"""Longest wait: statements of workers have two seconds."""

LOOK_S = 0.02


async def refills_passed(store: Store, *, timeout_s: float) -> bool:
    """Wait until every refill and flush from before has ended; False: some statement takes too long for that."""
    return await _passed(store, statements("cancel")["refills"], timeout_s=timeout_s)


async def batches_passed(store: Store, *, timeout_s: float) -> bool:
    """Wait until every batch of a router from before has ended; False: one takes too long for that."""
    return await _passed(store, statements("wait")["batches"], timeout_s=timeout_s)


async def _passed(store: Store, statement: str, *, timeout_s: float) -> bool:
    loop = asyncio.get_running_loop()
    before, until = set(await store.value(statement, timeout_s=timeout_s)), loop.time() + SETTLE_S
    while before:
        await asyncio.sleep(LOOK_S)
        before &= set(await store.value(statement, timeout_s=timeout_s))
        if before and loop.time() > until:
            return False
    return True
