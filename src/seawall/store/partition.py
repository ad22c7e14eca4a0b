"""Days: makes the partitions of the days to come, drops those that are old enough, and prunes what has no partition.

An event's partition is the day inside its id. What no partition takes (a wrong clock, an old spool) lies in the default
partition, so nothing here is needed for the router to go on; it only keeps tables small and dropping cheap.

Locks. Making a day locks only the default partition, attaching it. Dropping one locks the whole table, for as long as
it takes to carry over what unfinished runs need: both queue for their lock at most `lock_ms` (whoever comes later
queues behind them, so this is what the router may feel) and hold it at most `hold_ms`; then they give up and try again.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import re
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial

from seawall.guard import Heart, Supervisor
from seawall.guard.budget import Budget
from seawall.guard.retry import Retries, RetryPlan
from seawall.kernel.clock import Clock
from seawall.kernel.error import SeawallError, Unavailable, Unstorable
from seawall.kernel.event import DAY_MS
from seawall.kernel.log import fields, logger
from seawall.kernel.metric import Metrics
from seawall.kernel.setting import setting
from seawall.kernel.status import DAY_SHIFT
from seawall.store.calendar import Calendar
from seawall.store.driver import Contended
from seawall.store.pool import Session, Store
from seawall.store.progress import prune_ended as prune_progress
from seawall.store.statement import statements
from seawall.store.until import prune_ended as prune_moments
from seawall.store.usage import SAMPLES_KEPT_S, USE_KEPT_S
from seawall.store.wait import prune_ended as prune_waits
from seawall.store.watch import prune

log = logger("store")

DAYS_BEHIND = 1
DAYS_AHEAD = 3
CHANGE_S = 60.0
"""For one change of a day with all its tries; each of them has shorter bounds of its own."""

# A value that the store refuses may be a row on its way into the default partition: it fits the day a moment later.
RETRIES = RetryPlan(
    name="housekeeping", on=(Contended, Unstorable), attempts=5, first_s=0.5, most_s=2.0, ratio=1.0, burst=20
)
BATCHES_MAX = 200
BEAT_S = 0.5
ROUND_S = 600.0
FAR_US = 1 << 62
_NAME = re.compile(r"^(\w+)_d(\d+)$")
BEGUN_BY = r"substr(headers, 16, position('\000'::bytea in substr(headers || '\000'::bytea, 16)) - 1)"
"""Digits of the run that began another one, in that one's event: the value of its first header (store/child.py)."""

