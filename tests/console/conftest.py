"""What tests of the console share: a store with things in it, and the API over it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from console.test_console import Api, api
from responder.world import World, world
from seawall.console.setting import Settings
from seawall.testing.postgres import Database


@pytest.fixture
async def here(database: Database) -> AsyncIterator[World]:
    async with world(database.dsn) as made:
        yield made


@pytest.fixture
async def it(database: Database, tmp_path: Any) -> AsyncIterator[Api]:
    async with api(database.dsn, tmp_path) as made:
        yield made


@pytest.fixture
async def patient(database: Database, tmp_path: Any) -> AsyncIterator[Api]:
    """One that waits until a change is live, however long a busy machine takes for that."""
    async with api(database.dsn, tmp_path, Settings(live_s=20.0)) as made:
        yield made
