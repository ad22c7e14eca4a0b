"""What the fixtures of ``tests/conftest.py`` promise to every other test."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import asyncpg

from seawall.testing.postgres import Database, PostgresServer


async def test_each_test_gets_a_database_with_the_schema(database: Database) -> None:
    for dsn in (database.dsn, database.worker_dsn):
        connection = await asyncpg.connect(dsn)
        assert await connection.fetchval("select count(*) from run") == 0
        await connection.close()


def test_a_synchronous_test_can_have_one_too(database: Database) -> None:
    assert database.dsn.startswith("postgresql://seawall@/")


async def test_a_killed_server_comes_back_with_what_was_committed(server: PostgresServer) -> None:
    connection = await asyncpg.connect(server.dsn(database="seawall"))
    await connection.execute("insert into queue (name) values ('kept')")
    server.kill()
    server.start()
    again = await asyncpg.connect(server.dsn(database="seawall"))
    assert await again.fetchval("select name from queue") == "kept"
    await again.close()
    connection.terminate()


def test_what_a_killed_test_process_left_is_swept_away() -> None:
    script = "from seawall.testing.postgres import PostgresServer as S; s = S(); s.prepare(); print(s.cluster.data)"
    with subprocess.Popen([sys.executable, "-c", f"{script}; print(flush=True); input()"], stdin=subprocess.PIPE,
                          stdout=subprocess.PIPE, text=True) as process:  # fmt: skip
        assert process.stdout is not None
        left = Path(process.stdout.readline().strip()).parent
        process.stdout.readline()
        assert left.is_dir()
        process.kill()
    with PostgresServer(durable=False):
        assert not left.exists()
