"""What an operator changes while PostgreSQL's queue of notifications is full."""

from __future__ import annotations

from router.test_notify_full import fill, small_queue
from seawall.guard.flag import Wish
from seawall.kernel.clock import SystemClock
from seawall.store import change, pool
from seawall.store.flag import Flags
from seawall.store.pool import Store
from seawall.store.source import Sources
from seawall.store.vault import Vault
from seawall.testing.postgres import PostgresServer
from store.test_flag_store import GEO


async def test_flags_and_sources_are_changed_while_nobody_can_be_told(server: PostgresServer) -> None:
    """A kill switch couldn't be pulled, and no secret revoked, since somebody listened in an open transaction."""
    await small_queue(server)
    async with Store(pool.Settings(dsn=server.dsn(database="seawall")), role="test") as store:
        sources, flags = Sources(store, Vault(bytes(32))), Flags(store)
        listener = await fill(server.dsn())
        try:
            _, after = await flags.put(GEO, Wish(value=False), version=0, author=change.Author("a", SystemClock(), "b"))
            assert after.value is False and (await flags.load(timeout_s=5)).settings["geo"] == after
            await sources.add(name="a", kind="github", tenant="default", settings="{}", secret=b"s1")
            key_id, _ = await sources.rotate("a", b"s2")
            await sources.revoke("a", key_id)
            version = await sources.remove("a")
            loaded, _ = await sources.load(timeout_s=5)
            assert loaded.version == version
        finally:
            await listener.close()
