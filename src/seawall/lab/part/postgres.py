"""PostgreSQL: a primary, a streaming replica, and pgbouncer before the primary.

PostgreSQL refuses to run as root, so root runs it as another user. When that user can't reach the part's folder, the
data lies in a folder of /tmp whose name is made from the part's (`Server.home`).
"""

from __future__ import annotations

import shutil
import signal
from collections.abc import Mapping
from pathlib import Path

from seawall.kernel.error import Rejected, Unavailable
from seawall.lab.part import fetch
from seawall.lab.part.node import FETCHED, Say, quiet, whole
from seawall.lab.part.part import Part
from seawall.lab.part.port import LOOPBACK
from seawall.lab.part.process import Identity, Launch, working_in
from seawall.lab.part.server import INITDB_S, QUICK_S, ROLE, Server

SERVERS = ("a", "b")
BOUNCER = "bouncer"
ALONE = "no-bouncer"
PROMOTE_S = 30
PACKAGES = {"pgbouncer": "pgbouncer", "libc-ares2": "a library of it", "libevent-2.1-7": "a library of it"}

SETTINGS = {
    "listen_addresses": LOOPBACK, "unix_socket_directories": "", "shared_buffers": "32MB", "wal_level": "logical",
    "wal_keep_size": "256MB", "hot_standby": "on", "wal_log_hints": "on",
    "wal_receiver_timeout": "5s", "wal_sender_timeout": "5s", "wal_retrieve_retry_interval": "500ms",
}  # fmt: skip


