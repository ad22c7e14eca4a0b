"""The silent listener (incident I1): whatever becomes of the channel of hints, each held request gets its own answer,
none gets another's, an operator is told, and the listener is back within 2 s of its channel.

Redis carries the hints, through a network that can be spoilt; a worker's own sender publishes them.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import signal
import time
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from cache.server import Network, Server
from responder.world import World, world
from seawall.cache import hint
from seawall.cache.setting import Settings as CacheSettings
from seawall.guard import Supervisor
from seawall.guard.panel import Panel
from seawall.guard.supervisor import LoopHealth
from seawall.kernel.alert import Alerts
from seawall.kernel.clock import SystemClock
from seawall.kernel.metric import Metrics
from seawall.kernel.seam.hint import ECHO
from seawall.kernel.seam.ticket import Reply
from seawall.lab.part.node import FETCHED, quiet
from seawall.lab.part.redis import find, wheel_engine
from seawall.responder import Responder, Settings
from seawall.responder.listener import ALERT
from seawall.store import pool
from seawall.store.hint import NotifyHints
from seawall.testing.postgres import Database
from seawall.worker.hint import Hints
from stall import Stopwatch

LOOP = "responder.listener.redis"
BACK_S = 2.0
NOTICED_S = 3.0
"""An echo each second, which may take one, and one for a machine that is shared."""


@pytest.fixture(params=["wheel", pytest.param("real", marks=pytest.mark.parts)])
def redis(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Server]:
    server = Server(tmp_path / "redis", wheel_engine() if request.param == "wheel" else find(FETCHED, quiet))
    server.start()
    yield server
    server.kill()


@dataclass
class Desk:
    """A collector's responder and a worker's sender of hints, with Redis between them."""

    responder: Responder
    hints: Hints
    here: World
    network: Network
    supervisor: Supervisor
    metrics: Metrics
    alerts: Alerts
    doomed: set[str]
    writing: asyncio.Lock = field(default_factory=asyncio.Lock)
    took_s: list[float] = field(default_factory=list)
    wrong: int = 0
    unanswered: int = 0

    @property
    def loop(self) -> LoopHealth:
        return next(one for one in self.supervisor.health() if one.name == LOOP)

    @property
    def told(self) -> list[str]:
        """Labels of our alert's channels that are raised."""
        return [alert.labels["channel"] for alert in self.alerts.active() if alert.name == ALERT]

    def count(self, name: str, **labels: str) -> float:
        return sum(
            s.value for s in self.metrics.samples() if s.name == name and labels.items() <= dict(s.labels).items()
        )

    async def until(self, true: Callable[[], bool], within_s: float) -> float:
        """Seconds that it took, of this process' own time."""
        watch = Stopwatch()
        async with asyncio.timeout(within_s * 5):
            while not true():
                await asyncio.sleep(0.01)
        assert watch.s < within_s, watch.s
        return watch.s

    async def ask(self, gap_s: float = 0.1) -> None:
        """One held request: its workflow answers after a moment with the event's own id."""
        async with self.writing:
            event = await self.here.busy()
        answered: asyncio.Future[Reply | None] = asyncio.get_running_loop().create_future()
        self.responder.hold(event, wait_ms=20_000, answer=answered.set_result)
        await asyncio.sleep(gap_s)
        began = time.monotonic()
        async with self.writing:
            await self.here.reply(event, event.hex().encode(), content_type="text/plain")
        self.hints.add(event.hex())
        reply = await answered
        self.took_s.append(time.monotonic() - began)
        self.unanswered += reply is None
        self.wrong += reply is not None and reply.body != event.hex().encode()

    @contextlib.asynccontextmanager
    async def asked_all_the_time(self) -> AsyncIterator[None]:
        """Requests come and are answered, until the block ends; then all of them were."""
        over = asyncio.Event()

        async def go_on() -> None:
            while not over.is_set():
                await self.ask()

        async with asyncio.TaskGroup() as group:
            for _ in range(8):
                group.create_task(go_on())
            yield
            over.set()
        assert (self.wrong, self.unanswered) == (0, 0) and len(self.took_s) > 16


