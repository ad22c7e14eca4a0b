"""The composition root: the only file that builds rooms and joins them, one function per role.

A role's function opens its rooms, hands their loops to the supervisor, and yields; when it is left, its rooms finish
what they have in hand. What all roles have in common is in ``machine/role.py``. ``run_up`` builds the parent.
``Making`` says which classes the rooms are made of.
"""

# Size: the one place where rooms are joined; a second one would only hide half of what joins what.

from __future__ import annotations

import asyncio
import importlib.util
import json
import random
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from socket import gethostname
from typing import TYPE_CHECKING
from uuid import UUID, uuid4

import msgspec

from seawall import __version__
from seawall.guard import declared, loop, outlet
from seawall.guard.budget import Budget
from seawall.guard.outlet import Outlet
from seawall.guard.supervisor import Supervisor
from seawall.guard.switchboard import Switchboard
from seawall.journal.filesystem import LocalFilesystem
from seawall.kernel import approval
from seawall.kernel.clock import SystemClock
from seawall.kernel.error import Misconfigured, SeawallError
from seawall.kernel.event import EventIds
from seawall.kernel.log import logger
from seawall.kernel.metric import Metrics
from seawall.kernel.placement import Placement
from seawall.kernel.seam.backlog import Backlog
from seawall.kernel.seam.change import Change, Kind
from seawall.kernel.seam.filesystem import Filesystem
from seawall.kernel.seam.journal import Journal, JournalReader
from seawall.machine import memory, role
from seawall.machine.claim import OWN_PREFIX, Claim, bound
from seawall.machine.diary import MERGE_S, WRITE_S, Diary, noted_in
from seawall.machine.flag import FlagWatch
from seawall.machine.folder import Folder, replace_private
from seawall.machine.known import KnownFlags
from seawall.machine.own import OWN
from seawall.machine.person import person
from seawall.machine.role import Opened, Role, Site, Start, set_log_level, unless
from seawall.machine.stopping import LEAVE_S
from seawall.settings import Settings, host_port
from seawall.store import change, pool

if TYPE_CHECKING:
    from seawall.cache.geo import Geo
    from seawall.cache.hint import RedisHints
    from seawall.cache.shared import Shared
    from seawall.collector import Snapshot
    from seawall.journal.spool.joint import Joint
    from seawall.machine.up import Database, Parts
    from seawall.responder import Responder
    from seawall.router.governor import DrainGovernor
    from seawall.workflow import App

log = logger("app")

OWN_MAX = 50
"""Worker processes of a queue's own that are looked at, on one machine."""

FLOW = ("collector", "router", "worker")
"""What it takes to accept and to run."""


# ── What rooms are made of ───────────────────────────────────────────────────────────────────────────────────────────
class Making:
    """Which classes stand for the parts that are joined below, and how processes of roles are started.

    The product is made as this says. The lab makes the same platform with other parts, to show what the real ones are
    for (decision 0039), by a subclass that it passes to ``cli.main``: no setting, variable or option leads here.
    """

    mark = ""  # stands first in each log line
    program: Sequence[str] = (sys.executable, "-m", "seawall")  # is completed with "run ROLE …"

    def admit(self, folder: Folder, settings: Settings | None) -> None:
        """Called before a process does anything in a data folder, with settings that lead where it works; None under
        an `up` that was admitted with them. Raises Misconfigured: not in this one, or not there."""

    def filesystem(self) -> Filesystem:
        """Where a collector keeps its journal."""
        return LocalFilesystem()

    def journal(self, site: Site, journal: Journal) -> AbstractAsyncContextManager[Journal]:
        """What a collector submits to, over what keeps; left before that is closed."""
        return nullcontext(journal)

    def joint(self) -> type[Joint]:
        from seawall.journal.spool.joint import Joint

        return Joint

    def responder(self) -> type[Responder]:
        from seawall.responder import Responder

        return Responder

    def shared(self) -> type[Shared]:
        from seawall.cache.shared import Shared

        return Shared

    def switchboard(self) -> type[Switchboard]:
        return Switchboard

    def placement(self) -> type[Placement]:
        return Placement

    def governor(self) -> type[DrainGovernor]:
        from seawall.router.governor import DrainGovernor

        return DrainGovernor

    def app(self, file: str) -> App:
        """The user's workflows. Raises as ``load_app``."""
        from seawall.machine.application import load_app

        return load_app(file)


