"""Acts on many runs: done to exactly those that were chosen, whoever has them in hand, and resumed where they stood."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from uuid import UUID

import asyncpg
import pytest

from responder.world import World, world
from seawall.kernel.clock import SystemClock
from seawall.kernel.error import Rejected
from seawall.kernel.seam.change import Kind
from seawall.kernel.selection import of_runs
from seawall.kernel.status import RunStatus
from seawall.store import bulk, change, errand, pool, version, wait
from seawall.store.bulk import Act, BulkLine, Wish
from seawall.store.cancel import settle
from seawall.store.change import Author
from seawall.store.child import tell_parents
from seawall.store.flush import Again, End, Rows, Step, flush
from seawall.store.lease import Lease
from seawall.store.pool import Store
from seawall.testing.postgres import Database

ME = Author("me", SystemClock(), "why not")
NOW_US = SystemClock().wall_us()


class Places:
    """Virtual times in the order in which they are asked for."""

    def __init__(self) -> None:
        self.at = 100

    def vt(self, queue_id: int, tenant: str, priority: int) -> int:
        self.at += 1
        return self.at

    def shard(self, event_id: UUID, tenant: str, shards: int) -> int:
        return event_id.int % shards


class Desk:
    """One store, the runs in it, and what is asked of them."""

    def __init__(self, store: Store, here: World) -> None:
        self.store = store
        self.here = here
        self.sql = here.sql
        self.places = Places()

    async def runs(self, count: int, *, state: int = 0) -> list[int]:
        return [await self.here.run(await self.here.event(self.here.id()), state=state) for _ in range(count)]

    async def make(self, act: Act, where: str, expected: int) -> int:
        narrow = of_runs(where, now_us=NOW_US)
        wish = Wish(act=act, narrow=replace(narrow, states=narrow.states or act.states), text=where, expected=expected)
        return await bulk.make(self.store, wish, ME, timeout_s=5.0)

    async def piece(self) -> errand.Piece | None:
        piece = await errand.work(self.store, self.places)
        if piece is not None and piece.marked is not None:
            await settle(self.store, piece.marked, timeout_s=5.0)
        return piece

    async def over(self) -> None:
        """All that is under way is done."""
        async with asyncio.timeout(5.0):
            while await self.piece() is not None:
                pass

    async def line(self, id: int) -> BulkLine:
        found = await bulk.one(self.store, id, timeout_s=5.0)
        assert found is not None
        return found

    async def state(self, run: int) -> int | None:
        return await self.sql.fetchval("select state from run where id = $1", run)

    async def lease(self) -> Lease:
        await self.sql.execute(
            "insert into shard_lease (queue_id, shard, owner, epoch) values (1, 0, $1, 1)", UUID(int=1)
        )
        return Lease(1, 0, 1)


@pytest.fixture
async def desk(database: Database) -> AsyncIterator[Desk]:
    settings = pool.Settings(dsn=database.dsn, connections_max=4)
    async with world(database.dsn) as here, Store(settings, role="test") as store:
        yield Desk(store, here)


async def test_it_is_done_to_those_that_were_chosen_and_to_none_that_came_later(desk: Desk) -> None:
    ready, waiting = await desk.runs(2), await desk.runs(2, state=1)
    id = await desk.make(Act.HOLD, "queue=default", 4)
    [late] = await desk.runs(1)
    await desk.over()
    assert [await desk.state(run) for run in [*ready, *waiting, late]] == [2, 2, 2, 2, 0]
    line = await desk.line(id)
    assert (line.state, line.chosen, line.done, line.missed, line.by) == ("done", 4, 4, 0, "me")
    [told] = await change.page(desk.store, change.Asked(kind=Kind.BULK), timeout_s=5.0)
    assert (told.what, told.after, told.why) == (str(id), "hold 4 runs: queue=default", "why not")


@pytest.mark.parametrize("expected", [2, 4])
async def test_another_count_than_expected_does_nothing(desk: Desk, expected: int) -> None:
    runs = await desk.runs(3)
    with pytest.raises(Rejected, match=f"there are 3 runs now, not {expected}; nothing was done") as error:
        await desk.make(Act.HOLD, "queue=default", expected)
    assert error.value.status == 412
    assert await desk.piece() is None
    assert [await desk.state(run) for run in runs] == [0, 0, 0]
    assert await desk.sql.fetchval("select (select count(*) from bulk) + (select count(*) from bulk_run)") == 0


async def test_a_hold_is_undone_by_a_release_of_exactly_what_it_held(desk: Desk) -> None:
    before = await desk.runs(1, state=2)
    runs = await desk.runs(2)
    id = await desk.make(Act.HOLD, "queue=default", 2)
    with pytest.raises(Rejected, match="isn't over yet"):
        await bulk.undo(desk.store, id, ME, timeout_s=5.0)
    await desk.over()
    again = await bulk.undo(desk.store, id, ME, timeout_s=5.0)
    await desk.over()
    assert [await desk.state(run) for run in [*before, *runs]] == [2, 0, 0]
    assert ((await desk.line(again)).undoes, (await desk.line(id)).undone_by) == (str(id), str(again))
    with pytest.raises(Rejected, match="undone already"):
        await bulk.undo(desk.store, id, ME, timeout_s=5.0)
    vts = await desk.sql.fetch("select vt from run where state = 0 order by id")
    assert [row["vt"] for row in vts] == [101, 102], "behind what came meanwhile, in order"


async def test_a_release_wakes_nobody_who_waits_for_his_time_and_lets_who_listens_look_again(desk: Desk) -> None:
    sleeping, listening = await desk.runs(2, state=1)
    await desk.sql.execute("update run set run_after = now() + interval '1 day', listens = id = $1", listening)
    await desk.make(Act.HOLD, "queue=default", 2)
    await desk.over()
    await desk.make(Act.RELEASE, "state=held", 2)
    await desk.over()
    assert (await desk.state(sleeping), await desk.state(listening)) == (1, 0)


async def test_a_run_that_is_being_flushed_is_put_off_and_held_when_it_was_put_away(desk: Desk) -> None:
    [run, other] = await desk.runs(2)
    lease = await desk.lease()
    await desk.make(Act.HOLD, "queue=default", 2)
    flushing = await asyncpg.connect(dsn=desk.store.settings.dsn)
    async with flushing.transaction():
        await flushing.execute("select 1 from run where id = $1 for update", run)
        piece = await desk.piece()
        assert piece is not None and (piece.done, piece.put_off) == (1, 1)
        assert [await desk.state(one) for one in (run, other)] == [0, 2]
    await flushing.close()
    async with desk.store.own_connection() as session:
        again = Again(run, 1, 1000, 0, 0, failed=True)
        assert await flush(session, Rows(leases=[lease], agains=[again])) is None
    await desk.over()
    assert [await desk.state(one) for one in (run, other)] == [2, 2]


async def test_a_run_that_was_held_in_hand_stays_held_when_it_fails_or_waits_and_ends_when_it_ends(desk: Desk) -> None:
    failing, waiting, ending = await desk.runs(3)
    lease = await desk.lease()
    await desk.make(Act.HOLD, "queue=default", 3)
    await desk.over()
    rows = Rows(
        leases=[lease],
        ends=[End(ending, RunStatus.SUCCEEDED, 1, b"1", None, NOW_US)],
        agains=[Again(failing, 1, 1000, 0, 0, failed=True), Again(waiting, 0, 1000, 1, 0, failed=False)],
    )
    async with desk.store.own_connection() as session:
        assert await flush(session, rows) is None
    assert [await desk.state(run) for run in (failing, waiting, ending)] == [2, 2, None]
    await desk.make(Act.RELEASE, "state=held", 2)
    await desk.over()
    assert [await desk.state(run) for run in (failing, waiting)] == [1, 1], "each at its own time"


async def test_a_run_that_is_woken_while_it_is_held_goes_on_when_it_is_released(desk: Desk) -> None:
    """By the end of a run that it waits for, say: it would have looked by itself minutes later."""
    away, inhand, failing = await desk.runs(3)
    lease = await desk.lease()
    await desk.sql.execute("update run set state = 1, run_after = now() + interval '1 hour' where id <> $1", inhand)
    await desk.sql.execute("update run set retrying = true where id = $1", failing)
    await desk.make(Act.HOLD, "queue=default", 3)
    await desk.over()
    await tell_parents(desk.store, [away, inhand, failing])
    assert await desk.sql.fetchval("select run_after from run where id = $1", inhand) is None, "it is in hand"
    async with desk.store.own_connection() as session:
        again = Again(inhand, 0, 3_600_000, 1, 0, failed=False)
        assert await flush(session, Rows(leases=[lease], agains=[again])) is None
    assert [await desk.state(run) for run in (away, inhand, failing)] == [2, 2, 2]
    await desk.make(Act.RELEASE, "state=held", 3)
    await desk.over()
    assert [await desk.state(run) for run in (away, inhand, failing)] == [0, 0, 1]


async def test_a_retry_runs_the_same_run_again_with_what_it_has_done(desk: Desk) -> None:
    [run, fine] = await desk.runs(2)
    lease = await desk.lease()
    names = {"done": False, "broke": True, "decided": False, "expired": False}
    steps = [Step(run, name, 0, b"1", failed, 1, 1, NOW_US) for name, failed in names.items()]
    asked = "insert into approval (run_id, name, nth, key, question, people, expires_at, over, decided_at)"
    await desk.sql.execute(f"{asked} values ($1, 'expired', 0, 1, '', '{{}}', now(), true, null)", run)
    await desk.sql.execute(f"{asked} values ($1, 'decided', 0, 1, '', '{{}}', now(), false, now())", run)
    ends = [
        End(run, RunStatus.FAILED | 1 << 4, 5, None, "no", NOW_US),
        End(fine, RunStatus.SUCCEEDED, 1, b"1", None, NOW_US),
    ]
    async with desk.store.own_connection() as session:
        assert await flush(session, Rows(leases=[lease], steps=steps, ends=ends)) is None
    event = await desk.sql.fetchval("select event_id from run_done where id = $1", run)
    await desk.sql.execute("insert into ticket values ($1, $1)", event)
    id = await desk.make(Act.RETRY, "cause=attempts", 1)
    await desk.over()
    row = await desk.sql.fetchrow("select * from run")
    assert row is not None
    assert (row["id"], row["event_id"], row["state"], row["attempt"], row["ticket"]) == (run, event, 0, 0, True)
    assert row["waits"] > 0, "so that a worker reads what it has done"
    assert [r["name"] for r in await desk.sql.fetch("select name from step order by name")] == ["decided", "done"]
    assert await desk.sql.fetchval("select array_agg(name) from approval") == ["decided"], "what expired is asked anew"
    assert await desk.sql.fetchval("select array_agg(id) from run_done") == [fine]
    with pytest.raises(Rejected, match="a retry can't be undone"):
        await bulk.undo(desk.store, id, ME, timeout_s=5.0)


async def test_a_cancel_ends_what_nobody_has_in_hand_marks_the_rest_and_is_undone_from_what_they_had_done(
    desk: Desk,
) -> None:
    waiting, held = await desk.runs(1, state=1), await desk.runs(1, state=2)
    ready = await desk.runs(2)
    lease = await desk.lease()
    await desk.sql.execute("insert into refill values (1, 0, 1, 1, $1)", [ready[0]])
    step = Step(ready[1], "done", 0, b"1", False, 1, 1, NOW_US)
    async with desk.store.own_connection() as session:
        assert await flush(session, Rows(leases=[lease], steps=[step])) is None
    id = await desk.make(Act.CANCEL, "queue=default", 4)
    await desk.over()
    assert [await desk.state(run) for run in ready] == [9, None], "one is in hand: its worker ends it"
    ended = await desk.sql.fetch("select * from run_done order by id")
    assert [row["id"] for row in ended] == [*waiting, *held, ready[1]]
    assert {(row["status"], row["cause"], row["error"]) for row in ended} == {
        (RunStatus.CANCELLED, 7, f"cancelled by me, bulk {id}: why not")
    }
    await bulk.undo(desk.store, id, ME, timeout_s=5.0)
    await desk.over()
    assert [await desk.state(run) for run in [*waiting, *held, ready[1]]] == [0, 2, 0]
    assert await desk.sql.fetchval("select count(*) from step") == 1


async def test_a_cancellation_whose_second_half_was_lost_is_settled_in_the_end(desk: Desk) -> None:
    [run] = await desk.runs(1)
    await desk.make(Act.CANCEL, "queue=default", 1)
    await errand.work(desk.store, desk.places)
    assert await desk.state(run) == 9
    await desk.over()
    assert await desk.state(run) is None


async def test_two_retries_of_one_run_make_one(desk: Desk) -> None:
    runs = await desk.runs(3)
    for run in runs:
        await desk.here.end(run, status=RunStatus.DEAD)
    first = await desk.make(Act.RETRY, "state=dead", 3)
    second = await desk.make(Act.RETRY, "state=dead", 3)
    await desk.over()
    lines = [await desk.line(first), await desk.line(second)]
    assert sorted((line.done, line.missed) for line in lines) == [(0, 3), (3, 0)]
    assert await desk.sql.fetchval("select count(*) from run") == 3


async def test_a_bulk_goes_on_where_it_was_and_by_one_router_at_a_time(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(errand, "PIECE_RUNS", 2)
    runs = await desk.runs(5)
    id = await desk.make(Act.HOLD, "queue=default", 5)
    await desk.piece()
    assert (await desk.line(id)).done == 2
    async with desk.store.transaction() as other:
        await other.execute("select 1 from bulk for update")
        assert await desk.piece() is None
    await desk.over()
    assert (await desk.line(id)).done == 5
    assert [await desk.state(run) for run in runs] == [2] * 5


async def test_runs_that_are_busy_each_time_are_missed_in_the_end(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(errand, "ROUNDS_MAX", 3)
    runs = await desk.runs(2)
    id = await desk.make(Act.HOLD, "queue=default", 2)
    busy = await asyncpg.connect(dsn=desk.store.settings.dsn)
    async with busy.transaction():
        await busy.execute("select 1 from run where id = $1 for update", runs[0])
        await desk.over()
    await busy.close()
    line = await desk.line(id)
    assert (line.state, line.done, line.missed) == ("done", 1, 1)


async def test_what_can_not_be_undone_any_more_is_forgotten(desk: Desk) -> None:
    await desk.runs(2)
    id = await desk.make(Act.HOLD, "queue=default", 2)
    await desk.over()
    assert await errand.prune(desk.store) == 0
    await desk.sql.execute("update bulk set ended_at = ended_at - interval '2 days'")
    assert await errand.prune(desk.store) == 2
    with pytest.raises(Rejected, match="more than a day ago"):
        await bulk.undo(desk.store, id, ME, timeout_s=5.0)
    await desk.sql.execute("update bulk set ended_at = ended_at - interval '100 days'")
    await errand.prune(desk.store)
    assert await bulk.one(desk.store, id, timeout_s=5.0) is None


async def test_a_run_that_is_ready_again_at_once_isnt_put_to_sleep_by_a_release(desk: Desk) -> None:
    """It was woken as it was put away, and is in hand: what sleeps is taken to be in nobody's."""
    [run] = await desk.runs(1)
    lease = await desk.lease()
    await desk.sql.execute("update run set wakes = 1 where id = $1", run)
    async with desk.store.own_connection() as session:
        again = Again(run, 0, 3_600_000, 1, 0, failed=False)
        assert await flush(session, Rows(leases=[lease], agains=[again])) is None
    assert await desk.state(run) == 0
    await desk.make(Act.HOLD, "queue=default", 1)
    await desk.over()
    await desk.make(Act.RELEASE, "state=held", 1)
    await desk.over()
    assert await desk.state(run) == 0


