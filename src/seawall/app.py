"""The composition root: the only file that builds rooms and joins them, one function per role.

A role's function opens its rooms, hands their loops to the supervisor, and yields; when it is left, its rooms finish
what they have in hand. ``serve`` is what all roles have in common: signals, the parent's socket, health, the order
of starting and stopping. ``up`` builds the parent.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import json
import logging
import socket
import sys
import traceback
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

from seawall.guard import Heart, Lifecycle, Supervisor
from seawall.journal.filesystem import LocalFilesystem
from seawall.kernel.clock import Clock, SystemClock
from seawall.kernel.error import Corrupt, Misconfigured, Unavailable
from seawall.kernel.event import EventIds
from seawall.kernel.log import configure, fields, logger
from seawall.kernel.metric import Metrics
from seawall.kernel.seam.journal import JournalReader
from seawall.machine import check
from seawall.machine.folder import Folder, Lock, replace_private
from seawall.machine.up import Claim, Database, Parts, Up, bound
from seawall.settings import Program, Settings
from seawall.store import embedded, pool
from seawall.store.embedded import EmbeddedPostgres
from seawall.workflow import App

log = logger("app")

READY_POLL_S = 0.02
DRAIN_SHARE = 0.6
"""Of a role's stopping budget: what is in hand may take so long, the rest is for closing rooms in order."""

LEAVING_S = 20.0
FLOW = ("collector", "router", "worker")
"""What it takes to accept and to run."""


@dataclass(frozen=True, slots=True)
class Solo:
    """A worker process for one queue's suspects, one at a time, that ends when there are none."""

    queue: str
    owner: UUID


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """What a role's function builds its rooms from."""

    settings: Settings
    folder: Folder
    metrics: Metrics
    supervisor: Supervisor
    socket: socket.socket | None = None  # bound and listening already; only collector and console have one
    clock: Clock = field(default_factory=SystemClock)
    solo: Solo | None = None
    fail: Callable[[str], None] = lambda why: None  # this process must be started anew: it can't go on safely


async def _nothing(hurry: asyncio.Event) -> None:
    """For a role that has nothing in hand between two statements."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Opened:
    """What an open role offers to ``serve``."""

    drain: Callable[[asyncio.Event], Coroutine[Any, Any, None]] = _nothing  # finish what is in hand; may be hurried
    reload: Callable[[Settings], None] = lambda settings: None
    until: Callable[[], Coroutine[Any, Any, None]] | None = None  # the process ends by itself when this returns
    extra: Callable[[], dict[str, object]] = dict


Role = Callable[[Site], AbstractAsyncContextManager[Opened]]


# ── The roles ────────────────────────────────────────────────────────────────────────────────────────────────────────

# Each imports its rooms when it is called: a process pays for its own role only.


@asynccontextmanager
async def collector(site: Site) -> AsyncIterator[Opened]:
    """Journal, responder and the HTTP front, joined: from the socket to the disk and back, with nothing in between."""
    from seawall import collector as room
    from seawall import journal, responder
    from seawall.store.source import Sources
    from seawall.store.vault import Vault

    settings, folder, metrics, clock = site.settings, site.folder, site.metrics, site.clock
    name, vault = settings.program.collector, Vault(folder.key())
    filesystem = journal.LocalFilesystem()
    limits = settings.of("collector", room.Settings)
    store_settings = _store_settings(site)
    async with AsyncExitStack() as stack:
        enter = stack.enter_async_context
        store = await enter(_store(site, "collector"))
        log_ = await enter(
            journal.Log(
                folder.journal(name), settings.of("journal", journal.Settings), metrics=metrics, on_failure=site.fail,
                filesystem=filesystem, clock=clock,
            )
        )  # fmt: skip
        published = await enter(journal.SyncedPublisher(log_, folder.synced_socket(name)))
        answers = await enter(
            responder.Responder(
                store_settings, settings.of("responder", responder.Settings), metrics=metrics, clock=clock
            )
        )
        snapshot = room.Snapshot(
            limits, name=name, sources=Sources(store, vault, clock=clock), vault=vault, filesystem=filesystem,
            file=folder.snapshot, clock=clock, metrics=metrics, hints=store_settings,
        )  # fmt: skip
        front = await enter(
            room.Collector(
                limits, listen=site.socket or settings.program.listen, journal=log_, snapshot=snapshot,
                waiting=answers, events=answers, clock=clock, metrics=metrics, ids=EventIds(clock),
            )
        )  # fmt: skip
        for one in (log_, published, answers, front):
            one.register(site.supervisor)

        async def drain(hurry: asyncio.Event) -> None:
            await front.stop(1.0 if hurry.is_set() else DRAIN_SHARE * settings.program.stop_collector_s)

        yield Opened(drain=drain)


@asynccontextmanager
async def router(site: Site) -> AsyncIterator[Opened]:
    """Reads every log of the folder, and stores what it says."""
    from seawall import router as room

    async with _store(site, "router") as store, Logs(site.folder) as logs:
        settings = site.settings.of("router", room.Settings)
        async with room.Router(store, logs.find, settings, clock=site.clock, metrics=site.metrics) as routing:
            routing.register(site.supervisor)
            yield Opened()


@asynccontextmanager
async def worker(site: Site) -> AsyncIterator[Opened]:
    """Runs the user's workflows, under the store's role that can't read secrets."""
    from seawall import worker as room

    program, solo = site.settings.program, site.solo
    # Suspects run in processes of their own, which get exactly our settings, whoever has started us.
    resolved = site.folder.run / "worker.json"
    if solo is None:
        replace_private(resolved, site.settings.resolved(program.dsn, program.worker_dsn))
    start = [sys.executable, "-m", "seawall", "run", "worker", "--data", str(site.folder.path)]
    running = room.Worker(
        _store_settings(site, user_code=True), load_app(program.app), site.settings.of("worker", room.Settings),
        clock=site.clock, metrics=site.metrics, owner=solo.owner if solo else owner_of(site.folder),
        solo_queue=solo.queue if solo else None, solo_command=[*start, "--resolved", str(resolved)],
    )  # fmt: skip
    async with running:
        running.register(site.supervisor)
        yield Opened(
            drain=lambda hurry: unless(hurry, running.stop()), until=running.until_idle if solo is not None else None
        )


