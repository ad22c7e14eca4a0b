"""``seawall up``: the parent of all roles on one machine.

It owns the folder's lock, the two listening sockets and PostgreSQL, and it touches no event: a role that dies leaves
its socket's queue with us, so that clients wait a moment instead of being refused. Start: folder, checks, sockets;
then all at once, for every role can wait for the store by itself, and intake doesn't need it. Only the router comes
after the schema and after the worker has registered its workflows, so that no event is routed before the workflows
that it should start are known. Stop: as an event flows, each part within its budget, PostgreSQL last.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from seawall.guard import Heart, Lifecycle, Supervisor
from seawall.guard.supervisor import Pace
from seawall.kernel.error import Misconfigured, SeawallError
from seawall.kernel.log import fields, logger
from seawall.kernel.metric import Metrics
from seawall.machine import check
from seawall.machine.folder import Busy, Folder, Lock, replace_private, start_time
from seawall.machine.process import Child, Spec
from seawall.settings import Program, Settings, host_port

log = logger("machine")

ROLES = ("collector", "router", "worker", "console")
"""In the order in which an event passes them, which is the order of stopping."""

LEAVE_S = 20.0
"""How long the roles of an `up` that was killed may take to leave: their event loops' own guard ends them in 15 s."""

BACKLOG = 1024
CHECK_APP_S = 60.0
WATCH_S = 0.5


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
    watch_app: bool = False


class Claim:
    """What only one `up` can have: the folder and the sockets. ``release`` gives all back."""

    def __init__(self, folder: Folder, program: Program) -> None:
        self.folder = folder
        self._program = program
        self._lock = Lock(folder.path / "lock")
        self.listen: socket.socket | None = None
        self.admin: socket.socket | None = None

    def take(self) -> list[str]:
        """Prepare the folder and take it and the ports; warnings about the machine.

        Raises:
            Misconfigured: The folder or a port is in use, or the folder can't be used.
        """
        check.refuse_platform()
        self.folder.prepare()
        self._lock.acquire()
        with contextlib.suppress(FileNotFoundError):
            self.folder.admin_file.unlink()
        found = check.warnings(self.folder.path)
        if few := check.raise_open_files():
            found.append(few)
        await_leaving(self.folder, ROLES)
        self.listen = bound("listen", self._program.listen)
        self.admin = bound("admin", self._program.admin)
        return found

    def close_sockets(self) -> None:
        """Our copies only: the roles that serve them close their own."""
        for one in (self.listen, self.admin):
            if one is not None:
                one.close()

    def release(self) -> None:
        self.close_sockets()
        self._lock.release()


def await_leaving(folder: Folder, roles: Sequence[str], *, timeout_s: float = LEAVE_S) -> None:
    """Wait until no role of an earlier `up` is left; end one that doesn't leave, when it is proven to be ours.

    Raises:
        Busy: One is left that can't be proven ours, or that can't be ended.
    """
    latest = time.monotonic() + timeout_s
    for role in roles:
        lock = Lock(folder.run / f"{role}.lock")
        try:
            lock.acquire(timeout_s=max(0.0, latest - time.monotonic()))
        except Busy as busy:
            pid = lock.holder_pid()
            if pid is None:
                raise
            log.warning("a role of an earlier start doesn't leave; ending it", extra=fields(child=role, pid=pid))
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
            try:
                lock.acquire(timeout_s=5.0)
            except Busy:
                raise busy from None
        lock.release()


def bound(name: str, address: str) -> socket.socket:
    """A listening socket, to be inherited.

    Raises:
        Misconfigured: The address is in use, isn't ours, or isn't allowed.
    """
    parsed = host_port(address)
    assert parsed is not None, "settings.py refuses other addresses"
    host, port = parsed
    try:
        family, _, _, _, where = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        server = socket.socket(family, socket.SOCK_STREAM)
        try:
            server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            server.bind(where)
            server.listen(BACKLOG)
        except OSError:
            server.close()
            raise
    except OSError as error:
        cure = f"stop what listens there, or choose another --{name} (port 0 picks a free one)"
        raise Misconfigured([f"--{name} {address}: {error.strerror or error}; {cure}"]) from error
    server.setblocking(False)
    return server