async def test_what_was_frozen_and_released_by_hand_and_is_held_again_is_thawed_by_nobody(desk: Desk) -> None:
    [run] = await desk.runs(1, state=2)
    name = await desk.sql.fetchval("select w.name from run r join workflow w on w.id = r.workflow_id")
    await desk.sql.execute("insert into run_frozen values ($1, $2)", name, run)
    await desk.make(Act.RELEASE, "state=held", 1)
    await desk.over()
    await desk.make(Act.HOLD, "queue=default", 1)
    await desk.over()
    assert await version.thaw(desk.store, lambda queue, tenant: 7, timeout_s=5.0) == 0
    assert await desk.state(run) == 2


async def test_a_cancel_that_is_undone_at_once_is_undone_for_those_that_their_workers_end_later(desk: Desk) -> None:
    [run] = await desk.runs(1)
    lease = await desk.lease()
    await desk.sql.execute("insert into refill values (1, 0, 1, 1, $1)", [run])
    id = await desk.make(Act.CANCEL, "queue=default", 1)
    await desk.over()
    again = await bulk.undo(desk.store, id, ME, timeout_s=5.0)
    piece = await desk.piece()
    assert piece is not None and (piece.done, piece.put_off) == (0, 1) and await desk.state(run) == 9
    async with desk.store.own_connection() as session:
        end = End(run, RunStatus.CANCELLED | 7 << 4, 1, None, "cancelled", NOW_US)
        assert await flush(session, Rows(leases=[lease], ends=[end])) is None
    await desk.over()
    line = await desk.line(again)
    assert (line.done, line.missed, await desk.state(run)) == (1, 0, 0)


