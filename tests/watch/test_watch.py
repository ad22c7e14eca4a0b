"""Watch over a real store and real sockets: what it finds is kept and told, and told also while the store is away."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import uuid
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime

import asyncpg
import pytest

from seawall.guard import Supervisor
from seawall.guard.supervisor import LoopHealth
from seawall.kernel.alert import Alerts
from seawall.kernel.clock import SystemClock
from seawall.kernel.error import Misconfigured
from seawall.kernel.metric import Metrics
from seawall.kernel.seam.panel import AlertLine
from seawall.kernel.signature import DEFAULT, standard
from seawall.kernel.signature.scheme import Verified
from seawall.store import pool, watch
from seawall.store.pool import Store
from seawall.testing import ManualClock
from seawall.testing.postgres import Database
from seawall.watch.health import RoleHealth
from seawall.watch.setting import Settings
from seawall.watch.watch import Watch, numbers

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
NOWHERE = pool.Settings(dsn="postgresql://nobody@127.0.0.1:1/none")
WORKER = RoleHealth(role="worker", ready=True, loops=(LoopHealth("worker.flush", True, True, "", 0.1, 0),))


class Hook:
    """A webhook that keeps what it is sent."""

    def __init__(self) -> None:
        self.heard: list[tuple[dict[bytes, bytes], bytes]] = []
        self.answers: list[bytes] = []  # what it says first, before it says 204
        self.url = ""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        lines = [line.split(b": ", 1) for line in head.split(b"\r\n")[1:-2]]
        headers = {line[0].lower(): line[1] for line in lines}
        body = await reader.readexactly(int(headers[b"content-length"]))
        answer = self.answers.pop(0) if self.answers else b"204 No Content"
        if answer != b"silence":
            writer.write(b"HTTP/1.1 " + answer + b"\r\n\r\n")
            self.heard.append((headers, body))
            await writer.drain()
        writer.close()

    @property
    def said(self) -> list[tuple[str, str]]:
        return [(told["type"], told["data"]["name"]) for told in map(json.loads, (body for _, body in self.heard))]


@pytest.fixture
async def hook() -> AsyncIterator[Hook]:
    made = Hook()
    server = await asyncio.start_server(made.serve, "127.0.0.1", 0)
    made.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/hook?a=b"
    async with server:
        yield made


class Roles:
    """This machine's roles, as a test has them."""

    def __init__(self, own: Alerts) -> None:
        self.own = own
        self.worker = WORKER
        self.lines: list[AlertLine] = []
        self.unasked: list[str] = []

    async def healths(self) -> Sequence[RoleHealth]:
        return [self.worker]

    async def alerts(self) -> tuple[Sequence[AlertLine], Sequence[str]]:
        own = [
            AlertLine(
                name=one.name, role="console", since=datetime.fromtimestamp(one.since_us / 1e6, UTC),
                labels=dict(one.labels), summary=one.summary, unaffected=one.unaffected, cure=one.cure,
            )
            for one in self.own.active()
        ]  # fmt: skip
        return [*own, *self.lines], self.unasked


class Made:
    """A watch, and what it is made of."""

    def __init__(
        self, settings: pool.Settings, hook: Hook | None, *, machine: str = "m", late_for_s: float = 60.0
    ) -> None:
        self.clock = ManualClock()
        self.alerts = Alerts(Metrics(), SystemClock())
        self.roles = Roles(self.alerts)
        self.store = Store(settings, role="test")
        url = hook.url if hook else ""
        wanted = Settings(webhook_url=url, webhook_secret=SECRET, webhook_timeout_s=2.0, late_for_s=late_for_s)
        self.watch = Watch(
            self.store, wanted, self.roles, ledger=None, machine=machine, owner=uuid.uuid4(), clock=self.clock,
            metrics=Metrics(), alerts=self.alerts, rng=random.Random(1),
        )  # fmt: skip

    @property
    def raised(self) -> list[str]:
        return [alert.name for alert in self.alerts.active()]

    async def look(self, times: int = 1, *, each_s: float = 2.0) -> None:
        for _ in range(times):
            self.clock.advance(each_s)
            await self.watch.look()

    async def ask(self, times: int = 1) -> None:
        for _ in range(times):
            self.clock.advance(self.watch.store_s)
            await self.watch.ask()

    @contextlib.asynccontextmanager
    async def sending(self) -> AsyncIterator[None]:
        """With the loop of the webhook, and nothing else."""
        supervisor = Supervisor(Metrics())
        supervisor.add("webhook", self.watch.webhook.run, essential=False)
        self.watch.webhook._clock = SystemClock()
        async with supervisor:
            yield


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(15):
        while not holds():
            await asyncio.sleep(0.01)


