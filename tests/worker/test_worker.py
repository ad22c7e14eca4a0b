"""What a workflow's author and an operator may rely on."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
import threading
import time
import uuid
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from seawall import App, Context, Event, NonRetryable, Retry, StepFailed
from seawall.kernel import limit
from seawall.kernel.cause import Cause
from seawall.kernel.error import Unavailable
from seawall.kernel.metric import Metrics
from seawall.kernel.placement import Turns
from seawall.kernel.seam.run import step_parts
from seawall.kernel.status import RunStatus
from seawall.store import pool
from seawall.store.run import wake
from worker.rig import QUICK, Rig

QUICKLY = Retry(attempts=3, first_s=0)


async def test_two_steps_run_once_and_their_values_are_kept(rig: Rig) -> None:
    app = App()
    calls: list[str] = []

    async def first(n: int) -> dict[str, int]:
        calls.append("first")
        return {"n": n + 1}

    def second(n: int) -> int:
        calls.append("second")
        return n * 2

    @app.workflow(on="test.thing")
    async def double(event: Event, ctx: Context) -> Any:
        one = await ctx.step(first, event.json["n"])
        return await ctx.step(second, one["n"])

    async with rig.running(app):
        (run,) = await rig.add("double", [{"n": 20}])
        done = await rig.ended([run])
    assert (done[run]["status"], done[run]["result"], done[run]["error"]) == (5, b"42", None)
    assert calls == ["first", "second"]
    steps = await rig.db.fetch("select name, nth, result, failed from step where run_id = $1 order by started_at", run)
    assert [tuple(s) for s in steps] == [("first", 0, b'{"n":21}', False), ("second", 0, b"42", False)]
    assert await rig.db.fetchval("select count(*) from run") == 0
    assert await rig.db.fetchval("select count(*) from refill") == 0
    assert await rig.db.fetchval("select count(*) from shard_lease where owner is not null") == 0


async def test_a_step_that_ended_is_not_repeated_when_the_run_is_tried_again(rig: Rig) -> None:
    app = App()
    calls: list[Any] = []

    async def once(n: int) -> tuple[int, int]:
        calls.append(n)
        return n, n

    @app.workflow(on="test.thing", retry=QUICKLY)
    async def fragile(event: Event, ctx: Context) -> Any:
        # The same name twice: told apart by their count. Values look the same in each attempt: as after JSON.
        kept = [await ctx.step(once, 1), await ctx.step(once, 2)]
        assert kept == [[1, 1], [2, 2]]
        if ctx.attempt < 3:
            raise ConnectionError("not yet")
        return ctx.attempt

    async with rig.running(app):
        (run,) = await rig.add("fragile", [{}])
        done = (await rig.ended([run]))[run]
    assert (done["status"], done["result"], done["attempt"]) == (5, b"3", 3)
    assert calls == [1, 2]


async def test_a_run_that_raises_to_the_end_of_its_retries_fails_with_the_cause(rig: Rig) -> None:
    app = App()

    async def broken() -> None:
        raise ValueError("no \0 luck \ud800")

    @app.workflow(on="test.thing", retry=QUICKLY)
    async def failing(event: Event, ctx: Context) -> None:
        await ctx.step(broken)

    async with rig.running(app):
        (run,) = await rig.add("failing", [{}])
        done = (await rig.ended([run]))[run]
    assert (done["status"], done["attempt"], done["result"]) == (RunStatus.FAILED, 3, None)
    assert done["cause"] == Cause.ATTEMPTS
    assert "step broken failed, tried once: ValueError: no \\x00 luck ?" in done["error"]


async def test_non_retryable_fails_at_once(rig: Rig) -> None:
    app = App()
    calls: list[int] = []

    async def refused() -> None:
        calls.append(1)
        raise NonRetryable("card is stolen")

    @app.workflow(on="test.thing", retry=Retry(attempts=5, first_s=0))
    async def charge(event: Event, ctx: Context) -> None:
        await ctx.step(refused, retry=Retry(attempts=5, first_s=0))

    async with rig.running(app):
        (run,) = await rig.add("charge", [{}])
        done = (await rig.ended([run]))[run]
    assert (done["status"], done["attempt"], calls) == (RunStatus.FAILED, 1, [1])
    assert done["cause"] == Cause.NON_RETRYABLE


async def test_a_failure_that_a_workflow_went_on_from_is_remembered_by_a_replay(rig: Rig) -> None:
    app = App()
    calls: list[str] = []

    async def pay() -> None:
        calls.append("pay")
        raise ValueError("declined")

    async def refund() -> str:
        calls.append("refund")
        return "refunded"

    @app.workflow(on="test.thing")
    async def order(event: Event, ctx: Context) -> Any:
        try:
            await ctx.step(pay)
        except StepFailed as error:
            told = [error.type, error.message, error.attempts]
        await ctx.step(refund)
        await ctx.step(gate)
        return told

    entered, opened = asyncio.Event(), asyncio.Event()

    async def gate() -> None:
        entered.set()
        await opened.wait()

    quick = replace(QUICK, drain_s=0)
    async with rig.running(app, quick):
        (run,) = await rig.add("order", [{}])
        await entered.wait()
    opened.set()
    async with rig.running(app):
        done = (await rig.ended([run]))[run]
    assert done["result"] == b'["ValueError","declined",1]'
    assert calls == ["pay", "refund"]


async def test_a_failed_step_is_tried_again_by_the_runs_next_attempt(rig: Rig) -> None:
    app = App()
    calls: list[int] = []

    async def flaky() -> str:
        calls.append(1)
        if len(calls) < 3:
            raise ConnectionError("reset")
        return "done"

    @app.workflow(on="test.thing", retry=QUICKLY)
    async def patient(event: Event, ctx: Context) -> Any:
        return await ctx.step(flaky)

    async with rig.running(app):
        (run,) = await rig.add("patient", [{}])
        done = (await rig.ended([run]))[run]
    assert (done["status"], done["result"], len(calls)) == (5, b'"done"', 3)
    assert [tuple(r) for r in await rig.db.fetch("select name, failed from step")] == [("flaky", False)]


async def test_a_step_left_by_a_failed_attempt_is_not_begun_again_beside_itself(rig: Rig) -> None:
    """``asyncio.gather`` raises with the first failure and leaves the others: they belong to that attempt."""
    app = App()
    calls: list[str] = []
    gate = asyncio.Event()

    @app.workflow(on="test.thing", retry=Retry(attempts=3, first_s=0.0))
    async def fans_out(event: Event, ctx: Context) -> list[int]:
        async def fails_first() -> int:
            if ctx.attempt == 1:
                asyncio.get_running_loop().call_later(0.5, gate.set)
                raise ValueError("once")
            return 1

        async def slow(nth: int) -> int:
            calls.append(f"{nth} begins")
            await gate.wait()
            if nth == 2 and ctx.attempt == 1:
                raise ValueError("late")
            calls.append(f"{nth} ends")
            return ctx.attempt

        async def two() -> int:
            await ctx.step(slow, 1, name="one")
            return await ctx.step(slow, 3, name="never in the first attempt")

        return list(await asyncio.gather(ctx.step(fails_first), two(), ctx.step(slow, 2, name="two")))

    async with rig.running(app):
        ended = await rig.ended(await rig.add("fans_out", [{}]))
    [row] = ended.values()
    assert (row["status"], row["attempt"], row["result"]) == (RunStatus.SUCCEEDED, 2, b"[1,2,2]")
    assert calls.count("1 begins") == calls.count("1 ends") == 1
    assert calls.count("2 begins") == 2 and calls.count("2 ends") == 1
    assert calls.count("3 begins") == 1


async def test_retry_after_is_a_floor_under_the_wait_and_the_run_holds_no_slot_meanwhile(rig: Rig) -> None:
    app = App()

    class Busy(Exception):
        retry_after = 3600

    @app.workflow(on="test.thing", retry=QUICKLY)
    async def polite(event: Event, ctx: Context) -> None:
        raise Busy

    async with rig.running(app) as worker:
        (run,) = await rig.add("polite", [{}])
        row = await rig.until(lambda: rig.db.fetchrow("select * from run where id = $1 and state = 1", run))
        left_s = await rig.db.fetchval("select extract(epoch from run_after - now())::float from run")
        await rig.until(lambda: not worker._bench.count)
    assert row["attempt"] == 1 and 3590 < left_s <= 3600
    assert await rig.db.fetchval("select count(*) from refill") == 0


async def test_a_run_whose_time_has_come_is_woken_behind_those_that_waited(rig: Rig) -> None:
    app = App()

    @app.workflow(on="test.thing")
    async def later(event: Event, ctx: Context) -> int:
        return ctx.attempt

    await rig.registered(app)
    woken, alone, ready, early = await rig.add("later", [{} for _ in range(4)], shard=0)
    again = "update run set state = 1, attempt = 1, run_after = now() + $2::interval"
    await rig.db.execute(again + ", vt = 5 where id = $1", woken, timedelta())
    await rig.db.execute(again + ", vt = 5, shard = 1 where id = $1", alone, timedelta())
    await rig.db.execute(again + ", vt = 5 where id = $1", early, timedelta(hours=1))
    await rig.db.execute("update run set vt = 7000 where id = $1", ready)
    async with pool.Store(pool.Settings(dsn=rig.database.worker_dsn), role="test") as store:
        (one,) = await wake(store, [1], runs_max=10, turns=Turns())
        assert one == (1, "default", 2, 9000, 7000)
    rows = await rig.db.fetch("select id, state, vt from run")
    assert {row["id"]: (row["state"], row["vt"]) for row in rows} == {
        woken: (0, 8000),
        alone: (0, 9000),
        ready: (0, 7000),
        early: (1, 5),
    }
    async with rig.running(app):
        done = await rig.ended([woken, alone, ready])
        assert [done[run]["result"] for run in (woken, alone, ready)] == [b"2", b"2", b"1"]


async def test_the_first_reply_wins_and_is_hinted_after_it_is_stored(rig: Rig) -> None:
    app = App()
    heard: asyncio.Queue[str] = asyncio.Queue()
    await rig.db.add_listener("seawall_reply", lambda *a: heard.put_nowait(a[3]))

    @app.workflow(on="test.thing")
    async def answer(event: Event, ctx: Context) -> str:
        ctx.respond({"ok": True}, status=201)
        ctx.respond("too late")
        return "end"

    async with rig.running(app):
        (run,) = await rig.add("answer", [{}], ticket=True)
        async with asyncio.timeout(10):
            said = await heard.get()
    event = await rig.db.fetchval("select event_id from run_done where id = $1", run)
    assert said == event.hex
    reply = await rig.db.fetchrow("select * from reply")
    assert (reply["event_id"], reply["run_id"], reply["status"]) == (event, run, 201)
    assert (reply["content_type"], reply["body"]) == ("application/json", b'{"ok":true}')


async def test_a_reply_is_stored_while_the_workflow_goes_on(rig: Rig) -> None:
    app = App()
    go_on = asyncio.Event()

    async def hold() -> None:
        await go_on.wait()

    @app.workflow(on="test.thing")
    async def answer(event: Event, ctx: Context) -> None:
        ctx.respond("early")
        await ctx.step(hold)

    async with rig.running(app):
        (run,) = await rig.add("answer", [{}])
        assert await rig.until(lambda: rig.db.fetchval("select body from reply")) == b"early"
        go_on.set()
        await rig.ended([run])


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (object(), "can't be kept as JSON"),
        ("x" * limit.RESULT_BYTES_MAX, "at most 1048576 are kept"),
        ("\ud800", "can't be kept as JSON"),
    ],
)
async def test_a_result_that_cannot_be_kept_fails_the_step_and_is_not_tried_again(
    rig: Rig, value: object, said: str
) -> None:
    app = App()

    async def make() -> object:
        return value

    @app.workflow(on="test.thing", retry=Retry(attempts=5, first_s=0))
    async def bad(event: Event, ctx: Context) -> None:
        await ctx.step(make)

    async with rig.running(app):
        (run,) = await rig.add("bad", [{}])
        done = (await rig.ended([run]))[run]
    assert (done["status"], done["attempt"]) == (RunStatus.FAILED, 1)
    assert said in done["error"] and "step make" in done["error"]


async def test_what_the_store_refuses_is_found_by_halving_and_harms_nobody_else(rig: Rig) -> None:
    app = App()
    metrics = Metrics()

    async def value(n: int) -> int:
        return n

    @app.workflow(on="test.thing", retry=Retry(attempts=1))
    async def some(event: Event, ctx: Context) -> int:
        return await ctx.step(value, event.json["n"])

    async with rig.running(app):
        pass
    await rig.db.execute("alter table step add constraint step_odd check (result <> '13')")
    await rig.db.execute("alter table run_done add constraint done_odd check (result <> '17')")
    runs = await rig.add("some", [{"n": n} for n in range(40)])
    async with rig.running(app, metrics=metrics):
        done = await rig.ended(runs)
    others = [row for n, run in enumerate(runs) if n not in (13, 17) for row in [done[run]]]
    assert {row["status"] for row in others} == {RunStatus.SUCCEEDED}
    step, end = done[runs[13]], done[runs[17]]
    assert step["status"] == RunStatus.FAILED and "step value" in step["error"] and "step_odd" in step["error"]
    assert end["status"] == RunStatus.DEAD and "done_odd" in end["error"]
    assert end["cause"] == Cause.UNSTORABLE
    assert metrics.counter("seawall_flushes_halved_total", "").value >= 4
    assert await rig.db.fetchval("select count(*) from refill") == 0


async def test_branches_of_a_run_keep_their_own_steps_when_it_is_tried_again(rig: Rig) -> None:
    app = App()
    calls: list[str] = []

    async def price(who: str) -> str:
        calls.append(who)
        await asyncio.sleep(0.2 if who == "alice" else 0)
        return who

    def charge(who: str) -> str:
        calls.append(f"charge {who}")
        return f"charged {who}"

    @app.workflow(on="test.thing", retry=Retry(attempts=2, first_s=0.01))
    async def settle(event: Event, ctx: Context) -> list[list[str]]:
        async def branch(who: str) -> list[str]:
            return [who, await ctx.step(charge, await ctx.step(price, who))]

        told = await asyncio.gather(branch("alice"), branch("bob"))
        if ctx.attempt == 1:
            raise RuntimeError("once")
        return told

    await rig.registered(app)
    runs = await rig.add("settle", [{}])
    async with rig.running(app):
        done = await rig.ended(runs)
    assert json.loads(done[runs[0]]["result"]) == [["alice", "charged alice"], ["bob", "charged bob"]]
    assert sorted(calls) == ["alice", "bob", "charge alice", "charge bob"], "no step was done again"


async def test_more_plain_steps_than_threads_wait_for_one_and_none_is_called_late(rig: Rig) -> None:
    """The time of a step begins with its thread: here all of them together take longer than one of them may."""
    app = App()

    def work(n: int) -> int:
        time.sleep(0.02)
        return n

    @app.workflow(on="test.thing", retry=Retry(attempts=1))
    async def many(event: Event, ctx: Context) -> int:
        return await ctx.step(work, event.json["n"], timeout_s=0.8)

    await rig.registered(app)
    runs = await rig.add("many", [{"n": n} for n in range(200)])
    async with rig.running(app, settings=replace(QUICK, threads_max=2)):
        done = await rig.ended(runs)
    assert {row["status"] for row in done.values()} == {RunStatus.SUCCEEDED}


async def test_user_code_that_exits_hangs_or_raises_oddly_fails_and_the_process_lives(rig: Rig) -> None:
    app, release = App(), threading.Event()

    async def exits() -> None:
        sys.exit(3)

    def exits_in_thread() -> None:
        raise SystemExit("thread")

    def stops() -> None:
        raise StopIteration("odd")

    async def hangs() -> None:
        await asyncio.Event().wait()

    def hangs_in_thread() -> None:
        release.wait(20)

    async def cancels() -> None:
        raise asyncio.CancelledError

    cases: dict[str, Any] = {
        "exits": (exits, "RuntimeError: SystemExit: 3"),
        "exits_in_thread": (exits_in_thread, "RuntimeError: SystemExit: thread"),
        "stops": (stops, "RuntimeError: StopIteration: odd"),
        "hangs": (hangs, "TimeoutError: it took longer than 0.2 s"),
        "hangs_in_thread": (hangs_in_thread, "TimeoutError: it took longer than 0.2 s"),
        "cancels": (cancels, "CancelledError"),
    }

    @app.workflow(on="test.thing", retry=Retry(attempts=1))
    async def steps(event: Event, ctx: Context) -> None:
        await ctx.step(cases[event.json][0], timeout_s=0.2 if event.json.startswith("hangs") else 20)

    @app.workflow(on="test.thing", retry=Retry(attempts=1))
    async def leaves(event: Event, ctx: Context) -> None:
        sys.exit(4)

    @app.workflow(on="test.thing", retry=Retry(attempts=1), timeout_s=0.2)
    async def sleeps(event: Event, ctx: Context) -> None:
        await asyncio.Event().wait()

    @app.workflow(on="test.thing", retry=Retry(attempts=1))
    async def fine(event: Event, ctx: Context) -> str:
        return "fine"

    async with rig.running(app):
        runs = await rig.add("steps", list(cases))
        runs += await rig.add("leaves", [{}])
        runs += await rig.add("sleeps", [{}])
        done = await rig.ended(runs)
        (after,) = await rig.add("fine", [{}])
        assert (await rig.ended([after]))[after]["status"] == RunStatus.SUCCEEDED
        release.set()
    assert {row["status"] for row in done.values()} == {RunStatus.FAILED}
    said = [done[run]["error"] for run in runs]
    for error, (_, part) in zip(said, cases.values(), strict=False):
        assert part in error
    assert said[-2] == "SystemExit: 4"
    assert said[-1] == "TimeoutError: the workflow took longer than 0.2 s"


class Unsayable(Exception):
    def __str__(self) -> str:
        return f"HTTP {self.response.status}"  # type: ignore[attr-defined]


class Unaskable(Exception):
    @property
    def retry_after_s(self) -> float:
        raise RuntimeError("no header")


class Shapeless(Exception):
    @property
    def __class__(self) -> Any:
        raise SystemExit("no class")

    @__class__.setter
    def __class__(self, value: Any) -> None: ...


@pytest.mark.parametrize("kind", [Unsayable, Unaskable, Shapeless])
@pytest.mark.parametrize("where", ["workflow", "step"])
async def test_an_exception_that_raises_when_it_is_asked_still_ends_its_run(
    rig: Rig, kind: type[Exception], where: str
) -> None:
    """Its run's task would die without a word, and the slot with it; a process for suspects would wait for ever."""
    app = App()

    async def raises() -> None:
        raise kind

    @app.workflow(on="test.thing", retry=Retry(attempts=2, first_s=0.0))
    async def odd(event: Event, ctx: Context) -> None:
        await (raises() if where == "workflow" else ctx.step(raises))

    async with rig.running(app) as worker:
        (run,) = await rig.add("odd", [{}])
        row = (await rig.ended([run]))[run]
        assert (row["status"], row["attempt"]) == (RunStatus.FAILED, 2)
        assert kind.__name__ in row["error"]
        await rig.until(lambda: not worker._bench.count)  # its row is seen before the worker hears of its own commit


