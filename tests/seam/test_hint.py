"""What every channel of hints keeps to, whatever carries them, also under faults: the conformance suite of
``kernel/seam/hint.py``. An implementation joins by an entry in ``RIGS``.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path

import asyncpg
import pytest

from cache.server import Network, Server
from seawall.cache.hint import RedisHints
from seawall.cache.setting import Settings
from seawall.kernel.error import Unavailable
from seawall.kernel.seam.hint import PAYLOAD_BYTES_MAX, PAYLOADS_MAX, HintChannel
from seawall.lab.part.node import FETCHED, quiet
from seawall.lab.part.redis import Engine, find, wheel_engine
from seawall.store import pool
from seawall.store.hint import NotifyHints
from seawall.testing.postgres import PostgresServer
from stall import Stopwatch

ENTER_S = 2.0
"""A subscription succeeds or fails within this."""

BACK_S = 2.0
"""What was away is there again for whoever keeps trying within this."""


@dataclass
class Rig:
    """Two processes' channels, the way of the first to its server, and what may be done to that."""

    channel: HintChannel
    other: HintChannel  # goes straight to the server
    network: Network
    kill: Callable[[], None]
    start: Callable[[], None]
    stop: Callable[[], None]  # SIGSTOP
    go_on: Callable[[], None]
    cut: Callable[[], object]  # the server ends every subscription

    async def heard(self, seen: list[str], *, within_s: float = 5.0) -> None:
        """Publish until something is heard: a hint may be lost, and is said again."""
        async with asyncio.timeout(within_s):
            while not seen:
                with contextlib.suppress(Unavailable):
                    await self.other.publish(["again"], timeout_s=0.5)
                await asyncio.sleep(0.02)

    @contextlib.asynccontextmanager
    async def back(self, seen: list[str]) -> AsyncIterator[None]:
        """Subscribe, as often as it takes."""
        async with contextlib.AsyncExitStack() as stack:
            while True:
                try:
                    await stack.enter_async_context(self.channel.subscribed(seen.append))
                    break
                except Unavailable:
                    await asyncio.sleep(0.05)
            yield


@contextlib.asynccontextmanager
async def over_postgres(server: PostgresServer) -> AsyncIterator[Rig]:
    async with contextlib.AsyncExitStack() as stack:
        enter = stack.enter_async_context
        network = await enter(Network(server.cluster.socket / ".s.PGSQL.5432"))
        through = f"postgresql://seawall@127.0.0.1:{network.port}/seawall?sslmode=disable"
        stores = [
            await enter(pool.Store(pool.Settings(dsn=dsn, connections_max=1), role="echo"))
            for dsn in (through, server.dsn(database="seawall"))
        ]

        async def cut() -> None:
            admin = await asyncpg.connect(server.dsn())
            await admin.execute(
                "select pg_terminate_backend(pid) from pg_stat_activity where application_name = 'seawall-listener'"
            )
            await admin.close()

        one, other = (NotifyHints(store) for store in stores)
        yield Rig(one, other, network, server.kill, server.start, server.hang, server.resume, cut)


def over_redis(engine: Callable[[], Engine]) -> Callable[..., contextlib.AbstractAsyncContextManager[Rig]]:
    @contextlib.asynccontextmanager
    async def made(folder: Path) -> AsyncIterator[Rig]:
        server = Server(folder / "redis", engine())
        server.start()
        try:
            async with Network(server.port) as network:
                urls = [f"redis://127.0.0.1:{port}/3" for port in (network.port, server.port)]
                channels = [RedisHints(Settings(url=url), name="test") for url in urls]
                async with channels[0], channels[1]:
                    yield Rig(
                        *channels, network, server.kill, server.start, lambda: server.send(signal.SIGSTOP),
                        lambda: server.send(signal.SIGCONT), lambda: server.say("CLIENT", "KILL", "TYPE", "pubsub"),
                    )  # fmt: skip
        finally:
            server.kill()

    return made


RIGS = {
    "notify": ("server", over_postgres),
    "redis": ("tmp_path", over_redis(wheel_engine)),
    "real-redis": ("tmp_path", over_redis(lambda: find(FETCHED, quiet))),
}
"""Each with the fixture that it takes."""


@pytest.fixture(params=["notify", "redis", pytest.param("real-redis", marks=pytest.mark.parts)])
def asked(request: pytest.FixtureRequest) -> contextlib.AbstractAsyncContextManager[Rig]:
    fixture, made = RIGS[request.param]
    return made(request.getfixturevalue(fixture))


@pytest.fixture
async def rig(asked: contextlib.AbstractAsyncContextManager[Rig]) -> AsyncIterator[Rig]:
    async with asked as made:
        yield made


async def count(seen: list[str], wanted: int) -> None:
    async with asyncio.timeout(5):
        while len(seen) < wanted:
            await asyncio.sleep(0.005)


async def test_all_that_is_published_is_heard_whole_and_in_order_by_every_subscriber(rig: Rig) -> None:
    payloads = ["x", "y" * PAYLOAD_BYTES_MAX, "a,b", *(f"n{n}" for n in range(PAYLOADS_MAX - 3))]
    first: list[str] = []
    second: list[str] = []
    async with rig.channel.subscribed(first.append), rig.other.subscribed(second.append):
        await rig.channel.publish(payloads, timeout_s=2.0)
        await rig.other.publish(["last"], timeout_s=2.0)
        await count(first, PAYLOADS_MAX + 1)
        await count(second, PAYLOADS_MAX + 1)
    for seen in (first, second):
        assert [one for one in seen if one != "last"] == payloads and "last" in seen