@asynccontextmanager
async def console(site: Site) -> AsyncIterator[Opened]:
    """The admin API, and the health of the whole."""
    from seawall import console as room
    from seawall.store.vault import Vault
    from seawall.watch.fleet import Fleet
    from seawall.watch.health import Vitals

    folder, program = site.folder, site.settings.program
    sockets = {role: folder.socket(role) for role in FLOW}
    # Without workflows there is nothing to run, and no worker to miss.
    required = FLOW if program.app else FLOW[:-1]
    own = Vitals(site.supervisor, site.metrics, role="console")
    async with _store(site, "health") as store:
        serving = room.Console(
            site.settings.of("console", room.Settings), listening=site.socket or bound("admin", program.admin),
            store=_store_settings(site), vault=Vault(folder.key()), token=folder.token(),
            listen=lambda: listen_url(folder, program), health=Fleet(own, sockets, store, required=required),
            metrics=site.metrics, clock=site.clock,
        )  # fmt: skip
        async with serving:
            serving.register(site.supervisor)
            yield Opened(drain=serving.drain)


def listen_url(folder: Folder, program: Program) -> str:
    """Where senders reach the collector: as `up` says, else as the settings do."""
    try:
        return str(json.loads(folder.admin_file.read_text("utf-8"))["listen"])
    except (OSError, ValueError, KeyError, TypeError):
        return f"http://{program.listen}"


class Logs:
    """Readers of all logs under DIR/journal, each opened once and kept."""

    def __init__(self, folder: Folder) -> None:
        self._folder = folder
        self._readers: dict[str, JournalReader] = {}
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Logs:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    async def find(self) -> Mapping[str, JournalReader]:
        """Every log there is, by name. One that can't be opened is said and tried again when asked next."""
        from seawall.journal import LogReader, discover

        for path in await asyncio.to_thread(discover, self._folder.journals):
            if path.name in self._readers:
                continue
            reader = LogReader(path, self._folder.synced_socket(path.name))
            try:
                self._readers[path.name] = await self._stack.enter_async_context(reader)
            except (Unavailable, Corrupt) as error:
                log.error("a journal can't be read", extra=fields(journal=str(path), cause=str(error)))
        return self._readers


def _store(site: Site, role: str, *, user_code: bool = False) -> pool.Store:
    """A pool of connections; for processes that run user code, under the role that can't read secrets.

    Raises:
        Misconfigured: No store was named, and this process isn't under an `up` that has one.
    """
    return pool.Store(_store_settings(site, user_code=user_code), role=role)


def _store_settings(site: Site, *, user_code: bool = False) -> pool.Settings:
    program = site.settings.program
    dsn = program.worker_dsn or program.dsn if user_code else program.dsn
    if not dsn:
        raise Misconfigured(["dsn: a role alone needs a PostgreSQL; set dsn_file in seawall.toml, or SEAWALL_DSN_FILE"])
    return site.settings.of("store", pool.Settings, dsn=dsn)


