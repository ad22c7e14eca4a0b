"""No loop can die or hang unseen (incident I1, the silent listener): every loop of every role, as `app.py` joins them,
is killed and hung. Each time: a log line with the cause, readiness that names it, and a new life, all within 5 s.
"""

from __future__ import annotations

import ast
import asyncio
import contextlib
import logging
import re
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from pathlib import Path

import pytest

import seawall
from cache.mmdb import written
from cache.server import Server
from collector.authority import Authority
from seawall.app import ROLES, Making
from seawall.guard import Lifecycle, Supervisor
from seawall.guard.outlet import Outlet
from seawall.guard.panel import Panel
from seawall.guard.pressure import Pressure
from seawall.guard.shed import ShedList
from seawall.guard.supervisor import LoopHealth
from seawall.journal.filesystem import LocalFilesystem
from seawall.journal.kafka.topic import Admin
from seawall.journal.topic import Topic
from seawall.kernel.alert import Alerts
from seawall.kernel.clock import SystemClock
from seawall.kernel.metric import Metrics
from seawall.kernel.seam.change import Change
from seawall.lab.part.redis import wheel_engine
from seawall.machine.claim import Claim, bound
from seawall.machine.diary import Diary
from seawall.machine.external import External
from seawall.machine.folder import Folder
from seawall.machine.handle import Handles
from seawall.machine.role import Site, beating
from seawall.machine.up import Parts, Up
from seawall.settings import read
from seawall.store import pool
from seawall.store.change import bring
from seawall.testing.kafka import MockKafka
from seawall.testing.postgres import Database
from seawall.watch.health import Vitals
from stall import Stopwatch

WITHIN_S = 5.0
PACKAGE = Path(seawall.__file__).parent
APP = """
from seawall import App
app = App()
@app.workflow(on="x")
async def nothing(event, ctx): ...
"""
LOOPS = {
    "collector": {
        "parent", "handles", "shed", "flags", "flags.hint", "cache.probe", "cache.meter",
        "journal.c1", "journal.c1.publisher", "responder.listener.notify", "responder.listener.redis",
        "responder.reader", "responder.deadline",
        "collector.sweep", "collector.snapshot", "collector.source_hint", "collector.certificate", "collector.share",
        "collector.alarm",
    },
    "router": {
        "parent", "handles", "shed", "flags", "flags.hint", "cache.geo",
        "router.discover", "router.clock", "router.depth", "router.broadcast", "router.housekeeping",
        "router.bulk", "router.replay",
        "router.governor",
        "housekeeping",
        "router.fresh.c1", "router.backlog.c1",
    },
    "worker": {
        "parent", "handles", "shed",
        "worker.flush", "worker.deadline", "worker.lease", "worker.refill", "worker.timer", "worker.hint",
        "worker.wait", "worker.usage", "worker.listen", "worker.presence", "worker.cron", "worker.solo",
        "worker.admission", "worker.ending", "worker.beat",
    },
    "console": {
        "parent", "handles", "shed", "changes", "console.http", "watch.look", "watch.store", "watch.webhook",
    },
    "cluster-collector": {
        "parent", "handles", "shed", "flags", "flags.hint", "journal.spool", "journal.c1", "journal.c1.publisher",
        "journal.c1.parked", "journal.c1.parked.publisher", "journal.kafka.topic", "journal.kafka.producer",
        "journal.kafka.forward", "journal.kafka.return", "journal.kafka.leftover", "responder.listener.notify",
        "responder.reader", "responder.deadline", "collector.sweep", "collector.share", "collector.snapshot",
        "collector.source_hint", "collector.alarm",
    },
    "cluster-router": {
        "parent", "handles", "shed", "flags", "flags.hint", "router.kafka.topic", "router.kafka.feeds",
        "router.kafka.lookout", "router.discover", "router.clock", "router.depth", "router.broadcast",
        "router.bulk", "router.replay",
        "router.housekeeping", "housekeeping", "router.governor", "router.fresh.seawall-0", "router.backlog.seawall-0",
    },
}  # fmt: skip
"""Exactly what there is: neither can a loop be lost, nor a new one be forgotten here."""