async def test_a_run_that_swallows_cancellation_fails_once_and_frees_its_slot(
    rig: Rig, caplog: pytest.LogCaptureFixture
) -> None:
    """It can't be stopped, so it can't be tried again beside itself; nothing that it does later is kept."""
    app = App()
    metrics = Metrics()
    release = asyncio.Event()
    calls: list[str] = []

    async def swallows() -> None:
        while not release.is_set():
            with contextlib.suppress(asyncio.CancelledError):
                await release.wait()

    async def late() -> None:
        calls.append("late")

    @app.workflow(on="test.thing", timeout_s=0.2)
    async def stubborn(event: Event, ctx: Context) -> None:
        calls.append("began")
        ctx.respond("early")
        await (ctx.step(swallows, timeout_s=0.2) if event.json == "step" else swallows())
        ctx.respond("late")
        await ctx.step(late)

    @app.workflow(on="test.thing")
    async def fine(event: Event, ctx: Context) -> str:
        return "fine"

    async with rig.running(app, replace(QUICK, inflight_max=2), metrics=metrics) as worker:
        runs = await rig.add("stubborn", ["run", "step"])
        done = await rig.ended(runs)
        assert {row["status"] for row in done.values()} == {RunStatus.FAILED}
        assert all("went on after it was cancelled" in row["error"] for row in done.values())
        assert metrics.gauge("seawall_runs_stubborn_count", "").now() == 2
        (after,) = await rig.add("fine", [{}])
        assert (await rig.ended([after]))[after]["status"] == RunStatus.SUCCEEDED
        release.set()
        await rig.until(lambda: metrics.gauge("seawall_runs_stubborn_count", "").now() == 0)
        assert calls == ["began", "began"]
        await rig.until(lambda: not worker._bench.count)
    said = [r for r in caplog.records if r.message == "code goes on after it was cancelled"]
    assert len(said) >= 2 and "swallows" in str(vars(said[0]))
    assert await rig.db.fetchval("select count(*) from step") == 0