ROLES: dict[str, Role] = {"collector": collector, "router": router, "worker": worker, "console": console}


def owner_of(folder: Folder) -> UUID:
    """The worker's name in its leases: that of its predecessor in this folder, which is certainly dead, since we hold
    its lock; so what it had can be taken at once."""
    file = folder.run / "worker.owner"
    try:
        return UUID(file.read_text("ascii").strip())
    except (OSError, ValueError):
        fresh = uuid4()
        replace_private(file, f"{fresh.hex}\n")
        return fresh


async def unless(hurry: asyncio.Event, work: Coroutine[Any, Any, None]) -> None:
    """Do ``work`` to its end, or until somebody is in a hurry."""
    tasks = [asyncio.ensure_future(work), asyncio.ensure_future(hurry.wait())]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        if tasks[0].done():
            tasks[0].result()
    finally:
        for task in tasks:
            task.cancel()


# ── The user's file ────────────────────────────────────────────────────────────────────────────────────────────────
def load_app(file: str) -> App:
    """The ``App`` of a user's file: the one named ``app``, else the only one there is.

    Raises:
        Misconfigured: The file can't be imported, and why; or it holds no App, or several.
    """
    path = Path(file)
    if not file or not path.is_file():
        raise Misconfigured([f"--app {file or '(none)'}: is not a file; name the file with your workflows"])
    # What lies beside the file can be imported from it, as when Python runs it.
    sys.path.insert(0, str(path.parent))
    spec = importlib.util.spec_from_file_location("seawall_user_app", path)
    if spec is None or spec.loader is None:
        raise Misconfigured([f"--app {file}: is no Python file; its name must end in .py"])
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:  # whatever the user's file does at import is said as one problem
        raise Misconfigured([f"--app {file}: can't be imported: {_where(error, path)}"]) from error
    found = {id(value): value for value in vars(module).values() if isinstance(value, App)}
    named = vars(module).get("app")
    if isinstance(named, App):
        return named
    if len(found) != 1:
        raise Misconfigured([f"--app {file}: holds {len(found)} App objects; name the one to run `app`"])
    return next(iter(found.values()))


def _where(error: BaseException, path: Path) -> str:
    """An exception in one line, with the last line of the user's file that it passed."""
    if isinstance(error, SyntaxError) and error.lineno is not None:
        return f"line {error.lineno}: {type(error).__name__}: {error.msg}"
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if Path(frame.filename) == path]
    place = f"line {lines[-1]}: " if lines else ""
    return f"{place}{type(error).__name__}: {error}"


# ── What all roles have in common ────────────────────────────────────────────────────────────────────────────────────
@dataclass(frozen=True, slots=True, kw_only=True)
class Start:
    """How a role's process was started."""

    role: str
    folder: Folder
    settings: Settings
    reread: Callable[[], Settings]
    parent: socket.socket | None = None
    socket: socket.socket | None = None
    health: tuple[str, int] | None = None  # an address for /livez, /readyz and /metrics, beside the unix socket
    solo: Solo | None = None

    @property
    def name(self) -> str:
        """Of the process: its lock and its socket carry it."""
        return f"{self.role}-{self.solo.owner.hex}" if self.solo is not None else self.role


def run_role(start: Start) -> int:
    """Be one role until told to stop; the exit status.

    Raises:
        Misconfigured: Before anything was started.
    """
    configure(start.role, level=start.settings.program.log_level)
    check.refuse_platform()
    check.raise_open_files()
    if start.parent is None:
        start.folder.prepare()
    lock = Lock(start.folder.run / f"{start.name}.lock")
    lock.acquire(timeout_s=LEAVING_S if start.parent is not None else 0.0)
    try:
        with asyncio.Runner(loop_factory=_loop_factory()) as runner:
            return runner.run(serve(start))
    finally:
        lock.release()