OF_UP = {
    "announce",
    "postgres",
    "schema",
    "systemd",
    "changes",
    "watch.app",
    "own.queues",
    *(f"role.{role}" for role in ROLES),
}


def _marks(role: str) -> list[pytest.MarkDecorator]:
    if role.startswith("cluster"):
        return [pytest.mark.parts]
    return [pytest.mark.slow] if role in ("collector", "console") else []


EVERY = [pytest.param(role, marks=_marks(role)) for role in LOOPS]
"""Those of a cluster have the client library's own brokers, which are slow to start with."""


OF_ONE_ALONE = {"changes.alone"}
"""Of a role that has no parent to tell the timeline of it."""


class Killed(Exception):
    """Raised inside a loop."""


class Fate:
    """Decides at each beat what becomes of a loop: nothing, death, or silence."""

    def __init__(self) -> None:
        self.doomed: set[str] = set()
        self.silent: set[str] = set()

    async def __call__(self, name: str) -> None:
        if name in self.doomed:
            self.doomed.discard(name)
            raise Killed(name)
        if name in self.silent:
            self.silent.discard(name)
            await asyncio.Event().wait()


class Lines(logging.Handler):
    """The guard's log lines: (message, loop, cause)."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[str, str, str]] = []

    def emit(self, record: logging.LogRecord) -> None:
        said = getattr(record, "seawall", {})
        self.seen.append((record.getMessage(), str(said.get("loop")), str(said.get("cause", said.get("stack")))))


@pytest.fixture
def lines() -> Iterator[Lines]:
    handler = Lines()
    logger = logging.getLogger("seawall.guard")
    logger.addHandler(handler)
    yield handler
    logger.removeHandler(handler)


class Running:
    """One role in this process."""

    def __init__(self, supervisor: Supervisor, fate: Fate, vitals: Vitals) -> None:
        self.supervisor = supervisor
        self.fate = fate
        self.vitals = vitals

    def loop(self, name: str) -> LoopHealth:
        return next(one for one in self.supervisor.health() if one.name == name)

    @property
    def names(self) -> set[str]:
        return {one.name for one in self.supervisor.health()}


@contextlib.contextmanager
def brokers() -> Iterator[dict[str, str]]:
    """Settings of a cluster; its brokers can't say what a topic is like, so that is told in their place."""
    with MockKafka("seawall") as mock:

        async def look(admin: Admin) -> Topic:
            return Topic(**mock.facts())

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Admin, "look", look)
            yield {"profile": "cluster", "kafka.bootstrap": mock.bootstrap}


@contextlib.asynccontextmanager
async def running(name: str, folder: Folder, database: Database, app: Path, redis: Server) -> AsyncIterator[Running]:
    """One role of ``LOOPS``."""
    role = name.removeprefix("cluster-")
    with brokers() if role != name else contextlib.nullcontext({}) as more:
        async with _running(role, LOOPS[name], more, folder, database, app, redis) as made:
            yield made


