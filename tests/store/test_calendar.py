"""A wall clock that leaps deletes nothing that real time hasn't made old; and what is old goes in the end."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from uuid import UUID

import pytest

from seawall.kernel.event import DAY_MS
from seawall.kernel.metric import Metrics
from seawall.store import pool
from seawall.store.partition import Housekeeping, Settings
from seawall.store.pool import Store
from seawall.testing import ManualClock
from seawall.testing.postgres import Database

TODAY = int(time.time() * 1000) // DAY_MS
DAY_S = 86_400
DAY_US = DAY_S * 1_000_000
GAP = "seawall_housekeeping_clock_gap_seconds"
HISTORY = (TODAY - 29, TODAY - 15, TODAY)


@pytest.fixture
async def store(database: Database) -> AsyncIterator[Store]:
    async with Store(pool.Settings(dsn=database.dsn), role="test") as store:
        yield store


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(wall_us=TODAY * DAY_US + 3_600_000_000)


def _keeper(store: Store, clock: ManualClock, metrics: Metrics | None = None) -> Housekeeping:
    return Housekeeping(store, Settings(retention_days=30, reply_days=30), clock, metrics or Metrics())


async def _event(store: Store, day: int) -> None:
    """A finished event, as old as its id says."""
    await store.execute(
        "insert into event (id, source_id, source, tenant, type, status, received_at, routed_at, headers, body, target,"
        " peer, key_id, config_version, log_id, segment, \"offset\") values ($1, $1, 's', 't', 'x', 1, now(),"
        " to_timestamp($2), '', '', '', '', 0, 0, $1, 1, 0)",
        UUID(int=((day * DAY_MS + 1000) << 80) | (7 << 76) | (2 << 62)), day * DAY_S,
    )  # fmt: skip


async def _lived_through(store: Store, clock: ManualClock, days: tuple[int, ...] = HISTORY) -> None:
    """A store that ran on those days, with an event of each in its partition, and runs now."""
    for day in days:
        await store.execute("update retention set reached_us = $1", day * DAY_US)
        await _keeper(store, ManualClock(wall_us=day * DAY_US)).round()
        await _event(store, day)
    await store.execute("update retention set reached_us = $1", clock.wall_us())


async def _left(store: Store) -> list[int]:
    """Days of the events that are left."""
    rows = await store.fetch("select tableoid::regclass::text as p from event order by id")
    return [int(row["p"].rpartition("_d")[2]) for row in rows]


async def _reached(store: Store) -> int:
    reached: int = await store.value("select reached_us from retention")
    return reached


def _gap_days(metrics: Metrics) -> float:
    return {s.name: s.value for s in metrics.samples()}[GAP] / DAY_S


async def test_a_leap_at_run_time_deletes_nothing_for_hours_and_is_an_alarm(
    store: Store, clock: ManualClock, caplog: pytest.LogCaptureFixture
) -> None:
    await _lived_through(store, clock)
    metrics = Metrics()
    keeper = _keeper(store, clock, metrics)
    await keeper.round()
    assert _gap_days(metrics) == 0
    clock.now_us += 40 * DAY_US
    for _ in range(6):
        clock.advance(3600)
        await keeper.round()
    assert await _left(store) == list(HISTORY)
    assert 39 < _gap_days(metrics) < 40.1
    told = [r for r in caplog.records if r.levelname == "ERROR" and "far ahead" in r.message]
    assert 5 <= len(told) <= 6, "at once, and then each hour"
    # Meanwhile events carry the wrong day, and find a partition.
    await _event(store, TODAY + 40)
    assert (await _left(store))[-1] == TODAY + 40
    # Set right, it is as if nothing had been.
    clock.now_us -= 40 * DAY_US
    await keeper.round()
    assert await _left(store) == [*HISTORY, TODAY + 40]
    assert -1 < _gap_days(metrics) <= 0


async def test_a_leap_while_all_was_off_deletes_nothing_however_often_it_is_started(
    store: Store, clock: ManualClock
) -> None:
    await _lived_through(store, clock)
    await _keeper(store, clock).round()
    clock.now_us += 40 * DAY_US
    for _ in range(5):
        metrics = Metrics()
        await _keeper(store, clock, metrics).round()
    assert await _left(store) == list(HISTORY)
    assert 39 < _gap_days(metrics) <= 40


async def test_after_forty_days_off_what_is_overdue_goes_day_by_day_and_in_the_end_all_of_it(
    store: Store, clock: ManualClock
) -> None:
    await _lived_through(store, clock)
    clock.now_us += 40 * DAY_US
    metrics = Metrics()
    keeper = _keeper(store, clock, metrics)
    await keeper.round()
    left = [await _left(store)]
    for _ in range(8):
        clock.advance(5 * DAY_S)
        await keeper.round()
        left.append(await _left(store))
    assert left[0] == list(HISTORY)
    assert left[1] == [TODAY - 15, TODAY]  # ten days are counted
    assert left[2] == [TODAY]  # twenty
    assert left[-1] == []
    assert _gap_days(metrics) == 0


async def test_a_day_off_is_nothing_special(store: Store, clock: ManualClock) -> None:
    await _lived_through(store, clock, (TODAY - 30, TODAY))
    await _keeper(store, clock).round()
    assert await _left(store) == [TODAY - 30, TODAY]
    clock.now_us += DAY_US
    metrics = Metrics()
    await _keeper(store, clock, metrics).round()
    assert _gap_days(metrics) == 0
    assert await _left(store) == [TODAY]


async def test_days_that_pass_while_we_run_are_days(store: Store, clock: ManualClock) -> None:
    """A machine that was suspended, a round that was put off: what a monotonic clock has counted is no leap."""
    await _lived_through(store, clock, (TODAY - 29, TODAY))
    metrics = Metrics()
    keeper = _keeper(store, clock, metrics)
    await keeper.round()
    clock.advance(20 * DAY_S)
    await keeper.round()
    assert _gap_days(metrics) == 0
    assert await _left(store) == [TODAY]


async def test_a_clock_that_goes_back_deletes_nothing_and_forgets_nothing(
    store: Store, clock: ManualClock, caplog: pytest.LogCaptureFixture
) -> None:
    await _lived_through(store, clock)
    metrics = Metrics()
    keeper = _keeper(store, clock, metrics)
    await keeper.round()
    before = await _reached(store)
    clock.now_us -= 400 * DAY_US
    await keeper.round()
    assert await _left(store) == list(HISTORY)
    assert await _reached(store) == before
    assert -401 < _gap_days(metrics) < -399
    assert any("has gone back" in r.message for r in caplog.records if r.levelname == "ERROR")
    # Right again, it needn't catch up with anything.
    clock.now_us += 400 * DAY_US
    await keeper.round()
    assert _gap_days(metrics) == 0


async def test_a_store_that_was_made_in_1970_comes_to_its_time(store: Store, clock: ManualClock) -> None:
    """A board without a battery starts there, until the network tells it the time."""
    await store.execute("update retention set reached_us = 0")
    await _keeper(store, ManualClock(wall_us=DAY_US)).round()
    metrics = Metrics()
    keeper = _keeper(store, clock, metrics)
    await keeper.round()
    await _event(store, TODAY)
    for _ in range(8):
        clock.advance(DAY_S)
        await keeper.round()
        if _gap_days(metrics) == 0:
            break
    assert _gap_days(metrics) == 0
    assert await _left(store) == [TODAY]


async def test_two_housekeepers_let_time_pass_once(store: Store, clock: ManualClock) -> None:
    await _lived_through(store, clock, tuple(range(TODAY - 29, TODAY, 4)))  # without a gap that may be leapt over
    one, two = _keeper(store, clock), _keeper(store, clock)
    clock.now_us += 40 * DAY_US
    for keeper in (one, two):
        await keeper.round()
    before = await _reached(store)
    clock.advance(3 * DAY_S)
    for keeper in (one, two):
        await keeper.round()
    assert before + 6 * DAY_US <= await _reached(store) < before + 7 * DAY_US
