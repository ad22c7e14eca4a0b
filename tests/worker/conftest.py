from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from seawall.testing.postgres import Database
from .part import Rig
from .part import rig as make_rig


@pytest.fixture
async def rig(database: Database) -> AsyncIterator[Rig]:
    """A fresh database, and workers over it."""
    async with make_rig(database) as made:
        yield made