async def test_a_run_that_cancels_itself_fails_and_one_that_a_stranger_cancelled_writes_nothing(rig: Rig) -> None:
    app = App()
    ended: list[int] = []

    @app.workflow(on="test.thing", retry=Retry(attempts=1))
    async def itself(event: Event, ctx: Context) -> None:
        task = asyncio.current_task()
        assert task is not None
        asyncio.get_running_loop().call_soon(task.cancel)
        await asyncio.sleep(60)

    @app.workflow(on="test.thing", retry=Retry(attempts=1))
    async def innocent(event: Event, ctx: Context) -> None:
        await asyncio.sleep(60)

    async with rig.running(app, die=ended.append) as worker:
        (run,) = await rig.add("itself", [{}])
        row = (await rig.ended([run]))[run]
        assert (row["status"], row["error"]) == (RunStatus.FAILED, "CancelledError: ")
        await rig.add("innocent", [{}])
        [held] = await rig.until(lambda: [h for h in worker._leases.held() if h.inflight])
        [execution] = held.inflight.values()
        execution.task.cancel()
        await rig.until(lambda: ended == [74])
    assert await rig.db.fetchval("select count(*) from run_done") == 1


async def test_when_all_threads_hang_in_user_code_the_process_ends(rig: Rig) -> None:
    app = App()
    release = threading.Event()
    ended: list[int] = []

    def hang() -> None:
        release.wait(20)

    @app.workflow(on="test.thing", retry=Retry(attempts=1))
    async def stuck(event: Event, ctx: Context) -> None:
        await ctx.step(hang, timeout_s=0.1)

    async with rig.running(app, replace(QUICK, threads_max=2), die=ended.append):
        await rig.ended(await rig.add("stuck", [{}, {}]))
        assert ended == [72]
        release.set()