# ── The roles ────────────────────────────────────────────────────────────────────────────────────────────────────────

# Each imports its rooms when it is called: a process pays for its own role only.


@asynccontextmanager
async def collector(site: Site, making: Making) -> AsyncIterator[Opened]:
    """Journal, responder and the HTTP front, joined: from the socket to the disk and back, with nothing in between."""
    from seawall import collector as room
    from seawall import responder
    from seawall.store.source import Sources
    from seawall.store.vault import Vault

    settings, folder, metrics, clock = site.settings, site.folder, site.metrics, site.clock
    name, vault = settings.program.collector, Vault(folder.key())
    filesystem = making.filesystem()
    limits = settings.of("collector", room.Settings)
    store_settings = _store_settings(site)
    async with AsyncExitStack() as stack:
        enter = stack.enter_async_context
        store = await enter(_store(site, "collector"))
        flags = await enter(_flags(site, "collector", making))
        hints = _hints(site, name)
        answers = await enter(
            making.responder()(
                store_settings, settings.of("responder", responder.Settings), metrics=metrics, clock=clock,
                alerts=site.alerts, channels=[await enter(hints)] if hints is not None else [],
            )
        )  # fmt: skip
        shared = _shared(site, flags, making)
        if shared is not None:
            (await enter(shared)).register(site.supervisor)
        snapshot = room.Snapshot(
            limits, name=name, sources=Sources(store, vault, clock=clock), vault=vault, filesystem=filesystem,
            file=folder.snapshot, clock=clock, metrics=metrics, hints=store_settings,
        )  # fmt: skip
        cluster = settings.program.profile == "cluster"
        keeping = await enter(_cluster(site, snapshot, flags, making) if cluster else _embedded(site, making))
        journal = await enter(making.journal(site, keeping.journal))
        front = await enter(
            room.Collector(
                limits, listen=site.socket or settings.program.listen, journal=journal, snapshot=snapshot,
                waiting=answers, events=answers, clock=clock, metrics=metrics, ids=EventIds(clock),
                limiter=shared.limiter if shared is not None else None,
                alerts=site.alerts, shed=site.shed, backlog=keeping.backlog(store),
                holding=flags.switch(declared.HELD_REQUESTS), approvals=answers, links=_links(site),
                kept_days=_kept_days(settings),
            )
        )  # fmt: skip
        keeping.register(site.supervisor)
        answers.register(site.supervisor)
        front.register(site.supervisor)

        async def drain(hurry: asyncio.Event, budget: Budget) -> None:
            await front.stop(budget.grant_s(1.0) if hurry.is_set() else budget.left_s)

        def reload(fresh: Settings) -> None:
            keeping.reload(fresh)
            answers.reload(fresh.of("responder", responder.Settings))
            front.reload(fresh.of("collector", room.Settings), kept_days=_kept_days(fresh))

        def report() -> dict[str, int]:
            """Counts of two rooms, joined by nothing but the truth: told to senders, and made durable."""
            accepted, kept = int(metrics.counter("seawall_accepted_total", "").value), dict(keeping.report())
            return {"accepted": accepted, **kept, "lost": max(0, accepted - kept["durable"])}

        yield Opened(drain=drain, reload=reload, report=report)


def _kept_days(settings: Settings) -> int:
    """For how long the store keeps an event at least."""
    from seawall.store import partition

    return settings.of("housekeeping", partition.Settings).retention_days


@dataclass(frozen=True, slots=True, kw_only=True)
class Keeping:
    """Where a collector keeps events, whichever profile it is."""

    journal: Journal
    register: Callable[[Supervisor], None]
    reload: Callable[[Settings], None]
    backlog: Callable[[pool.Store], Backlog]  # what waits on this disk
    report: Callable[[], Mapping[str, int]]  # "durable" among them: how many records it answered for


