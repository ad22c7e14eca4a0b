"""One role's process: what all roles have in common.

Signals, the parent's socket, health, and the order of starting and stopping. Which rooms a role has is the composition
root's business: it gives us a function that opens them.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
import os
import re
import socket
from collections.abc import Callable, Coroutine, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from dataclasses import dataclass, field
from typing import Any, NoReturn
from uuid import UUID

from seawall.guard import Heart, Lifecycle, Supervisor, fork, loop, outlet
from seawall.guard.budget import Budget
from seawall.guard.outlet import Outlet
from seawall.guard.panel import Panel
from seawall.guard.pressure import Pressure
from seawall.guard.shed import ShedList
from seawall.kernel.alert import Alerts
from seawall.kernel.clock import Clock, SystemClock
from seawall.kernel.log import fields, logger
from seawall.kernel.metric import Metrics
from seawall.machine import check, memory
from seawall.machine.claim import OWN_PREFIX, bound
from seawall.machine.folder import Folder, Lock
from seawall.machine.hand import Hands
from seawall.machine.handle import Handles
from seawall.machine.stopping import LEAVE_S, Report, Stopping
from seawall.machine.systemd import Notifier
from seawall.machine.tuning import Tuning
from seawall.settings import Settings, environ
from seawall.watch import HealthServer

log = logger("machine")

OWN_CHARS_MAX = 20
READY_POLL_S = 0.02
LEAVING_S = 20.0
"""How long a predecessor may take to leave."""

FLUSH_SHARE = 0.4
"""Of a role's stopping budget: kept for closing its rooms in order, whatever is in hand."""

TASKS_S = 1.0
"""How long tasks that user code left behind may take to end, after everything is closed."""


@dataclass(frozen=True, slots=True)
class Solo:
    """A worker process for one queue's suspects, one at a time, that ends when there are none."""

    queue: str
    owner: UUID
    turn_s: float | None = None  # of one suspect while others wait; None: as the settings say


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
    queues: tuple[str, ...] = ()  # a worker of just these; (): of all
    name: str = ""  # of the process
    alerts: Alerts
    panel: Panel
    shed: ShedList
    fail: Callable[[str], None] = lambda why: None  # this process must be started anew: it can't go on safely