async def test_a_store_that_is_away_is_told_to_the_webhook_without_it_signed_and_again_when_it_is_back(
    database: Database, hook: Hook
) -> None:
    made = Made(NOWHERE, hook)
    async with made.sending(), made.store:
        await made.look(8)
        assert made.raised == ["store-away"]
        await until(lambda: len(hook.heard) == 1)
        headers, body = hook.heard[0]
        told = json.loads(body)
        assert (told["type"], told["data"]["name"], told["data"]["cleared_at"]) == ("alert.raised", "store-away", None)
        assert "events are accepted" in told["data"]["unaffected"]
        now_s = SystemClock().wall_us() / 1e6
        assert isinstance(standard.verify([(1, SECRET.encode())], headers, body, now_s, DEFAULT), Verified)
        async with Store(pool.Settings(dsn=database.dsn), role="test") as back:
            made.watch._store = back
            await made.look(4)
            assert made.raised == []
            await until(lambda: hook.said == [("alert.raised", "store-away"), ("alert.cleared", "store-away")])
            made.watch._history._store = back
            await made.ask()
            [row] = await watch.history(back, since_us=0, limit=10, timeout_s=5)
            assert row.name == "store-away" and row.cleared_at is not None, "the store learns of it afterwards"


async def test_a_webhook_that_fails_is_tried_again_and_given_up_and_the_next_alert_is_sent(hook: Hook) -> None:
    made = Made(NOWHERE, hook)
    made.watch.webhook.settings = replace(made.watch.webhook.settings, webhook_tries=3, webhook_timeout_s=0.3)
    line = AlertLine(
        name="first", role="worker", since=datetime.now(UTC), labels={}, summary="\udc80\0", unaffected="", cure=""
    )
    made.watch._history.saw([line], [])
    hook.answers = [b"500 No", b"silence", b"503 No"]
    async with made.sending(), made.store:
        await until(lambda: made.watch.webhook._lost.value == 1)
        made.watch._history.saw([], [])
        await until(lambda: made.watch.webhook._sent.value == 1)
    assert hook.said[-1] == ("alert.cleared", "first")
    assert len({headers[b"webhook-id"] for headers, _ in hook.heard}) == 2, "repeats have the same id"


@pytest.mark.parametrize("url", ["ftp://a/", "http://", "https://a b/", "http://a:99999/", "http://a/\r\nX: y"])
def test_a_webhook_that_can_not_be_sent_to_is_refused_at_the_start(url: str) -> None:
    with pytest.raises(Misconfigured, match="webhook_url"):
        Watch(
            None, Settings(webhook_url=url), None, ledger=None, machine="", owner=uuid.uuid4(), clock=ManualClock(),  # type: ignore[arg-type]
            metrics=Metrics(), alerts=None, rng=random.Random(),  # type: ignore[arg-type]
        )  # fmt: skip


async def test_a_loop_without_progress_is_raised_kept_and_cleared_and_a_role_that_is_not_heard_changes_nothing(
    database: Database,
) -> None:
    made = Made(pool.Settings(dsn=database.dsn), None)
    async with made.store:
        await made.ask()
        made.roles.worker = replace(WORKER, loops=(replace(WORKER.loops[0], ready=False, reason="stuck"),))
        await made.look(20)
        assert made.raised == [], "a platform that starts may take a while"
        await made.look(30)
        assert made.raised == ["loop-without-progress"]
        breaker = AlertLine(
            name="breaker-open", role="worker", since=datetime.now(UTC), labels={"to": "x"}, summary="s", unaffected="",
            cure="",
        )  # fmt: skip
        made.roles.lines = [breaker]
        await made.look()
        made.roles.lines, made.roles.unasked = [], ["worker"]
        await made.look()
        await made.ask()
        found = {row.name: row for row in await watch.history(made.store, since_us=0, limit=10, timeout_s=5)}
        assert found["breaker-open"].cleared_at is None, "nobody said that it is over"
        again = Made(pool.Settings(dsn=database.dsn), None)
        async with again.store:  # a new life: it tells nothing twice, and what is over since is cleared
            await again.ask()
            again.roles.lines = [breaker]
            await again.look()
            await again.ask()
        rows = await watch.history(made.store, since_us=0, limit=10, timeout_s=5)
        assert sorted(row.name for row in rows) == ["breaker-open", "loop-without-progress"]
        assert {row.name for row in rows if row.cleared_at is None} == {"breaker-open"}