async def test_steps_at_once_keep_their_own_values_and_deadlines(rig: Rig) -> None:
    app = App()

    async def wait(n: int) -> int:
        await asyncio.sleep(0.01 * (5 - n))
        return n

    async def hang() -> None:
        await asyncio.Event().wait()

    @app.workflow(on="test.thing")
    async def fan(event: Event, ctx: Context) -> Any:
        several = [ctx.step(wait, n) for n in range(5)]
        *values, failed = await asyncio.gather(*several, ctx.step(hang, timeout_s=0.2), return_exceptions=True)
        assert isinstance(failed, StepFailed) and failed.type == "TimeoutError"
        return values

    async with rig.running(app):
        (run,) = await rig.add("fan", [{}])
        assert (await rig.ended([run]))[run]["result"] == b"[0,1,2,3,4]"
    kept = await rig.db.fetch("select name, result from step where name like 'wait%' order by name")
    assert [(step_parts(row["name"]), row["result"]) for row in kept] == [
        (("wait", f"Context.step#{n}"), str(n).encode()) for n in range(5)
    ]


async def test_a_run_of_a_version_that_this_worker_lacks_stays_queued_and_does_not_block_others(
    rig: Rig, caplog: pytest.LogCaptureFixture
) -> None:
    old, new = App(), App()

    @old.workflow(on="test.thing", version="1")
    async def change(event: Event, ctx: Context) -> str:
        return "one"

    @new.workflow(on="test.thing", version="2", name="change")
    async def change_two(event: Event, ctx: Context) -> str:
        return "two"

    await rig.registered(old)
    pinned = await rig.add("change", [{} for _ in range(30)], version="1")
    await rig.registered(new)
    assert await rig.db.fetchval("select version from workflow where active") == "2"
    await rig.registered(old)  # older code starts again: new runs still take the newer version
    assert await rig.db.fetchval("select version from workflow where active") == "2"
    async with rig.running(new, replace(QUICK, refill_runs=4)):
        fresh = await rig.add("change", [{} for _ in range(8)], version="2")
        assert {row["result"] for row in (await rig.ended(fresh)).values()} == {b'"two"'}
        assert await rig.db.fetchval("select count(*) from run where state = 0") == 30
    said = [r for r in caplog.records if "doesn't have" in r.message]
    assert len(said) == 1  # not once for each run, or each read
    async with rig.running(old):
        assert {row["result"] for row in (await rig.ended(pinned)).values()} == {b'"one"'}


