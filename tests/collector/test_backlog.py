"""What waits of a collector's log is what the positions in the store leave, and all of it where no router has been."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from seawall.collector.backlog import Routed
from seawall.journal import Log, Settings
from seawall.kernel.error import Unavailable
from seawall.kernel.metric import Metrics
from seawall.kernel.seam.journal import Position
from seawall.store import position
from seawall.store.pool import Settings as StoreSettings
from seawall.store.pool import Store
from seawall.testing.postgres import Database


async def test_what_no_router_has_seen_waits_and_what_is_routed_does_not(tmp_path: Path, database: Database) -> None:
    async with (
        Log(tmp_path / "c1", Settings(), metrics=Metrics(), on_failure=print) as log,
        Store(StoreSettings(dsn=database.dsn), role="test") as store,
    ):
        backlog = Routed(log, store)
        [all_] = await backlog.unread()
        assert all_.at <= Position(log.log_id, 1, 0)
        assert all_.end is None
        await position.begin(store, log.synced_end)
        [rest] = await backlog.unread()
        assert rest.at == log.synced_end
        assert rest.end is None
        room_bytes = await backlog.room_bytes()
        assert room_bytes > 0
        log.reload(replace(Settings(), reserve_bytes=1 << 50, resume_bytes=2 << 50))
        assert await backlog.room_bytes() == 0


async def test_without_the_store_nobody_can_say_what_waits(tmp_path: Path) -> None:
    async with (
        Log(tmp_path / "c1", Settings(), metrics=Metrics(), on_failure=print) as log,
        Store(StoreSettings(dsn="postgresql://127.0.0.1:1/none", connect_timeout_s=0.5), role="test") as store,
    ):
        with pytest.raises(Unavailable):
            await Routed(log, store).unread()
