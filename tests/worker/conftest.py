from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from seawall.store import pool
from seawall.store.pool import Store
from seawall.testing.postgres import Database
from worker.rig import Rig, opened


@pytest.fixture
async def rig(database: Database) -> AsyncIterator[Rig]:
    """A fresh database, and workers over it."""
    async with opened(database) as made:
        yield made


@pytest.fixture
async def store(rig: Rig) -> AsyncIterator[Store]:
    """The test's own way to the store, beside its workers'."""
    async with Store(pool.Settings(dsn=rig.database.dsn), role="test") as made:
        yield made
