"""Days come and go; what unfinished runs need stays, wrong clocks stop nothing, and nobody waits long for a lock."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID

import asyncpg
import pytest

from seawall.kernel.event import DAY_MS
from seawall.kernel.metric import Metrics
from seawall.kernel.status import DAY_SHIFT
from seawall.store import child, pool, ticket
from seawall.store.driver import Contended
from seawall.store.lease import Lease
from seawall.store.partition import TABLES, Housekeeping, Settings
from seawall.store.pool import Store
from seawall.testing import ManualClock
from seawall.testing.postgres import Database
from stall import Stopwatch

TODAY = int(time.time() * 1000) // DAY_MS
NOBODY = UUID(int=0)
OLD = TODAY - 40


def _id(day: int, number: int = 0) -> UUID:
    return UUID(int=((day * DAY_MS + 1000) << 80) | (7 << 76) | (2 << 62) | number)


def _run(day: int, number: int = 0) -> int:
    return (day << DAY_SHIFT) | number


@pytest.fixture
async def store(database: Database) -> AsyncIterator[Store]:
    async with Store(pool.Settings(dsn=database.dsn), role="test", direct=True) as store:
        yield store


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(wall_us=TODAY * DAY_MS * 1000 + 3_600_000_000)


@pytest.fixture
def metrics() -> Metrics:
    return Metrics()


def _keeper(store: Store, clock: ManualClock, metrics: Metrics | None = None, **settings: Any) -> Housekeeping:
    return Housekeeping(store, Settings(**settings), clock, metrics or Metrics())


async def _event(store: Store, id: UUID, *, age_days: int = 0, body: bytes = b"{}") -> None:
    await store.execute(
        "insert into event (id, source_id, source, tenant, type, status, received_at, routed_at, headers, body, target,"
        " peer, key_id, config_version, log_id, segment, \"offset\") values ($1, $2, 's', 't', 'x', 1, now(),"
        " now() - make_interval(days => $3), '', $4, '', '', 0, 0, $2, 1, 0)",
        id, NOBODY, age_days, body,
    )  # fmt: skip


async def _unfinished(store: Store, day: int, number: int = 0) -> None:
    """An event, its run that isn't finished, a step, a ticket and a reply."""
    id, run = _id(day, number), _run(day, number)
    await _event(store, id, age_days=TODAY - day)
    await store.execute(
        "insert into run (id, event_id, workflow_id, tenant, queue_id, shard, vt) values ($1, $2, 1, 't', 1, 0, 0)",
        run, id,
    )  # fmt: skip
    await _belongings(store, day, number)


async def _belongings(store: Store, day: int, number: int) -> None:
    id, run, age = _id(day, number), _run(day, number), f"now() - make_interval(days => {TODAY - day})"
    await store.execute(
        "insert into step (run_id, name, nth, result, epoch, started_at, finished_at)"
        f" values ($1, 'a', 0, '1', 1, now(), {age})",
        run,
    )
    await store.execute(f"insert into ticket (id, event_id, created_at) values ($1, $1, {age})", id)
    await store.execute(
        f"insert into reply (event_id, run_id, status, content_type, body, at) values ($1, $2, 200, '', '', {age})",
        id, run,
    )  # fmt: skip


async def _finished(store: Store, day: int, number: int) -> None:
    age = TODAY - day
    await _event(store, _id(day, number), age_days=age)
    await store.execute(
        "insert into run_done (id, event_id, workflow_id, tenant, status, attempt, created_at, finished_at)"
        f" values ($1, $2, 1, 't', 5, 1, now(), now() - make_interval(days => {age}))",
        _run(day, number), _id(day, number),
    )  # fmt: skip
    await store.execute(
        f"insert into duplicate values ($1, $1, now() - make_interval(days => {age}))", _id(day, number)
    )
    await _belongings(store, day, number)


async def _where(store: Store, table: str) -> list[str]:
    """The partition of each row, in order of its key."""
    key = next(t.key for t in TABLES if t.name == table)
    return [r["p"] for r in await store.fetch(f"select tableoid::regclass::text as p from {table} order by {key}")]


async def _partitions(store: Store) -> set[str]:
    rows = await store.fetch("select inhrelid::regclass::text as name from pg_inherits")
    return {r["name"] for r in rows if "_d" in r["name"] and "default" not in r["name"] and "key" not in r["name"]}