@asynccontextmanager
async def _embedded(site: Site, making: Making) -> AsyncIterator[Keeping]:
    """On this machine's disk, read by this machine's router."""
    from seawall import journal
    from seawall.collector.backlog import Routed

    name, metrics = site.settings.program.collector, site.metrics
    log_ = journal.Log(
        site.folder.journal(name), site.settings.of("journal", journal.Settings), metrics=metrics, on_failure=site.fail,
        filesystem=making.filesystem(), clock=site.clock, alerts=site.alerts,
    )  # fmt: skip
    async with log_, journal.SyncedPublisher(log_, site.folder.synced_socket(name)) as published:

        def register(supervisor: Supervisor) -> None:
            log_.register(supervisor)
            published.register(supervisor)

        durable = metrics.counter("seawall_journal_records_total", "", journal=name)
        yield Keeping(
            journal=log_, register=register, reload=lambda fresh: log_.reload(fresh.of("journal", journal.Settings)),
            report=lambda: {"durable": int(durable.value)}, backlog=lambda store: Routed(log_, store),
        )  # fmt: skip


@asynccontextmanager
async def _cluster(site: Site, snapshot: Snapshot, flags: Switchboard, making: Making) -> AsyncIterator[Keeping]:
    """In Kafka, with this machine's disk for when that is away."""
    from seawall import journal
    from seawall.journal import cluster

    _needs_kafka()
    from seawall.journal.kafka.client import client_of
    from seawall.journal.kafka.topic import Admin
    from seawall.journal.spool.joint import Means

    name, settings = site.settings.program.collector, site.settings.of("kafka", cluster.Settings)
    client = client_of(settings, name)
    means = Means(
        client=client, look=Admin(client, settings).look, settings=settings,
        local=site.settings.of("journal", journal.Settings), folder=site.folder.spool(name), on_failure=site.fail,
        filesystem=making.filesystem(), clock=site.clock, metrics=site.metrics, alerts=site.alerts, panel=site.panel,
        rng=random.Random(), ordered=lambda: snapshot.ordered, forwarding=flags.switch(declared.SPOOL_FORWARD),
        spool_rate=lambda: snapshot.spool_rate,
    )  # fmt: skip
    async with AsyncExitStack() as stack:
        joint = await stack.enter_async_context(making.joint()(means))
        # For a backup beside us: the files alone don't prove the newest batch.
        published = [
            await stack.enter_async_context(journal.SyncedPublisher(log_, site.folder.published(log_.folder)))
            for log_ in (joint.local, joint.parked)
        ]

        def register(supervisor: Supervisor) -> None:
            joint.register(supervisor)
            for each in published:
                each.register(supervisor)

        yield Keeping(
            journal=joint, register=register, report=joint.report, backlog=lambda store: joint,
            reload=lambda fresh: joint.reload(fresh.of("journal", journal.Settings)),
        )  # fmt: skip


def _spool_rate(site: Site) -> int | None:
    """What collectors forward their spools at when nothing slows them down; None: they have none."""
    if site.settings.program.profile != "cluster":
        return None
    from seawall.journal import cluster

    return site.settings.of("kafka", cluster.Settings).forward_rate


def _needs_kafka() -> None:
    """Raises Misconfigured when the extra isn't installed."""
    if importlib.util.find_spec("confluent_kafka") is None:
        raise Misconfigured(["profile = 'cluster': Kafka's client is missing; cure: pip install 'seawall[kafka]'"])


@asynccontextmanager
async def router(site: Site, making: Making) -> AsyncIterator[Opened]:
    """Reads every log of the folder, and stores what it says."""
    from seawall import router as room
    from seawall.store import partition

    # Housekeeping has connections of its own: it waits for locks, and routing must not wait for it.
    keeper = pool.Store(replace(_store_settings(site), connections_max=2), role="housekeeping", direct=True)
    async with _store(site, "router") as store, keeper, _logs(site) as logs, _flags(site, "router", making) as flags:
        settings = site.settings.of("router", room.Settings)
        geo = _geo(site, flags)
        async with geo or nullcontext(), room.Router(
            store, logs, settings, clock=site.clock, metrics=site.metrics,
            runs_expected=bool(site.settings.program.app), alerts=site.alerts, places=geo,
            geo=flags.switch(declared.GEO), draining=flags.switch(declared.BACKLOG_DRAIN),
            spool_rate=_spool_rate(site), placement=making.placement(), governor=making.governor(),
        ) as routing:  # fmt: skip
            if geo is not None:
                geo.register(site.supervisor)
            routing.register(site.supervisor)
            keeping = site.settings.of("housekeeping", partition.Settings)
            housekeeping = partition.Housekeeping(keeper, keeping, site.clock, site.metrics)
            housekeeping.register(site.supervisor)

            def reload(fresh: Settings) -> None:
                routing.reload(fresh.of("router", room.Settings))
                housekeeping.reload(fresh.of("housekeeping", partition.Settings))

            yield Opened(reload=reload)