async def serve(start: Start) -> int:
    """Open the role, say ready, wait for the end, drain, close."""
    from seawall.watch import HealthServer

    metrics = Metrics()
    supervisor = Supervisor(metrics, watch_blocking=True)
    opened: Opened | None = None
    life = Lifecycle(start.role, parent=start.parent, reload=lambda: _reload(start, opened))
    failures: list[str] = []

    def fail(why: str) -> None:
        log.critical("this process must be started anew", extra=fields(why=why))
        failures.append(why)
        life.stop(why)

    site = Site(
        settings=start.settings, folder=start.folder, metrics=metrics, supervisor=supervisor, socket=_socket(start),
        solo=start.solo, fail=fail,
    )  # fmt: skip
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(life)
        # From the first moment on: a parent that hears nothing takes us for dead, and opening may read a whole disk.
        opening = asyncio.create_task(life.beat(), name="parent")
        stack.callback(opening.cancel)
        opened = await stack.enter_async_context(ROLES[start.role](site))
        opening.cancel()
        supervisor.add("parent", _beating(life), essential=False)
        # Entered after the rooms, so that it is left before them: no loop runs on a closed room.
        await stack.enter_async_context(supervisor)
        host, port = start.health or (None, None)
        health = HealthServer(
            supervisor, metrics, role=start.role, unix_path=start.folder.socket(start.name), host=host, port=port,
            extra=opened.extra,
        )  # fmt: skip
        await stack.enter_async_context(health)
        await _ready(supervisor, life)
        if not life.stopping.is_set():
            life.tell("ready")
            log.info("ready")
            await (life.stopping.wait() if opened.until is None else unless(life.stopping, opened.until()))
        await opened.drain(life.hurry)
    return 1 if failures else 0


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """uvloop where it is installed: half the CPU of a request."""
    try:
        import uvloop
    except ImportError:
        return None
    return uvloop.new_event_loop


def _socket(start: Start) -> socket.socket | None:
    if start.socket is not None:
        return start.socket
    program = start.settings.program
    address = {"collector": ("listen", program.listen), "console": ("admin", program.admin)}.get(start.role)
    return bound(*address) if address is not None else None


def _beating(life: Lifecycle) -> Callable[[Heart], Coroutine[Any, Any, None]]:
    async def beating(heart: Heart) -> None:
        """Tell the parent once a second that this event loop ticks."""
        while True:
            life.tell("beat")
            await heart.beat()
            await asyncio.sleep(1.0)

    return beating


async def _ready(supervisor: Supervisor, life: Lifecycle) -> None:
    """Wait until every essential loop made its first round, or until told to stop."""
    while not life.stopping.is_set():
        if all(loop.ready for loop in supervisor.health() if loop.essential):
            return
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(READY_POLL_S):
                await life.stopping.wait()


def _reload(start: Start, opened: Opened | None) -> None:
    """SIGHUP: a bad file keeps the old settings, and says so."""
    try:
        fresh = start.reread()
    except Misconfigured as error:
        log.error("settings not reloaded; the old ones stay", extra=fields(problems=error.problems))
        return
    set_log_level(fresh.program.log_level)
    if opened is not None:
        opened.reload(fresh)
    log.info("settings reloaded")


def set_log_level(level: str) -> None:
    logging.getLogger("seawall").setLevel(level.upper())


# ── The parent ───────────────────────────────────────────────────────────────────────────────────────────────────────
def run_up(folder: Folder, settings: Settings, reread: Callable[[], Settings], *, watch_app: bool) -> int:
    """Be the parent until told to stop; the exit status.

    Raises:
        Misconfigured: Before anything was started, and nothing is left of the attempt.
    """
    configure("up", level=settings.program.log_level)
    claim = Claim(folder, settings.program)
    try:
        for line in claim.take():
            log.warning(line)
        return asyncio.run(_up(folder, settings, reread, claim, watch_app=watch_app))
    finally:
        claim.release()


async def _up(
    folder: Folder, settings: Settings, reread: Callable[[], Settings], claim: Claim, *, watch_app: bool
) -> int:
    async def migrate(dsn: str) -> None:
        from seawall.migrate import runner

        await runner.apply(settings.of("store", pool.Settings, dsn=dsn))

    parts = Parts(
        folder=folder, settings=settings, reread=reread, database=_database(folder, settings), migrate=migrate,
        set_log_level=set_log_level, watch_app=watch_app,
    )  # fmt: skip
    return await Up(parts, claim).run()


def _database(folder: Folder, settings: Settings) -> Database:
    """The PostgreSQL that the settings name, else the embedded one."""
    program = settings.program
    if program.dsn:
        return External(program.dsn, program.worker_dsn or program.dsn)
    return EmbeddedPostgres(settings.of("pg", embedded.Settings), folder.path, LocalFilesystem())


class External:
    """A PostgreSQL that somebody else runs: there is nothing to start, watch or stop."""

    def __init__(self, dsn: str, worker_dsn: str) -> None:
        self._dsns = (dsn, worker_dsn)

    async def prepare(self) -> tuple[str, str]:
        return self._dsns

    async def run(self, heart: Heart) -> None:
        while True:
            await heart.beat()
            await asyncio.sleep(1.0)

    async def stop(self, *, timeout_s: float) -> None:
        """Nothing to stop."""