async def _nothing(hurry: asyncio.Event, budget: Budget) -> None:
    """For a role that has nothing in hand between two statements."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Opened:
    """What an open role offers to ``serve``."""

    drain: Callable[[asyncio.Event, Budget], Coroutine[Any, Any, None]] = _nothing  # finish what is in hand; or hurry
    reload: Callable[[Settings], None] = lambda settings: None  # all rooms; raises Misconfigured before any changed
    said: Mapping[str, object] = field(default_factory=dict)  # told to the parent with "ready"
    until: Callable[[], Coroutine[Any, Any, None]] | None = None  # the process ends by itself when this returns
    extra: Callable[[], dict[str, object]] = dict
    report: Report | None = None  # asked when everything is closed


Role = Callable[[Site], AbstractAsyncContextManager[Opened]]


async def unless(hurry: asyncio.Event, work: Coroutine[Any, Any, None], budget: Budget | None = None) -> None:
    """Do ``work`` to its end, or until somebody is in a hurry or the budget is spent."""
    tasks = [asyncio.ensure_future(work), asyncio.ensure_future(hurry.wait())]
    try:
        timeout_s = budget.left_s if budget is not None else None
        await asyncio.wait(tasks, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
        if tasks[0].done():
            tasks[0].result()
    finally:
        for task in tasks:
            task.cancel()


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
    queues: tuple[str, ...] = ()  # a worker of just these; (): of all

    @property
    def name(self) -> str:
        """Of the process: its lock and its socket carry it."""
        if self.solo is not None:
            return f"{self.role}-{self.solo.owner.hex}"
        return own_name(self.queues) if self.queues else self.role


def own_name(queues: Sequence[str]) -> str:
    """Of a worker process of just these queues: what a file may be called, and the same after each start."""
    text = "\n".join(sorted(queues))
    plain = re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")[:OWN_CHARS_MAX]
    return f"{OWN_PREFIX}{plain}-{hashlib.sha256(text.encode('utf-8', 'replace')).hexdigest()[:8]}"


def run(start: Start, open_role: Role, *, mark: str = "") -> int:
    """Be one role until told to stop; the exit status.

    Args:
        mark: Stands first in each log line.

    Raises:
        Misconfigured: Before anything was started.
    """
    with outlet.opened(start.role, level=start.settings.program.log_level, mark=mark) as lines:
        return _run(start, open_role, lines)


def _run(start: Start, open_role: Role, lines: Outlet) -> int:
    check.refuse_platform()
    check.forbid_cores()
    check.raise_open_files()
    memory.yield_to_others(start.role, solo=start.solo is not None)
    if start.parent is None:
        start.folder.prepare()
    lock = Lock(start.folder.run / f"{start.name}.lock")
    if start.role == "worker":
        fork.end_orphans()
    lock.acquire(timeout_s=LEAVING_S if start.parent is not None else 0.0)
    try:
        return loop.run(serve(start, open_role, lines), loop_factory=_loop_factory())
    finally:
        lock.release()


async def serve(start: Start, open_role: Role, lines: Outlet) -> int:
    """Open the role, say ready, wait for the end, drain, close."""
    metrics, clock = lines.count(Metrics()), SystemClock()
    alerts = Alerts(metrics, clock)
    shed = _shed_list(start, clock, metrics, alerts)
    panel = Panel(shed)
    supervisor = Supervisor(metrics, watch_blocking=True)
    opened: Opened | None = None

    def apply(settings: Settings) -> None:
        if opened is not None:
            opened.reload(settings)
        set_log_level(settings.program.log_level)

    tuning = Tuning(start.settings, start.reread, apply, quietly=start.parent is not None)
    life = Lifecycle(start.role, parent=start.parent, reload=tuning.reload)
    failures: list[str] = []
    stopping = Stopping(getattr(start.settings.program, f"stop_{start.role}_s"), clock=clock)
    # Under `up` it is the parent whom systemd knows.
    systemd = Notifier(environ if start.parent is None else lambda name: None)

    def fail(why: str) -> None:
        log.critical("this process must be started anew", extra=fields(why=why))
        failures.append(why)
        life.stop(why)

    site = Site(
        settings=start.settings, folder=start.folder, metrics=metrics, supervisor=supervisor, socket=_socket(start),
        solo=start.solo, queues=start.queues, name=start.name, fail=fail, alerts=alerts, panel=panel, shed=shed,
    )  # fmt: skip
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(life)
        # From the first moment on: a parent that hears nothing takes us for dead, and opening may read a whole disk.
        opening = asyncio.create_task(life.beat(), name="parent")
        stack.callback(opening.cancel)
        opened = await stack.enter_async_context(open_role(site))
        opening.cancel()
        if tuning.settings is not start.settings:  # they changed while it was opened with the old ones
            opened.reload(tuning.settings)
        supervisor.add("parent", beating(life), essential=False)
        supervisor.add("systemd", systemd.run, essential=False)
        Handles(metrics, site.clock).register(supervisor)
        Pressure(shed, clock=site.clock, metrics=metrics).register(supervisor)
        # Entered after the rooms, so that it is left before them: no loop runs on a closed room.
        await stack.enter_async_context(supervisor)
        host, port = start.health or (None, None)
        health = HealthServer(
            supervisor, metrics, role=start.name if start.queues else start.role,
            unix_path=start.folder.socket(start.name), host=host, port=port,
            extra=opened.extra, alerts=alerts, panel=panel,
        )  # fmt: skip
        await stack.enter_async_context(health)
        await _ready(supervisor, life)
        if not life.stopping.is_set():
            life.tell("ready", **opened.said)
            quietly = start.parent is not None  # who says what matters of all its roles
            log.log(logging.DEBUG if quietly else logging.INFO, "ready")
            systemd.ready()
            stopped = life.stopping.wait() if opened.until is None else unless(life.stopping, opened.until())
            await loop.uncancelled(stopped)
        systemd.stopping()
        with stopping.stage("drain", keep_share=FLUSH_SHARE) as budget:
            await opened.drain(life.hurry, budget)
        rooms = stack.pop_all()
    with stopping.stage("flush"):
        await rooms.aclose()
    if opened.report is not None:
        stopping.report(opened.report())
    status = 1 if failures else 0
    await _end(status)
    return status


async def _end(status: int) -> None:
    """Nothing that goes on all the same keeps the process: nobody takes its place before it has ended."""
    if not await loop.ended_tasks(TASKS_S):
        _leave(status)
    # Who asked a Kafka that is a black hole waits for its answer in a thread, and senders would wait with it.
    loop.leave_within(LEAVE_S, status)


def _leave(status: int) -> NoReturn:
    log.warning("tasks of user code go on after they were cancelled; the process ends without them")
    outlet.flush()
    os._exit(status)


def _shed_list(start: Start, clock: Clock, metrics: Metrics, alerts: Alerts) -> ShedList:
    hands = Hands(start.folder.run / f"{start.name}.shed")
    return ShedList(clock=clock, metrics=metrics, alerts=alerts, hands=hands.read(), keep=hands.keep)


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


def beating(life: Lifecycle) -> Callable[[Heart], Coroutine[Any, Any, None]]:
    """A loop that tells the parent once a second that this event loop ticks."""

    async def run(heart: Heart) -> None:
        while True:
            life.tell("beat")
            await heart.beat()
            await asyncio.sleep(1.0)

    return run


async def _ready(supervisor: Supervisor, life: Lifecycle) -> None:
    """Wait until every essential loop made its first round, or until told to stop."""
    while not life.stopping.is_set():
        if all(one.ready for one in supervisor.health() if one.essential):
            return
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(READY_POLL_S):
                await life.stopping.wait()


def set_log_level(level: str) -> None:
    logging.getLogger("seawall").setLevel(level.upper())