async def test_who_has_left_hears_nothing_and_the_channel_goes_on(rig: Rig) -> None:
    gone: list[str] = []
    async with rig.channel.subscribed(gone.append) as lost:
        assert not lost.done()
    seen: list[str] = []
    async with rig.channel.subscribed(seen.append):
        await rig.channel.publish(["new"], timeout_s=2.0)
        await count(seen, 1)
    assert gone == []


async def test_a_payload_that_is_too_large_is_a_bug_and_is_never_sent(rig: Rig) -> None:
    seen: list[str] = []
    async with rig.channel.subscribed(seen.append):
        with pytest.raises(AssertionError):
            await rig.channel.publish(["x" * (PAYLOAD_BYTES_MAX + 1)], timeout_s=2.0)
        await rig.channel.publish(["after"], timeout_s=2.0)
        await count(seen, 1)
    assert seen == ["after"]


async def test_whether_publishing_works_can_be_asked_without_saying_anything(rig: Rig) -> None:
    seen: list[str] = []
    async with rig.channel.subscribed(seen.append):
        await rig.channel.publish([], timeout_s=2.0)
        await rig.channel.publish(["after"], timeout_s=2.0)
        await count(seen, 1)
    rig.kill()
    with pytest.raises(Unavailable):
        await rig.channel.publish([], timeout_s=1.0)
    assert seen == ["after"]


@pytest.mark.parametrize("how", ["connection", "subscription", "server"])
async def test_a_subscription_that_is_cut_says_so_at_once_and_why(rig: Rig, how: str) -> None:
    async with rig.channel.subscribed([].append) as lost:
        watch = Stopwatch()
        match how:
            case "connection":
                rig.network.cut()
            case "server":
                rig.kill()
            case _:
                if asyncio.iscoroutine(cut := rig.cut()):
                    await cut
        async with asyncio.timeout(3):
            assert await lost
        assert watch.s < 1.0
    if how == "server":
        rig.start()
    seen: list[str] = []
    watch = Stopwatch()
    async with rig.back(seen):
        await rig.heard(seen)
    assert watch.s < BACK_S


async def test_without_its_server_everything_fails_at_once_and_an_empty_one_serves_as_well(rig: Rig) -> None:
    seen: list[str] = []
    async with rig.channel.subscribed(seen.append):
        await rig.channel.publish(["before"], timeout_s=2.0)
        await count(seen, 1)
    rig.kill()
    for _ in range(3):
        watch = Stopwatch()
        with pytest.raises(Unavailable):
            await rig.channel.publish(["lost"], timeout_s=1.0)
        with pytest.raises(Unavailable):
            async with rig.channel.subscribed(seen.append):
                pass
        assert watch.s < 1.0
    rig.start()
    watch, seen = Stopwatch(), []
    async with rig.back(seen):
        await rig.heard(seen)
        assert watch.s < BACK_S
        await rig.channel.publish(["own"], timeout_s=2.0)
        await count(seen, 2)


@pytest.mark.parametrize("how", ["hole", "stopped"])
async def test_what_hangs_costs_a_bounded_time_and_is_back_soon_after_it_goes_on(rig: Rig, how: str) -> None:
    """A half-open subscription doesn't know it: nothing says so but an echo."""
    async with rig.channel.subscribed([].append) as lost:
        await rig.channel.publish(["before"], timeout_s=2.0)
        if how == "hole":
            rig.network.hole = True
        else:
            rig.stop()
        watch = Stopwatch()
        with pytest.raises(Unavailable):
            await rig.channel.publish(["swallowed"], timeout_s=0.3)
        assert watch.s < 0.6
        assert not lost.done()
        watch = Stopwatch()
        with pytest.raises((Unavailable, TimeoutError)):
            async with rig.channel.subscribed([].append):
                pass
        assert watch.s < ENTER_S
        trying = asyncio.create_task(_heard_again(rig))
        await asyncio.sleep(0.1)  # so that a try hangs when it goes on
        rig.network.hole = False
        if how == "stopped":
            rig.go_on()
        watch = Stopwatch()
        await trying
        assert watch.s < BACK_S


async def _heard_again(rig: Rig) -> None:
    seen: list[str] = []
    async with rig.back(seen):
        await rig.heard(seen)


async def test_a_publisher_that_is_cancelled_leaves_the_channel_usable(rig: Rig) -> None:
    seen: list[str] = []
    async with rig.channel.subscribed(seen.append):
        for _ in range(5):
            sending = asyncio.create_task(rig.channel.publish(["maybe"], timeout_s=2.0))
            await asyncio.sleep(0)
            sending.cancel()
            await asyncio.wait([sending])
        await rig.channel.publish(["sure"], timeout_s=2.0)
        async with asyncio.timeout(5):
            while "sure" not in seen:
                await asyncio.sleep(0.005)


async def test_nobody_who_subscribes_hears_another_kind_of_hint(rig: Rig) -> None:
    """Other things are told through the same server: to workers, of sources, by others in Redis."""
    seen: list[str] = []
    async with rig.channel.subscribed(seen.append):
        if isinstance(rig.channel, NotifyHints):
            await rig.channel._store.execute("select pg_notify('seawall_run', '1:2')")
        else:
            elsewhere = RedisHints(Settings(url=f"redis://127.0.0.1:{rig.network._to}/4"), name="test")
            async with elsewhere, elsewhere.subscribed([].append):
                await elsewhere.publish(["other database"], timeout_s=2.0)
        await rig.channel.publish(["mine"], timeout_s=2.0)
        await count(seen, 1)
    assert seen == ["mine"]