@contextlib.asynccontextmanager
async def _running(
    role: str, loops: set[str], more: dict[str, str], folder: Folder, database: Database, app: Path, redis: Server
) -> AsyncIterator[Running]:
    flags = {"dsn": database.dsn, "worker_dsn": database.worker_dsn, "app": str(app), **more}
    if role == "collector" and not more:
        certificate, key = Authority().put(folder.path)
        flags |= {"collector.tls_certificate": str(certificate), "collector.tls_key": str(key)}
        flags |= {"cache.url": f"redis://127.0.0.1:{redis.port}", "cache.hints": "redis"}
    if role == "router" and not more:
        (folder.path / "countries.mmdb").write_bytes(written({"192.0.2.0/24": {"country": "DE"}}))
        flags |= {"cache.geo": str(folder.path / "countries.mmdb")}
    fate, metrics = Fate(), Metrics()
    supervisor = Supervisor(metrics, pace=fate)
    site = Site(
        settings=read(flags, config=None, environment={}),
        folder=folder,
        metrics=metrics,
        supervisor=supervisor,
        alerts=Alerts(metrics, SystemClock()),
        panel=Panel(),
        shed=(shed := ShedList(clock=SystemClock(), metrics=metrics, alerts=Alerts(metrics, SystemClock()))),
        socket=bound("listen", "127.0.0.1:0") if role in ("collector", "console") else None,
    )
    async with ROLES[role](site, Making()):
        supervisor.add("parent", beating(Lifecycle(role)), essential=False)  # as `serve` does
        Handles(metrics, SystemClock()).register(supervisor)
        Pressure(shed, clock=SystemClock(), metrics=metrics).register(supervisor)
        async with supervisor:
            made = Running(supervisor, fate, Vitals(supervisor, metrics, role=role))
            await until(lambda: made.names >= loops and all(one.ready for one in supervisor.health()), 20.0)
            assert made.names == loops
            yield made


@pytest.fixture(scope="module")
def redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = Server(tmp_path_factory.mktemp("redis"), wheel_engine())
    server.start()
    yield server
    server.kill()


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    made = Folder(tmp_path / "data", LocalFilesystem())
    made.prepare()
    return made


@pytest.fixture
def app(tmp_path: Path) -> Path:
    file = tmp_path / "app.py"
    file.write_text(APP)
    return file


async def until(true: Callable[[], bool], timeout_s: float) -> None:
    latest = time.monotonic() + timeout_s
    while not true():
        assert time.monotonic() < latest, "not in time"
        await asyncio.sleep(0.01)


@contextlib.asynccontextmanager
async def role_with_logs(
    role: str, folder: Folder, database: Database, app: Path, redis: Server
) -> AsyncIterator[Running]:
    """A role, after a collector has made the log that the router reads."""
    if role == "router":
        async with running("collector", folder, database, app, redis):
            pass
    async with running(role, folder, database, app, redis) as made:
        yield made


@pytest.mark.parametrize("role", EVERY)
async def test_each_loop_that_dies_is_named_and_lives_again(
    role: str, folder: Folder, database: Database, app: Path, lines: Lines, redis: Server
) -> None:
    async with role_with_logs(role, folder, database, app, redis) as made:
        for name in sorted(made.names):
            before = made.loop(name).restarts
            watch = Stopwatch()
            made.fate.doomed.add(name)
            await until(lambda n=name: not made.loop(n).ready and n not in made.fate.doomed, WITHIN_S)  # type: ignore[misc]
            assert named_unready(made, name)
            await until(lambda n=name, b=before: made.loop(n).ready and made.loop(n).restarts == b + 1, WITHIN_S)  # type: ignore[misc]
            assert watch.s < WITHIN_S
            assert ("loop died", name, f"Killed({name!r})") in lines.seen


@pytest.mark.slow
@pytest.mark.parametrize("role", EVERY)
async def test_each_loop_that_hangs_is_named_and_lives_again(
    role: str, folder: Folder, database: Database, app: Path, lines: Lines, redis: Server
) -> None:
    """All at once: it shows too that no loop's cure waits for another's."""
    async with role_with_logs(role, folder, database, app, redis) as made:
        names = made.names
        before = {name: made.loop(name).restarts for name in names}
        watch = Stopwatch()
        made.fate.silent |= names
        seen: set[str] = set()

        def all_seen() -> bool:
            seen.update(name for name in names if not made.loop(name).ready and named_unready(made, name))
            return seen == names

        await until(all_seen, WITHIN_S)
        await until(lambda: all(made.loop(n).ready and made.loop(n).restarts > before[n] for n in names), WITHIN_S)
        assert watch.s < WITHIN_S
        assert {loop for message, loop, _ in lines.seen if message == "loop hangs"} >= names


