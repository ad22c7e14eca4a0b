"""Hints find the primary, also over a fail-over that closes no connection, and never take silence for an audience."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from seawall.cache.hint import RedisHints
from seawall.cache.setting import Settings
from seawall.kernel.error import Misconfigured, Unavailable
from seawall.lab.part.redis import wheel_engine

from .server import Server


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[tuple[Server, Server]]:
    """A primary, and its replica, which has caught up."""
    primary, replica = (Server(tmp_path / name, wheel_engine()) for name in ("a", "b"))
    try:
        for server in (primary, replica):
            server.start("--repl-diskless-sync-delay", "0")
        follow(replica, primary)
        yield primary, replica
    finally:
        for server in (primary, replica):
            server.kill()


def follow(replica: Server, primary: Server) -> None:
    replica.say("REPLICAOF", "127.0.0.1", str(primary.port))
    latest = time.monotonic() + 10
    while b"master_link_status:up" not in replica.say("INFO", "replication"):
        assert time.monotonic() < latest
        time.sleep(0.02)


@pytest.fixture
async def made(pair: tuple[Server, Server]) -> AsyncIterator[Callable[[], RedisHints]]:
    """Makes a process' channel, whose URL names the replica first."""
    primary, replica = pair
    async with AsyncExitStack() as stack:
        channels = [
            await stack.enter_async_context(
                RedisHints(Settings(url=f"redis://127.0.0.1:{replica.port},127.0.0.1:{primary.port}"), name="test")
            )
            for _ in range(3)
        ]
        yield channels.pop


async def hears(seen: list[str], sender: RedisHints, *, within_s: float = 5.0) -> None:
    async with asyncio.timeout(within_s):
        while not seen:
            try:
                await sender.publish(["x"], timeout_s=1.0)
            except Unavailable:
                await asyncio.sleep(0.05)
            await asyncio.sleep(0.01)


async def test_a_replica_that_stands_first_in_the_url_is_passed_over(made: Callable[[], RedisHints]) -> None:
    seen: list[str] = []
    async with made().subscribed(seen.append) as lost:
        await hears(seen, made(), within_s=1.0)
        assert not lost.done(), "what was refused on the way is no loss"


async def test_a_publisher_that_stays_with_the_old_primary_notices_that_nobody_hears(
    pair: tuple[Server, Server], made: Callable[[], RedisHints]
) -> None:
    old, new = pair
    sender, seen = made(), list[str]()
    async with made().subscribed(seen.append):
        await hears(seen, sender)
    new.say("REPLICAOF", "NO", "ONE")
    follow(old, new)
    seen.clear()
    async with made().subscribed(seen.append):
        await hears(seen, sender, within_s=3.0)


async def test_where_nobody_listens_the_sender_is_told(made: Callable[[], RedisHints]) -> None:
    with pytest.raises(Unavailable, match="nobody listens"):
        await made().publish(["x"], timeout_s=1.0)


@pytest.mark.parametrize("chosen", [{"hints": "redis"}, {"hints": "carrier pigeons"}])
def test_a_channel_that_can_not_be_is_refused_at_the_start(chosen: dict[str, str]) -> None:
    with pytest.raises(Misconfigured, match=r"cache\.hints"):
        Settings(**chosen)
