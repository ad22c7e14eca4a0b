"""``seawall up``: the parent of all roles on one machine.

It owns the folder's lock, the two listening sockets and PostgreSQL, and it touches no event: a role that dies leaves
its socket's queue with us, so that clients wait a moment instead of being refused. Start: folder, checks, sockets;
then all at once, for every role can wait for the store by itself, and intake doesn't need it. Only the router comes
after the schema and after the worker has registered its workflows, so that no event is routed before the workflows
that it should start are known. Where the app can't be imported, a folder without senders is refused, and one that has
some goes on with the workflows that the store knows (decision 0014). Stop: as an event flows, each part within its
budget, PostgreSQL last.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Protocol

from seawall.guard import Heart, Lifecycle, Supervisor
from seawall.guard.outlet import Outlet
from seawall.guard.supervisor import Pace
from seawall.kernel.alert import Alerts
from seawall.kernel.clock import SystemClock
from seawall.kernel.error import Misconfigured, SeawallError, Unavailable
from seawall.kernel.log import fields, logger
from seawall.kernel.metric import Metrics
from seawall.kernel.seam.change import Change
from seawall.machine import doctor
from seawall.machine.announce import Announcement
from seawall.machine.claim import OWN_PREFIX, ROLES, Claim
from seawall.machine.diary import Diary
from seawall.machine.folder import Folder, replace_private
from seawall.machine.own import OwnQueues
from seawall.machine.process import Child, Spec
from seawall.machine.reload import AppWatch
from seawall.machine.role import own_name
from seawall.machine.stopping import POSTGRES, stages
from seawall.machine.systemd import Notifier
from seawall.machine.teller import Teller
from seawall.machine.tuning import Tuning
from seawall.settings import Settings, environ, verify
from seawall.watch import HealthServer

log = logger("machine")

PREPARE_MIN_S = 0.5
PREPARE_MAX_S = 10.0
TURN_S = 0.05
FIRST_S = 2.0
"""How long the roles of a folder that nobody sends to yet wait for the schema: so that they don't ask a new store for
tables that are just being made, and call it trouble."""


PROGRAM = (sys.executable, "-m", "seawall")


class Database(Protocol):
    """PostgreSQL, as `up` needs it. An external one does nothing in ``run`` and ``stop``."""

    async def prepare(self) -> tuple[str, str]:
        """Make what is missing, without starting; the owner's and the worker's DSN.

        Raises:
            Misconfigured: It can't be used, and trying again can't help.
            Unavailable: It failed; it may be tried again.
        """

    async def run(self, heart: Heart) -> None:
        """Keep the server running, in the open."""

    async def stop(self, *, timeout_s: float) -> None: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """What the composition root gives: `up` itself knows no room."""

    folder: Folder
    settings: Settings
    reread: Callable[[], Settings]  # for SIGHUP; raises Misconfigured
    database: Database
    migrate: Callable[[str], Awaitable[object]]  # raises Misconfigured, or another SeawallError to try again
    set_log_level: Callable[[str], None]
    lines: Outlet  # the log
    diary: Callable[[Metrics], Diary]
    merge: Callable[[str, Sequence[Change]], Awaitable[None]]  # changes into the store of a DSN; as store.change.bring
    has_senders: Callable[[], bool]  # whether this folder had sources when it ran last
    leave: Callable[[int], None] = lambda status: None  # end this process soon, whatever still hangs
    watch_app: bool = False
    program: Sequence[str] = PROGRAM  # is completed with "run ROLE …"


class Up:
    """One running platform. ``run`` returns the exit status.

    Args:
        pace: A test's handle on the loops (guard.Supervisor).
    """

    def __init__(self, parts: Parts, claim: Claim, *, pace: Pace | None = None) -> None:
        assert claim.listen is not None and claim.admin is not None, "taken before"
        self._parts = parts
        self._folder = parts.folder
        self._program = parts.settings.program
        self._metrics = parts.lines.count(Metrics())
        self._diary = parts.diary(self._metrics)
        self._teller = Teller(self._diary, parts.folder, SystemClock())
        self._tuning = Tuning(parts.settings, parts.reread, self._apply, noted=self._teller.tuned)
        self._claim = claim
        self._status = 0
        self._dsns = ("", "")
        self._schema = asyncio.Event()
        self._life = Lifecycle("up", reload=self._tuning.reload)
        self._systemd = Notifier(environ)
        self._alerts = Alerts(self._metrics, SystemClock())
        self.supervisor = Supervisor(self._metrics, pace=pace)
        self._stages = stages(self._program, embedded=not self._program.dsn)
        self._children = {role: self._child(role) for role in ROLES if role != "worker" or self._program.app}
        self._known = asyncio.Event()  # the worker's workflows; or there is no use in waiting for it
        self._announcement = Announcement(
            self._folder, parts.settings, claim, self._systemd, self._alerts, self._children, self._examine
        )

    async def run(self) -> int:
        """Start everything, stay until told to stop, stop everything in order."""
        log.info("seawall starts", extra=fields(data=str(self._folder.path), pid=os.getpid()))
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(self._life)
            await stack.enter_async_context(self._diary)
            await self._teller.starts(self._parts.settings)
            if not await self._prepared():
                return self._status
            self._register()
            health = HealthServer(
                self.supervisor, self._metrics, role="up", unix_path=self._folder.socket("up"), alerts=self._alerts
            )
            await stack.enter_async_context(health)
            await stack.enter_async_context(self.supervisor)
            await self._life.stopping.wait()
            await self._teller.stops(self._life.why)
            await self._stop()
        return self._status

    async def _prepared(self) -> bool:
        """Make what the roles are started with, as often as a full disk or a database that can't be made yet takes;
        False when told to stop meanwhile. Raises Misconfigured."""
        pause_s = PREPARE_MIN_S
        while not self._life.stopping.is_set():
            try:
                self._dsns = await self._parts.database.prepare()
                # Those in force by now: SIGHUP may have come meanwhile.
                self._write_resolved(self._tuning.settings)
                return True
            except (Unavailable, OSError) as error:
                why = str(error) if isinstance(error, Unavailable) else f"{error.filename}: {error.strerror}"
            log.error("can't start yet; trying again", extra=fields(cause=why, again_in_s=pause_s))
            self._systemd.starting(f"can't start yet: {why}")
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause_s):
                    await self._life.stopping.wait()
            pause_s = min(PREPARE_MAX_S, pause_s * 2)
        return False

    def stop(self, why: str) -> None:
        """Begin to stop, as a signal would; a second call hurries."""
        self._life.stop(why)

    def _register(self) -> None:
        self.supervisor.add("postgres", self._database)
        self.supervisor.add("schema", self._migrate)
        self.supervisor.add("systemd", self._systemd.run, essential=False)
        self.supervisor.add("changes", self._diary.run, essential=False)
        self.supervisor.add("announce", self._announcement.run, essential=False)
        first_until = 0.0 if self._parts.has_senders() else SystemClock().monotonic() + FIRST_S
        for role, child in self._children.items():
            if role != "router":
                after = [lambda: self._schema.is_set() or SystemClock().monotonic() > first_until]
                self.supervisor.add(f"role.{role}", _after(after, child))
        before_router = [self._schema.is_set]
        if (worker := self._children.get("worker")) is not None:
            before_router.append(lambda: worker.ready.is_set() or self._known.is_set())
        self.supervisor.add("role.router", _after(before_router, self._children["router"]))
        if self._parts.watch_app and self._program.app:
            watch = AppWatch(Path(self._program.app), self._children["worker"], beside=lambda: _own(self._children))
            self.supervisor.add("watch.app", watch.run, essential=False)
        if worker is not None:
            most, over = self._program.own_queues_max, self._life.stopping.is_set
            own = OwnQueues(worker, most=most, start=self._start_own, over=over)
            self.supervisor.add("own.queues", own.run, essential=False)

    def _start_own(self, queue: str) -> None:
        """A worker for one queue alone. The platform is whole without it: the worker stands in."""
        child = self._children[own_name([queue])] = self._child("worker", queue=queue)
        self.supervisor.add(f"role.{child.spec.role}", child.keep, essential=False)

    def _child(self, role: str, *, queue: str = "") -> Child:
        command = [*self._parts.program, "run", role, "--data", str(self._folder.path)]
        command += ["--resolved", str(self._folder.resolved_file), *(["--queue", queue] if queue else [])]
        served = {"collector": self._claim.listen, "console": self._claim.admin}.get(role)
        if served is not None:
            command += ["--socket", str(served.fileno())]
        descriptors = (served.fileno(),) if served is not None else ()
        inputs = (Path(self._program.app),) if role == "worker" else ()
        name, stop_s = own_name([queue]) if queue else role, self._stages[role]
        spec = Spec(role=name, command=command, stop_s=stop_s, descriptors=descriptors, inputs=inputs)
        child = Child(spec, refused=_stood_in if queue else self._refused, told=self._teller.ended)
        count = self._metrics.gauge("seawall_child_restarts_count", "Times that a role was started again.", child=name)
        count.read = lambda: child.restarts
        return child

    def _refused(self, role: str) -> None:
        if role == "worker" and self._parts.has_senders():
            # Whatever its app needs, senders don't: their events are kept, and the worker is tried again.
            log.error("the worker can't start as it is configured; events are accepted without it")
            self._known.set()
            return
        log.error("a role can't start as it is configured; stopping", extra=fields(child=role))
        self._fail()

    def _fail(self) -> None:
        self._status = 2
        self._life.stop("misconfigured")

    # ── PostgreSQL and its schema ──────────────────────────────────────────────────────────────────────────────────
    async def _database(self, heart: Heart) -> None:
        await self._parts.database.run(heart)

    async def _migrate(self, heart: Heart) -> None:
        """Bring the schema up to date once PostgreSQL answers; then only beat."""
        said = ""
        while not self._schema.is_set():
            work = asyncio.ensure_future(self._parts.migrate(self._dsns[0]))
            try:
                while not work.done():
                    heart.unready(said or "bringing the schema up to date")
                    await asyncio.wait([work], timeout=1.0)
                await work
                self._schema.set()
                self._diary.merge_with(partial(self._parts.merge, self._dsns[0]))
            except Misconfigured as error:
                log.error("the store can't be used", extra=fields(problems=error.problems))
                self._fail()
                return await _idle(heart)
            except SeawallError as error:
                said = str(error)
                await asyncio.sleep(0.1)
            finally:
                work.cancel()
        while True:
            await heart.beat()
            await asyncio.sleep(1.0)

    # ── Files that say where we are ────────────────────────────────────────────────────────────────────────────────
    def _write_resolved(self, settings: Settings) -> None:
        replace_private(self._folder.resolved_file, settings.resolved(*self._dsns))

    async def _examine(self) -> None:
        """Say what will bite in a bad hour, once everything is ready. It never refuses to start."""
        found = await doctor.examine(
            self._folder, self._tuning.settings, dsn=self._dsns[0], clock=SystemClock(), pid=os.getpid(),
            embedded=not self._program.dsn,
        )  # fmt: skip
        for finding in found:
            if finding.severity >= doctor.Severity.WARNING:
                log.warning(finding.line(), extra=fields(check=finding.check, severity=finding.severity.name.lower()))

    # ── Changes while running ──────────────────────────────────────────────────────────────────────────────────────
    def _apply(self, settings: Settings) -> None:
        """SIGHUP: for each role that runs, and for those that are started from now on."""
        verify(settings)
        if self._dsns[0]:  # else they are written as soon as the database is known that belongs to them
            self._write_resolved(settings)
        self._parts.set_log_level(settings.program.log_level)
        for child in self._children.values():
            child.reload()

    # ── The end ────────────────────────────────────────────────────────────────────────────────────────────────────
    async def _stop(self) -> None:
        """In the order of an event's way, so that each part can hand over what it has to the next."""
        self._announcement.leaving()
        self._systemd.stopping()
        self._claim.close_sockets()
        for role in ROLES:
            ours = [name for name in self._children if name == role or name.startswith(f"{role}.")]
            await asyncio.gather(*(self._children[name].stop(hurry=self._life.hurry) for name in ours))
            for name in ours:
                log.info("role stopped", extra=fields(child=name))
        await self._parts.database.stop(timeout_s=self._stages.get(POSTGRES, 0.0))
        # What is left removes files and writes the diary: on a disk that hangs, this very thread stays in it.
        self._parts.leave(self._status)
        self._announcement.stopping()
        log.info("seawall has stopped", extra=fields(status=self._status))


def _stood_in(role: str) -> None:
    log.error("a queue's own worker can't start; the other one serves its queue", extra=fields(child=role))


def _own(children: Mapping[str, Child]) -> list[Child]:
    """Workers of a queue's own."""
    return [child for name, child in children.items() if name.startswith(OWN_PREFIX)]


def _after(true: list[Callable[[], bool]], child: Child) -> Callable[[Heart], Awaitable[None]]:
    """A loop that keeps ``child`` running, once each of ``true`` was so for the first time."""

    async def keep(heart: Heart) -> None:
        while true:
            heart.unready("waiting for its turn")
            if true[0]():
                del true[0]
            else:
                await asyncio.sleep(TURN_S)
        await child.keep(heart)

    return keep


async def _idle(heart: Heart) -> None:
    while True:
        heart.unready("stopping")
        await asyncio.sleep(0.5)
