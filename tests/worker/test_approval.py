"""A request to people is decided once, by a person or by its deadline, and its run hears of it whatever happens."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from seawall import App, Approval, ApprovalRequest, Context, Event, Retry
from seawall.kernel.approval import Claim, Links, Settings
from seawall.kernel.error import Unavailable, Uncertain
from seawall.kernel.seam.approval import Decision, State, Via
from seawall.store import approval, cancel, pool
from seawall.store.pool import Store
from seawall.store.statement import statements
from seawall.worker import asking, beat, bench, execution
from worker.rig import CLOCK, Rig
from worker.test_wait import AWAY, let_pass

LINKS = Links(Settings(), b"\x07" * 32, base=lambda: "http://hooks.test")
YES = Decision(approved=True, by="ana", via=Via.FORM, comment="go", address="192.0.2.7")
NO = replace(YES, approved=False, by="ben", via=Via.LINK)


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(execution, "REST_S", 0.02)


@pytest.fixture
async def store(rig: Rig) -> AsyncIterator[Store]:
    async with Store(pool.Settings(dsn=rig.database.dsn, connections_max=4), role="test") as made:
        yield made


def deploys(app: App, sent: list[str], *, within: float = 3600, **options: Any) -> None:
    @app.workflow(on="test.thing", retry=Retry(attempts=2, first_s=0.01))
    async def deploy(event: Event, ctx: Context) -> Any:
        request = await ctx.approval("deploy?", within=within, **options)
        await ctx.step(sent.append, request.link, name="send")
        answer = await request
        return [bool(answer), answer.expired, answer.by, answer.via, answer.comment, answer.address]


def claimed(link: str) -> Claim:
    assert link.startswith("http://hooks.test/approve/")
    found = LINKS.opened(link.removeprefix("http://hooks.test/approve/"))
    assert found is not None
    return found


async def put_away(rig: Rig, run: int) -> None:
    await rig.until(lambda: rig.db.fetchval("select state = 1 from run where id = $1", run))


async def decide(store: Store, claim: Claim, decision: Decision = YES) -> tuple[State | None, bool]:
    asked, won = await approval.decide(store, claim, decision, clock=CLOCK, timeout_s=5)
    return None if asked is None else asked.state, won


async def result(rig: Rig, run: int) -> Any:
    return json.loads((await rig.ended([run]))[run]["result"])


@pytest.mark.parametrize(
    ("decision", "said"),
    [(YES, [True, False, "ana", "form", "go", "192.0.2.7"]), (NO, [False, False, "ben", "link", "go", "192.0.2.7"])],
)
async def test_a_run_waits_without_a_slot_for_what_a_person_decides(
    rig: Rig, store: Store, decision: Decision, said: list[Any]
) -> None:
    app, sent = App(), list[str]()
    deploys(app, sent)
    async with rig.running(app, links=LINKS) as worker:
        (run,) = await rig.add("deploy", [{}])
        await put_away(rig, run)
        assert worker._bench.count == 0
        [link] = sent
        state = State.APPROVED if decision.approved else State.DECLINED
        assert await decide(store, claimed(link), decision) == (state, True)
        assert await result(rig, run) == said
        steps = await rig.db.fetch("select name from step where run_id = $1 order by finished_at", run)
    assert [row["name"] for row in steps] == ["send", "ctx.approval"], "its end is remembered as a step is"
    assert len(sent) == 1, "the step that sends the link is called once"
    changes = await rig.db.fetch("select kind, what, by, before, after, why from change where kind = 'approval'")
    word = f"{state.value} ({decision.via.value})"
    assert [tuple(row) for row in changes] == [("approval", str(run), decision.by, "open", word, "go")]
    assert await decide(store, claimed(link)) == (state, False), "a link counts once, also when its run has ended"


async def test_a_link_is_the_same_in_each_execution_and_attempt_and_in_no_row_of_the_store(
    rig: Rig, store: Store
) -> None:
    app, links = App(), list[str]()

    @app.workflow(on="test.thing", retry=Retry(attempts=3, first_s=0.01))
    async def deploy(event: Event, ctx: Context) -> list[str]:
        request = await ctx.approval("deploy?", to=["ana", "ben"])
        links.append(json.dumps(dict(request.links)))
        with pytest.raises(RuntimeError, match=r"each of 2 people"):
            print(request.link)
        if ctx.attempt < 2:
            raise OSError("again")
        await ctx.sleep(hours=1)
        await request
        return sorted(request.links)

    async with rig.running(app, links=LINKS):
        (run,) = await rig.add("deploy", [{}])
        await rig.until(lambda: rig.db.fetchval(AWAY, run))
        await let_pass(rig, run)
        await rig.until(lambda: len(links) == 3)
        await put_away(rig, run)
        ana, ben = json.loads(links[0]).values()
        assert claimed(ana)._replace(person=0) == claimed(ben)._replace(person=0)
        assert [claimed(ana).person, claimed(ben).person] == [0, 1]
        assert await decide(store, claimed(ben), NO) == (State.DECLINED, True)
        assert await decide(store, claimed(ana), YES) == (State.DECLINED, False)
        assert await result(rig, run) == ["ana", "ben"]
    assert len({*links}) == 1 and len(links) == 4
    for table in ("approval", "step", "change", "run_done", "event"):
        rows = " ".join(str(row[0]) for row in await rig.db.fetch(f"select t::text from {table} t"))
        for link in (ana, ben):
            assert link.rpartition("/")[2][-40:] not in rows, table


async def test_nobody_in_time_is_an_outcome_and_the_link_has_ended(rig: Rig, store: Store) -> None:
    app, sent = App(), list[str]()
    deploys(app, sent, within=timedelta(seconds=0.3))
    async with rig.running(app, links=LINKS):
        (run,) = await rig.add("deploy", [{}])
        assert await result(rig, run) == [False, True, "", "", "", ""]
    assert await decide(store, claimed(sent[0])) == (State.EXPIRED, False)


async def test_of_two_sessions_that_decide_at_once_exactly_one_does_and_the_other_is_told_who(
    rig: Rig, store: Store
) -> None:
    app, sent = App(), list[str]()
    deploys(app, sent)
    async with rig.running(app, links=LINKS):
        (run,) = await rig.add("deploy", [{}])
        await put_away(rig, run)
        claim = claimed(sent[0])
        async with store.transaction() as first:  # it has decided, and hasn't committed
            assert await approval._decide(first, claim, NO, CLOCK)
            second = asyncio.create_task(approval.decide(store, claim, YES, clock=CLOCK, timeout_s=5))
            await rig.until(lambda: rig.db.fetchval("select count(*) from pg_locks where not granted"))
        asked, won = await second
        assert not won and asked is not None and asked.verdict is not None
        assert (asked.state, asked.verdict.by, asked.verdict.via) == (State.DECLINED, "ben", Via.LINK)
        assert (await result(rig, run))[2] == "ben"


async def test_of_a_decision_and_the_deadline_whichever_writes_first_counts(rig: Rig, store: Store) -> None:
    app = App()
    deploys(app, [])
    await rig.registered(app)
    # Well below the two seconds that a session may stand idle with the run's row locked.
    question = approval.Question(text="deploy?", people=(), within_us=800_000)
    (run,) = await rig.add("deploy", [{}])
    places = [approval.Place(run_id=run, name="ctx.approval", nth=nth) for nth in range(2)]
    requests = [await approval.ask(store, place, 1, question) for place in places]
    claims = [Claim(r.id, run, r.nonce, r.expires_us, 255) for r in requests if r is not None]

    async def late() -> bool:
        return bool(await rig.db.fetchval("select bool_and(expires_at <= clock_timestamp()) from approval"))

    async with store.transaction() as session:  # a person was in time, and hasn't committed when the time is over
        assert await approval._decide(session, claims[0], YES, CLOCK)
        await rig.until(late)
        other = asyncio.create_task(approval.ask(store, places[0], 1, question))
        await rig.until(lambda: rig.db.fetchval("select count(*) from pg_locks where not granted"))
    standing = await other
    assert standing is not None and standing.verdict is not None and not standing.over
    assert await decide(store, claims[1]) == (State.EXPIRED, False), "too late, though the run hasn't looked yet"
    standing = await approval.ask(store, places[1], 1, question)
    assert standing is not None and standing.over and standing.verdict is None
    assert await decide(store, claims[1]) == (State.EXPIRED, False)


@pytest.mark.parametrize("state", [1, 0])
async def test_after_a_cancellation_nothing_can_be_decided(rig: Rig, store: Store, state: int) -> None:
    app, sent = App(), list[str]()
    deploys(app, sent)
    async with rig.running(app, links=LINKS):
        (run,) = await rig.add("deploy", [{}])
        await put_away(rig, run)
    await rig.db.execute("update run set state = $1, run_after = null", state)
    async with store.transaction() as session:
        marked = await cancel.mark(session, [run], "cancelled: wrong")
        other = asyncio.create_task(approval.decide(store, claimed(sent[0]), YES, clock=CLOCK, timeout_s=5))
        await rig.until(lambda: rig.db.fetchval("select count(*) from pg_locks where not granted"))
    asked, won = await other
    assert asked is not None and (asked.state, asked.run_status, won) == (State.ENDED, "cancelled", False)
    await cancel.settle(store, marked, timeout_s=5)
    asked, won = await approval.decide(store, claimed(sent[0]), YES, clock=CLOCK, timeout_s=5)
    assert asked is not None and (asked.state, asked.run_status, won) == (State.ENDED, "cancelled", False)
    assert await rig.db.fetchval("select decided_at is null from approval")


async def test_a_decision_of_a_moment_in_which_the_run_is_put_away_or_nobody_runs_it_is_heard(
    rig: Rig, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    app, sent = App(), list[str]()
    deploys(app, sent)
    ask, looked = bench.ask, asyncio.Event()

    async def decided_behind(*given: Any) -> Any:
        found = await ask(*given)
        if sent and not looked.is_set():  # it has just been seen open: its run is put away over this
            looked.set()
            assert await decide(store, claimed(sent[0])) == (State.APPROVED, True)
        return found

    monkeypatch.setattr(bench, "ask", decided_behind)
    async with rig.running(app, links=LINKS):
        (run,) = await rig.add("deploy", [{}])
        assert (await result(rig, run))[0] is True
        (run,) = await rig.add("deploy", [{}])
        await put_away(rig, run)
    # No worker: what is decided now is heard by the next one.
    assert await decide(store, claimed(sent[1])) == (State.APPROVED, True)
    assert await rig.db.fetchval("select state = 0 from run where id = $1", run)
    async with rig.running(app, links=LINKS):
        assert (await result(rig, run))[2] == "ana"
    assert len(sent) == 2


async def test_a_run_that_is_held_hears_after_its_release_what_was_decided_meanwhile(rig: Rig, store: Store) -> None:
    app, sent = App(), list[str]()
    deploys(app, sent)
    async with rig.running(app, links=LINKS):
        held, other = await rig.add("deploy", [{}, {}])
        await put_away(rig, held)
        await put_away(rig, other)
        [claim] = [one for one in map(claimed, sent) if one.run == held]
        await store.fetch(statements("bulk")["hold"], [held, other])
        assert await decide(store, claim) == (State.APPROVED, True)
        assert await rig.db.fetchval("select state = 2 from run where id = $1", held)
        await store.fetch(statements("bulk")["release"], [held, other], [held, other], [0, 0])
        assert (await result(rig, held))[2] == "ana"
        assert await rig.db.fetchval("select state = 1 from run where id = $1", other), "it waits on"


async def test_who_decides_while_the_end_of_a_run_is_undone_is_not_told_that_it_has_ended(
    rig: Rig, store: Store
) -> None:
    """Forced: the run's row goes and comes back in one moment, in which the decision waits for it."""
    app, sent = App(), list[str]()
    deploys(app, sent)
    async with rig.running(app, links=LINKS):
        (run,) = await rig.add("deploy", [{}])
        await put_away(rig, run)
    async with rig.db.transaction():
        await rig.db.execute("create temp table gone on commit drop as select * from run")
        await rig.db.execute("delete from run")
        other = asyncio.create_task(decide(store, claimed(sent[0])))
        await rig.until(lambda: rig.db.fetchval("select count(*) from pg_locks where not granted"))
        await rig.db.execute("insert into run select * from gone")
    assert await other == (State.APPROVED, True)


