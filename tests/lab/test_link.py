"""The fault proxy, fault by fault, on real sockets: what a client and a server see of each."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import TypeVar

import pytest

from seawall.kernel.error import Rejected
from seawall.lab.part import link as linking
from seawall.lab.part.fault import Fault, parse
from seawall.lab.part.link import Link, Proxy
from seawall.lab.part.pipe import BUFFER_BYTES
from seawall.lab.part.port import LOOPBACK
from stall import Stopwatch

T = TypeVar("T")
Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]
WAIT_S = 10.0
STILL_S = 0.3
"""How long nothing must come where nothing may."""

READ_BYTES = 256 * 1024
"""What asyncio reads at once: a queue may be over its bound by so much."""


async def soon(what: Awaitable[T]) -> T:
    return await asyncio.wait_for(what, WAIT_S)


async def silent(reader: asyncio.StreamReader) -> bool:
    """Whether neither a byte nor an end comes."""
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(reader.read(1), STILL_S)
        return False
    return True


class Server:
    """A server that hands its connections to the test."""

    def __init__(self) -> None:
        self.taken: asyncio.Queue[Streams] = asyncio.Queue()
        self.port = 0
        self._all: list[asyncio.StreamWriter] = []

    async def __aenter__(self) -> Server:
        self._server = await asyncio.start_server(self._take, LOOPBACK, 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for writer in self._all:
            writer.transport.abort()

    async def _take(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._all.append(writer)
        await self.taken.put((reader, writer))


class World:
    """A server, a line to it, and clients."""

    def __init__(self, server: Server, proxy: Proxy, link: Link) -> None:
        self.server, self.proxy, self.link = server, proxy, link
        self.clients: list[asyncio.StreamWriter] = []

    async def connect(self) -> Streams:
        reader, writer = await soon(asyncio.open_connection(LOOPBACK, self.link.port))
        self.clients.append(writer)
        return reader, writer

    async def pair(self) -> tuple[Streams, Streams]:
        """A client's end and the server's end of one connection."""
        client = await self.connect()
        return client, await soon(self.server.taken.get())


@pytest.fixture
async def world() -> AsyncIterator[World]:
    async with Server() as server, Proxy() as proxy:
        made = World(server, proxy, await proxy.link("it", server.port))
        yield made
        for writer in made.clients:
            writer.transport.abort()


async def until(said: Callable[[], bool]) -> None:
    async with asyncio.timeout(WAIT_S):
        while not said():
            await asyncio.sleep(0.01)


async def test_bytes_pass_both_ways_and_a_half_closed_line_goes_on(world: World) -> None:
    (reader, writer), (up, down) = await world.pair()
    body = os.urandom(3_000_000)
    sending = asyncio.create_task(_send(writer, body, eof=True))
    assert await soon(up.read(-1)) == body, "the server sees the end after all bytes"
    down.write(b"thanks")
    down.close()
    assert await soon(reader.read(-1)) == b"thanks"
    await sending
    await until(lambda: world.link.status()["open"] == 0)
    assert (world.link.counts.bytes_up, world.link.counts.bytes_down) == (len(body), 6)


async def _send(writer: asyncio.StreamWriter, body: bytes, *, eof: bool = False) -> None:
    writer.write(body)
    await writer.drain()
    if eof:
        writer.write_eof()


async def test_latency_delays_each_way_that_it_is_on_and_keeps_order(world: World) -> None:
    (reader, writer), (up, down) = await world.pair()
    await world.link.set(Fault(kind="latency", ms=150, jitter_ms=50, way="up"))
    watch = Stopwatch()
    for number in range(50):
        writer.write(b"%02d" % number)
        await asyncio.sleep(0)
    assert await soon(up.readexactly(100)) == b"".join(b"%02d" % n for n in range(50))
    assert watch.wall_s >= 0.1
    watch = Stopwatch()
    down.write(b"x")
    await soon(reader.readexactly(1))
    assert watch.s < 0.1, "the other way isn't delayed"


async def test_a_hole_tells_nobody_and_loses_nothing(world: World) -> None:
    (reader, writer), (up, down) = await world.pair()
    await world.link.set(Fault(kind="hole"))
    writer.write(b"lost?")
    down.write(b"bye")
    down.write_eof()
    assert await silent(up) and await silent(reader), "no byte, no end and no RST gets through"
    await world.link.clear()
    assert await soon(up.readexactly(5)) == b"lost?"
    assert await soon(reader.read(-1)) == b"bye"


async def test_a_connection_made_in_a_hole_opens_and_hears_nothing_until_it_is_gone(world: World) -> None:
    await world.link.set(Fault(kind="hole"))
    reader, writer = await world.connect()
    writer.write(b"hello")
    assert await silent(reader) and world.server.taken.empty()
    await world.link.clear()
    up, _ = await soon(world.server.taken.get())
    assert await soon(up.readexactly(5)) == b"hello"


@pytest.mark.parametrize("way", ["up", "down"])
async def test_a_one_way_hole_leaves_the_other_way_open(world: World, way: str) -> None:
    (reader, writer), (up, down) = await world.pair()
    await world.link.set(parse({"kind": "hole", "way": way}))
    writer.write(b"u")
    down.write(b"d")
    dead, alive = (up, reader) if way == "up" else (reader, up)
    assert await soon(alive.readexactly(1)) in (b"u", b"d")
    assert await silent(dead)


async def test_a_reset_is_seen_as_one_by_both_ends_and_by_new_clients(world: World) -> None:
    (reader, writer), (up, _) = await world.pair()
    writer.write(b"x")
    await soon(up.readexactly(1))
    await world.link.set(Fault(kind="reset"))
    with pytest.raises(ConnectionResetError):
        await soon(reader.read(1))
    with pytest.raises(ConnectionResetError):
        await soon(up.read(1))
    with pytest.raises(ConnectionError):
        late, _ = await world.connect()
        await soon(late.read(1))
    await world.link.clear()
    (reader, _), (_, down) = await world.pair()
    down.write(b"again")
    assert await soon(reader.readexactly(5)) == b"again"


async def test_refused_is_for_new_connections_and_the_port_stays_ours(world: World) -> None:
    (reader, _), (_, down) = await world.pair()
    port = world.link.port
    await world.link.set(Fault(kind="refuse"))
    with pytest.raises(ConnectionRefusedError):
        await world.connect()
    down.write(b"still there")
    assert await soon(reader.readexactly(11)) == b"still there"
    await world.link.clear()
    await world.pair()
    assert world.link.port == port


@pytest.mark.parametrize("count", [0, 1, 1000, 70_000])
async def test_a_cut_hands_on_exactly_so_many_bytes(world: World, count: int) -> None:
    (reader, _), (up, down) = await world.pair()
    await world.link.set(Fault(kind="cut", way="down", bytes=count))
    body = os.urandom(100_000)
    down.write(body)
    assert await soon(reader.read(-1)) == body[:count]
    with contextlib.suppress(ConnectionError):
        assert await soon(up.read(-1)) == b""
    await until(lambda: world.link.status()["open"] == 0)


async def test_a_narrow_line_passes_its_bytes_a_second_in_slices(world: World) -> None:
    (reader, _), (up, down) = await world.pair()
    await world.link.set(Fault(kind="bandwidth", way="down", bytes_s=100_000))
    body = os.urandom(40_000)
    watch = Stopwatch()
    down.write(body)
    await soon(reader.readexactly(1))
    assert watch.s < 0.2, "the first slice doesn't wait for the last"
    assert await soon(reader.readexactly(len(body) - 1)) == body[1:]
    assert watch.wall_s > 0.3
    assert watch.s < 2.0
    assert await silent(up)


async def test_a_slow_line_holds_a_bounded_queue_and_the_sender_feels_it(world: World) -> None:
    (_, writer), (up, _) = await world.pair()
    await world.link.set(Fault(kind="latency", ms=60_000))
    body = os.urandom(16 * 1024 * 1024)
    sending = asyncio.create_task(_send(writer, body))
    await until(lambda: world.link.status()["bytes_held"] >= BUFFER_BYTES)  # type: ignore[operator]
    done, _ = await asyncio.wait([sending], timeout=STILL_S)
    assert not done, "the sender waits"
    assert BUFFER_BYTES <= int(str(world.link.status()["bytes_held"])) <= BUFFER_BYTES + READ_BYTES
    await world.link.clear()
    assert await soon(up.readexactly(len(body))) == body
    await sending


async def test_bytes_stay_whole_while_faults_change(world: World) -> None:
    (_, writer), (up, _) = await world.pair()
    body = os.urandom(2_000_000)
    sending = asyncio.create_task(_send(writer, body, eof=True))
    reading = asyncio.create_task(up.read(-1))
    for faults in (
        [Fault(kind="latency", ms=20, jitter_ms=20)],
        [Fault(kind="bandwidth", bytes_s=4_000_000), Fault(kind="latency", ms=5)],
        [Fault(kind="hole", way="up")],
        [Fault(kind="bandwidth", bytes_s=20_000_000)],
        [],
    ):
        await world.link.set(*faults)
        await asyncio.sleep(0.05)
    assert await soon(reading) == body
    await sending


async def test_one_connection_too_many_is_reset_and_counted(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(linking, "CONNECTIONS_MAX", 2)
    await world.pair()
    await world.pair()
    with pytest.raises(ConnectionError):
        reader, _ = await world.connect()
        await soon(reader.read(1))
    assert (world.link.counts.reset_full, world.link.status()["open"]) == (1, 2)


async def test_a_server_that_is_gone_is_a_reset_and_counted() -> None:
    async with Proxy() as proxy:
        async with Server() as server:
            gone = server.port
        made = await proxy.link("gone", gone)
        with pytest.raises(ConnectionError):
            reader, _ = await asyncio.open_connection(LOOPBACK, made.port)
            await soon(reader.read(1))
        assert made.counts.unconnected == 1


async def test_a_link_may_be_pointed_at_another_server(world: World) -> None:
    async with Server() as other:
        same = await world.proxy.link("it", other.port)
        assert same is world.link
        await world.connect()
        await soon(other.taken.get())


async def test_the_end_of_the_proxy_ends_its_connections() -> None:
    async with Server() as server:
        async with Proxy() as proxy:
            made = await proxy.link("it", server.port)
            reader, writer = await asyncio.open_connection(LOOPBACK, made.port)
            up, _ = await soon(server.taken.get())
            await made.set(Fault(kind="hole"))
        with pytest.raises(ConnectionResetError):
            await soon(reader.read(1))
        with contextlib.suppress(ConnectionError):
            assert await soon(up.read(1)) == b""
        writer.close()


@pytest.mark.parametrize(
    "said",
    [
        {}, {"kind": "fog"}, {"kind": "hole", "way": "sideways"}, {"kind": "latency"}, {"kind": "bandwidth"},
        {"kind": "latency", "ms": 60_001}, {"kind": "latency", "ms": "nan"}, {"kind": "reset", "way": "up"},
        {"kind": "latency", "ms": 5, "jitter_ms": 6}, {"kind": "cut", "bytes": -1}, {"kind": "cut", "bytes": "many"},
        {"kind": "hole", "colour": "red"},
    ],
)  # fmt: skip
def test_a_fault_that_can_not_be_meant_is_refused(said: dict[str, object]) -> None:
    with pytest.raises(Rejected):
        parse(said)


def test_a_fault_is_the_same_after_it_was_said() -> None:
    for fault in (Fault(kind="latency", ms=5, jitter_ms=2, way="up"), Fault(kind="cut"), Fault(kind="hole")):
        assert parse(fault.said()) == fault


async def test_credits_are_shared_and_with_none_left_a_line_passes_its_base(world: World) -> None:
    (_, one), (first, _) = await world.pair()
    (_, two), (second, _) = await world.pair()
    await world.link.set(Fault(kind="credit", bytes=100_000, bytes_s=50_000, burst_s=100_000_000))
    watch = Stopwatch()
    one.write(bytes(60_000))
    await soon(first.readexactly(60_000))
    assert watch.s < 0.5, "there are credits"
    two.write(bytes(90_000))
    await soon(second.readexactly(90_000))
    # 150,000 bytes of 100,000 and 50,000 a second.
    assert watch.wall_s >= 0.9, "the other connection has used them up"
    left = world.link.status()["credit_left"]
    assert isinstance(left, float) and left < 50_000
    await world.link.set(world.link.faults[0], Fault(kind="latency", ms=1))
    assert world.link.credit is not None and world.link.credit.left(asyncio.get_running_loop().time()) < 100_000
    await world.link.clear()
    assert "credit_left" not in world.link.status()
