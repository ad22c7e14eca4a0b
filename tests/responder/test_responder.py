"""A held request gets its own answer, whatever happens to the channel; and with the store away, at its deadline.

Incident I1: the listener was dead and nobody noticed. Here a dead or silent channel costs latency, never an answer.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import asyncpg
import pytest

from seawall.guard import Supervisor
from seawall.kernel.approval import Claim
from seawall.kernel.error import Unavailable
from seawall.kernel.limit import RESULT_BYTES_MAX
from seawall.kernel.metric import Metrics
from seawall.kernel.seam.approval import Decision, State, Via
from seawall.kernel.seam.ticket import Reply
from seawall.kernel.status import CHANNEL_REPLY, EventStatus, RunStatus
from seawall.responder import Responder, Settings
from seawall.store import pool
from seawall.testing.postgres import Database, PostgresServer
from stall import Stopwatch

from .world import World, world

NOWHERE = "postgresql://seawall@127.0.0.1:1/seawall"


class Desk:
    """A responder under its supervisor, and the answers that it gave."""

    def __init__(self, responder: Responder, supervisor: Supervisor, metrics: Metrics) -> None:
        self.responder = responder
        self.supervisor = supervisor
        self.metrics = metrics

    def hold(self, id: bytes, wait_ms: int = 10_000) -> asyncio.Future[Reply | None]:
        future: asyncio.Future[Reply | None] = asyncio.get_running_loop().create_future()
        self.responder.hold(id, wait_ms=wait_ms, answer=future.set_result)
        return future

    def count(self, name: str, **labels: str) -> float:
        wanted = labels.items()
        return sum(s.value for s in self.metrics.samples() if s.name == name and wanted <= dict(s.labels).items())

    async def ready(self, loop: str, *, within_s: float = 5.0, is_ready: bool = True) -> None:
        async with asyncio.timeout(within_s):
            while not any(p.name == loop and p.ready is is_ready for p in self.supervisor.health()):
                await asyncio.sleep(0.005)


@asynccontextmanager
async def desk(
    dsn: str, settings: Settings | None = None, pace: Callable[[str], Awaitable[None]] | None = None
) -> AsyncIterator[Desk]:
    metrics = Metrics()
    supervisor = Supervisor(metrics, pace=pace)
    async with Responder(pool.Settings(dsn=dsn), settings, metrics=metrics) as responder:
        responder.register(supervisor)
        async with supervisor:
            yield Desk(responder, supervisor, metrics)


async def in_time(future: asyncio.Future[Reply | None], seconds: float = 5.0) -> Reply | None:
    async with asyncio.timeout(seconds):
        return await future


async def looked_up(d: Desk, here: World) -> None:
    """Wait until every ticket that is held has been read once: one that is held after them was answered."""
    assert await in_time(d.hold(await here.event(here.id()))) is not None


@pytest.fixture
async def here(database: Database) -> AsyncIterator[World]:
    async with world(database.dsn) as made:
        yield made


# What a ticket is answered


async def test_a_reply_is_passed_on_exactly(database: Database, here: World) -> None:
    async with desk(database.dsn) as d:
        event = await here.event(here.id())
        run = await here.run(event)
        answer = d.hold(event)
        await here.reply(event, b"\x00\xff raw", run=run, status=418, content_type="image/x-tea")
        await here.notify([event])
        assert await in_time(answer) == Reply(status=418, content_type="image/x-tea", body=b"\x00\xff raw")
        assert d.count("seawall_ticket_answers_total", outcome="reply") == 1


async def test_a_duplicates_ticket_gets_the_first_events_reply(database: Database, here: World) -> None:
    async with desk(database.dsn) as d:
        event, copy = await here.busy(), here.id()
        await here.duplicate(copy, event)
        await here.ticket(copy, event)
        answer = d.hold(copy)
        await looked_up(d, here)
        await here.reply(event, b'"first"')
        await here.notify([event])  # the hint names the event that ran, never the duplicate
        said = await in_time(answer)
        assert said is not None and said.body == b'"first"'


@pytest.mark.parametrize(
    ("ends", "status", "said"),
    [
        ([(RunStatus.SUCCEEDED, b'{"a":1}')], 200, {"status": "succeeded", "result": {"a": 1}}),
        ([(RunStatus.SUCCEEDED, None)], 200, {"status": "succeeded", "result": None}),
        (
            [(RunStatus.SUCCEEDED, b"1"), (RunStatus.SUCCEEDED, b'"two"')],
            200,
            {"status": "succeeded", "result": [1, "two"]},
        ),
        ([], 200, {"status": "routed", "runs": []}),
        ([(RunStatus.SUCCEEDED, b"1"), (RunStatus.FAILED, None)], 502, {"title": "Run failed"}),
        ([(RunStatus.DEAD, None)], 502, {"title": "Run dead"}),
        ([(RunStatus.CANCELLED, None)], 409, {"title": "Run cancelled"}),
        ([(RunStatus.CANCELLED, None), (RunStatus.FAILED, None)], 502, {"title": "Run failed"}),
    ],
)
async def test_without_a_reply_the_ends_of_all_runs_are_the_answer(
    database: Database,
    here: World,
    ends: list[tuple[RunStatus, bytes | None]],
    status: int,
    said: dict[str, object],
) -> None:
    async with desk(database.dsn) as d:
        event = await here.event(here.id())
        runs = [await here.run(event) for _ in ends]
        answer = d.hold(event)
        for run, (end, result) in zip(runs, ends, strict=True):
            assert not answer.done()
            await here.end(run, status=end, result=result, error="secret detail")
        got = await in_time(answer)
        assert got is not None and got.status == status
        body = json.loads(got.body)
        assert body.items() >= said.items() and b"secret" not in got.body
        if status >= 400:
            assert got.content_type == "application/problem+json" and int(body["run"]) in runs


@pytest.mark.parametrize("status", [EventStatus.HELD, EventStatus.CONFLICT, EventStatus.DEAD])
async def test_an_event_that_is_kept_without_acting_answers_its_status(
    database: Database, here: World, status: EventStatus
) -> None:
    async with desk(database.dsn) as d:
        event = await here.event(here.id(), status=status, reason="because")
        got = await in_time(d.hold(event))
        assert got is not None and got.status == 202 and got.final is (status is not EventStatus.HELD)
        assert json.loads(got.body)["status"] == status.name.lower() and json.loads(got.body)["reason"] == "because"


@pytest.mark.parametrize("size", [8 * 1024, 8 * 1024 + 1, RESULT_BYTES_MAX])
async def test_large_replies_and_results_arrive_whole(database: Database, here: World, size: int) -> None:
    async with desk(database.dsn) as d:
        replied, ended = await here.busy(), await here.event(here.id())
        run = await here.run(ended)
        body = b'"' + b"x" * (size - 2) + b'"'
        answers = [d.hold(replied), d.hold(ended)]
        await here.reply(replied, body)
        await here.end(run, result=body)
        first, second = [await in_time(a) for a in answers]
        assert first is not None and first.body == body
        assert second is not None and json.loads(second.body)["result"] == "x" * (size - 2)


async def test_results_too_large_together_are_named_instead_of_sent(database: Database, here: World) -> None:
    async with desk(database.dsn) as d:
        event = await here.event(here.id())
        for _ in range(2):
            await here.end(await here.run(event), result=b'"' + b"x" * (RESULT_BYTES_MAX - 100) + b'"')
        got = await in_time(d.hold(event))
        assert got is not None and got.status == 200 and len(got.body) < 1000 and b"larger" in got.body


# What may happen to the channel


async def test_lost_notifications_cost_latency_and_no_answer(database: Database, here: World) -> None:
    async with desk(database.dsn) as d:
        event = await here.busy()
        answer = d.hold(event)
        await here.reply(event, b"1")
        watch = Stopwatch()
        assert await in_time(answer) is not None
        assert watch.s < 1.0


BY_HINT = Settings(first_look_ms=60_000, look_ms_max=60_000)
"""Nothing else answers a request in time: it is re-read once, just before its ten seconds are over."""


async def test_a_hint_answers_long_before_the_next_reread(database: Database, here: World) -> None:
    async with desk(database.dsn, BY_HINT) as d:
        await d.ready("responder.listener.notify")
        event = await here.busy()
        answer = d.hold(event)
        await here.reply(event, b"1")
        await here.notify([event])
        assert await in_time(answer) is not None


async def test_a_hint_that_came_before_the_request_was_held_still_counts(database: Database, here: World) -> None:
    async with desk(database.dsn, BY_HINT) as d:
        await d.ready("responder.listener.notify")
        event = await here.busy()
        await here.reply(event, b"1")
        await here.notify([event])
        async with asyncio.timeout(5):
            while not d.count("seawall_reply_hints_total"):
                await asyncio.sleep(0.005)
        assert await in_time(d.hold(event)) is not None


async def test_a_cut_listener_comes_back_and_rereads_every_ticket(database: Database, here: World) -> None:
    slow = Settings(first_look_ms=1_000, look_ms_max=10_000)
    async with desk(database.dsn, slow) as d:
        await d.ready("responder.listener.notify")
        event = await here.busy()
        answer = d.hold(event, 20_000)
        await looked_up(d, here)
        assert await here.cut_listener() == 1
        await here.reply(event, b"1")
        watch = Stopwatch()
        assert await in_time(answer) is not None
        assert watch.s < 1.8, "sooner than the next re-read, which is 2 s away"
        async with asyncio.timeout(5):
            while d.count("seawall_reply_subscriptions_total") < 2:
                await asyncio.sleep(0.005)
        await d.ready("responder.listener.notify")


async def test_strange_hints_are_counted_and_harm_nothing(database: Database, here: World) -> None:
    async with desk(database.dsn) as d:
        await d.ready("responder.listener.notify")
        for payload in ("", "x" * 32, "a" * 31, "ä" * 32, ",,,", "00" * 16 + "," + "zz" * 16):
            await here.sql.execute("select pg_notify($1, $2)", CHANNEL_REPLY, payload)
        async with asyncio.timeout(5):
            while d.count("seawall_reply_hints_unreadable_total") < 9:
                await asyncio.sleep(0.005)
        assert d.count("seawall_reply_hints_total") == 1
        assert all(p.restarts == 0 for p in d.supervisor.health())


@pytest.mark.parametrize("loop", ["responder.listener.notify", "responder.reader", "responder.deadline"])
@pytest.mark.parametrize("how", ["kill", "hang"])
async def test_each_loop_may_die_or_hang_and_answers_still_come(
    database: Database, here: World, loop: str, how: str
) -> None:
    strikes = 0

    async def pace(name: str) -> None:
        nonlocal strikes
        if name == loop and strikes == 1:
            strikes = 2
            if how == "kill":
                raise RuntimeError("struck")
            await asyncio.Event().wait()

    async with desk(database.dsn, pace=pace) as d:
        await d.ready(loop)
        strikes = 1
        async with asyncio.timeout(5):
            while strikes < 2:
                await asyncio.sleep(0.005)
        event, silent = await here.busy(), await here.busy()
        answers = [d.hold(event), d.hold(silent, 300)]
        await here.reply(event, b"1")
        assert await in_time(answers[0], 6.0) is not None
        assert await in_time(answers[1], 6.0) is None
        async with asyncio.timeout(6):
            while [p.restarts for p in d.supervisor.health() if p.name == loop] != [1]:
                await asyncio.sleep(0.01)
        await d.ready(loop)


# What may happen to the store


async def test_with_the_store_away_every_request_is_answered_at_its_deadline() -> None:
    async with desk(NOWHERE) as d:
        watch = Stopwatch()
        answers = [d.hold(bytes([n]) * 16, 400) for n in range(50)]
        assert [await in_time(a) for a in answers] == [None] * 50
        assert watch.wall_s >= 0.4
        assert watch.s < 0.8
        await d.ready("responder.listener.notify", is_ready=False)
        assert all("PostgreSQL" in p.reason for p in d.supervisor.health() if p.name == "responder.listener.notify")
        for ask in (d.responder.look_up, d.responder.status):
            with pytest.raises(Unavailable):
                await ask(b"0" * 16, timeout_s=0.25)


async def test_a_hung_store_delays_no_deadline_and_answers_come_when_it_wakes(server: PostgresServer) -> None:
    dsn = server.dsn(database="seawall")
    async with world(dsn) as here, desk(dsn) as d:
        await d.ready("responder.listener.notify")
        event, other = await here.busy(), await here.busy()
        await here.reply(other, b"1")
        server.hang()
        try:
            short, long = d.hold(event, 500), d.hold(other, 20_000)
            watch = Stopwatch()
            assert await in_time(short) is None
            assert watch.s < 0.7
            watch = Stopwatch()
            with pytest.raises(Unavailable):
                await d.responder.status(event, timeout_s=0.25)
            assert watch.s < 0.4
            await d.ready("responder.listener.notify", is_ready=False)
            assert not long.done()
        finally:
            server.resume()
        assert await in_time(long, 10.0) is not None
        await d.ready("responder.listener.notify", within_s=10.0)
        assert all(p.restarts == 0 for p in d.supervisor.health()), "an absent store is no fault of a loop"


async def test_a_killed_store_that_comes_back_answers_who_still_waits(server: PostgresServer) -> None:
    dsn = server.dsn(database="seawall")
    async with desk(dsn) as d:
        async with world(dsn) as here:
            await d.ready("responder.listener.notify")
            event = await here.busy()
            await here.reply(event, b"1")
        server.kill()
        answer = d.hold(event, 20_000)
        server.start()
        assert await in_time(answer, 10.0) is not None
        await d.ready("responder.listener.notify")


# Numbers, and the rest of the seam


async def test_two_thousand_requests_wait_at_once_and_each_gets_its_own_answer(database: Database, here: World) -> None:
    count = 2_000
    async with desk(database.dsn) as d:
        await d.ready("responder.listener.notify")
        ids = [here.id() for _ in range(count)]
        workflow = await here.workflow()
        answers = [d.hold(id, 25_000) for id in ids]
        async with here.sql.transaction():
            for id in ids:
                await here.event(id)
                await here.run(id, workflow=workflow)
        tasks = len(asyncio.all_tasks())
        assert tasks < 20 and d.count("seawall_tickets_held_count") == count
        await here.sql.executemany(
            "insert into reply values ($1, 1, 200, 'text/plain', convert_to(($1::uuid)::text, 'UTF8'))",
            [(asyncpg.pgproto.pgproto.UUID(id.hex()),) for id in ids],
        )
        for at in range(0, count, 400):  # every second block is announced: the other ones must be found
            await here.notify(ids[at : at + 200])
        replies = [await in_time(a, 15.0) for a in answers]
        assert [r.body.replace(b"-", b"").decode() for r in replies if r is not None] == [id.hex() for id in ids]


async def test_beyond_the_bound_a_request_is_not_held(database: Database) -> None:
    async with desk(database.dsn, Settings(held_max=2)) as d:
        one, two, three = (d.hold(id * 16) for id in (b"1", b"2", b"3"))
        assert three.done() and three.result() is None
        assert not one.done() and not two.done()


async def test_all_who_wait_for_one_ticket_get_its_reply(database: Database, here: World) -> None:
    async with desk(database.dsn) as d:
        event = await here.busy()
        answers = [d.hold(event), d.hold(event), d.hold(event, 200)]
        assert await in_time(answers.pop()) is None, "it has a deadline of its own"
        await here.reply(event, b"1")
        await here.notify([event])
        assert [(await in_time(a)).body for a in answers] == [b"1", b"1"]  # type: ignore[union-attr]


async def test_the_first_reply_is_what_everybody_gets(database: Database, here: World) -> None:
    async with desk(database.dsn) as d:
        event = await here.busy()
        await here.reply(event, b"first")
        with pytest.raises(asyncpg.UniqueViolationError):
            await here.reply(event, b"second")
        for _ in range(2):
            got = await d.responder.look_up(event, timeout_s=2.0)
            assert got is not None and got.body == b"first"


async def test_how_runs_ended_is_not_said_in_place_of_a_reply_that_was_forgotten(
    database: Database, here: World
) -> None:
    async with desk(database.dsn) as d:
        replied, silent, open_, late = [await here.event(here.id()) for _ in range(4)]
        for event in (replied, silent, open_, late):
            await here.end(await here.run(event), result=b"1")
        await here.run(open_)
        await here.reply(replied, b"kept")
        ids = [asyncpg.pgproto.pgproto.UUID(id.hex()) for id in (replied, silent, open_)]
        await here.sql.execute(
            "update run_done set finished_at = now() - interval '25 h' where event_id = any($1)", ids
        )
        got = [await d.responder.look_up(id, timeout_s=2.0) for id in (replied, silent, open_, late)]
        assert [one and (one.status, one.final) for one in got] == [
            (200, True), (404, True), (202, False), (200, True),
        ]  # fmt: skip
        held = await in_time(d.hold(silent))
        assert held is not None and held.status == 200, "a repeat that comes so late is answered with what there is"


async def test_a_dropped_request_is_forgotten_and_stopping_answers_the_rest(database: Database) -> None:
    async with desk(database.dsn) as d:
        gone, here = d.hold(b"1" * 16), d.hold(b"2" * 16)
        for _ in range(2):
            d.responder.drop(b"1" * 16, gone.set_result)
        d.responder.drop(b"2" * 16, gone.set_result)
        d.responder.stop()
        d.responder.stop()
        assert here.done() and here.result() is None and not gone.done()
        late = d.hold(b"3" * 16)
        assert late.done() and late.result() is None


async def test_a_ticket_can_be_looked_up_at_any_time(database: Database, here: World) -> None:
    async with desk(database.dsn) as d:
        event, copy, nobody = here.id(), here.id(), here.id()
        assert await d.responder.look_up(event, timeout_s=2.0) is None
        await here.event(event)
        await here.duplicate(copy, event)
        run = await here.run(event)
        pending = await d.responder.look_up(event, timeout_s=2.0)
        assert pending is not None and pending.status == 202 and not pending.final
        await here.end(run, result=b"7")
        for id in (event, copy):
            done = await d.responder.look_up(id, timeout_s=2.0)
            assert done is not None and done.status == 200 and done.final and json.loads(done.body)["result"] == 7
        assert await d.responder.look_up(nobody, timeout_s=2.0) is None
        for strange in (b"\xff" * 16, b"\x00" * 16):
            assert await d.responder.look_up(strange, timeout_s=2.0) is None
            assert await d.responder.status(strange, timeout_s=2.0) is None


async def test_an_events_status_names_its_runs_and_a_duplicates_leads_to_the_first(
    database: Database, here: World
) -> None:
    async with desk(database.dsn) as d:
        event, copy = await here.event(here.id()), here.id()
        await here.duplicate(copy, event)
        done, failed, taken, waits = [await here.run(event, workflow=await here.workflow(n)) for n in "abcd"]
        await here.end(done)
        await here.end(failed, status=RunStatus.FAILED)
        await here.sql.execute("update run set state = 1 where id = $1", waits)
        await here.sql.execute("insert into shard_lease values (1, 0, gen_random_uuid(), 7, now() + interval '1 min')")
        await here.sql.execute("insert into refill values (1, 0, 7, 1, $1)", [taken, waits, done])
        for id in (event, copy):
            brief = await d.responder.status(id, timeout_s=2.0)
            assert brief is not None and (brief.id, brief.status) == (event, "routed")
            assert [(r.id, r.workflow, r.status) for r in brief.runs] == [
                (done, "a", "succeeded"), (failed, "b", "failed"), (taken, "c", "running"), (waits, "d", "waiting"),
            ]  # fmt: skip
        held = await here.event(here.id(), status=EventStatus.HELD)
        brief = await d.responder.status(held, timeout_s=2.0)
        assert brief is not None and brief.status == "held" and brief.runs == ()


async def test_a_request_to_people_is_found_and_decided_once_and_unavailable_without_the_store(
    database: Database, here: World
) -> None:
    run = await here.run(await here.event(here.id()), state=RunStatus.WAITING)
    row = await here.sql.fetchrow(
        "insert into approval (run_id, name, nth, key, question, people, expires_at)"
        " values ($1, 'a', 0, 1, 'deploy?', '{ana}', now() + interval '1 hour') returning id, nonce",
        run,
    )
    assert row is not None
    claim = Claim(row["id"], run, row["nonce"].bytes, 0, 0)
    decision = Decision(approved=True, by="ana", via=Via.LINK)
    async with desk(database.dsn) as it:
        found = await it.responder.find(claim, timeout_s=5)
        assert found is not None and (found.state, found.people) == (State.OPEN, ("ana",))
        for other in (claim._replace(nonce=bytes(16)), claim._replace(run=run + 1), claim._replace(request=0)):
            assert await it.responder.find(other, timeout_s=5) is None
            assert await it.responder.decide(other, decision, timeout_s=5) == (None, False)
        outcomes = await asyncio.gather(*(it.responder.decide(claim, decision, timeout_s=5) for _ in range(4)))
        assert sorted(won for _, won in outcomes) == [False, False, False, True]
        assert {asked.state for asked, _ in outcomes if asked is not None} == {State.APPROVED}
    async with desk(NOWHERE) as it:
        with pytest.raises(Unavailable):
            await it.responder.find(claim, timeout_s=1)
        with pytest.raises(Unavailable):
            await it.responder.decide(claim, decision, timeout_s=1)