async def test_a_store_that_does_not_answer_opens_one_request(
    rig: Rig, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    app, sent, asked = App(), list[str](), 0
    deploys(app, sent)
    ask = bench.ask

    async def unsure(*given: Any) -> Any:
        nonlocal asked
        asked += 1
        found = await ask(*given)
        if asked % 2:
            raise Uncertain("the answer was lost")
        return found

    monkeypatch.setattr(bench, "ask", unsure)
    monkeypatch.setattr(asking, "PAUSE_S", 0.01)
    async with rig.running(app, links=LINKS):
        (run,) = await rig.add("deploy", [{}])
        await put_away(rig, run)
        assert await rig.db.fetchval("select count(*) from approval") == 1
        assert await decide(store, claimed(sent[0])) == (State.APPROVED, True)
        assert (await result(rig, run))[0] is True


async def test_side_by_side_a_request_is_awaited_by_two_tasks_and_beside_a_sleep(rig: Rig, store: Store) -> None:
    app, sent = App(), list[str]()

    @app.workflow(on="test.thing")
    async def deploy(event: Event, ctx: Context) -> Any:
        async def end(request: ApprovalRequest) -> Approval:
            return await request

        first, second = await ctx.approval("a?"), await ctx.approval("b?", name="second")
        for request in (first, second):
            await ctx.step(sent.append, request.link, name="send")
        found = await asyncio.gather(end(first), end(second), end(first), ctx.sleep(0.2))
        return [answer.by for answer in found[:3]]

    async with rig.running(app, links=LINKS):
        (run,) = await rig.add("deploy", [{}])
        await put_away(rig, run)
        assert await decide(store, claimed(sent[1]), NO) == (State.DECLINED, True)
        assert await decide(store, claimed(sent[0]), YES) == (State.APPROVED, True)
        assert await result(rig, run) == ["ana", "ben", "ana"]


async def test_a_store_whose_clock_went_back_is_not_asked_without_a_pause(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A fail-over, maybe: what a run knows of the store's time is ahead, so for the run the time is over already."""
    app, asks, ask, store_us = App(), list[Any](), bench.ask, execution.Execution.store_us
    deploys(app, [], within=1.0)

    async def counted(*given: Any) -> Any:
        asks.append(given)
        return await ask(*given)

    monkeypatch.setattr(bench, "ask", counted)
    monkeypatch.setattr(execution.Execution, "store_us", lambda run: store_us(run) + 30_000_000)
    async with rig.running(app, links=LINKS):
        (run,) = await rig.add("deploy", [{}])
        assert (await result(rig, run))[:2] == [False, True]
    assert len(asks) < 10


@pytest.mark.parametrize("what", ["ask", "last"])
async def test_no_run_expires_while_the_store_does_not_answer_it(
    rig: Rig, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    """Nothing of it is to be flushed then: only that it has asked in vain says that the store is away."""
    app, began, room = App(), list[float](), bench if what == "ask" else beat
    answer = getattr(room, what)

    async def away(*given: Any) -> Any:
        began.append(CLOCK.monotonic())
        if began[-1] < began[0] + 1.2:
            raise Unavailable("PostgreSQL", "it is away")
        return await answer(*given)

    monkeypatch.setattr(room, what, away)

    @app.workflow(on="test.thing", timeout_s=0.5, retry=Retry(attempts=1))
    async def deploy(event: Event, ctx: Context) -> str:
        await (ctx.approval("deploy?") if what == "ask" else ctx.step(str, 5, heartbeat_s=60))
        return "went on"

    async with rig.running(app, links=LINKS):
        (run,) = await rig.add("deploy", [{}])
        assert await result(rig, run) == "went on"
    assert len(began) > 2