@asynccontextmanager
async def worker(site: Site, making: Making) -> AsyncIterator[Opened]:
    """Runs the user's workflows, under the store's role that can't read secrets."""
    from seawall import step
    from seawall import worker as room

    program, solo = site.settings.program, site.solo
    # Suspects run in processes of their own, which get exactly our settings, whoever has started us.
    name = site.name or "worker"
    resolved = site.folder.run / f"{name}.json"

    def hand_on(settings: Settings) -> None:
        if solo is None:
            replace_private(resolved, settings.resolved(program.dsn, program.worker_dsn))

    hand_on(site.settings)
    limits = site.settings.of("worker", room.Settings)
    if solo is not None:
        memory.cap(limits.solo_memory_mb)
    tools = step.Toolbox(
        site.settings.of("step", step.Settings), clock=site.clock, rng=random.Random(), metrics=site.metrics,
        alerts=site.alerts, panel=site.panel, own_ports=lambda: own_ports(site.folder, site.settings),
    )  # fmt: skip
    start = [*making.program, "run", "worker", "--data", str(site.folder.path)]
    hints = _hints(site, "worker", guarded=True)
    app = making.app(program.app)
    _used(site.queues, app)
    running = room.Worker(
        _store_settings(site, user_code=True), app, limits,
        clock=site.clock, metrics=site.metrics, owner=solo.owner if solo else owner_of(site.folder, name),
        solo_queue=solo.queue if solo else None, solo_turn_s=solo.turn_s if solo else None,
        alerts=site.alerts, solo_command=[*start, "--resolved", str(resolved)],
        channels=[hints] if hints is not None else [], broken=site.panel.broken, queues=site.queues,
        links=_links(site),
    )  # fmt: skip

    def reload(fresh: Settings) -> None:
        hand_on(fresh)
        running.reload(fresh.of("worker", room.Settings))

    async with hints or nullcontext(), tools, running:
        running.register(site.supervisor)
        room.fewer_collections()  # a role has its process to itself, and all that it imports is there by now
        yield Opened(
            drain=lambda hurry, budget: unless(hurry, running.stop(budget)), reload=reload,
            until=running.until_idle if solo is not None else None,
            said={} if solo or site.queues else {OWN: [queue.name for queue in app.queues if queue.reserved]},
        )  # fmt: skip


@asynccontextmanager
async def console(site: Site, making: Making) -> AsyncIterator[Opened]:
    """The admin API, and the health of the whole."""
    from seawall.console.route import Console
    from seawall.console.setting import Settings as Limits
    from seawall.store.vault import Vault
    from seawall.watch.fleet import PARENT, Fleet
    from seawall.watch.health import Vitals
    from seawall.watch.setting import Settings as Watched
    from seawall.watch.watch import Watch

    folder, program = site.folder, site.settings.program
    # Under `up`, its own loops show PostgreSQL and the roles' processes.
    parent = (PARENT,) if folder.socket(PARENT).exists() else ()
    sockets = {role: folder.socket(role) for role in (*FLOW, *parent)}
    # Without workflows there is nothing to run, and no worker to miss.
    required = FLOW if program.app else FLOW[:-1]
    own = Vitals(site.supervisor, site.metrics, role="console", alerts=site.alerts, panel=site.panel)
    async with _store(site, "health") as store, _diary(site, "console") as diary:
        site.supervisor.add("changes", diary.run, essential=False)

        async def pending() -> list[Change]:
            noted = [*await diary.pending(), *await asyncio.to_thread(noted_in, folder.changes, LocalFilesystem())]
            return list({one.key: one for one in noted}.values())

        fleet = Fleet(own, sockets, store, required=required, more=lambda: own_workers(folder))
        # Where events lie in Kafka, many routers and collectors count together.
        ledger = (folder.socket("collector"), folder.socket("router")) if program.profile == "embedded" else None
        watching = Watch(
            store, site.settings.of("watch", Watched), fleet, ledger=ledger,
            machine=f"{gethostname()}:{program.collector}", owner=uuid4(), clock=site.clock, metrics=site.metrics,
            alerts=site.alerts, rng=random.Random(),
        )  # fmt: skip
        serving = Console(
            site.settings.of("console", Limits), listening=site.socket or bound("admin", program.admin),
            store=_store_settings(site), vault=Vault(folder.key()), token=folder.token(),
            listen=lambda: listen_url(folder, site.settings), health=fleet,
            metrics=site.metrics, clock=site.clock, shed=site.shed, note=diary.note, pending=pending,
        )  # fmt: skip

        def reload(fresh: Settings) -> None:
            watching.reload(fresh.of("watch", Watched))
            serving.reload(fresh.of("console", Limits))

        async with watching, serving:
            watching.register(site.supervisor)
            serving.register(site.supervisor)
            yield Opened(drain=lambda hurry, budget: unless(hurry, serving.drain(hurry), budget), reload=reload)


