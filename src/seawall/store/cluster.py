"""A PostgreSQL data folder of ours: how it is made, configured and recognised.

``postgresql.conf`` is written anew at each start, so that an upgrade of Seawall brings its settings along; what an
operator wants otherwise goes into ``local.conf`` beside it, which wins.
"""

from __future__ import annotations

import os
import secrets
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from seawall.kernel.error import Misconfigured, Unavailable
from seawall.store import serverlog
from seawall.store.binary import Binaries, ServerUser

OWNER = "seawall"
"""The role that owns everything; also the name of the database."""

WORKER = "seawall_worker"
"""The role of processes that run user code."""

INITDB_TIMEOUT_S = 300.0
BUILTIN_LOCALE_MAJOR = 17

SETTINGS: Mapping[str, str] = {
    "listen_addresses": "",
    "unix_socket_permissions": "0700",
    "max_connections": "100",
    "superuser_reserved_connections": "3",
    "shared_buffers": "128MB",
    "fsync": "on",
    "synchronous_commit": "on",
    "full_page_writes": "on",
    "wal_level": "replica",
    # Page images after a checkpoint: squeezing them spares a tenth of the WAL and costs a tenth of a flush.
    "wal_compression": "off",
    "max_wal_size": "1GB",
    "min_wal_size": "80MB",
    "checkpoint_timeout": "5min",
    "checkpoint_completion_target": "0.9",
    "max_wal_senders": "2",
    # The hot table is small and churns: vacuum must come often and not dawdle.
    "autovacuum": "on",
    "autovacuum_naptime": "5s",
    "autovacuum_vacuum_cost_delay": "1ms",
    "jit": "off",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "lc_messages": "C",
    # A backend whose client vanished in mid-query must not hold its locks for long.
    "client_connection_check_interval": "2s",
    # Standard error is read by `serverlog`, and must not carry senders' data: no statements, no details.
    "logging_collector": "off",
    "log_destination": "stderr",
    "log_line_prefix": serverlog.PREFIX,
    "log_checkpoints": "off",
    "log_min_messages": "warning",
    "log_min_error_statement": "panic",
    "log_error_verbosity": "terse",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Cluster:
    """A data folder and the folder of its socket. Both belong to the server's user alone."""

    data: Path
    socket: Path
    instance: str  # 32 hex digits, asked of a running server to prove that it is ours

    def dsn(self, *, role: str = OWNER, database: str = OWNER) -> str:
        """How to connect as ``role``. The path may hold any character."""
        return f"postgresql://{role}@/{database}?host={quote(os.fsencode(self.socket), safe='/')}"


def new_instance() -> str:
    return secrets.token_hex(16)


def create(binaries: Binaries, user: ServerUser, data: Path, *, sync: bool = True) -> None:
    """Make a new data folder, with checksums, UTF-8 and an order of text that no operating system changes.

    Args:
        data: An empty or absent folder whose parent exists and can be entered by ``user``.
        sync: False only for tests that don't cut the power.

    Raises:
        Unavailable: initdb failed; what it said is in the message. A half-made folder is left for the caller.
    """
    own_folder(data, user)
    arguments = ["-D", str(data), "-U", OWNER, "--auth=trust", "--encoding=UTF8", "--locale=C", "--data-checksums"]
    if binaries.major >= BUILTIN_LOCALE_MAJOR:
        arguments += ["--locale-provider=builtin", "--builtin-locale=C.UTF-8"]
    if not sync:
        arguments.append("--no-sync")
    try:
        done = subprocess.run(
            [binaries.program("initdb"), *arguments], capture_output=True, text=True, timeout=INITDB_TIMEOUT_S,
            cwd="/", stdin=subprocess.DEVNULL, check=False, start_new_session=True, **user.popen(),
        )  # fmt: skip
    except (subprocess.TimeoutExpired, OSError) as error:
        raise Unavailable("PostgreSQL", f"initdb: {error}") from error
    if done.returncode != 0:
        raise Unavailable("PostgreSQL", f"initdb: {done.stderr.strip() or done.stdout.strip()}")


def own_folder(folder: Path, user: ServerUser) -> None:
    """Make a folder that only ``user`` may enter. Parents are never made or touched."""
    folder.mkdir(mode=0o700, exist_ok=True)
    if user.other:
        os.chown(folder, user.uid, user.gid)
    folder.chmod(0o700)


def check_version(binaries: Binaries, data: Path) -> None:
    """Refuse a folder that another major version wrote.

    Raises:
        Misconfigured: It did, or the folder isn't a data folder.
    """
    try:
        wrote = (data / "PG_VERSION").read_text("ascii").strip()
    except OSError as error:
        raise Misconfigured([f"{data} is not a PostgreSQL data folder: {error}"]) from error
    if wrote != str(binaries.major):
        raise Misconfigured(
            [
                f"{data} was written by PostgreSQL {wrote}, and {binaries.folder} is {binaries.version}: install "
                f"PostgreSQL {wrote} and name its programs with SEAWALL_PG_BIN, or restore a backup into a new folder"
            ]
        )


def configure(cluster: Cluster, user: ServerUser, extra: Mapping[str, str] | None = None) -> None:
    """Write the server's settings and who may log in. The server must not be starting meanwhile."""
    values = {
        **SETTINGS,
        "unix_socket_directories": _quoted_path(cluster.socket),
        "cluster_name": f"seawall-{cluster.instance[:8]}",
        "seawall.instance": cluster.instance,
        **(extra or {}),
    }
    lines = [f"{name} = '{_escaped(value)}'" for name, value in values.items()]
    head = "# Written by Seawall at each start: put your own settings into local.conf, beside this file."
    _write(cluster.data / "postgresql.conf", "\n".join([head, *lines, "include_if_exists = 'local.conf'", ""]), user)
    # The socket's folder is closed to all but one user, so who gets there is who he says.
    _write(cluster.data / "pg_hba.conf", "local all all trust\nlocal replication all trust\n", user)


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace("'", "''")


def _quoted_path(path: Path) -> str:
    return '"' + str(path).replace('"', '""') + '"'


def _write(path: Path, text: str, user: ServerUser) -> None:
    """Replace a file whole, so that a crash leaves the old or the new one. One that says the same already stays: a
    start on a full disk needs no room for it."""
    if path.exists() and path.stat().st_uid == user.uid and path.read_bytes() == text.encode():
        return
    beside = path.with_name(path.name + ".new")
    beside.write_text(text, "utf-8")
    beside.chmod(0o600)
    if user.other:
        os.chown(beside, user.uid, user.gid)
    beside.replace(path)
