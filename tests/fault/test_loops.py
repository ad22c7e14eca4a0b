"""No loop can die or hang unseen (incident I1, the silent listener): every loop of every role, as `app.py` joins them,
is killed and hung. Each time: a log line with the cause, readiness that names it, and a new life, all within 5 s.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest

from seawall.app import ROLES
from seawall.guard import Supervisor
from seawall.guard.supervisor import LoopHealth
from seawall.journal.filesystem import LocalFilesystem
from seawall.kernel.metric import Metrics
from seawall.machine.claim import Claim, bound
from seawall.machine.external import External
from seawall.machine.folder import Folder
from seawall.machine.role import Site
from seawall.machine.up import Parts, Up
from seawall.settings import read
from seawall.testing.postgres import Database
from seawall.watch.health import Vitals

WITHIN_S = 5.0
APP = """
from seawall import App
app = App()
@app.workflow(on="x")
async def nothing(event, ctx): ...
"""
LOOPS = {
    "collector": {
        "journal.c1", "journal.c1.publisher", "responder.listener", "responder.reader", "responder.deadline",
        "collector.sweep", "collector.snapshot", "collector.source_hint",
    },
    "router": {
        "router.discover", "router.clock", "router.housekeeping", "housekeeping",
        "router.fresh.c1", "router.backlog.c1",
    },
    "worker": {
        "worker.flush", "worker.deadline", "worker.lease", "worker.refill", "worker.timer", "worker.hint",
        "worker.listen", "worker.solo",
    },
    "console": {"console.http"},
}  # fmt: skip
"""What must at least be there: a loop that is missing here can't be missed by accident."""


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


@contextlib.asynccontextmanager
async def running(role: str, folder: Folder, database: Database, app: Path) -> AsyncIterator[Running]:
    flags = {"dsn": database.dsn, "worker_dsn": database.worker_dsn, "app": str(app)}
    fate, metrics = Fate(), Metrics()
    supervisor = Supervisor(metrics, pace=fate)
    site = Site(
        settings=read(flags, config=None, environment={}),
        folder=folder,
        metrics=metrics,
        supervisor=supervisor,
        socket=bound("listen", "127.0.0.1:0") if role in ("collector", "console") else None,
    )
    async with ROLES[role](site), supervisor:
        made = Running(supervisor, fate, Vitals(supervisor, metrics, role=role))
        await until(lambda: made.names >= LOOPS[role] and all(one.ready for one in supervisor.health()), 20.0)
        yield made


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
async def role_with_logs(role: str, folder: Folder, database: Database, app: Path) -> AsyncIterator[Running]:
    """A role, after a collector has made the log that the router reads."""
    if role == "router":
        async with running("collector", folder, database, app):
            pass
    async with running(role, folder, database, app) as made:
        yield made


@pytest.mark.parametrize("role", list(LOOPS))
async def test_each_loop_that_dies_is_named_and_lives_again(
    role: str, folder: Folder, database: Database, app: Path, lines: Lines
) -> None:
    async with role_with_logs(role, folder, database, app) as made:
        for name in sorted(made.names):
            before = made.loop(name).restarts
            began = time.monotonic()
            made.fate.doomed.add(name)
            await until(lambda n=name: not made.loop(n).ready and n not in made.fate.doomed, WITHIN_S)  # type: ignore[misc]
            assert named_unready(made, name)
            await until(lambda n=name, b=before: made.loop(n).ready and made.loop(n).restarts == b + 1, WITHIN_S)  # type: ignore[misc]
            assert time.monotonic() - began < WITHIN_S
            assert ("loop died", name, f"Killed({name!r})") in lines.seen


@pytest.mark.parametrize("role", list(LOOPS))
async def test_each_loop_that_hangs_is_named_and_lives_again(
    role: str, folder: Folder, database: Database, app: Path, lines: Lines
) -> None:
    """All at once: it shows too that no loop's cure waits for another's."""
    async with role_with_logs(role, folder, database, app) as made:
        names = made.names
        before = {name: made.loop(name).restarts for name in names}
        began = time.monotonic()
        made.fate.silent |= names
        seen: set[str] = set()

        def all_seen() -> bool:
            seen.update(name for name in names if not made.loop(name).ready and named_unready(made, name))
            return seen == names

        limit_s = WITHIN_S + max(stall_beyond_default(made, name) for name in names)
        await until(all_seen, limit_s)
        await until(lambda: all(made.loop(n).ready and made.loop(n).restarts > before[n] for n in names), limit_s)
        assert time.monotonic() - began < limit_s
        assert {loop for message, loop, _ in lines.seen if message == "loop hangs"} >= names


async def test_the_parents_own_loops_are_kept_alike(
    folder: Folder, database: Database, app: Path, lines: Lines
) -> None:
    """Also the loops that keep the roles' processes: one that dies takes its process along, and both come back."""
    flags = {"dsn": database.dsn, "app": str(app), "listen": "127.0.0.1:0", "admin": "127.0.0.1:0"}
    settings = read(flags, config=None, environment={})
    claim, fate = Claim(folder, settings.program), Fate()
    claim.take()
    up = Up(
        Parts(
            folder=folder, settings=settings, reread=lambda: settings, migrate=migrated, set_log_level=len,
            database=External(database.dsn, database.dsn),
        ),
        claim,
        pace=fate,
    )  # fmt: skip
    task = asyncio.create_task(up.run())
    try:
        await until(lambda: bool(up.supervisor.health()) and all(p.ready for p in up.supervisor.health()), 60.0)
        names = [one.name for one in up.supervisor.health()]
        assert set(names) == {"postgres", "schema", *(f"role.{role}" for role in ROLES)}
        for name in names:
            fate.doomed.add(name)
            await until(lambda n=name: restarts(up, n) == 1, WITHIN_S)  # type: ignore[misc]
            assert ("loop died", name, f"Killed({name!r})") in lines.seen
        await until(lambda: all(p.ready for p in up.supervisor.health()), 60.0)
    finally:
        up.stop("the test is over")
        assert await task == 0
        claim.release()


async def migrated(dsn: str) -> None:
    """The test's database has its schema."""


def restarts(up: Up, name: str) -> int:
    return next(one.restarts for one in up.supervisor.health() if one.name == name)


def named_unready(made: Running, name: str) -> bool:
    """What /readyz says: an essential loop makes it false; any loop is shown with why."""
    health = made.vitals.health()
    shown = next(one for one in health.loops if one.name == name)
    if shown.essential and (health.ready or name not in health.reason):
        return False
    return bool(shown.reason)


def stall_beyond_default(made: Running, name: str) -> float:
    """A loop that may wait for several statements in a row is given that time."""
    return max(0.0, next(p for p in made.supervisor._loops if p.name == name).stall_s - 3.0)