async def test_each_table_has_a_day_behind_and_three_ahead_and_a_second_round_changes_nothing(
    store: Store, clock: ManualClock
) -> None:
    await _keeper(store, clock).round()
    expected = {f"{t.name}_d{d}" for t in TABLES for d in range(TODAY - 1, TODAY + 4)}
    assert {p for p in await _partitions(store) if "pkey" not in p and "idx" not in p} == expected
    await _keeper(store, clock).round()
    assert {p for p in await _partitions(store) if "pkey" not in p and "idx" not in p} == expected


async def test_every_partitioned_table_is_looked_after(store: Store) -> None:
    rows = await store.fetch("select relname from pg_class where relkind = 'p'")
    assert {r["relname"] for r in rows} == {t.name for t in TABLES}


async def test_the_edges_of_a_day_fall_into_its_partition(store: Store, clock: ManualClock) -> None:
    await _keeper(store, clock).round()
    first = UUID(int=(TODAY * DAY_MS) << 80)
    last = UUID(int=(((TODAY + 1) * DAY_MS) << 80) - 1)
    for id in (first, last):
        await _event(store, id)
    assert await _where(store, "event") == [f"event_d{TODAY}"] * 2


async def test_rows_that_came_before_their_partition_are_moved_into_it(store: Store, clock: ManualClock) -> None:
    await _unfinished(store, TODAY)
    assert await _where(store, "event") == ["event_default"]
    await _keeper(store, clock).round()
    for table in ("event", "step", "ticket", "reply"):
        assert await _where(store, table) == [f"{table}_d{TODAY}"]


async def test_who_reads_while_rows_are_moved_finds_them(store: Store, clock: ManualClock, database: Database) -> None:
    """One that had looked which partitions there are, and then waited for the default one, found no reply in it: a held
    request was answered as if its workflow had never replied."""
    for number in range(400):
        await _finished(store, TODAY, number)
    wanted, missing, over = _id(TODAY, 7).bytes, 0, asyncio.Event()

    async def read() -> int:
        nonlocal missing
        count = 0
        async with Store(pool.Settings(dsn=database.dsn, connections_max=1), role="reader") as reader:
            while not over.is_set():
                (found,) = await ticket.outcomes(reader, [wanted], timeout_s=5.0)
                missing += found.reply is None or found.status is None or not found.ended
                count += 1
        return count

    readers = [asyncio.create_task(read()) for _ in range(4)]
    await _keeper(store, clock).round()
    over.set()
    assert min(await asyncio.gather(*readers)) > 0 and missing == 0
    assert set(await _where(store, "reply")) == {f"reply_d{TODAY}"}


async def test_many_rows_in_the_default_partition_are_left_there_and_later_days_still_come(
    store: Store, clock: ManualClock
) -> None:
    for number in range(4):
        await _event(store, _id(TODAY, number))
    await _keeper(store, clock, carry_rows_max=3).round()
    assert await _where(store, "event") == ["event_default"] * 4
    assert f"event_d{TODAY + 1}" in await _partitions(store)


async def _make_old_day(store: Store, clock: ManualClock, *, day: int = OLD) -> None:
    """A day's partitions, as they were made at their time."""
    then = ManualClock(wall_us=day * DAY_MS * 1000)
    await _keeper(store, then).round()


async def test_an_old_day_goes_but_not_what_an_unfinished_run_needs(
    store: Store, clock: ManualClock, metrics: Metrics
) -> None:
    await _make_old_day(store, clock)
    await _unfinished(store, OLD, 1)
    await _finished(store, OLD, 2)
    assert await _where(store, "event") == [f"event_d{OLD}"] * 2
    await _keeper(store, clock, metrics).round()
    for table in ("event", "step", "ticket", "reply"):
        assert await _where(store, table) == [f"{table}_default"], table
    assert await store.value("select id from event") == _id(OLD, 1)
    for table in ("run_done", "duplicate"):
        assert await _where(store, table) == []
    assert not [p for p in await _partitions(store) if p.endswith(f"_d{OLD}")]
    assert {s.name: s.value for s in metrics.samples()}["seawall_partitions_kept_count"] == 0
    # When the run is done, what was carried over goes as well.
    await store.execute("delete from run")
    await _keeper(store, clock).round()
    for table in ("event", "step", "ticket", "reply"):
        assert await _where(store, table) == []