async def test_one_watch_looks_at_the_queues_and_another_takes_over(database: Database) -> None:
    db = await asyncpg.connect(database.dsn)
    await db.execute(
        "insert into queue (name, latency_ms) values ('slow', 5000), ('empty', null);"
        "insert into run (id, event_id, workflow_id, tenant, queue_id, shard, vt, created_at, waits)"
        " select n, gen_random_uuid(), 1, 't', (select id from queue where name = 'slow'), 0, n,"
        " now() - n * interval '10 seconds', case when n > 3 then 1 else 0 end from generate_series(1, 5) n"
    )
    first, second = (Made(pool.Settings(dsn=database.dsn), None, machine=name) for name in ("a", "b"))
    async with first.store, second.store:
        for _ in range(8):
            await first.ask()
            await second.ask()
        assert (first.raised, second.raised) == (["queue-late"], [])
        [alert] = first.alerts.active()
        assert alert.labels == {"queue": "slow"} and "none began lately" in alert.summary
        [state] = [q for q in await watch.queues(first.store, window_s=60, timeout_s=5) if q.name == "slow"]
        assert state.waiting == 5 and state.oldest_s is not None and 9 < state.oldest_s < 25, "the next one, never run"
        await first.watch.__aexit__(None, None, None)
        await second.ask(8)
        await first.ask()
        assert (first.raised, second.raised) == ([], ["queue-late"])
        await db.execute("delete from run")
        await second.ask(5)
        assert second.raised == []
    await db.close()


@pytest.mark.parametrize("late_for_s", [0.0, 4.0, 15.0])
async def test_a_late_queue_is_told_within_two_looks_of_the_time_for_which_it_must_be_late(
    database: Database, late_for_s: float
) -> None:
    """Queues were looked at every ten seconds, however soon it was to be told."""
    db = await asyncpg.connect(database.dsn)
    await db.execute(
        "insert into queue (name, latency_ms) values ('slow', 5000);"
        "insert into run (id, event_id, workflow_id, tenant, queue_id, shard, vt, created_at)"
        " select n, gen_random_uuid(), 1, 't', (select id from queue where name = 'slow'), 0, n,"
        " now() - interval '20 s' from generate_series(1, 200) n"
    )
    made = Made(pool.Settings(dsn=database.dsn), None, late_for_s=late_for_s)
    async with made.store:
        since = made.clock.monotonic()
        while not made.raised:
            await made.ask()
        assert made.clock.monotonic() - since <= late_for_s + 2 * made.watch.store_s
        [alert] = made.alerts.active()
        assert "200 waiting now, the next one for 2" in alert.summary
        while made.clock.monotonic() - since < 60:
            await made.ask()
        assert len(made.watch._queues["slow"].depths) <= 7, "minutes are compared: not looked at more often"
    await db.close()


def test_numbers_of_a_page_are_added_up_and_of_lags_the_largest_counts() -> None:
    page = (
        b"# HELP seawall_x_total x\nseawall_x_total{a=\"1\"} 2.0\nseawall_x_total{a=\"2\"} 3e2\n"
        b'seawall_router_lag_seconds{log="a"} 1.5\nseawall_router_lag_seconds{log="b"} 0.5\n'
    )  # fmt: skip
    assert numbers(page) == {"seawall_x_total": 302.0, "seawall_router_lag_seconds": 1.5}


async def test_a_workflow_that_lapsed_is_told_at_once_and_over_when_a_worker_has_it_again(database: Database) -> None:
    made = Made(pool.Settings(dsn=database.dsn), None)
    db = await asyncpg.connect(database.dsn)
    async with made.store, made.watch:
        queue = await db.fetchval("insert into queue (name) values ('q') returning id")
        for name, pattern in (("orders", "order.*"), ("nightly", "")):
            await db.execute(
                "insert into workflow (name, version, pattern, queue_id, active, lapsed_at)"
                " values ($1, '1', $2, $3, false, '2026-11-23 18:00:00.5+00')", name, pattern, queue,
            )  # fmt: skip
        await made.ask()
        by_workflow = {alert.labels["workflow"]: alert for alert in made.alerts.active()}
        assert by_workflow.keys() == {"orders", "nightly"} and set(made.raised) == {"workflow-lapsed"}
        orders, nightly = by_workflow["orders"], by_workflow["nightly"]
        assert "takes no new runs since 2026-11-23T18:00:00Z" in orders.summary and "order.*" in orders.summary
        assert "--where 'type=order.*, since=2026-11-23T18:00:00Z' --workflow orders" in orders.cure
        assert "seawall workflows freeze orders" in orders.cure and "accepting" in orders.unaffected
        assert "nothing begins it" in nightly.summary and "replay" not in nightly.cure
        await db.execute("update workflow set active = true where name = 'nightly'")
        await made.ask()
        assert [alert.labels["workflow"] for alert in made.alerts.active()] == ["orders"]
        await db.execute("update watch_lease set owner = gen_random_uuid(), expires_at = now() + interval '1 hour'")
        await made.ask()
        assert made.raised == [], "another watch tells it now"
    await db.close()
