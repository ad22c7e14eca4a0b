from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from seawall.testing.postgres import Database
from worker.rig import Rig, opened


@pytest.fixture
async def rig(database: Database) -> AsyncIterator[Rig]:
    """A fresh database, and workers over it."""
    async with opened(database) as made:
        yield made