async def test_an_event_that_came_before_a_run_was_cancelled_is_there_when_that_is_undone(desk: Desk) -> None:
    """It had been woken by it, and not begun again yet: nothing but the wait's row knows of the event."""
    woken, asleep = (await desk.runs(1))[0], (await desk.runs(1, state=1))[0]
    await desk.sql.execute("update run set listens = true")
    await desk.sql.executemany(
        "insert into wait (run_id, name, nth, key, since_us, event_id) values ($1, $2, 0, '', 0, $3)",
        [(woken, "heard", UUID(int=5)), (woken, "open", None), (asleep, "heard", UUID(int=5)), (asleep, "open", None)],
    )
    id = await desk.make(Act.CANCEL, "queue=default", 2)
    await desk.over()

    async def waits() -> list[tuple[int, str]]:
        await wait.prune_ended(desk.store, after=0, rows_max=100)
        return [tuple(row) for row in await desk.sql.fetch("select run_id, name from wait order by run_id")]

    assert await waits() == [(woken, "heard"), (asleep, "heard")]
    await bulk.undo(desk.store, id, ME, timeout_s=5.0)
    await desk.over()
    assert await waits() == [(woken, "heard"), (asleep, "heard")]
    await desk.make(Act.CANCEL, "queue=default", 2)
    await desk.over()
    await desk.sql.execute("update run_done set finished_at = finished_at - interval '2 days'")
    assert await waits() == []