def _on(queue: str, name: str = "moves") -> App:
    app = App()

    @app.workflow(on="test.thing", queue=queue, name=name, retry=Retry(attempts=2, first_s=0.0))
    async def moves(event: Event, ctx: Context) -> None:
        if ctx.attempt == 1:
            raise ValueError("once")

    return app


async def test_runs_in_a_queue_that_their_workflow_has_left_are_run(rig: Rig, caplog: pytest.LogCaptureFixture) -> None:
    await rig.registered(_on("old"))
    runs = await rig.add("moves", [{}, {}])
    await rig.db.execute("update run set state = 1, run_after = now() where id = $1", runs[1])
    await rig.registered(_on("strange", name="foreign"))
    await rig.add("foreign", [{}])
    async with rig.worker(_on("new")):
        assert {row["status"] for row in (await rig.ended(runs)).values()} == {RunStatus.SUCCEEDED}
    [said] = [r for r in caplog.records if "no workflow of this app uses" in r.message]
    assert "strange" in str(vars(said))


async def test_a_store_from_before_our_time_is_told_our_workflows_again(rig: Rig) -> None:
    """A restore under a running worker: else events are routed without runs until somebody starts it anew."""
    async with rig.running(_on("default")):
        await rig.db.execute("delete from workflow")
        await rig.db.execute("delete from shard_lease")
        await rig.until(lambda: rig.db.fetchval("select count(*) = 1 from workflow where name = 'moves' and active"))
        runs = await rig.add("moves", [{}])
        assert {row["status"] for row in (await rig.ended(runs)).values()} == {RunStatus.SUCCEEDED}