@pytest.fixture
def limits() -> dict[str, float]:
    """How long anybody waits for Redis."""
    return {}


PATIENT = {"timeout_s": 4.0, "connect_s": 4.0}
"""Where nothing is wrong with it: a busy machine takes longer than 150 ms now and then, and that is no fault."""


@pytest.fixture
async def desk(redis: Server, database: Database, limits: dict[str, float]) -> AsyncIterator[Desk]:
    metrics, clock, doomed = Metrics(), SystemClock(), set[str]()
    alerts = Alerts(metrics, clock)

    async def pace(name: str) -> None:
        if name in doomed:
            doomed.discard(name)
            raise RuntimeError("killed from inside")

    async with contextlib.AsyncExitStack() as stack:
        enter = stack.enter_async_context
        here = await enter(world(database.dsn))
        network = await enter(Network(redis.port))
        settings = CacheSettings(url=f"redis://127.0.0.1:{network.port}", **limits)
        listening = await enter(hint.RedisHints(settings, name="c1"))
        sending = await enter(
            hint.guarded(
                settings, name="worker", clock=clock, metrics=metrics, alerts=alerts, panel=Panel(),
                rng=random.Random(7),
            )
        )  # fmt: skip
        store = await enter(pool.Store(pool.Settings(dsn=database.worker_dsn), role="worker"))
        hints = Hints([sending, NotifyHints(store)], metrics)
        responder = await enter(
            Responder(
                pool.Settings(dsn=database.dsn), Settings(), metrics=metrics, alerts=alerts, channels=[listening],
                rng=random.Random(7),
            )
        )  # fmt: skip
        supervisor = Supervisor(metrics, pace=pace)
        responder.register(supervisor)
        supervisor.add("worker.hint", hints.run)
        await enter(supervisor)
        made = Desk(responder, hints, here, network, supervisor, metrics, alerts, doomed)
        await made.until(lambda: all(one.ready for one in supervisor.health()), 5.0)
        yield made


@pytest.mark.parametrize("limits", [PATIENT], ids=["patient"])
async def test_without_a_fault_replies_are_hinted_through_redis_and_nobody_is_alarmed(desk: Desk) -> None:
    async with desk.asked_all_the_time():
        await asyncio.sleep(1.5)
    assert desk.count("seawall_hints_sent_total", channel="redis") >= len(desk.took_s)
    assert desk.count("seawall_hints_sent_total", channel="notify") == 0
    assert desk.count("seawall_reply_echoes_missed_total") == 0 and desk.told == []
    assert 0 < desk.count("seawall_reply_echo_seconds", channel="redis") < 1.0


@pytest.mark.parametrize(
    ("how", "outage_s"),
    [
        ("killed", 8.0), ("stopped", 3.0), ("hole", 3.0),
        *(pytest.param(how, 60.0, marks=pytest.mark.soak) for how in ("killed", "stopped", "hole")),
    ],
)  # fmt: skip
async def test_an_outage_is_noticed_and_told_and_costs_no_answer(
    desk: Desk, redis: Server, how: str, outage_s: float
) -> None:
    """A server that comes back from being killed is empty."""
    async with desk.asked_all_the_time():
        await asyncio.sleep(0.5)
        match how:
            case "killed":
                redis.kill()
            case "stopped":
                redis.send(signal.SIGSTOP)
            case _:
                desk.network.hole = True
        began = time.monotonic()
        await desk.until(lambda: not desk.loop.ready, NOTICED_S)
        assert desk.loop.reason
        await desk.until(lambda: desk.told == ["redis"], NOTICED_S)
        before = desk.count("seawall_hints_sent_total", channel="notify")
        await asyncio.sleep(max(0.0, outage_s - (time.monotonic() - began)))
        assert desk.told == ["redis"], "it stays raised, and PostgreSQL's channel is well"
        if how != "killed":  # that is known without an echo
            assert desk.count("seawall_reply_echoes_missed_total", channel="redis") > 0
        assert desk.count("seawall_hints_sent_total", channel="notify") > before
        match how:
            case "killed":
                redis.start()
            case "stopped":
                redis.send(signal.SIGCONT)
            case _:
                desk.network.hole = False
        await desk.until(lambda: desk.loop.ready and desk.told == [], BACK_S)
        sent = desk.count("seawall_hints_sent_total", channel="redis")
        await desk.until(lambda: desk.count("seawall_hints_sent_total", channel="redis") > sent, 8.0)
    assert desk.loop.restarts == 0, "an absent server is no fault of the loop"
    assert max(desk.took_s) < 4.0