async def test_what_ended_with_its_parent_in_the_same_bulk_is_undone_with_it(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(errand, "PIECE_RUNS", 1)
    parent, other, gone = await desk.runs(3, state=1)
    await desk.sql.execute("insert into run_child values ($1, $2)", parent, other)
    id = await desk.make(Act.CANCEL, "queue=default", 3)
    await desk.sql.execute("delete from run where id = $1", gone)
    await desk.over()
    line = await desk.line(id)
    assert (line.done, line.missed) == (2, 1)
    causes = await desk.sql.fetch("select id, cause from run_done order by id")
    assert [tuple(row) for row in causes] == [(parent, 7), (other, 9)]
    await bulk.undo(desk.store, id, ME, timeout_s=5.0)
    await desk.over()
    assert [await desk.state(run) for run in (parent, other)] == [0, 0]


async def test_a_run_comes_back_behind_those_that_it_had_begun(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """It would find them as they had ended, and end as it had."""
    monkeypatch.setattr(errand, "PIECE_RUNS", 1)
    runs = await desk.runs(3, state=1)
    await desk.make(Act.CANCEL, "queue=default", 3)
    await desk.over()
    await desk.make(Act.RETRY, "queue=default", 3)
    for count in (1, 2, 3):
        await desk.piece()
        assert [run for run in runs if await desk.state(run) == 0] == runs[-count:]
    await desk.over()
    assert await desk.sql.fetchval("select sum(done) from bulk where act = 'retry' and ended_at is not null") == 3
