"""kill -9 of the router at random instants, over a real journal: each event exactly once, each key held by one."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import random
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from router.rig import Rig, opened, record, until
from seawall.journal import Log, Settings, SyncedPublisher
from seawall.kernel.event import Record, encode
from seawall.kernel.metric import Metrics
from seawall.kernel.seam.journal import Position
from seawall.testing.postgres import Database

TESTS = Path(__file__).parent.parent


@pytest.fixture
async def rig(database: Database) -> AsyncIterator[Rig]:
    async with opened(database) as rig:
        yield rig


@contextlib.contextmanager
def router(dsn: str, folder: Path, socket: Path) -> Iterator[subprocess.Popen[bytes]]:
    child = subprocess.Popen(
        [sys.executable, "-m", "router.child", dsn, str(folder), str(socket)],
        env={**os.environ, "PYTHONPATH": str(TESTS)}, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        yield child
    finally:
        child.kill()
        child.wait()


class Sender:
    """Appends records with colliding keys, and knows what each must become."""

    def __init__(self, log: Log, random: random.Random) -> None:
        self._log = log
        self._random = random
        self.durable: list[Record] = []

    async def send(self, count: int) -> None:
        answered = asyncio.Event()
        left = count

        for _ in range(count):
            key = self._random.choice(["", f"k{self._random.randrange(60)}"])
            one = record(key=key, body=b'{"type":"t%d"}' % self._random.randrange(3), wait_ms=self._random.randrange(2))

            def done(outcome: object, one: Record = one) -> None:
                nonlocal left
                assert isinstance(outcome, Position)
                self.durable.append(one)
                left -= 1
                if not left:
                    answered.set()

            self._log.submit(encode(one), done)
        await answered.wait()


async def check(rig: Rig, sent: list[Record]) -> None:
    """Every record became one thing exactly: an event with its bytes and run, a duplicate of one, or a conflict."""
    events = {row["id"].bytes: row for row in await rig.database.fetch("select * from event")}
    firsts = {row["id"].bytes: row["first_id"].bytes for row in await rig.database.fetch("select * from duplicate")}
    tickets = {row["id"].bytes: row["event_id"].bytes for row in await rig.database.fetch("select * from ticket")}
    runs = [row["event_id"].bytes for row in await rig.database.fetch("select event_id from run")]
    assert set(events) | set(firsts) == {r.id for r in sent}
    assert not set(events) & set(firsts)
    assert sorted(runs) == sorted(id for id, row in events.items() if row["status"] == 1)
    bodies = {r.id: hashlib.sha256(r.body).digest() for r in sent}
    winners: dict[str, bytes] = {}
    for one in sent:
        row = events.get(one.id)
        first = firsts.get(one.id)
        if row is not None:
            assert (row["body"], row["headers"], row["tenant"]) == (one.body, one.headers, one.tenant)
        if not one.key:
            assert row is not None and row["status"] == 1
        elif row is not None and row["status"] == 1:
            assert winners.setdefault(one.key, one.id) == one.id, "two events hold one key"
        if first is not None:
            assert bodies[first] == bodies[one.id]
            assert events[first]["status"] == 1
        assert tickets.get(one.id) == ((first or one.id) if one.wait_ms else None)
    for one in sent:
        row = events.get(one.id)
        if one.key and row is not None and row["status"] == 3:
            assert bodies[winners[one.key]] != bodies[one.id]


@pytest.mark.parametrize("seed", [1, pytest.param(2, marks=pytest.mark.slow)])
async def test_kills_at_random_instants_lose_double_and_mix_nothing(rig: Rig, tmp_path: Path, seed: int) -> None:
    await kill_and_check(rig, tmp_path, random.Random(seed), kills=8)


@pytest.mark.soak
@pytest.mark.parametrize("seed", range(100, 130))
async def test_many_kills_at_random_instants_lose_double_and_mix_nothing(rig: Rig, tmp_path: Path, seed: int) -> None:
    await kill_and_check(rig, tmp_path, random.Random(seed), kills=20)


async def kill_and_check(rig: Rig, folder: Path, random: random.Random, *, kills: int) -> None:
    await rig.workflow("t*")
    socket = folder / "s"
    settings = Settings(segment_bytes=16 * 1024, fill_bytes=4096, resume_bytes=128 * 1024 * 1024)

    def failed(why: str) -> None:
        raise AssertionError(why)

    async with Log(folder / "c1", settings, metrics=Metrics(), on_failure=failed) as log, SyncedPublisher(log, socket):
        sender = Sender(log, random)
        for kill in range(kills):
            with router(rig.dsn, folder / "c1", socket):
                before = await rig.count("event")
                for _ in range(10):
                    await sender.send(random.randrange(1, 30))
                    await asyncio.sleep(random.uniform(0, 0.01))
                # Half of the kills come while it starts, the others while it routes.
                if kill % 2:

                    async def moving(before: int = before) -> bool:
                        return await rig.count("event") > before

                    await until(moving)
                await asyncio.sleep(random.uniform(0, 0.03 if kill % 2 else 0.5))
        with router(rig.dsn, folder / "c1", socket), router(rig.dsn, folder / "c1", socket):
            await rig.arrived(
                len(sender.durable), table="(select id from event union all select id from duplicate) as every"
            )
    await check(rig, sender.durable)
    assert await rig.count("event", "status = 4") == 0
