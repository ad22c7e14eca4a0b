"""Health is read from the loops, over a server that stands anything that connects to it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import socket
import stat
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from seawall.guard import Heart, Supervisor
from seawall.guard.breaker import Breaker, Limits, State
from seawall.guard.panel import Panel
from seawall.guard.shed import ShedList
from seawall.kernel.alert import Alerts
from seawall.kernel.clock import SystemClock
from seawall.kernel.metric import Metrics
from seawall.kernel.seam.panel import AlertLine, BreakerLine, WorkLine
from seawall.watch import HealthServer, read_health, read_metrics
from seawall.watch.health import post, read_rows
from seawall.watch.route import CONNECTIONS_MAX, HEAD_BYTES_MAX
from stall import Stopwatch


async def steady(heart: Heart) -> None:
    while True:
        await heart.beat()
        await asyncio.sleep(0.02)


async def without_dependency(heart: Heart) -> None:
    while True:
        heart.unready("PostgreSQL is unavailable: \x1b[31mrefused\n")
        await asyncio.sleep(0.02)


class Rig:
    """A supervisor and its health server on both kinds of socket."""

    def __init__(self, folder: Path) -> None:
        self.metrics = Metrics()
        self.supervisor = Supervisor(self.metrics)
        self.path = folder / "router.sock"
        self.alerts = Alerts(self.metrics, SystemClock())
        self.shed = ShedList(clock=SystemClock(), metrics=self.metrics, alerts=self.alerts)
        self.panel = Panel(self.shed)
        self.breaker = Breaker("redis", Limits(), clock=SystemClock(), rng=random.Random(1))
        self.panel.add(self.breaker, without="limits are local")
        self.server = HealthServer(
            self.supervisor,
            self.metrics,
            role="router",
            unix_path=self.path,
            host="127.0.0.1",
            port=0,
            extra=lambda: {"log": "c1"},
            alerts=self.alerts,
            panel=self.panel,
        )

    async def raw(self, data: bytes) -> bytes:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.server.port)
        try:
            writer.write(data)
            async with asyncio.timeout(5):
                return await reader.read()
        finally:
            writer.close()
            with contextlib.suppress(ConnectionError):  # a refused one is closed with our bytes unread
                await writer.wait_closed()

    async def get(self, path: str) -> tuple[int, str]:
        answer = await self.raw(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        head, _, body = answer.partition(b"\r\n\r\n")
        return int(head.split(b" ")[1]), body.decode()


@pytest.fixture
async def rig(tmp_path: Path) -> AsyncIterator[Rig]:
    rig = Rig(tmp_path)
    async with rig.supervisor, rig.server:
        yield rig


async def until_ready(rig: Rig, ready: bool) -> None:
    async with asyncio.timeout(5):
        while (await read_health(rig.path, 1.0)).ready is not ready:
            await asyncio.sleep(0.01)


async def test_readiness_follows_the_essential_loops_and_names_the_one_in_trouble(rig: Rig) -> None:
    rig.supervisor.add("reader", steady)
    rig.supervisor.add("hints", without_dependency, essential=False)
    await until_ready(rig, True)
    status, body = await rig.get("/readyz")
    said = json.loads(body)
    assert (status, said["role"], said["extra"]) == (200, "router", {"log": "c1"})
    assert [(p["name"], p["ready"], p["essential"]) for p in said["loops"]] == [
        ("reader", True, True),
        ("hints", False, False),
    ]
    assert said["loops"][0]["last_progress_age_s"] < 1 and said["loops"][0]["restarts"] == 0

    rig.supervisor.add("store", without_dependency)
    await until_ready(rig, False)
    status, body = await rig.get("/readyz")
    assert status == 503 and json.loads(body)["reason"].startswith("store: PostgreSQL is unavailable")
    assert (await rig.get("/livez"))[0] == 200


async def test_the_status_page_spells_out_control_characters(rig: Rig) -> None:
    rig.supervisor.add("store", without_dependency)
    await until_ready(rig, False)
    status, text = await rig.get("/statusz")
    assert status == 200 and "NOT READY" in text and "\\x1b[31mrefused" in text and "\x1b" not in text


async def test_metrics_come_in_prometheus_form_with_the_role(rig: Rig) -> None:
    rig.metrics.counter("seawall_tests_total", "Tests\nrun.", kind='odd"\\\n').value += 3
    status, text = await rig.get("/metrics?x=1")
    assert status == 200
    assert "# TYPE seawall_tests_total counter" in text
    assert 'seawall_tests_total{kind="odd\\"\\\\\\n",role="router"} 3.0' in text
    assert (await read_metrics(rig.path, 1.0) or b"").decode() == text


@pytest.mark.parametrize(
    ("request_bytes", "status"),
    [
        (b"GET /nothing HTTP/1.1\r\nHost: x\r\n\r\n", 404),
        (b"POST /readyz HTTP/1.1\r\nHost: x\r\n\r\n", 405),
        (b"GET /readyz HTTP/1.1\r\n\r\n", 400),
        (b"GET /readyz HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n", 400),
        (b"GET /readyz HTTP/1.0\r\n\r\n", 503),
        (b"GET /livez HTTP/9.9\r\nHost: x\r\n\r\n", 400),
        (b"get /livez HTTP/1.1\r\nHost: x\r\n\r\n", 400),
        (b"GET http://x/livez HTTP/1.1\r\nHost: x\r\n\r\n", 400),
        (b"GET /livez HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc", 400),
        (b"GET /livez HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
        (b"GET /livez HTTP/1.1\r\nHost : x\r\n\r\n", 400),
        (b"GET /livez HTTP/1.1\r\nHost: x\r\n folded: y\r\n\r\n", 400),
        (b"GET /livez HTTP/1.1\r\nHost: x\0y\r\n\r\n", 400),
        (b"\x16\x03\x01\x02\x00\x01\r\n\r\n", 400),
        (b"GET /livez HTTP/1.1\r\nHost: x\r\nX: " + b"a" * HEAD_BYTES_MAX * 2 + b"\r\n\r\n", 431),
    ],
)
async def test_a_strange_request_gets_its_answer_and_harms_nothing(rig: Rig, request_bytes: bytes, status: int) -> None:
    rig.supervisor.add("store", without_dependency)
    answer = await rig.raw(request_bytes)
    assert answer.startswith(f"HTTP/1.1 {status} ".encode())
    assert (await rig.get("/livez"))[0] == 200


async def test_silent_connections_are_bounded_and_end_by_themselves(rig: Rig) -> None:
    idle = [await asyncio.open_connection("127.0.0.1", rig.server.port) for _ in range(CONNECTIONS_MAX)]
    with contextlib.suppress(ConnectionError):
        assert (await rig.get("/livez"))[0] == 503
    watch = Stopwatch()
    async with asyncio.timeout(30):
        assert [await reader.read() for reader, _ in idle] == [b""] * len(idle)
    assert watch.s < 4
    assert (await rig.get("/livez"))[0] == 200
    for _, writer in idle:
        writer.close()
        await writer.wait_closed()


async def test_a_gauge_that_raises_takes_only_its_own_page_away(rig: Rig) -> None:
    def broken() -> float:
        raise ValueError("not now")

    rig.metrics.gauge("seawall_broken_bytes", "Broken.").read = broken
    assert (await rig.get("/metrics"))[0] == 500
    assert (await rig.get("/livez"))[0] == 200


async def test_the_socket_is_its_owners_alone(rig: Rig) -> None:
    assert stat.S_IMODE(rig.path.stat().st_mode) == 0o600


async def test_a_leftover_socket_is_replaced_and_a_live_one_is_not(tmp_path: Path) -> None:
    left = socket.socket(socket.AF_UNIX)
    left.bind(str(tmp_path / "router.sock"))
    left.close()
    first, second = Rig(tmp_path), Rig(tmp_path)
    async with first.supervisor, first.server:
        with pytest.raises(OSError, match="another process listens there"):
            await second.server.__aenter__()
        assert not (await read_health(first.path, 1.0)).reason
    assert not first.path.exists()
    await first.server.close()


async def test_a_file_that_is_no_socket_is_left_alone(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    rig.path.write_text("precious")
    with pytest.raises(OSError, match="isn't a socket"):
        await rig.server.__aenter__()
    assert rig.path.read_text() == "precious"


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="long socket paths need Linux")
async def test_a_socket_works_below_a_very_long_path(tmp_path: Path) -> None:
    deep = tmp_path / ("d" * 100) / ("e" * 100)
    deep.mkdir(parents=True)
    rig = Rig(deep)
    rig.supervisor.add("reader", steady)
    async with rig.supervisor, rig.server:
        await until_ready(rig, True)


async def test_an_absent_role_is_not_ready_with_its_name(tmp_path: Path) -> None:
    health = await read_health(tmp_path / "worker.sock", 0.5)
    assert (health.role, health.ready) == ("worker", False) and "not running" in health.reason
    assert await read_metrics(tmp_path / "worker.sock", 0.5) is None


async def test_a_hanging_role_and_one_that_talks_nonsense_are_not_ready(tmp_path: Path) -> None:
    async def hang(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    async def babble(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nnone")
        await reader.read()
        writer.close()

    for name, serve, timeout_s, reason in (("a", hang, 0.3, "no answer within"), ("b", babble, 9.0, "can't be read")):
        path = tmp_path / f"{name}.sock"
        async with await asyncio.start_unix_server(serve, path):
            health = await read_health(path, timeout_s, role="worker")
            assert (health.role, health.ready) == ("worker", False) and reason in health.reason
            await asyncio.sleep(0.01)


async def test_alerts_and_breakers_are_read_and_a_breaker_is_moved_over_the_unix_socket(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    rig.alerts.raised("breaker-open", "redis is away", unaffected="accepting", breaker="redis")
    async with rig.supervisor, rig.server:
        [alert] = await read_rows(rig.path, "/alerts", AlertLine, 1.0) or ()
        assert (alert.name, alert.role, alert.labels) == ("breaker-open", "router", {"breaker": "redis"})
        assert (await post(rig.path, "/breakers/redis/open", 1.0)).status == 200
        assert rig.breaker.state is State.FORCED_OPEN
        [line] = await read_rows(rig.path, "/breakers", BreakerLine, 1.0) or ()
        assert (line.state, line.without) == ("forced_open", "limits are local")
        assert (await post(rig.path, "/breakers/redis/auto", 1.0)).status == 200
        assert rig.breaker.state is State.CLOSED
        for path, status in (("/breakers/kafka/open", 404), ("/breakers/redis/ajar", 422), ("/readyz", 404)):
            assert (await post(rig.path, path, 1.0)).status == status
    assert await read_rows(rig.path, "/alerts", AlertLine, 1.0) is None


async def test_optional_work_is_read_and_switched_over_the_unix_socket(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    work = rig.shed.add("countries", rank=30, without="no seawall-country header", eases=("memory", "loop-lag"))
    async with rig.supervisor, rig.server:
        assert (await post(rig.path, "/shed/countries/off", 1.0)).status == 200
        assert not work.wanted()
        [line] = await read_rows(rig.path, "/shed", WorkLine, 1.0) or ()
        assert (line.name, line.role, line.on, line.why) == ("countries", "router", False, "by hand")
        assert list(line.eases) == ["loop-lag", "memory"]
        [alert] = await read_rows(rig.path, "/alerts", AlertLine, 1.0) or ()
        assert (alert.name, alert.labels) == ("work-shed", {"work": "countries"})
        assert (await post(rig.path, "/shed/countries/auto", 1.0)).status == 200
        assert work.wanted()
        for path, status in (("/shed/cron/off", 404), ("/shed/countries/ajar", 422), ("/sheds/countries/off", 404)):
            assert (await post(rig.path, path, 1.0)).status == status
        said = await rig.raw(b"POST /shed/countries/off HTTP/1.1\r\nHost: x\r\n\r\n")
        assert said.startswith(b"HTTP/1.1 405"), "not over the network"


async def test_nobody_moves_a_breaker_over_the_network(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    async with rig.supervisor, rig.server:
        said = await rig.raw(b"POST /breakers/redis/open HTTP/1.1\r\nHost: x\r\n\r\n")
        assert said.startswith(b"HTTP/1.1 405")
    assert rig.breaker.state is State.CLOSED