def _links(site: Site) -> approval.Links:
    """Those by which people decide: a worker makes them, a collector opens them."""
    return approval.Links(
        site.settings.of("approval", approval.Settings), site.folder.key(),
        base=lambda: listen_url(site.folder, site.settings),
    )  # fmt: skip


def own_workers(folder: Folder) -> dict[str, Path]:
    """Sockets of this machine's worker processes of a queue's own, by name."""
    return {file.stem: file for file in sorted(folder.run.glob(f"{OWN_PREFIX}*.sock"))[:OWN_MAX]}


def listen_url(folder: Folder, settings: Settings) -> str:
    """Where senders reach the collector: as `up` says, else as the settings do."""
    try:
        return str(json.loads(folder.admin_file.read_text("utf-8"))["listen"])
    except (OSError, ValueError, KeyError, TypeError):
        tls = settings.values["collector", "tls_certificate"].value
        return f"{'https' if tls else 'http'}://{settings.program.listen}"


def own_ports(folder: Folder, settings: Settings) -> set[int]:
    """Of our listeners, as settings have them and as `up` has bound them: no step calls them at a private address."""
    texts = [settings.program.listen, settings.program.admin]
    try:
        known = json.loads(folder.admin_file.read_text("utf-8"))
        texts += [str(known[name]).rstrip("/") for name in ("listen", "address")]
    except (OSError, ValueError, KeyError, TypeError):
        pass  # nobody is up, or not yet: the settings say it then
    found = (host_port(text.rpartition("//")[2]) for text in texts)
    return {place[1] for place in found if place is not None and place[1]}


Find = Callable[[], Awaitable[Mapping[str, JournalReader]]]


@asynccontextmanager
async def _logs(site: Site) -> AsyncIterator[Find]:
    """Finds every log that this machine's router reads, by name.

    The spool is read here only where nobody forwards it to Kafka any more. What the other profile left behind is read
    in either: nobody has to empty anything before changing it.
    """
    from seawall.machine.logs import Logs

    folder = site.folder
    if site.settings.program.profile != "cluster":
        async with (
            Logs(folder, folder.journals, alerts=site.alerts) as own,
            Logs(folder, folder.spools, alerts=site.alerts, prefix="spool-") as left,
        ):

            async def both() -> Mapping[str, JournalReader]:
                return {**await own.find(), **await left.find()}

            yield both
        return
    from seawall.journal import cluster

    _needs_kafka()
    from seawall.journal.kafka import Partitions, TopicWatch
    from seawall.journal.kafka.client import client_of
    from seawall.journal.kafka.topic import Admin

    settings = site.settings.of("kafka", cluster.Settings)
    client = client_of(settings, "router")
    watch = TopicWatch(Admin(client, settings).look, settings, clock=site.clock, alerts=site.alerts)
    partitions = Partitions(client, settings, watch, clock=site.clock, alerts=site.alerts, metrics=site.metrics)
    async with Logs(folder, folder.journals, alerts=site.alerts) as left, partitions as kafka:
        site.supervisor.add("router.kafka.topic", watch.run, essential=False)
        site.supervisor.add("router.kafka.feeds", kafka.watch)
        site.supervisor.add("router.kafka.lookout", kafka.look_out)

        async def all_() -> Mapping[str, JournalReader]:
            return {**await left.find(), **await kafka.find()}

        yield all_


