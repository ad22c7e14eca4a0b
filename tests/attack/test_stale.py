"""A collector cut off from the store while secrets are rotated and revoked: the real store, collector and router."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast
from urllib.parse import quote

import asyncpg
import pytest

from attack.rig import post, status
from collector.rig import QUICK, Rig, SourceTable, running, until
from router.rig import Rig as Routed
from seawall.kernel import signature
from seawall.kernel.alert import Alerts
from seawall.kernel.clock import SystemClock
from seawall.store import pool
from seawall.store.pool import Store
from seawall.store.source import Sources
from seawall.store.vault import Vault
from seawall.testing import MemoryJournal
from seawall.testing.postgres import PostgresServer
from store.proxy import Proxy

CLOCK = SystemClock()
STALE_S = 0.5
ROUTED, HELD = 1, 2


@dataclass
class Site:
    """A platform whose collector may be cut off."""

    admin: Sources  # reaches the store at any time
    line: Proxy  # the collector's way to it
    store: Store  # the collector's
    journal: MemoryJournal
    folder: Path
    dsn: str

    @contextlib.asynccontextmanager
    async def collector(self, *, ready: bool = True) -> AsyncIterator[Rig]:
        sources = cast("SourceTable", Sources(self.store, Vault(b"k" * 32)))
        settings = replace(QUICK, stale_s=STALE_S)
        async with running(self.folder, settings=settings, sources=sources, journal=self.journal, ready=ready) as rig:
            yield rig

    def cut(self) -> None:
        self.line.cut = lambda _data, _way: "cut"

    def heal(self) -> None:
        self.line.cut = lambda _data, _way: "pass"


@pytest.fixture
async def site(server: PostgresServer, tmp_path: Path) -> AsyncIterator[Site]:
    own = pool.Settings(dsn=server.dsn(database="seawall"))
    theirs = pool.Settings(dsn=f"postgresql://seawall@/seawall?host={quote(str(tmp_path))}", statement_timeout_s=1.0)
    async with (
        Proxy(server.cluster.socket, tmp_path) as line,
        Store(own, role="test") as admin,
        Store(theirs, role="collector") as cut,
    ):
        yield Site(Sources(admin, Vault(b"k" * 32)), line, cut, MemoryJournal(), tmp_path, own.dsn)


def github(token: str, key: bytes, id: str) -> bytes:
    """A request that GitHub would sign with ``key``."""
    body = b'{"id":"%b"}' % id.encode()
    return post(token, body, dict(signature.sign("github", key, body, CLOCK.wall_us() / 1e6, id=id)))


async def test_what_came_in_under_a_revoked_secret_or_a_removed_source_is_held(site: Site) -> None:
    gh = await site.admin.add(name="gh", kind="github", tenant="default", settings="{}", secret=b"old")
    form = await site.admin.add(name="form", kind="none", tenant="default", settings="{}", secret=None)
    async with site.collector() as rig:
        assert await status(rig, github(gh.token, b"old", "before")) == 202
        assert await status(rig, post(form.token, b"before", {})) == 202
        await heard(site)
        site.cut()
        await until(lambda: rig.snapshot.stale)
        await site.admin.rotate("gh", b"new")
        revoked_at = await site.admin.revoke("gh", 1)
        removed_at = await site.admin.remove("form")
        later = await site.admin.add(name="later", kind="none", tenant="default", settings="{}", secret=None)
        assert (await site.admin.live_collectors(later.version)).behind == ("c1",), "and the change says who lacks it"
        # What it knows as good is taken, whatever has happened since; what it would refuse, it can't be sure of.
        assert await status(rig, github(gh.token, b"old", "after")) == 202
        assert await status(rig, post(form.token, b"after", {})) == 202
        await unsure(rig, gh.token, later.token)
    async with site.collector(ready=False) as rig:  # restarted in the midst, with the copy on disk
        assert await status(rig, github(gh.token, b"old", "restarted")) == 202
        await unsure(rig, gh.token, later.token)
        site.heal()
        await until(lambda: not rig.snapshot.stale)
        assert rig.snapshot.version >= max(revoked_at, removed_at, later.version)
        assert await status(rig, github(gh.token, b"old", "too late")) == 401
        assert await status(rig, post(form.token, b"too late", {})) == 410
        assert await status(rig, github(gh.token, b"new", "new")) == 202
        assert await status(rig, post(later.token, b"later", {})) == 202
    await routed(site, {b"before": ROUTED, b'{"id":"before"}': ROUTED, b"after": HELD, b'{"id":"after"}': HELD,
                        b'{"id":"restarted"}': HELD, b'{"id":"new"}': ROUTED, b"later": ROUTED})  # fmt: skip


async def heard(site: Site) -> None:
    """The collector has told the store that it lives."""
    async with asyncio.timeout(5):
        while not (await site.admin.live_collectors(0)).live:
            await asyncio.sleep(0.01)


async def unsure(rig: Rig, known: str, unknown: str) -> None:
    """Each of these would be a 4xx, was the configuration fresh."""
    assert await status(rig, github(known, b"new", "genuine")) == 503
    assert await status(rig, github(known, b"forged", "forged")) == 503
    assert await status(rig, post(known, b"{}", {})) == 503
    assert await status(rig, post(unknown, b"{}", {})) == 503
    assert await status(rig, post("no-such-token", b"{}", {})) == 503


async def routed(site: Site, expected: dict[bytes, int]) -> None:
    """The router makes of each body what is expected, and tells somebody."""
    journal: Any = site.journal
    connection = await asyncpg.connect(site.dsn)
    try:
        rig = Routed(site.dsn, connection, {"c1": journal.reader()})
        await rig.workflow("*")
        alerts = Alerts(rig.metrics, CLOCK)
        async with rig.router(alerts=alerts):
            await rig.arrived(len(expected))
            await until(lambda: len(alerts.active()) == 2)
        rows = await connection.fetch("select body, status from event")
        assert {bytes(row["body"]): row["status"] for row in rows} == expected
        assert await rig.count("run") == sum(found == ROUTED for found in expected.values())
        assert {dict(a.labels)["source"] for a in alerts.active()} == {"gh", "form"}
    finally:
        await connection.close()