async def test_killed_subscriptions_are_there_again_at_once_and_no_alarm_is_raised(desk: Desk, redis: Server) -> None:
    async with desk.asked_all_the_time():
        for _ in range(5):
            before = desk.count("seawall_reply_subscriptions_total", channel="redis")
            redis.say("CLIENT", "KILL", "TYPE", "pubsub")
            await desk.until(
                lambda b=before: (
                    desk.count("seawall_reply_subscriptions_total", channel="redis") > b and desk.loop.ready
                ),
                BACK_S,
            )
            await asyncio.sleep(0.2)
            assert desk.told == []


async def test_a_listener_that_is_killed_from_inside_comes_back_and_reads_what_it_missed(desk: Desk) -> None:
    async with desk.asked_all_the_time():
        for restarts in range(1, 4):
            desk.doomed.add(LOOP)
            await desk.until(lambda n=restarts: desk.loop.restarts == n, 3.0)
            await desk.until(lambda: desk.loop.ready, BACK_S)
    assert desk.told == []


async def test_a_server_that_takes_subscriptions_and_hands_nothing_on_is_found_out(desk: Desk, redis: Server) -> None:
    """As a pooler does with LISTEN. A ping would be answered."""
    redis.say("ACL", "SETUSER", "default", "on", "nopass", "~*", "+@all", "-publish")
    await desk.until(lambda: not desk.loop.ready, NOTICED_S)
    await desk.until(lambda: desk.told == ["redis"], NOTICED_S)
    assert desk.count("seawall_reply_subscriptions_total", channel="redis") > 0
    await desk.ask()
    assert desk.wrong == desk.unanswered == 0
    redis.say("ACL", "SETUSER", "default", "+publish")
    await desk.until(lambda: desk.loop.ready and desk.told == [], BACK_S)


async def test_nobody_elses_echo_proves_our_channel(desk: Desk, redis: Server) -> None:
    for payload in (ECHO, ECHO + "0" * 16 + ".1", "echo", "x" * 32, "\xff" * 9):
        redis.say("PUBLISH", "seawall:hint:reply:0", payload)
    await desk.until(lambda: desk.count("seawall_reply_hints_unreadable_total", channel="redis") == 3, 3.0)
    assert desk.loop.restarts == 0


async def test_a_worker_waits_for_no_redis_that_is_away(desk: Desk, redis: Server) -> None:
    """Its hints take the other way at once, but for the first few, which may find out."""
    redis.send(signal.SIGSTOP)
    for _ in range(6):
        await desk.ask(gap_s=0.0)
    before = len(desk.took_s)
    await desk.until(lambda: desk.count("seawall_breaker_state_code", to="redis-hints") == 2, 3.0)
    for _ in range(20):
        await desk.ask(gap_s=0.0)
    assert sorted(desk.took_s[before:])[10] < 0.1, "no more than without Redis; the reader's first look is at 150 ms"
    assert desk.count("seawall_hints_lost_total") == 0


async def test_a_worker_that_has_nothing_to_say_finds_out_about_an_outage_and_its_end(
    desk: Desk, redis: Server
) -> None:
    def state() -> float:
        return desk.count("seawall_breaker_state_code", to="redis-hints")

    redis.kill()
    await desk.until(lambda: state() == 2, 4.0)
    redis.start()
    await desk.until(lambda: state() == 0, 8.0)