def url_of(server: socket.socket) -> str:
    """``http://HOST:PORT`` at which a client on this machine reaches it."""
    host, port = server.getsockname()[:2]
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104 - recognised, not bound
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


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
        self._claim = claim
        self._status = 0
        self._dsns = ("", "")
        self._schema = asyncio.Event()
        self._life = Lifecycle("up", reload=self._reload)
        self._metrics = Metrics()
        self.supervisor = Supervisor(self._metrics, pace=pace)
        self._children = {role: self._child(role) for role in ROLES if role != "worker" or self._program.app}

    async def run(self) -> int:
        """Start everything, stay until told to stop, stop everything in order."""
        began = time.monotonic()
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(self._life)
            self._dsns = await self._parts.database.prepare()
            self._write_resolved()
            self._register()
            await stack.enter_async_context(self.supervisor)
            self._write_admin()
            announce = asyncio.create_task(self._announce(began), name="announce")
            await self._life.stopping.wait()
            announce.cancel()
            await asyncio.wait([announce])
            await self._stop()
        return self._status

    def _register(self) -> None:
        self.supervisor.add("postgres", self._database)
        self.supervisor.add("schema", self._migrate)
        before_router = [self._schema]
        for role, child in self._children.items():
            if role != "router":
                self.supervisor.add(f"role.{role}", child.keep)
        if "worker" in self._children:
            before_router.append(self._children["worker"].ready)
        self.supervisor.add("role.router", self._after(before_router, self._children["router"]))
        if self._parts.watch_app and self._program.app:
            self.supervisor.add("watch.app", self._watch_app, essential=False)

    def _child(self, role: str) -> Child:
        budgets = {
            "collector": self._program.stop_collector_s,
            "router": self._program.stop_router_s,
            "worker": self._program.stop_worker_s,
            "console": self._program.stop_console_s,
        }
        command = [sys.executable, "-m", "seawall", "run", role, "--data", str(self._folder.path)]
        command += ["--resolved", str(self._folder.resolved_file)]
        served = {"collector": self._claim.listen, "console": self._claim.admin}.get(role)
        if served is not None:
            command += ["--socket", str(served.fileno())]
        descriptors = (served.fileno(),) if served is not None else ()
        spec = Spec(role=role, command=command, stop_s=budgets[role], descriptors=descriptors)
        return Child(spec, refused=self._refused)

    @staticmethod
    def _after(events: list[asyncio.Event], child: Child) -> Callable[[Heart], Awaitable[None]]:
        """A loop that keeps ``child`` running, once each of ``events`` was set for the first time."""

        async def keep(heart: Heart) -> None:
            while events:
                heart.unready("waiting for its turn")
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(1.0):
                        await events[0].wait()
                        del events[0]
            await child.keep(heart)

        return keep

    def _refused(self, role: str) -> None:
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
    def _write_resolved(self) -> None:
        text = self._parts.settings.resolved(*self._dsns)
        replace_private(self._folder.resolved_file, text)

    def _write_admin(self) -> None:
        assert self._claim.listen is not None and self._claim.admin is not None
        self._folder.write_admin(
            {
                "address": url_of(self._claim.admin),
                "listen": url_of(self._claim.listen),
                "token": self._folder.token(),
                "pid": os.getpid(),
                "start": start_time(os.getpid()),
            }
        )

    async def _announce(self, began: float) -> None:
        """One line when everything is ready for the first time: where it listens, and how long it took."""
        for child in self._children.values():
            await child.ready.wait()
        assert self._claim.listen is not None and self._claim.admin is not None
        log.info(
            "seawall is up",
            extra=fields(
                listen=url_of(self._claim.listen), admin=url_of(self._claim.admin), data=str(self._folder.path),
                took_s=round(time.monotonic() - began, 2),
            ),
        )  # fmt: skip

    # ── Changes while running ──────────────────────────────────────────────────────────────────────────────────────
    def _reload(self) -> None:
        """SIGHUP: take a good file over, keep the old settings beside a bad one, and say which."""
        try:
            fresh = self._parts.reread()
        except Misconfigured as error:
            log.error("settings not reloaded; the old ones stay", extra=fields(problems=error.problems))
            return
        replace_private(self._folder.resolved_file, fresh.resolved(*self._dsns))
        self._parts.set_log_level(fresh.program.log_level)
        for child in self._children.values():
            if child.ready.is_set():
                child.signal(signal.SIGHUP)
        log.info("settings reloaded", extra=fields(log_level=fresh.program.log_level))

    async def _watch_app(self, heart: Heart) -> None:
        """`up --watch`: start the worker anew when the app file changed and can be imported."""
        path = Path(self._program.app)
        seen = _stamp(path)
        while True:
            await heart.beat()
            await asyncio.sleep(WATCH_S)
            now = _stamp(path)
            if now in (seen, None):
                continue
            seen = now
            problem = await self._app_problem(heart)
            if problem is None:
                await self._replaced_worker(heart)
            else:
                log.error("the changed app file can't be imported; the old one runs on", extra=fields(problem=problem))

    async def _replaced_worker(self, heart: Heart) -> None:
        work = asyncio.create_task(self._children["worker"].replace(why="the app file changed"))
        while not work.done():
            await heart.beat()
            await asyncio.wait([work], timeout=1.0)
        await work

    async def _app_problem(self, heart: Heart) -> str | None:
        """Import the app file in a process of its own; what it said when that failed."""
        command = [*self._children["worker"].spec.command, "--check"]
        process = await asyncio.create_subprocess_exec(
            *command, stdin=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.PIPE
        )
        work = asyncio.create_task(process.communicate())
        latest = time.monotonic() + CHECK_APP_S
        while not work.done():
            await heart.beat()
            await asyncio.wait([work], timeout=1.0)
            if time.monotonic() > latest:
                process.kill()
        _, said = await work
        return None if process.returncode == 0 else said.decode("utf-8", "replace")[-4000:].strip()

    # ── The end ────────────────────────────────────────────────────────────────────────────────────────────────────
    async def _stop(self) -> None:
        """In the order of an event's way, so that each part can hand over what it has to the next."""
        self._claim.close_sockets()
        for role in ROLES:
            if role in self._children:
                await self._children[role].stop(hurry=self._life.hurry)
                log.info("role stopped", extra=fields(child=role))
        await self._parts.database.stop(timeout_s=self._program.stop_postgres_s)
        with contextlib.suppress(FileNotFoundError):
            self._folder.admin_file.unlink()
        log.info("seawall has stopped", extra=fields(status=self._status))


async def _idle(heart: Heart) -> None:
    while True:
        heart.unready("stopping")
        await asyncio.sleep(0.5)


def _stamp(path: Path) -> tuple[int, int] | None:
    """What changes when a file is saved; None while an editor has it away."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_mtime_ns, status.st_size