@contextlib.asynccontextmanager
async def parent(folder: Folder, database: Database, app: Path) -> AsyncIterator[tuple[Up, Fate, Vitals]]:
    """`up` in this process, with real roles below it."""
    flags = {"dsn": database.dsn, "app": str(app), "listen": "127.0.0.1:0", "admin": "127.0.0.1:0"}
    settings = read(flags, config=None, environment={})
    claim, fate = Claim(folder, settings.program), Fate()
    claim.take()
    up = Up(
        Parts(
            folder=folder, settings=settings, reread=lambda: settings, migrate=migrated, set_log_level=len,
            lines=Outlet(2), database=External(database.dsn, database.dsn), watch_app=True, merge=merged,
            has_senders=lambda: False,
            diary=lambda metrics: Diary(
                folder.changes, "up", version="1", filesystem=LocalFilesystem(), clock=SystemClock(), metrics=metrics
            ),
        ),
        claim,
        pace=fate,
    )  # fmt: skip
    task = asyncio.create_task(up.run())
    try:
        await until(lambda: bool(up.supervisor.health()) and all(p.ready for p in up.supervisor.health()), 60.0)
        yield up, fate, Vitals(up.supervisor, Metrics(), role="up")
    finally:
        up.stop("the test is over")
        assert await task == 0
        claim.release()


@pytest.mark.slow
@pytest.mark.parametrize(("message", "fate_of"), [("loop died", "doomed"), ("loop hangs", "silent")])
async def test_the_parents_own_loops_are_kept_alike(
    message: str, fate_of: str, folder: Folder, database: Database, app: Path, lines: Lines
) -> None:
    """Also the loops that keep the roles' processes: one that dies takes its process along, and both come back."""
    async with parent(folder, database, app) as (up, fate, vitals):
        assert {one.name for one in up.supervisor.health()} == OF_UP
        made = Running(up.supervisor, fate, vitals)
        for names in [{name} for name in sorted(OF_UP)] if fate_of == "doomed" else [OF_UP]:
            getattr(fate, fate_of).update(names)
            seen: set[str] = set()

            def again(names: set[str] = names, seen: set[str] = seen) -> bool:
                seen.update(name for name in names if not made.loop(name).ready and named_unready(made, name))
                return seen == names and all(made.loop(name).restarts == 1 for name in names)

            await until(again, WITHIN_S)
            assert names <= {loop for said, loop, cause in lines.seen if said == message and cause}
        # A role's loop is ready when its process is, which loads its program first.
        await until(lambda: all(one.ready for one in up.supervisor.health()), 60.0)


def test_no_loop_is_missing_above() -> None:
    """Whatever the code registers anywhere, also under a condition that no test meets, is one of those names."""
    known = {*OF_UP, *OF_ONE_ALONE, *(name for names in LOOPS.values() for name in names)}
    registered = {pattern for file in PACKAGE.rglob("*.py") for pattern in added(ast.parse(file.read_text()))}
    assert len(registered) > 20
    assert [p for p in registered if not any(re.fullmatch(p, name) for name in known)] == []


def added(tree: ast.Module) -> Iterator[str]:
    """The name, as a pattern, in each `supervisor.add(NAME, …)`."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and re.search(r"supervisor\.add$", ast.unparse(node.func)):
            name = node.args[0]
            if isinstance(name, ast.JoinedStr):
                parts = [re.escape(p.value) if isinstance(p, ast.Constant) else "[a-z0-9]+" for p in name.values]
                yield "".join(parts)
            else:
                assert isinstance(name, ast.Constant), ast.unparse(node)
                yield re.escape(name.value)


async def migrated(dsn: str) -> None:
    """The test's database has its schema."""


async def merged(dsn: str, changes: Sequence[Change]) -> None:
    await bring(pool.Settings(dsn=dsn), changes, timeout_s=1.0)


def named_unready(made: Running, name: str) -> bool:
    """What /readyz says: an essential loop makes it false; any loop is shown with why."""
    health = made.vitals.health()
    shown = next(one for one in health.loops if one.name == name)
    if shown.essential and (health.ready or name not in health.reason):
        return False
    return bool(shown.reason)