async def test_an_event_whose_run_is_not_made_yet_stays(store: Store, clock: ManualClock) -> None:
    await _make_old_day(store, clock)
    await _unfinished(store, OLD, 1)
    await store.execute(
        "insert into deferred select event_id, workflow_id, tenant, queue_id, shard, ticket, vt, 0 from run"
    )
    await store.execute("delete from run")
    await _keeper(store, clock).round()
    for table in ("event", "ticket"):
        assert await _where(store, table) == [f"{table}_default"], table
    await store.execute("delete from deferred")
    await _keeper(store, clock).round()
    assert await _where(store, "event") == []


async def test_how_a_run_ended_that_an_unfinished_one_began_stays(store: Store, clock: ManualClock) -> None:
    """That one was held, say, since before it could look. What it finds no trace of it begins again."""
    await _make_old_day(store, clock)
    assert child.PARENT == "seawall-parent", "its place in the headers is known to the statements"
    await _unfinished(store, OLD, 1)
    await store.execute("insert into queue (name) values ('q')")
    await store.execute(
        "insert into workflow (name, version, pattern, queue_id, active) select 'w', '1', '', id, true from queue"
    )
    await store.execute("insert into shard_lease (queue_id, shard, epoch, timeline) values (1, 0, 1, store_timeline())")
    wanted = child.Wanted(
        event_id=_id(OLD, 2).bytes, other_id=_id(OLD, 9).bytes, workflow="w", tenant="t", parent=_run(OLD, 1),
        lease=Lease(1, 0, 1), nesting=1, payload=b"{}", turn=1, with_parent=False,
    )  # fmt: skip
    begun = await child.start(store, wanted)
    assert begun is not None
    await store.execute("delete from run where id = $1", begun.run)
    await store.execute(
        "insert into run_done (id, event_id, workflow_id, tenant, status, attempt, result, created_at, finished_at)"
        " values ($1, $2, 1, 't', 5, 1, '7', now(), now() - interval '40 days')", begun.run, _id(OLD, 2),
    )  # fmt: skip
    await store.execute("update event set routed_at = now() - interval '40 days'")
    await _finished(store, OLD, 3)
    for _ in range(2):
        await _keeper(store, clock).round()
        assert await _where(store, "event") == ["event_default"] * 2
        assert await _where(store, "run_done") == ["run_done_default"]
        found = await child.start(store, wanted)
        assert found is not None and (found.run, found.status, found.result) == (begun.run, 5, b"7")
    await store.execute("delete from run")
    for _ in range(2):
        await _keeper(store, clock).round()
    assert await _where(store, "event") == await _where(store, "run_done") == []


async def test_replies_go_before_events(store: Store, clock: ManualClock) -> None:
    day = TODAY - 5
    await _make_old_day(store, clock, day=day)
    await _finished(store, day, 1)
    await _keeper(store, clock).round()
    assert await _where(store, "reply") == await _where(store, "ticket") == []
    assert await _where(store, "event") == [f"event_d{day}"]


async def test_a_day_of_which_much_is_needed_is_kept_and_shown(
    store: Store, clock: ManualClock, metrics: Metrics
) -> None:
    await _make_old_day(store, clock)
    for number in range(3):
        await _unfinished(store, OLD, number)
    await _keeper(store, clock, metrics, carry_rows_max=2).round()
    assert await _where(store, "event") == [f"event_d{OLD}"] * 3
    assert {s.name: s.value for s in metrics.samples()}["seawall_partitions_kept_count"] == 4
    await _event(store, _id(OLD, 9), body=b"x" * 10_000)
    await _keeper(store, clock, carry_bytes_max=5).round()
    assert await _where(store, "event") == [f"event_d{OLD}"] * 4


