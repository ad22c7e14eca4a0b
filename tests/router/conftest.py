from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from router.rig import Rig, opened
from seawall.testing.postgres import Database


@pytest.fixture
async def rig(database: Database) -> AsyncIterator[Rig]:
    async with opened(database) as rig:
        yield rig