class Postgres(Part):
    """PostgreSQL. Nodes: ``a`` (the first primary), ``b`` (its replica), ``bouncer``.

    Replication is asynchronous unless ``settings`` say otherwise, so a fail-over may lose what was committed last.

    Args:
        bouncer: With pgbouncer (pool_mode transaction, 10 server connections).
        settings: More server settings, for a and b; they win over ours.
    """

    kind = "postgres"

    def __init__(
        self, folder: Path, *, bouncer: bool = True, settings: Mapping[str, str] | None = None,
        fetched: Path = FETCHED, say: Say = quiet,
    ) -> None:  # fmt: skip
        # Noted in the folder: another process that starts a killed node again must not look for ports that it hasn't.
        self._alone = not bouncer or (folder / ALONE).is_file()
        nodes = list(SERVERS) if self._alone else [*SERVERS, BOUNCER]
        super().__init__(folder, nodes=nodes, ports=nodes, fetched=fetched, say=say)
        self._settings = {**SETTINGS, **(settings or {})}
        self._server = Server(self.folder)
        self._route = "a"

    # ── For those who use it ───────────────────────────────────────────────────────────────────────────────────────
    def dsn(self, node: str = "", *, database: str = "postgres") -> str:
        """To one node (a, b, bouncer), or, with none named, to whichever of a and b takes writes."""
        if node:
            return f"postgresql://{ROLE}@{self.address(node)}/{database}"
        hosts = ",".join(self.address(name) for name in SERVERS)
        return f"postgresql://{ROLE}@{hosts}/{database}?target_session_attrs=read-write"

    def primary(self) -> str:
        """The node that takes writes.

        Raises:
            Unavailable: Neither says that it does.
        """
        for name in SERVERS:
            if self._node[name].who() is not None and self._server.ask(self._conninfo(name), "role.sql") == "primary":
                return name
        raise Unavailable(self.kind, "neither a nor b is a primary")

    def promote(self, node: str) -> None:
        """Make the replica a primary; returns when it takes writes. The old one must be down, or both do.

        Raises:
            Unavailable: It couldn't.
        """
        self._server.run(
            "pg_ctl", "promote", "-D", str(self.data(node)), "-w", "-t", str(PROMOTE_S), timeout_s=PROMOTE_S + 5
        )

    def rejoin(self, node: str) -> None:
        """Start a former primary as the replica of the other node; what only it had is gone (pg_rewind).

        Raises:
            Rejected: It runs.
            Unavailable: It couldn't be rewound, or doesn't start.
        """
        if self._node[node].who() is not None:
            raise Rejected(409, "it runs", f"{node} must be down first")
        self._server.run("pg_rewind", "-D", str(self.data(node)), "--source-server", self._conninfo(_other(node)),
                         timeout_s=INITDB_S)  # fmt: skip
        self._server.follow(self.data(node))
        self.start(node)

    def route(self, node: str) -> None:
        """Point the bouncer at a server. Clients that are connected stay; their next transaction goes there."""
        self._route = node
        self._write_bouncer()
        if self.pid(BOUNCER) is not None:
            self.kill(BOUNCER, signal.SIGHUP)

    def write(self, node: str, word: str) -> None:
        """Keep a word, in one row of a table of its own. Raises Unavailable."""
        self._server.ask(self._conninfo(node), "write.sql", word=word)

    def read(self, node: str) -> str:
        """The word that a node has; "" for none. Raises Unavailable."""
        return self._server.ask(self._conninfo(node), "read.sql")

    @property
    def version(self) -> str:
        """The server's."""
        return self._server.binaries.version

    def data(self, node: str) -> Path:
        """A server's data folder."""
        return self._server.home() / node

    # ── As a part ──────────────────────────────────────────────────────────────────────────────────────────────────
    def prepare(self) -> None:
        if self._alone:
            (self.folder / ALONE).touch()
        self._server.make_home()
        if not self.data("a").exists():
            self._server.make_data(self._settings)
        if BOUNCER in self.nodes:
            self._bouncer_program()
            self._write_bouncer()

    def launch(self, node: str) -> Launch:
        if node == BOUNCER:
            program, environment = self._bouncer_program()
            return Launch(
                command=[program, str(self._server.home() / "bouncer.ini")],
                environment=environment,
                extra=self._server.user.popen(),
            )
        said = {
            **self._settings, "port": str(self.port(node)), "cluster_name": node,
            # Of use only while the folder holds standby.signal.
            "primary_conninfo": f"{self._conninfo(_other(node))} application_name={node}",
        }  # fmt: skip
        options = [word for key, value in said.items() for word in ("-c", f"{key}={value}")]
        return Launch(
            command=[self._server.binaries.program("postgres"), "-D", str(self.data(node)), *options],
            extra={**self._server.user.popen(), "cwd": "/"},
        )

    def ending(self, node: str) -> signal.Signals:
        # PostgreSQL waits for its clients at SIGTERM; pgbouncer at SIGINT.
        return signal.SIGTERM if node == BOUNCER else signal.SIGINT

    def others(self, node: str) -> list[Identity]:
        """A server's backends: they work in its data folder."""
        if node == BOUNCER:
            return []
        main = self._node[node].who()
        return [who for who in working_in(self.data(node)) if who != main]

    def unready(self) -> str:
        for name in SERVERS:
            if why := self._refuses(name):
                return why
        return ""

    def unsettled(self) -> str:
        """There is one primary, and its replica has replayed everything."""
        try:
            primary = self.primary()
            said = self._server.ask(self._conninfo(primary), "level.sql")
        except Unavailable as error:
            return str(error)
        return "" if said == "streaming level" else f"the replica of {primary}: {said}"

    def wipe(self) -> None:
        home = self._server.home()
        super().wipe()
        if home.exists() and home.stat().st_uid == self._server.user.uid:
            shutil.rmtree(home)

    # ── Inside ─────────────────────────────────────────────────────────────────────────────────────────────────────

    def _bouncer_program(self) -> tuple[str, Mapping[str, str]]:
        found = shutil.which("pgbouncer") or shutil.which("/usr/sbin/pgbouncer")
        if found is not None:
            return found, {}
        root, mine = fetch.packages(self.fetched, "pgbouncer", PACKAGES, self.say), self._server.home() / "pgbouncer"
        if not mine.exists():
            # A copy: the server's user may not reach where it was fetched.
            shutil.copytree(root, mine, symlinks=True)
        return str(mine / "usr" / "sbin" / "pgbouncer"), {"LD_LIBRARY_PATH": fetch.libraries(mine)}

    def _write_bouncer(self) -> None:
        lines = [
            "[databases]", f"* = host={LOOPBACK} port={self.port(self._route)} user={ROLE}", "[pgbouncer]",
            f"listen_addr={LOOPBACK}", f"listen_port={self.port(BOUNCER)}", "unix_socket_dir=", "auth_type=any",
            "pool_mode=transaction", "default_pool_size=10", "max_client_conn=500", "query_wait_timeout=5",
            "server_connect_timeout=2", "server_login_retry=1", "ignore_startup_parameters=extra_float_digits",
            f"admin_users={ROLE}",
        ]  # fmt: skip
        whole(self._server.home() / "bouncer.ini", "\n".join(lines) + "\n")

    def _conninfo(self, node: str) -> str:
        return f"host={LOOPBACK} port={self.port(node)} user={ROLE} dbname=postgres connect_timeout=3"

    def _refuses(self, node: str) -> str:
        try:
            self._server.run("pg_isready", "-q", "-d", self._conninfo(node), timeout_s=QUICK_S)
        except Unavailable:
            return f"{node} doesn't take connections yet"
        return ""


def _other(node: str) -> str:
    return "b" if node == "a" else "a"