_SQL = statements("partition")
_CHANGES = statements("change")
_APPROVALS = statements("approval")
_USAGE = statements("usage")


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What is kept, and for how long."""

    retention_days: int = setting(
        30, min=2, max=3650, live=True, help="Days for which events, runs and steps are kept."
    )
    reply_days: int = setting(2, min=2, max=3650, live=True, help="Days for which replies to held requests are kept.")
    interval_s: float = setting(
        60.0, min=1, max=3600, live=True, help="Between two rounds of housekeeping in the store."
    )
    lock_ms: int = setting(
        200, min=10, max=5000, live=True, help="How long housekeeping queues for a lock before it gives up."
    )
    hold_ms: int = setting(2000, min=100, max=60000, live=True, help="How long housekeeping may hold a lock.")
    carry_rows_max: int = setting(
        10_000, min=1, max=1_000_000, live=True, help="A day with more needed rows isn't dropped yet."
    )
    carry_bytes_max: int = setting(
        64 * 1024 * 1024,
        min=1,
        max=2**34,
        live=True,
        help="A day with more bytes of needed bodies and results isn't dropped yet.",
    )
    change_days: int = setting(400, min=2, max=3650, live=True, help="Days for which the timeline of changes is kept.")
    change_rows_max: int = setting(
        200_000, min=100, max=10_000_000, live=True, help="Changes that are kept; beyond, the oldest go first."
    )
    batch_rows: int = setting(5_000, min=1, max=100_000, live=True, help="Rows deleted in one transaction.")


@dataclass(frozen=True, slots=True)
class Table:
    """One table with a partition for each day."""

    name: str
    key: str  # the column that carries the day
    stamp: str  # when the row was written, by the database's clock
    by_run: bool = False  # the key is a run id, not an event id
    brief: bool = False  # kept for `reply_days`
    needed: str = "needed_by_nobody"  # statement: which rows of a day unfinished runs need
    still: str = "still_by_nobody"  # statement: whether one does, for a row of any day
    weight: str = "0"  # what makes its rows large

    def bounds(self, day: int) -> tuple[str, str]:
        """First key of a day and of the next one, as text that SQL reads."""
        if self.by_run:
            return str(day << DAY_SHIFT), str((day + 1) << DAY_SHIFT)
        return first_id(day), first_id(day + 1)

    def partition(self, day: int) -> str:
        return f"{self.name}_d{day}"


def first_id(day: int) -> str:
    """The smallest UUID that an event accepted on this day (since 1970) can have."""
    h = f"{max(0, day) * DAY_MS:012x}"
    return f"{h[:8]}-{h[8:12]}-0000-0000-000000000000"


TABLES = (
    Table("event", "id", "routed_at", needed="needed_or_heard", still="still_or_heard", weight="octet_length(body)"),
    Table(
        "step",
        "run_id",
        "finished_at",
        by_run=True,
        needed="needed_by_run",
        still="still_by_run",
        weight="octet_length(result)",
    ),
    Table(
        "run_done",
        "id",
        "finished_at",
        by_run=True,
        needed="needed_by_parent",
        still="still_by_parent",
        weight="coalesce(octet_length(result), 0)",
    ),
    Table("duplicate", "id", "at"),
    Table("ticket", "id", "created_at", brief=True, needed="needed_by_ticket", still="still_by_ticket"),
    Table(
        "reply",
        "event_id",
        "at",
        brief=True,
        needed="needed_by_event",
        still="still_by_event",
        weight="octet_length(body)",
    ),
)


PruneEnded = Callable[..., Awaitable[tuple[int, int]]]

STRAYS: tuple[PruneEnded, ...] = (prune_waits, prune_moments, prune_progress)
"""What forgets rows of runs that have ended, of one table each."""

STRAYS_MAX = 10_000
"""Rows of a table that are looked at for that in one statement."""


class Housekeeping:
    """Looks after days. One at a time works on a store; several may run. Needs the owner's role, and two connections.

    ``round`` may be called by itself: at start, so that the first event finds its partition.
    """

    def __init__(self, store: Store, settings: Settings, clock: Clock, metrics: Metrics) -> None:
        self._store = store
        self._settings = settings
        self._clock = clock
        self._calendar = Calendar(clock, metrics)
        self._after = dict.fromkeys(STRAYS, 0)  # run ids; up to there rows of ended runs were looked for
        self._retries = Retries(RETRIES, rng=random.Random(), metrics=metrics)
        self._pruned = metrics.counter("seawall_rows_pruned_total", "Old rows deleted by housekeeping.")
        self._dropped = metrics.counter("seawall_partitions_dropped_total", "Days dropped by housekeeping.")
        self._kept = metrics.gauge(
            "seawall_partitions_kept_count", "Days past their retention that couldn't be dropped in the last round."
        )

    def reload(self, settings: Settings) -> None:
        """Go on with other bounds, from the next statement on."""
        self._settings = settings

    def register(self, supervisor: Supervisor) -> None:
        """Add the loop. It isn't essential: without it tables grow, and nothing else."""
        supervisor.add("housekeeping", self.run, essential=False)

    async def run(self, heart: Heart) -> None:
        """A round each ``interval_s``, until cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            began = loop.time()
            working = asyncio.create_task(self._bounded_round(), name="housekeeping.round")
            try:
                while not working.done():
                    await heart.beat()
                    await asyncio.wait([working], timeout=BEAT_S)
                await working
            except SeawallError as error:
                log.warning("housekeeping put off", extra=fields(cause=str(error)))
            finally:
                working.cancel()
            while (left_s := began + self._settings.interval_s - loop.time()) > 0:
                await heart.beat()
                await asyncio.sleep(min(left_s, BEAT_S))

    async def _bounded_round(self) -> None:
        try:
            async with asyncio.timeout(ROUND_S):
                await self.round()
        except TimeoutError as error:
            raise Unavailable("housekeeping", f"a round took more than {ROUND_S:g} s") from error

    async def round(self) -> None:
        """Make, drop and prune what is due now. What is refused for its lock or its size is tried in a later round.

        Raises:
            Unavailable, Uncertain: The store is away; what was done is done, and a later round goes on.

        Durability: each day is made or dropped, with what moves, in one transaction.
        Cancelled: the transaction under way is rolled back.
        """
        # A lock of the session: it goes with its connection, however that ends.
        async with self._store.own_connection() as guard:
            if not await guard.value(_SQL["try_lock"]):
                return  # another housekeeper is at work
            try:
                await self._round(guard)
            finally:
                with contextlib.suppress(SeawallError):
                    await guard.value(_SQL["unlock"])

    async def _round(self, session: Session) -> None:
        there = await self._days()
        now_us = await self._calendar.now_us(session, harmless_until_us=self._harmless_until_us(there))
        # By the wall clock, right or wrong: it is what the events of this machine have in their ids.
        today = self._clock.wall_us() // 1000 // DAY_MS
        for table in TABLES:
            for day in range(max(0, today - DAYS_BEHIND), today + DAYS_AHEAD + 1):
                if day not in there[table.name]:
                    await self._patiently(self._make, table, day)
        kept = 0
        for table, day in _due(there, now_us // 1000 // DAY_MS, self._days_kept):
            kept += not await self._patiently(self._drop, table, day)
        self._kept.value = kept
        await self._prune(now_us)

    def _harmless_until_us(self, there: dict[str, set[int]]) -> int:
        """A day before the moment from which the first day that is there is past its retention: whoever leaps to the
        brink itself goes over it with the next step."""
        last = [min(there[table.name]) + self._days_kept(table) for table in TABLES if there[table.name]]
        return min(last) * DAY_MS * 1000 if last else FAR_US

    async def _days(self) -> dict[str, set[int]]:
        """The days that have a partition, by table."""
        found: dict[str, set[int]] = {table.name: set() for table in TABLES}
        for row in await self._store.fetch(_SQL["partitions"]):
            name = _NAME.match(row["name"])
            if name is not None and name[1] in found:
                found[name[1]].add(int(name[2]))
        return found

    def _days_kept(self, table: Table) -> int:
        return self._settings.reply_days if table.brief else self._settings.retention_days

    async def _patiently(self, change: Callable[[Table, int], Awaitable[bool]], table: Table, day: int) -> bool:
        """Try a change a few times: locks are given up quickly, so that nobody waits behind us."""
        try:
            return await self._retries.call(lambda budget: change(table, day), Budget(CHANGE_S, self._clock))
        except (Contended, Unstorable) as error:
            log.warning("a day is put off", extra=fields(partition=table.partition(day), cause=str(error)))
            return False

    # ── One change, one transaction ────────────────────────────────────────────────────────────────────────────────
    async def _make(self, table: Table, day: int) -> bool:
        names = _names(table, day)
        at_most = self._settings.carry_rows_max
        count = await self._store.value(_text("count_in_default", names), at_most + 1)
        if count > at_most:
            log.warning("a day stays in the default partition: it has many rows", extra=fields(**names))
            return False
        async with self._store.transaction() as session:
            await self._begin(session)
            if count:
                # First: who reads holds this one while it waits for the next.
                await session.execute(_text("lock_readers", names))
            await session.execute(_text("lock_default", names))
            await session.execute(_text("create_partition", names))
            moved = await session.execute(_text("move_from_default", names))
            if moved and not count:
                raise Contended("PostgreSQL", "rows of the day came just now, and their readers aren't locked out")
            await session.execute(_text("attach", names))
        if moved:
            log.info("rows moved out of the default partition", extra=fields(partition=names["partition"], rows=moved))
        return True

    async def _drop(self, table: Table, day: int) -> bool:
        names = _names(table, day)
        settings = self._settings
        needed = await self._store.row(_text("size_of_needed", names), settings.carry_rows_max + 1)
        assert needed is not None
        if needed["rows"] > settings.carry_rows_max or needed["bytes"] > settings.carry_bytes_max:
            log.warning(
                "a day past its retention is kept: unfinished runs need much of it",
                extra=fields(partition=names["partition"], rows=needed["rows"], bytes=needed["bytes"]),
            )
            return False
        async with self._store.transaction() as session:
            await self._begin(session)
            # Detaching waits for every transaction that writes the table, so what they need is seen below.
            await session.execute(_text("detach", names))
            carried = await session.execute(_text("carry_over", names))
            await session.execute(_text("drop_partition", names))
        self._dropped.value += 1
        log.info("a day was dropped", extra=fields(partition=names["partition"], rows_carried=carried))
        return True

    async def _begin(self, session: Session) -> None:
        await session.execute(_SQL["be_brief"], str(self._settings.lock_ms), str(self._settings.hold_ms))

    async def _prune(self, now_us: int) -> None:
        """Delete in batches: each is short, and waits for nobody."""
        now = datetime.fromtimestamp(now_us / 1e6, UTC)
        today = now_us // 1000 // DAY_MS
        batch = self._settings.batch_rows
        before = now - timedelta(days=self._settings.retention_days)
        await self._in_batches(lambda: self._store.execute(_SQL["prune_notes"], before, batch))
        await self._in_batches(lambda: self._store.execute(_APPROVALS["prune"], before, batch))
        changed = now - timedelta(days=self._settings.change_days)
        await self._in_batches(lambda: self._store.execute(_CHANGES["prune_changes"], changed, batch))
        kept = self._settings.change_rows_max
        await self._in_batches(lambda: self._store.execute(_CHANGES["prune_change_rows"], kept, batch))
        for name, kept_s in ("prune_use", USE_KEPT_S), ("prune_samples", SAMPLES_KEPT_S):
            counted = now - timedelta(seconds=kept_s)
            await self._in_batches(partial(self._store.execute, _USAGE[name], counted, batch))
        await self._in_batches(lambda: prune(self._store, now=now, rows_max=batch))
        for prune_ended in STRAYS:
            await self._sweep(prune_ended)
        for table in TABLES:
            days = self._days_kept(table)
            sql = _text("prune_default", _names(table, today - days - 1))
            stamped = now - timedelta(days=days)
            await self._in_batches(partial(self._store.execute, sql, stamped, batch))

    async def _sweep(self, prune_ended: PruneEnded) -> None:
        """The next stretch of a table, and on while most of it goes: some hundred runs a second outrun one a round."""
        for _ in range(BATCHES_MAX):
            after = self._after[prune_ended]
            gone, self._after[prune_ended] = await prune_ended(self._store, after=after, rows_max=STRAYS_MAX)
            self._pruned.value += gone
            if 2 * gone < STRAYS_MAX:
                return

    async def _in_batches(self, delete: Callable[[], Awaitable[int]]) -> None:
        for _ in range(BATCHES_MAX):
            count = await delete()
            self._pruned.value += count
            if count < self._settings.batch_rows:
                return


def _due(
    there: dict[str, set[int]], today: int, days_kept: Callable[[Table], int]
) -> Iterator[tuple[Table, int]]:  # fmt: skip
    """What is past its retention, oldest first."""
    for table in TABLES:
        for day in sorted(there[table.name]):
            if day < today - days_kept(table):
                yield table, day


def _names(table: Table, day: int) -> dict[str, str]:
    """What a statement about one day of one table calls things. All of it is made here: nothing comes from outside."""
    lower, upper = table.bounds(day)
    names = {
        "parent": table.name, "partition": table.partition(day), "key": table.key, "stamp": table.stamp,
        "weight": table.weight, "lower": lower, "upper": upper, "lower_event": first_id(day),
        "upper_event": first_id(day + 1), "lower_run": str(day << DAY_SHIFT), "upper_run": str((day + 1) << DAY_SHIFT),
        "begun_by": BEGUN_BY,
    }  # fmt: skip
    return names | {"needed": _text(table.needed, names), "still": _text(table.still, names)}


def _text(statement: str, names: dict[str, str]) -> str:
    """A statement with its names filled in: PostgreSQL takes values as parameters, names not."""
    return _SQL[statement].format(**names)