async def test_a_run_without_its_event_ends_dead(rig: Rig) -> None:
    app = App()

    @app.workflow(on="test.thing")
    async def any_thing(event: Event, ctx: Context) -> None:
        return None

    metrics = Metrics()
    async with rig.running(app, metrics=metrics):
        (run,) = await rig.add("any_thing", [{}], with_event=False)
        done = (await rig.ended([run]))[run]
    assert (done["status"], done["error"]) == (RunStatus.DEAD, "its event is gone")
    assert done["cause"] == Cause.EVENT_GONE
    assert metrics.gauge("seawall_alerts_active_count", "", alert="run-dead").now() == 1


async def test_bodies_in_hand_are_bounded_and_all_runs_end(rig: Rig) -> None:
    app = App()
    metrics = Metrics()
    most = 0

    @app.workflow(on="test.thing")
    async def large(event: Event, ctx: Context) -> int:
        nonlocal most
        most = max(most, worker._bench.body_bytes)
        await ctx.step(asyncio.sleep, 0.01, name="wait")
        return len(event.body)

    bound = 1 << 20
    async with rig.running(app, replace(QUICK, inflight_body_bytes_max=bound), metrics=metrics) as worker:
        runs = await rig.add("large", [b"x" * 400_000 for _ in range(12)] + [b"y" * 3_000_000])
        done = await rig.ended(runs)
    assert {row["result"] for row in done.values()} == {b"400000", b"3000000"}
    assert most <= bound + 3_000_000