@asynccontextmanager
async def _flags(site: Site, role: str, making: Making) -> AsyncIterator[Switchboard]:
    """A role's flags: as the store says, else as the last known copy on disk does."""
    board = making.switchboard()(
        declared.REGISTRY, role=role, release=__version__, clock=site.clock, loop_ready=site.supervisor.ready
    )
    watch = FlagWatch(
        board, declared.REGISTRY, KnownFlags(site.folder.flags, role, LocalFilesystem()), _store_settings(site),
        role=role, clock=site.clock, metrics=site.metrics, alerts=site.alerts,
    )  # fmt: skip
    async with watch:
        watch.register(site.supervisor)
        site.panel.flags = board.lines
        yield board


def _shared(site: Site, flags: Switchboard, making: Making) -> Shared | None:
    """What shares rate limits with other collectors; None: nobody said where.

    Raises:
        Misconfigured: Somebody did, and the package for it is missing.
    """
    from seawall.cache.setting import Settings as Limits

    settings = site.settings.of("cache", Limits)
    if not settings.url:
        return None
    shared = making.shared()(
        settings, name=site.settings.program.collector, clock=site.clock, metrics=site.metrics, alerts=site.alerts,
        panel=site.panel, shed=site.shed, on=flags.switch(declared.SHARED_LIMITS),
    )  # fmt: skip
    flags.provide(declared.REDIS, lambda: shared.ready)
    return shared


def _hints(site: Site, name: str, *, guarded: bool = False) -> RedisHints | None:
    """What hints of replies go through, beside NOTIFY; None: nothing was chosen. Raises Misconfigured like ``_shared``.

    Args:
        guarded: With a breaker, for a role that publishes.
    """
    from seawall.cache.setting import Settings as Limits

    settings = site.settings.of("cache", Limits)
    if settings.hints != "redis":
        return None
    from seawall.cache import hint

    if not guarded:
        return hint.RedisHints(settings, name=name, clock=site.clock)
    return hint.guarded(
        settings, name=name, clock=site.clock, metrics=site.metrics, alerts=site.alerts, panel=site.panel
    )


def _geo(site: Site, flags: Switchboard) -> Geo | None:
    """What knows countries of addresses; None: nobody said from where. Raises Misconfigured like ``_shared``."""
    from seawall.cache.geo import Geo
    from seawall.cache.setting import Settings as Limits

    settings = site.settings.of("cache", Limits)
    if not settings.geo:
        return None
    geo = Geo(settings, clock=site.clock, metrics=site.metrics, alerts=site.alerts, panel=site.panel, shed=site.shed)
    flags.provide(declared.COUNTRIES, lambda: geo.ready)
    return geo


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


ROLES: dict[str, Callable[[Site, Making], AbstractAsyncContextManager[Opened]]] = {
    "collector": collector, "router": router, "worker": worker, "console": console,
}  # fmt: skip


def _used(queues: Sequence[str], app: App) -> None:
    """Raises Misconfigured: a queue was named that no workflow uses, so that its process would do nothing."""
    known = {workflow.queue for workflow in app.workflows}
    there = ", ".join(sorted(known))
    if unused := [name for name in queues if name not in known]:
        raise Misconfigured([f"--queue {name}: no workflow uses it; there are {there}" for name in unused])


def owner_of(folder: Folder, name: str = "worker") -> UUID:
    """The worker's name in its leases: that of its predecessor in this folder, which is certainly dead, since we hold
    its lock; so what it had can be taken at once."""
    file = folder.run / f"{name}.owner"
    try:
        return UUID(file.read_text("ascii").strip())
    except (OSError, ValueError):
        fresh = uuid4()
        replace_private(file, f"{fresh.hex}\n")
        return fresh


def run_role(start: Start, making: Making | None = None) -> int:
    """Be one role until told to stop; the exit status. Raises Misconfigured before anything was started."""
    making = making or Making()
    making.admit(start.folder, start.settings if start.parent is None and start.solo is None else None)
    opener = ROLES[start.role]

    def open_role(site: Site) -> AbstractAsyncContextManager[Opened]:
        return opener(site, making)

    alone = start.parent is None and start.solo is None
    return role.run(start, _telling(open_role, start.name) if alone else open_role, mark=making.mark)


# ── The timeline ─────────────────────────────────────────────────────────────────────────────────────────────────────
def _diary(site: Site, name: str) -> Diary:
    """What is changed in this process, for the timeline. Not entered yet."""
    diary = _own_diary(site.folder, name, site.metrics)
    settings = _store_settings(site, user_code=name.startswith("worker"))
    diary.merge_with(lambda changes: change.bring(settings, changes, timeout_s=MERGE_S))
    return diary


