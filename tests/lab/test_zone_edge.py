"""The edge of the zones: a balancer that takes hosts out as balancers do, and a gate with holes for one host alone."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from seawall.lab.arm.revert import parse, undo, words
from seawall.lab.part.port import LOOPBACK, free
from seawall.lab.traffic.connection import Answer, Connection, NoAnswer
from seawall.lab.zone import balancer, gate
from seawall.lab.zone.balancer import Balancer

WITHIN_S = 30.0
REQUEST = b"POST /in/x HTTP/1.1\r\nhost: a\r\ncontent-length: 5\r\n\r\nhello"


@dataclass
class FakeHost:
    """Answers everything, as late and with what it is told."""

    name: str
    late_s: float = 0.0
    status: int = 202
    mute: bool = False
    bodies: list[bytes] = field(default_factory=list)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(asyncio.IncompleteReadError, OSError, asyncio.CancelledError):
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                size = next(
                    (int(line[15:]) for line in head.lower().split(b"\r\n") if line[:15] == b"content-length:"), 0
                )
                body = await reader.readexactly(size)
                if b"lab.health" not in head and head.startswith(b"POST"):
                    self.bodies.append(body)
                if self.mute:
                    break
                await asyncio.sleep(self.late_s)
                writer.write(
                    b"HTTP/1.1 %d X\r\nx-host: %s\r\ncontent-length: 2\r\n\r\nok" % (self.status, self.name.encode())
                )
        writer.close()


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(balancer, "EVERY_S", 0.05)
    monkeypatch.setattr(balancer, "TELL_S", 0.05)


@asynccontextmanager
async def balanced(folder: Path, *hosts: FakeHost) -> AsyncIterator[Callable[[], Awaitable[Answer]]]:
    """What sends one request through a balancer of these hosts."""
    port, servers, known = free(1)[0], [], {}
    for host in hosts:
        server = await asyncio.start_server(host.serve, LOOPBACK, 0)
        servers.append(server)
        known[host.name] = server.sockets[0].getsockname()
    (folder / balancer.HOSTS).write_text(json.dumps({"port": port, "hosts": known}))
    running = asyncio.ensure_future(Balancer(folder).run())
    connection = Connection()
    try:
        await until(lambda: (folder / balancer.STATS).exists())
        yield lambda: connection.exchange((LOOPBACK, port), REQUEST, timeout_s=WITHIN_S)
    finally:
        connection.close()
        running.cancel()
        with suppress(asyncio.CancelledError):
            await running
        for server in servers:
            server.close()


async def until(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(WITHIN_S):
        while not true():
            await asyncio.sleep(0.01)


def stats(folder: Path) -> dict[str, dict[str, float]]:
    found: dict[str, dict[str, float]] = json.loads((folder / balancer.STATS).read_text())["hosts"]
    return found


async def test_requests_go_to_hosts_in_turn_byte_for_byte(tmp_path: Path) -> None:
    a, b = FakeHost("a"), FakeHost("b")
    async with balanced(tmp_path, a, b) as send:
        answers = [await send() for _ in range(6)]
    assert [answer.headers["x-host"] for answer in answers].count("a") == 3
    assert a.bodies == b.bodies == [b"hello"] * 3
    assert {answer.status for answer in answers} == {202} and answers[0].body == b"ok"


@pytest.mark.parametrize("ill", [pytest.param({"late_s": 3.0}, marks=pytest.mark.slow), {"status": 500}])
async def test_a_host_whose_checks_fail_is_taken_out_and_let_in_again(
    tmp_path: Path, ill: dict[str, float], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(balancer, "TIMEOUT_S", 1.5)
    a, b = FakeHost("a"), FakeHost("b")
    async with balanced(tmp_path, a, b) as send:
        for name, value in ill.items():
            setattr(b, name, value)
        await until(lambda: not stats(tmp_path)["b"]["in"])
        assert [(await send()).headers["x-host"] for _ in range(4)] == ["a"] * 4
        b.late_s, b.status = 0.0, 202
        await until(lambda: bool(stats(tmp_path)["b"]["in"]))
        assert {(await send()).headers["x-host"] for _ in range(4)} == {"a", "b"}


async def test_who_is_taken_out_of_rotation_gets_nothing_and_is_still_checked(tmp_path: Path) -> None:
    a, b = FakeHost("a"), FakeHost("b")
    async with balanced(tmp_path, a, b) as send:
        (tmp_path / balancer.ROTATION).write_text('["b"]')
        await until(lambda: not stats(tmp_path)["b"]["rotated"])
        assert [(await send()).headers["x-host"] for _ in range(4)] == ["a"] * 4
        assert stats(tmp_path)["b"]["in"]


async def test_a_request_that_may_have_been_taken_is_not_sent_to_another_host(tmp_path: Path) -> None:
    a, b = FakeHost("a", mute=True), FakeHost("b", mute=True)
    async with balanced(tmp_path, a, b) as send:
        assert (await send()).status == 502
    assert len(a.bodies) + len(b.bodies) == 1


@pytest.fixture
def holed(tmp_path: Path) -> Iterator[tuple[Path, int]]:
    port = free(1)[0]
    (tmp_path / "line").write_text(str(tmp_path / "store.sock"))
    said = {"host": LOOPBACK, "lines": {"kafka.b1": [port, "line"]}}
    (tmp_path / gate.LINES).write_text(json.dumps(said))
    yield tmp_path, port


async def test_a_hole_is_silent_for_one_line_of_one_host_and_is_mended(holed: tuple[Path, int]) -> None:
    folder, port = holed
    server = await asyncio.start_unix_server(FakeHost("a").serve, str(folder / "store.sock"))
    running = asyncio.ensure_future(gate.Gate(folder).run())
    connection = Connection()

    async def ask(timeout_s: float) -> int:
        return (await connection.exchange((LOOPBACK, port), REQUEST, timeout_s=timeout_s)).status

    async def asked() -> bool:
        try:
            return await ask(0.4) == 202
        except NoAnswer as error:
            assert error.note in ("timeout", "refused")
            return False

    async def becomes(wanted: bool) -> None:
        async with asyncio.timeout(WITHIN_S):
            while await asked() is not wanted:
                await asyncio.sleep(0.02)

    try:
        await becomes(True)
        gate.hole(folder, "10.0.0.1", ["kafka"])
        gate.hole(folder, LOOPBACK, ["redis"])
        await asyncio.sleep(gate.LOOK_S * 3)
        assert await ask(WITHIN_S) == 202
        gate.hole(folder, LOOPBACK, ["kafka"])
        await becomes(False)
        revert = parse({"do": "zone.mend", "folder": str(folder), "address": LOOPBACK})
        assert undo(revert) == "its lines are whole" == undo(revert) and words(revert)
        await becomes(True)
        assert gate.read(folder / gate.HOLES)["10.0.0.1"] == ["kafka"]
    finally:
        connection.close()
        running.cancel()
        server.close()
        with suppress(asyncio.CancelledError):
            await running
    assert undo(parse({"do": "zone.mend", "folder": str(folder / "no"), "address": "x"})).startswith("the gate is gone")