async def test_a_clean_stop_suspects_nobody_and_repeats_no_step_that_had_begun(rig: Rig) -> None:
    app = App()
    calls: list[str] = []
    begun = asyncio.Event()

    async def slowly(id: str) -> str:
        calls.append(id)
        begun.set()
        await asyncio.sleep(0.2)
        return id

    async def then(id: str) -> str:
        calls.append(id)
        return id

    @app.workflow(on="test.thing")
    async def two(event: Event, ctx: Context) -> None:
        await ctx.step(slowly, f"a{event.id}")
        await ctx.step(then, f"b{event.id}")

    async with rig.running(app):
        runs = await rig.add("two", [{} for _ in range(10)])
        await begun.wait()
    assert await rig.db.fetchval("select count(*) from refill") == 0
    assert await rig.db.fetchval("select count(*) from run where shard < 0") == 0
    async with rig.running(app):
        await rig.ended(runs)
    assert len(calls) == len(set(calls)) == 20


@pytest.mark.parametrize("hinted", [True, False])
async def test_a_run_with_an_older_virtual_time_than_those_read_already_is_found(rig: Rig, hinted: bool) -> None:
    """A restarted router begins its virtual times anew, and a newcomer's run goes before those read already. A hint
    finds it at once (here no sweep comes in time to do it), and without any the sweep does."""
    app = App()

    @app.workflow(on="test.thing")
    async def any_thing(event: Event, ctx: Context) -> None:
        return None

    settings = replace(QUICK, sweep_s=1000.0, poll_s=0.2) if hinted else QUICK
    async with rig.running(app, settings):
        await rig.ended(await rig.add("any_thing", [{} for _ in range(8)], vt=1_000_000))
        await rig.ended(await rig.add("any_thing", [{}], shard=2, vt=7, hint=hinted))