def _own_diary(folder: Folder, name: str, metrics: Metrics) -> Diary:
    return Diary(
        folder.changes, name, version=__version__, filesystem=LocalFilesystem(), clock=SystemClock(), metrics=metrics
    )


def _telling(open_role: Role, name: str) -> Role:
    """A role that runs alone tells of its starts, stops and settings; under `up` the parent does."""

    @asynccontextmanager
    async def opened(site: Site) -> AsyncIterator[Opened]:
        by, settings = person(), site.settings

        def reload(fresh: Settings) -> None:
            nonlocal settings
            role_.reload(fresh)
            for one in settings.differences(fresh):
                why = f"SIGHUP to {name}"
                diary.jot(diary.change(Kind.SETTING, one.key, by=by, before=one.before, after=one.after, why=why))
            settings = fresh

        # A name of its own: the console keeps a diary of what is done through it.
        async with _diary(site, f"{name}-alone") as diary:
            await diary.started(name, by=by)
            site.supervisor.add("changes.alone", diary.run, essential=False)
            try:
                async with open_role(site) as role_:
                    yield replace(role_, reload=reload)
            finally:
                await diary.note(diary.change(Kind.STOP, name))

    return opened


# ── The parent ───────────────────────────────────────────────────────────────────────────────────────────────────────
def run_up(
    folder: Folder, settings: Settings, reread: Callable[[], Settings], *, watch_app: bool, making: Making | None = None
) -> int:
    """Be the parent until told to stop; the exit status.

    Raises:
        Misconfigured: Before anything was started, and nothing is left of the attempt.
    """
    making = making or Making()
    making.admit(folder, settings)
    claim = Claim(folder, settings.program)
    with outlet.opened("up", level=settings.program.log_level, mark=making.mark) as lines:
        try:
            for line in claim.take():
                log.warning(line)
            parts = _parts(folder, settings, reread, lines, making, watch_app=watch_app)
            return asyncio.run(_up(parts, claim))
        finally:
            claim.release()


async def _up(parts: Parts, claim: Claim) -> int:
    from seawall.machine.up import Up

    status = await Up(parts, claim).run()
    loop.leave_within(LEAVE_S, status)
    return status


def _parts(
    folder: Folder, settings: Settings, reread: Callable[[], Settings], lines: Outlet, making: Making, *,
    watch_app: bool,
) -> Parts:  # fmt: skip
    from seawall.machine.up import Parts
    from seawall.migrate import runner

    async def migrate(dsn: str) -> None:
        limits = settings.of("migrate", runner.Settings)
        await runner.apply(settings.of("store", pool.Settings, dsn=dsn), settings=limits, by=f"seawall {__version__}")

    async def merge(dsn: str, changes: Sequence[Change]) -> None:
        await change.bring(settings.of("store", pool.Settings, dsn=dsn), changes, timeout_s=MERGE_S)

    return Parts(
        diary=partial(_own_diary, folder, "up"), merge=merge,
        folder=folder, settings=settings, reread=reread, database=_database(folder, settings), migrate=migrate,
        set_log_level=set_log_level, lines=lines, has_senders=lambda: _has_senders(folder), watch_app=watch_app,
        leave=partial(loop.leave_within, WRITE_S + LEAVE_S), program=making.program,
    )  # fmt: skip


def _has_senders(folder: Folder) -> bool:
    """Whether the collector's copy on disk knows a source; a copy that can't be read may have known some."""
    from seawall.collector.sealed import SealedCopy
    from seawall.store.vault import Vault

    try:
        _, sources = SealedCopy(folder.snapshot, vault=Vault(folder.key()), filesystem=LocalFilesystem()).read()
    except FileNotFoundError:
        return False
    except (OSError, SeawallError, msgspec.DecodeError):
        return True
    return any(not source.removed for source in sources)


def _database(folder: Folder, settings: Settings) -> Database:
    """The PostgreSQL that the settings name, else the embedded one."""
    from seawall.machine.external import External
    from seawall.store import embedded

    program = settings.program
    if program.dsn:
        return External(program.dsn, program.worker_dsn or program.dsn)
    return embedded.EmbeddedPostgres(settings.of("pg", embedded.Settings), folder.path, LocalFilesystem())
