"""The suite behind a transaction pooler: with ``SEAWALL_TEST_POOLER=1`` each store of a test speaks through pgbouncer.

Each transaction gets another connection to the server then, as far as pgbouncer has any: whatever leans on a session
(settings, prepared statements, temporary tables, locks) is found out.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from seawall.lab.part import fetch
from seawall.lab.part.port import free
from seawall.lab.part.postgres import PACKAGES
from seawall.store import binary, cluster, pool
from seawall.testing.postgres import PostgresServer

WANTED = os.environ.get("SEAWALL_TEST_POOLER") == "1"
FETCHED = Path(__file__).parent.parent / "build" / "parts" / "fetched"
START_S = 20.0


def _program(folder: Path) -> tuple[str, dict[str, str]]:
    found = shutil.which("pgbouncer") or shutil.which("/usr/sbin/pgbouncer")
    if found is not None:
        return found, {}
    mine = folder / "program"
    # A copy: the server's user may not reach where it was fetched.
    shutil.copytree(fetch.packages(FETCHED, "pgbouncer", PACKAGES, print), mine, symlinks=True)
    return str(mine / "usr" / "sbin" / "pgbouncer"), {"LD_LIBRARY_PATH": fetch.libraries(mine)}


@contextlib.contextmanager
def before(server: PostgresServer) -> Iterator[str]:
    """A pooler before a server, HOST:PORT."""
    user, folder, port = binary.server_user(), server.cluster.socket / "pooler", free(1)[0]
    folder.mkdir()
    program, environment = _program(folder)
    (folder / "users").write_text("".join(f'"{name}" ""\n' for name in (cluster.OWNER, cluster.WORKER)))
    lines = [
        "[databases]", f"* = host={server.cluster.socket} port=5432", "[pgbouncer]", "listen_addr=127.0.0.1",
        f"listen_port={port}", "unix_socket_dir=", "auth_type=trust", f"auth_file={folder}/users",
        "pool_mode=transaction", "default_pool_size=12", "max_client_conn=1000", "server_round_robin=1",
        "query_wait_timeout=10", "server_idle_timeout=5", f"logfile={folder}/log", "ignore_startup_parameters=options",
    ]  # fmt: skip
    (folder / "ini").write_text("\n".join(lines) + "\n")
    for path in (folder, *folder.iterdir()):
        os.chown(path, user.uid, user.gid)
    process = subprocess.Popen(
        [program, "-q", str(folder / "ini")], env={**os.environ, **environment}, start_new_session=True, cwd="/",
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, **user.popen(),
    )  # fmt: skip
    try:
        until = time.monotonic() + START_S
        while True:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1.0):
                break
            assert process.poll() is None and time.monotonic() < until, (folder / "log").read_text(errors="replace")
            time.sleep(0.02)
        yield f"127.0.0.1:{port}"
    finally:
        process.kill()
        process.wait(10)


@contextlib.contextmanager
def everywhere(server: PostgresServer) -> Iterator[None]:
    """While inside, all stores of this process reach the server through a pooler before it."""
    init = pool.Store.__init__
    with before(server) as address, pytest.MonkeyPatch.context() as patch:

        def through(self: pool.Store, settings: pool.Settings, **options: Any) -> None:
            if str(server.cluster.socket).replace("/", "%2F") in settings.dsn.replace("/", "%2F"):
                settings = replace(settings, pooler=address)
            init(self, settings, **options)

        patch.setattr(pool.Store, "__init__", through)
        yield