async def test_a_cursor_that_goes_back_starts_nothing_twice(rig: Rig) -> None:
    app = App()
    calls: list[int] = []
    gate = asyncio.Event()

    @app.workflow(on="test.thing")
    async def held(event: Event, ctx: Context) -> None:
        calls.append(ctx.run_id)
        await gate.wait()

    async with rig.running(app, replace(QUICK, sweep_s=1000.0)):
        runs = await rig.add("held", [{} for _ in range(40)], vt=1000)
        await rig.until(lambda: len(calls) == 40)
        for vt in (900, 5, 400):
            runs += await rig.add("held", [{} for _ in range(4)], vt=vt)
        await rig.until(lambda: len(calls) == 52)
        gate.set()
        await rig.ended(runs)
    assert sorted(calls) == sorted(runs)


async def test_idempotency_key_depends_on_event_workflow_and_step_alone(rig: Rig) -> None:
    app = App()
    keys: list[str] = []

    @app.workflow(on="test.thing", retry=QUICKLY)
    async def keyed(event: Event, ctx: Context) -> None:
        keys.append(ctx.idempotency_key("charge"))
        keys.append(ctx.idempotency_key("mail"))
        if ctx.attempt == 1:
            raise ValueError

    async with rig.running(app):
        await rig.ended(await rig.add("keyed", [{}]))
    assert keys[0] == keys[2] != keys[1] == keys[3]
    assert len(keys[0]) == 32


async def test_the_event_is_what_came(rig: Rig) -> None:
    app = App()
    seen: list[Event] = []

    @app.workflow(on="test.thing")
    async def look(event: Event, ctx: Context) -> None:
        seen.append(event)

    async with rig.running(app):
        (run,) = await rig.add("look", [b'{"a": 1}'])
        row = (await rig.ended([run]))[run]
    (event,) = seen
    assert uuid.UUID(event.id) == row["event_id"]
    assert (event.type, event.tenant, event.source, event.body) == ("test.thing", "default", "test", b'{"a": 1}')
    assert event.json == {"a": 1} and event.headers["x-test"] == "yes"
    assert event.received_at.utcoffset().total_seconds() == 0  # type: ignore[union-attr]


async def test_a_run_expires_behind_an_outage_though_nothing_is_flushed_since(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The only run of its process hangs: nothing else ever tells the flusher that the store is back."""
    app, inside = App(), asyncio.Event()

    @app.workflow(on="test.thing", timeout_s=2.0, retry=Retry(attempts=1))
    async def hangs(event: Event, ctx: Context) -> None:
        inside.set()
        await asyncio.Event().wait()

    async with rig.running(app) as worker:
        (run,) = await rig.add("hangs", [{}])
        await inside.wait()
        broken, round_ = asyncio.Event(), worker._flusher._round

        async def breaks(session: Any) -> None:
            if not broken.is_set():
                broken.set()
                raise Unavailable("PostgreSQL", "the connection is gone")
            await round_(session)

        monkeypatch.setattr(worker._flusher, "_round", breaks)
        row = (await rig.ended([run]))[run]
        assert broken.is_set() and row["error"] == "TimeoutError: the workflow took longer than 2 s"