async def test_wrong_clocks_stop_nothing(store: Store, clock: ManualClock) -> None:
    for day in (0, TODAY - 400, TODAY + 400, 2**47 // DAY_MS):
        await _event(store, _id(day))
    await _keeper(store, clock).round()
    # Their ids are old, but they were stored just now: only time makes them go.
    assert await _where(store, "event") == ["event_default"] * 4
    await store.execute("update event set routed_at = now() - interval '31 days'")
    await _keeper(store, clock).round()
    assert [r["id"] for r in await store.fetch("select id from event order by id")] == [
        _id(TODAY + 400), _id(2**47 // DAY_MS),
    ]  # fmt: skip


async def test_dedupe_keys_are_left_to_the_router_which_knows_what_is_unread(store: Store, clock: ManualClock) -> None:
    """A copy that waits in the journal needs its first one's key, however long ago that expired by the wall clock."""
    await store.execute(
        "insert into dedupe values ($1, '', $1, '', to_timestamp($2) - interval '2 days', to_timestamp($2))",
        NOBODY, clock.wall_us() / 1e6 - 86_400,
    )  # fmt: skip
    await _keeper(store, clock).round()
    assert await store.value("select count(*) from dedupe") == 1


async def test_what_people_were_asked_goes_with_its_run_and_not_before(store: Store, clock: ManualClock) -> None:
    await _event(store, _id(TODAY, 1), age_days=0)
    sql = "insert into run (id, event_id, workflow_id, tenant, queue_id, shard, vt) values ($1, $2, 1, 't', 1, 0, 0)"
    await store.execute(sql, _run(TODAY, 1), _id(TODAY, 1))
    for number, days in ((1, 40), (2, 40), (3, 20)):
        await store.execute(
            "insert into approval (run_id, name, nth, key, question, people, asked_at, expires_at)"
            " values ($1, 'a', 0, 1, '', '{}', to_timestamp($2) - make_interval(days => $3), now())",
            _run(TODAY, number), clock.wall_us() / 1e6, days,
        )  # fmt: skip
    await _keeper(store, clock).round()
    kept = await store.fetch("select run_id from approval order by run_id")
    assert [row["run_id"] for row in kept] == [_run(TODAY, 1), _run(TODAY, 3)]


async def test_two_housekeepers_at_once_do_no_harm(store: Store, clock: ManualClock, database: Database) -> None:
    await _make_old_day(store, clock)
    await _unfinished(store, OLD, 1)
    async with Store(pool.Settings(dsn=database.dsn), role="other", direct=True) as other:
        await asyncio.gather(_keeper(store, clock).round(), _keeper(other, clock).round())
        await _keeper(store, clock).round()
    assert await _where(store, "event") == ["event_default"]


class _Inserter:
    """Inserts all the time, as the router would, and remembers the longest time that it took."""

    def __init__(self, dsn: str, day: int) -> None:
        self._dsn = dsn
        self._day = day
        self.longest_s = self.longest_wall_s = 0.0
        self.count = 0

    async def run(self) -> None:
        async with Store(pool.Settings(dsn=self._dsn), role="inserter") as store, store.own_connection() as session:
            while True:
                watch = Stopwatch()
                # Its day may be attached while it waits: it is told to come again, and never that its value is bad.
                with contextlib.suppress(Contended):
                    await session.execute("insert into duplicate values ($1, $1)", _id(self._day, self.count + 1))
                    self.count += 1
                self.longest_s = max(self.longest_s, watch.s)
                self.longest_wall_s = max(self.longest_wall_s, watch.wall_s)
                await asyncio.sleep(0.001)


async def _beside(inserter: _Inserter, work: Any) -> None:
    inserting = asyncio.create_task(inserter.run())
    try:
        async with asyncio.timeout(10):
            while inserter.count < 5:
                await asyncio.sleep(0.001)
        await work
    finally:
        assert not inserting.done(), inserting.exception()
        inserting.cancel()
        await asyncio.wait([inserting])


async def test_inserts_go_on_while_days_are_made_and_dropped(
    store: Store, clock: ManualClock, database: Database
) -> None:
    for day in range(OLD, OLD + 8, 5):
        await _make_old_day(store, clock, day=day)
    inserter = _Inserter(database.dsn, TODAY)
    await _beside(inserter, _keeper(store, clock).round())
    assert not [p for p in await _partitions(store) if p.endswith(f"_d{OLD}")]
    # The last one may have been cut off after its commit.
    assert await store.value("select count(*) from duplicate") - inserter.count in (0, 1)
    assert inserter.longest_s < 2.0


@pytest.mark.slow
async def test_housekeeping_gives_up_its_place_in_the_queue_before_anybody_feels_it(
    store: Store, clock: ManualClock, database: Database, caplog: pytest.LogCaptureFixture
) -> None:
    """An open transaction holds the table: whoever wants to drop a day queues, and all inserts queue behind him."""
    await _make_old_day(store, clock)
    holder = await asyncpg.connect(database.dsn)
    transaction = holder.transaction()
    await transaction.start()
    await holder.execute("insert into duplicate values ($1, $1)", _id(OLD, 77))
    inserter = _Inserter(database.dsn, TODAY)
    lock_ms = 100
    try:
        await _beside(inserter, _keeper(store, clock, lock_ms=lock_ms).round())
    finally:
        await transaction.rollback()
        await holder.close()
    assert f"duplicate_d{OLD}" in await _partitions(store)
    assert any("put off" in r.message for r in caplog.records)
    # What others feel is our lock timeout, though the holder stays for seconds.
    assert lock_ms / 1000 <= inserter.longest_wall_s and inserter.longest_s < lock_ms / 1000 + 1.0
    await _keeper(store, clock).round()
    assert f"duplicate_d{OLD}" not in await _partitions(store)


async def test_a_row_whose_day_is_attached_while_it_waits_is_not_taken_for_a_bad_value(
    store: Store, clock: ManualClock, database: Database
) -> None:
    admin = await asyncpg.connect(database.dsn)
    await admin.execute(f"create table duplicate_d{TODAY} (like duplicate)")
    lower, upper = next(t for t in TABLES if t.name == "duplicate").bounds(TODAY)
    transaction = admin.transaction()
    await transaction.start()
    await admin.execute("lock table duplicate_default in access exclusive mode")
    waiting = asyncio.create_task(store.execute("insert into duplicate values ($1, $1)", _id(TODAY)))
    async with asyncio.timeout(5):
        while not await admin.fetchval("select count(*) from pg_locks where not granted"):
            await asyncio.sleep(0.005)
    await admin.execute(
        f"alter table duplicate attach partition duplicate_d{TODAY} for values from ('{lower}') to ('{upper}')"
    )
    await transaction.commit()
    await admin.close()
    with pytest.raises(Contended):
        await waiting
    await store.execute("insert into duplicate values ($1, $1)", _id(TODAY))


async def test_making_a_day_waits_for_no_writer_of_another_day(
    store: Store, clock: ManualClock, database: Database
) -> None:
    await _keeper(store, clock).round()
    holder = await asyncpg.connect(database.dsn)
    transaction = holder.transaction()
    await transaction.start()
    await holder.execute("insert into duplicate values ($1, $1)", _id(TODAY))
    try:
        clock.advance(86_400)
        await _keeper(store, clock).round()
        assert f"duplicate_d{TODAY + 4}" in await _partitions(store)
    finally:
        await transaction.rollback()
        await holder.close()


async def test_what_people_were_asked_stays_while_its_run_may_be_tried_again(store: Store, clock: ManualClock) -> None:
    """Or it would ask again, by links that nobody sends: the step that sent them is done."""
    await _unfinished(store, TODAY, 1)
    await _finished(store, TODAY, 2)
    for number in (1, 2, 3):
        await store.execute(
            "insert into approval (run_id, name, nth, key, question, people, asked_at, expires_at)"
            " values ($1, 'a', 0, 1, '?', '{}', now() - interval '40 days', now() + interval '40 days')",
            _run(TODAY, number),
        )
    await _keeper(store, clock).round()
    left = await store.fetch("select run_id from approval order by run_id")
    assert [row["run_id"] for row in left] == [_run(TODAY, 1), _run(TODAY, 2)]


async def test_rows_of_ended_runs_go_in_one_round_also_where_there_are_very_many(
    store: Store, clock: ManualClock
) -> None:
    await _unfinished(store, TODAY, 1)
    await store.execute(
        "insert into run_until (run_id, until, total_ms) select $1::bigint + n, now() + interval '7 days', 1"
        " from generate_series(0, 25000) n",
        _run(TODAY, 1),
    )
    await _keeper(store, clock).round()
    assert await store.value("select array_agg(run_id) from run_until") == [_run(TODAY, 1)]
