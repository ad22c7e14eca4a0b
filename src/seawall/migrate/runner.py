"""Brings a database to this version's schema: ``version/NNNN_name.sql`` in order, each in one transaction.

One process applies at a time, under an advisory lock. The others wait and say for whom: waiting is no error. An
applied file never changes: its digest is kept, and another one is refused, since nobody could say what the schema is.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, replace
from importlib.resources import files

from seawall.kernel.clock import Clock, Deadline, SystemClock
from seawall.kernel.error import Misconfigured, Unavailable
from seawall.kernel.log import fields, logger
from seawall.kernel.seam.change import NOBODY, Kind
from seawall.kernel.setting import setting
from seawall.store import pool
from seawall.store.binary import MAJOR_MIN
from seawall.store.change import Author, is_recording, record
from seawall.store.pool import Session, Store
from seawall.store.statement import statements

log = logger("migrate")

WAIT_POLL_S = 0.25
SAY_EVERY_S = 5.0

Waiting = Callable[[str], None]
"""Called now and then with one sentence: who holds the lock, and for how long."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """How long the runner may take."""

    wait_s: float = setting(600.0, min=1, max=86400, help="How long to wait for another process that migrates.")
    version_timeout_s: float = setting(600.0, min=1, max=86400, help="How long one version of the schema may take.")


@dataclass(frozen=True, slots=True)
class Version:
    """One file of the schema."""

    number: int  # from 1, without gaps
    name: str
    sql: str

    @property
    def digest(self) -> str:
        return hashlib.sha256(self.sql.encode()).hexdigest()


def versions() -> list[Version]:
    """The versions that this Seawall knows, in order. Their numbers have no gap: a test holds that."""
    folder = files("seawall.migrate").joinpath("version")
    found = []
    for file in sorted((f for f in folder.iterdir() if f.name.endswith(".sql")), key=lambda f: f.name):
        number, _, name = file.name.removesuffix(".sql").partition("_")
        found.append(Version(int(number), name, file.read_text("utf-8")))
    return found


async def apply(
    store_settings: pool.Settings,
    *,
    settings: Settings | None = None,
    known: Sequence[Version] | None = None,
    clock: Clock | None = None,
    waiting: Waiting | None = None,
    by: str = NOBODY,
) -> list[str]:
    """Apply what is missing. Connect as the role that is to own the tables.

    Args:
        known: The versions to apply; those of this Seawall when None.
        waiting: Told every 5 s for whom we wait.
        by: Who applies it, for the timeline.

    Returns:
        Names of the versions that were applied now, in order.

    Raises:
        Misconfigured: The server is older than 15, the database was made by a newer Seawall, or an applied file has
            changed since. Nothing was changed.
        Unavailable: The store is away, somebody else migrated for longer than ``wait_s``, or a file failed; the files
            before it are applied and stay, the failed one left nothing.
        Uncertain: The connection broke in the moment of a commit. Applying again finds out.

    Durability: each version is committed before the next one begins.
    Cancelled: the version under way is rolled back.
    """
    settings = settings or Settings()
    chosen = versions() if known is None else list(known)
    clock = clock or SystemClock()
    async with Store(replace(store_settings, connections_max=2), role="migrate", direct=True) as store:
        major: int = await store.value(_SQL["server_version"])
        if major < MAJOR_MIN:
            raise Misconfigured([f"the store is PostgreSQL {major}; {MAJOR_MIN} or newer is needed"])
        async with _locked(store, settings, clock, waiting or _said):
            await store.execute(_SQL["create_version_table"])
            applied = await _applied(store, chosen)
            missing = [version for version in chosen if version.number > applied]
            for version in missing:
                await _apply(store, version, settings.version_timeout_s, Author(by, clock))
            if missing:
                log.info("the schema is up to date", extra=fields(version=missing[-1].number, before=applied))
            await grant(store)
    return [version.name for version in missing]


_SQL = statements("schema")
_ROLE = statements("role")


def _said(sentence: str) -> None:
    log.info(sentence)


@contextlib.asynccontextmanager
async def _locked(store: Store, settings: Settings, clock: Clock, waiting: Waiting) -> AsyncIterator[Session]:
    """Hold the advisory lock on a connection of its own: it goes with the connection, also by kill -9."""
    deadline = Deadline.after(settings.wait_s, clock)
    say_at = clock.monotonic()
    async with store.own_connection() as session:
        while not await session.value(_SQL["lock_schema"]):
            holder = await session.row(_SQL["schema_lock_holder"])
            who = "another process" if holder is None else f"{holder['application_name']} (pid {holder['pid']})"
            if deadline.left_s(clock) == 0.0:
                raise Unavailable("schema lock", f"{who} has held it for more than {settings.wait_s:g} s")
            if clock.monotonic() >= say_at:
                age = "" if holder is None else f", connected for {holder['age_s']:.0f} s"
                waiting(f"waiting for {who} to finish migrating{age}")
                say_at = clock.monotonic() + SAY_EVERY_S
            await asyncio.sleep(WAIT_POLL_S)
        try:
            yield session
        finally:
            await session.value(_SQL["unlock_schema"])


async def _applied(store: Store, known: Sequence[Version]) -> int:
    """The highest applied version."""
    by_number = {version.number: version for version in known}
    rows = await store.fetch(_SQL["applied_versions"])
    for row in rows:
        version = by_number.get(row["version"])
        if version is None:
            raise Misconfigured(
                [
                    f"the database has schema version {row['version']} ({row['name']}), made by a newer Seawall; this "
                    f"one knows up to {max(by_number, default=0)}: upgrade Seawall, or restore a backup"
                ]
            )
        if version.digest != row["digest"]:
            raise Misconfigured(
                [f"schema version {version.number} ({version.name}) was applied with another text than ours"]
            )
    return max((row["version"] for row in rows), default=0)


async def _apply(store: Store, version: Version, timeout_s: float, author: Author) -> None:
    async with store.transaction(timeout_s=timeout_s) as session:
        await session.execute(version.sql)
        await session.execute(_SQL["record_version"], version.number, version.name, version.digest)
        if await is_recording(session):
            before = str(version.number - 1) if version.number > 1 else None
            change = author.change(Kind.MIGRATION, "schema", before, f"{version.number} {version.name}")
            await record(session, change)
    log.debug("schema version applied", extra=fields(version=version.number, name=version.name))


async def grant(store: Store) -> None:
    """Give the worker's role exactly what it needs, making the role when it is missing and we may.

    Without the right to make it, a warning says what to do, and workers fail to log in until it is done.
    """
    if not await store.value(_ROLE["worker_role_exists"]):
        if not await store.value(_ROLE["may_create_role"]):
            log.warning(
                "the role seawall_worker is missing and we may not create it: run 'create role seawall_worker login' "
                "as an administrator, then start again"
            )
            return
        await store.execute(_ROLE["create_worker_role"])
    async with store.transaction() as session:
        for name in (
            "revoke_all", "grant_schema", "grant_read", "grant_all", "grant_register", "grant_tell", "grant_wait",
            "grant_count", "grant_begin", "grant_ask", "grant_sequences",
        ):  # fmt: skip
            await session.execute(_ROLE[name])
