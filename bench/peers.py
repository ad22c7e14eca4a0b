"""Seawall beside other systems, on the same machine, store and minute. Started only when it is named, for it installs.

    python tool/bench.py peers        # about six minutes, and two more to install the first time

What is compared, and what isn't the same on both sides:

- **River** (Go, PostgreSQL): CPU of worker and PostgreSQL for one of its jobs, which has no steps, against a two-step
  run of ours. Both drain what was stored before; each outcome is durable. River's worker is compiled.
- **DBOS** (Python, PostgreSQL): the same two steps, each durable as ours are. Both with their own enqueueing: DBOS
  takes workflows one by one, ours come as HTTP requests, each acknowledged when it is on disk.
- **Restate** (server in Rust, service in Python): the same two steps, each durable, on one node. Enqueued by HTTP, too.
- **Dramatiq** and **Celery** (Python, Redis): a task without steps. Redis syncs its log each second, so that up to a
  second of tasks may be lost, where no run of ours may. Both with their own enqueueing, as above.
- **Node-RED** (Node.js): 1,000 requests held for 50 ms each. It keeps nothing.

Temporal and n8n aren't here: they have no program below bench/peer.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import asyncpg
import uvloop

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from bench import held, install
from bench.execution import Bench
from bench.result import Row, fdatasync_p50_ms, publish, row, tree_cpu_s
from bench.whole import add_source

from seawall.lab.part.port import free
from seawall.lab.part.redis import Redis
from seawall.lab.tree import Tree
from seawall.testing.postgres import PostgresServer
from seawall.worker import fewer_collections

PARTS = install.PLACE.parent / "parts"
COUNTS = {
    "seawall": 20_000,
    "drain": 20_000,
    "river": 20_000,
    "dbos": 500,
    "restate": 2000,
    "dramatiq": 4000,
    "celery": 2000,
}
"""Runs of one window: some seconds of each."""

LOW, PAUSE_S = 80, 0.037
CONNECTIONS = 64
PATIENCE_S = 120.0

APP = """
import time
from typing import Any

from seawall import App, Context, Event

app = App()


async def look_up(event: dict[str, Any]) -> dict[str, Any]:
    return {"country": "FR", "amount": event["amount"]}


async def charge(found: dict[str, Any]) -> dict[str, Any]:
    return {"ok": True, "amount": found["amount"] + 1}


@app.workflow(on="order")
async def two_steps(event: Event, ctx: Context) -> float:
    late = time.time() - event.json["t"]
    found = await ctx.step(look_up, event.json)
    await ctx.step(charge, found)
    return late
"""


@dataclass(slots=True)
class Found:
    """Figures of all rounds, by system."""

    rate: dict[str, list[float]] = field(
        default_factory=dict
    )  # a second, with their own enqueueing; drained: ours, River's
    cpu_us: dict[str, list[float]] = field(default_factory=dict)  # each, of everything that works for it
    late: dict[str, list[float]] = field(default_factory=dict)  # p50 from sent to begun, ms

    def add(self, name: str, rate: float, cpu_us: float, what: str = "enqueued and run") -> None:
        self.rate.setdefault(name, []).append(rate)
        self.cpu_us.setdefault(name, []).append(cpu_us)
        print(f"  {name:9} {rate:9,.0f}/s {what}, {cpu_us:8,.0f} us of CPU each", flush=True)

    def began(self, name: str, p50_ms: float, p99_ms: float) -> None:
        self.late.setdefault(name, []).append(p50_ms)
        print(f"  {name:9} begins after p50 {p50_ms:6.1f} ms, p99 {p99_ms:6.1f} ms at 27/s", flush=True)


# ── A peer's program ─────────────────────────────────────────────────────────────────────────────────────────────────


class Peer:
    """A running peer that takes commands."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        self.settings = self._answer()["settings"]

    def say(self, word: str, count: int) -> Any:
        assert self._process.stdin is not None
        self._process.stdin.write(f"{word} {count}\n")
        self._process.stdin.flush()
        return self._answer()

    def _answer(self) -> Any:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"{self._process.args} ended with {self._process.wait(10)}")
        return json.loads(line)


@contextlib.contextmanager
def peer(command: list[str], environment: dict[str, str]) -> Iterator[tuple[Peer, int]]:
    """Start it, and end it: its peer, and its process id."""
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=install.PEER,
        env={**os.environ, **environment},
    )  # fmt: skip
    try:
        yield Peer(process), process.pid
    finally:
        assert process.stdin is not None
        process.stdin.close()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def measure_peer(
    found: Found, name: str, command: list[str], environment: dict[str, str], store: int | None, scale: float
) -> None:
    """One window of a peer: a drain, and low load. ``store``: the process of its database or broker, where it didn't
    start that itself."""

    def cpu_s() -> float:
        return tree_cpu_s(pid) + (tree_cpu_s(store) if store is not None else 0.0)

    count = max(50, int(COUNTS[name] * scale))
    with peer(command, environment) as (program, pid):
        if name not in found.rate:
            print(f"  {name}: {program.settings}")
        if name == "river":
            program.say("fill", count)
        else:
            program.say("drain", max(20, count // 10))  # warms up
        before = cpu_s()
        said = program.say("drain", count)
        spent = cpu_s() - before
        found.add(
            name, count / said["seconds"], spent / count * 1e6, "drained" if name == "river" else "enqueued and run"
        )
        found.began(name, **program.say("low", LOW))


# ── Our own side ─────────────────────────────────────────────────────────────────────────────────────────────────────


class Poster(asyncio.Protocol):
    """One connection that posts events until there are no more, one at a time."""

    def __init__(self, path: str, left: list[int], refused: list[bytes], ended: asyncio.Future[None]) -> None:
        self._head = f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: "
        self._left, self._refused, self._ended = left, refused, ended
        self._answer = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._send()

    def _send(self) -> None:
        if not self._left[0]:
            self._transport.close()
            if not self._ended.done():
                self._ended.set_result(None)
            return
        self._left[0] -= 1
        body = json.dumps({"type": "order", "amount": 7, "t": time.time(), "note": "x" * 120})
        self._transport.write(f"{self._head}{len(body)}\r\n\r\n{body}".encode())

    def data_received(self, data: bytes) -> None:
        self._answer += data
        head, end, body = self._answer.partition(b"\r\n\r\n")
        at = head.lower().find(b"content-length:")
        if end and at >= 0 and len(body) >= int(head[at + 15 :].split(b"\r\n", 1)[0]):
            if not head.startswith(b"HTTP/1.1 202"):
                self._refused.append(self._answer[:300])
            self._answer = b""
            self._send()


@contextlib.contextmanager
def seawall(server: PostgresServer, folder: Path) -> Iterator[tuple[Tree, str]]:
    """A ``seawall up`` on the store that the peers have too, and the path of a source."""
    (folder / "app.py").write_text(APP)
    (folder / "dsn").write_text(server.dsn(database="seawall"))
    (folder / "dsn").chmod(0o600)
    options = ("--dsn-file", str(folder / "dsn"))
    with Tree(folder / "data", app=folder / "app.py", log=folder / "log", options=options) as tree:
        tree.start()
        tree.wait_ready(90)
        place = folder / "path"
        if not place.exists():
            place.write_text(add_source(folder / "data"))
        yield tree, place.read_text()


async def post(tree: Tree, path: str, count: int, connections: int) -> None:
    loop, port = asyncio.get_running_loop(), int(tree.place().listen.rpartition(":")[2])
    left, refused = [count], list[bytes]()
    ends = [loop.create_future() for _ in range(connections)]
    for ended in ends:
        await loop.create_connection(lambda ended=ended: Poster(path, left, refused, ended), "127.0.0.1", port)
    async with asyncio.timeout(PATIENCE_S):
        await asyncio.gather(*ends)
    assert not refused, f"{len(refused)} weren't accepted, the first: {refused[0]!r}"


async def all_ended(db: asyncpg.Connection, since: float, count: int) -> tuple[float, list[float]]:
    """When the last run ended, by the clock of this machine, and each one's milliseconds from sent to begun."""
    async with asyncio.timeout(PATIENCE_S):
        while await db.fetchval("select count(*) from run_done where created_at >= to_timestamp($1)", since) < count:
            await asyncio.sleep(0.1)
    rows = await db.fetch(
        "select extract(epoch from finished_at) as at, convert_from(result, 'utf8')::float8 * 1000 as late"
        " from run_done where created_at >= to_timestamp($1)", since,
    )  # fmt: skip
    return float(max(r["at"] for r in rows)), sorted(r["late"] for r in rows)


async def measure_own(found: Found, server: PostgresServer, folder: Path, scale: float) -> None:
    """One window of ours, as a user runs it: events over HTTP, until the last run has ended."""
    count = max(500, int(COUNTS["seawall"] * scale))
    with seawall(server, folder) as (tree, path):
        up = tree.pid("up")
        assert up is not None
        db = await asyncpg.connect(server.dsn(database="seawall"))
        since = time.time()
        await post(tree, path, count // 10, CONNECTIONS)  # warms up
        await all_ended(db, since, count // 10)
        before, since = tree_cpu_s(up) + tree_cpu_s(server.pid), time.time()
        await post(tree, path, count, CONNECTIONS)
        ended, _ = await all_ended(db, since, count)
        spent = tree_cpu_s(up) + tree_cpu_s(server.pid) - before
        found.add("seawall", count / (ended - since), spent / count * 1e6)
        since = time.time()
        for _ in range(LOW):
            await post(tree, path, 1, 1)
            await asyncio.sleep(PAUSE_S)
        _, late = await all_ended(db, since, LOW)
        found.began("seawall", statistics.median(late), late[int(LOW * 0.99)])
        await db.close()


async def measure_drain(found: Found, bench: Bench, scale: float) -> None:
    """Our two-step runs that were stored before, as bench/execution.py has them."""
    count = max(2000, int(COUNTS["drain"] * scale))
    await bench.fill("drain", count * 2)
    window = await bench.window("drain", count)
    found.add("drain", window.runs_per_s, window.worker_us + window.postgres_us, "drained")


# ── Requests that are held ───────────────────────────────────────────────────────────────────────────────────────────


@contextlib.contextmanager
def node_red(program: Path) -> Iterator[held.Server]:
    """A Node-RED with one flow: in, 50 ms, out. Without its editor, and saying only what is fatal."""
    [port] = free(1)
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        flow = (install.PEER / "flow.json").read_text()
        (place / "flows.json").write_text(flow.replace('"WORK_MS"', f'"{held.WORK_S * 1000:g}"'))
        (place / "settings.js").write_text(
            "module.exports = {uiHost: '127.0.0.1', httpAdminRoot: false, flowFile: 'flows.json', diagnostics: "
            "{enabled: false}, telemetry: {enabled: false}, logging: {console: {level: 'fatal'}}}\n"
        )
        command = [
            *install.node_red_command(program),
            "--userDir",
            folder,
            "--settings",
            str(place / "settings.js"),
            "-p",
            str(port),
        ]
        environment = {**os.environ, "NODE_ENV": "production"}
        with subprocess.Popen(
            command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        ) as process:
            try:
                _answers(port)
                yield held.Server(port, "/ask", process.pid)
            finally:
                process.terminate()


def _answers(port: int) -> None:
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}/ask", data=b'{"n":1}', headers={"Content-Type": "application/json"}
    )
    until = time.monotonic() + 60
    while True:
        try:
            with urllib.request.urlopen(request, timeout=2) as answer:
                assert answer.read() == b'{"n":1}'
                return
        except OSError:
            if time.monotonic() > until:
                raise
            time.sleep(0.2)


def hold(program: Path, rounds: int) -> list[Row]:
    """1,000 requests at a time, ours and Node-RED's."""
    with held.platform() as ours, node_red(program) as theirs:
        found = held.windows({"seawall": ours, "node-red": theirs}, rounds, held.SECONDS, counts=(1000,))
    mine, other = found["seawall", 1000], found["node-red", 1000]
    ratio = statistics.median(a.rate / b.rate for a, b in zip(mine, other, strict=True))
    return [
        row("peers: Node-RED, answers with 1,000 held", statistics.median(w.rate for w in other), "/s"),
        row("peers: ours", statistics.median(w.rate for w in mine), "/s"),
        row("peers: ours by Node-RED's, 1,000 held", ratio, "ratio", at_least=2.5),
        row("peers: ours that weren't one's own reply", sum(w.others for w in mine), "answers", at_most=0),
    ]


# ── The measurement ──────────────────────────────────────────────────────────────────────────────────────────────────


def _ratios(found: Found) -> list[Row]:
    """Each round's own ratio: what else the machine does in a round hits all of them."""
    made: list[Row] = []

    def add(name: str, figures: dict[str, list[float]], ours: str, theirs: str, unit: str, **bound: float) -> None:
        if theirs not in figures:
            return
        ratio = statistics.median(a / b for a, b in zip(figures[ours], figures[theirs], strict=True))
        made.append(row(f"peers: {name}, {theirs}", statistics.median(figures[theirs]), unit))
        made.append(row(f"peers: {name}, ours", statistics.median(figures[ours]), unit))
        made.append(row(f"peers: {name}, ours by {theirs}'s", ratio, "ratio", **bound))

    add("CPU of a stored job or two-step run", found.cpu_us, "drain", "river", "us", at_most=1)
    add("stored jobs or runs drained", found.rate, "drain", "river", "/s")
    add("enqueued and run", found.rate, "seawall", "dbos", "/s", at_least=20)
    add("enqueued and run", found.rate, "seawall", "dramatiq", "/s", at_least=3)
    add("enqueued and run", found.rate, "seawall", "celery", "/s")
    add("enqueued and run", found.rate, "seawall", "restate", "/s")
    add("CPU of one, enqueued and run", found.cpu_us, "seawall", "dbos", "us")
    add("CPU of one, enqueued and run", found.cpu_us, "seawall", "dramatiq", "us")
    add("CPU of one, enqueued and run", found.cpu_us, "seawall", "restate", "us")
    for theirs in ("river", "dbos", "dramatiq", "restate"):
        add("sent to begun at 27/s, p50", found.late, "seawall", theirs, "ms")
    add("sent to begun at 27/s, p50", found.late, "seawall", "celery", "ms", at_most=2)
    return list({r.name: r for r in made}.values())


def measure(server: PostgresServer, folder: Path, missing: dict[str, str], asked: argparse.Namespace) -> Found:
    found = Found()
    windows: list[Callable[[], None]] = []
    with contextlib.ExitStack() as stack:
        bench = Bench(server)
        asyncio.run(_databases(server, "seawall", "river", "dbos"))
        uvloop.run(bench.prepare("drain", 0))
        windows.append(lambda: uvloop.run(measure_drain(found, bench, asked.scale)))
        if program := install.installed(missing, "River", install.river):
            environment = {"BENCH_DSN": server.dsn(database="river")}
            windows.append(lambda: measure_peer(found, "river", [str(program)], environment, server.pid, asked.scale))
        windows.append(lambda: uvloop.run(measure_own(found, server, folder, asked.scale)))
        if peer_folder := install.installed(missing, "Restate", install.restate):
            windows.append(_restate(found, peer_folder, folder, asked.scale))
        if python := install.installed(missing, "DBOS, Dramatiq and Celery", install.python):
            redis = stack.enter_context(
                Redis(folder / "redis", settings={"appendonly": "yes", "appendfsync": "everysec"},
                      fetched=PARTS / "fetched")
            )  # fmt: skip
            print(f"  {redis.engine.name}, appendonly, appendfsync everysec")
            windows += [_python_peer(found, name, python, server, redis, folder, asked.scale)
                        for name in ("dbos", "dramatiq", "celery")]  # fmt: skip
        for n in range(asked.rounds):
            print(f"round {n + 1} of {asked.rounds}", flush=True)
            for window in windows:
                window()
    return found


def _restate(found: Found, program: Path, folder: Path, scale: float) -> Callable[[], None]:
    server, python = install.restate_programs(program)
    environment = {
        "BENCH_RESTATE": str(server), "BENCH_DATA": str(folder / "restate"), "BENCH_PORTS": ",".join(map(str, free(4))),
    }  # fmt: skip
    return lambda: measure_peer(found, "restate", [str(python), "restate_run.py"], environment, None, scale)


def _python_peer(
    found: Found, name: str, python: Path, server: PostgresServer, redis: Redis, folder: Path, scale: float
) -> Callable[[], None]:
    environment = {
        "BENCH_DSN": server.dsn(database=name), "BENCH_TALLY": str(folder / f"{name}.tally"),
        "BENCH_REDIS": f"redis://127.0.0.1:{redis.port('r1')}/{1 if name == 'celery' else 2}",
    }  # fmt: skip
    store = server.pid if name == "dbos" else int(next((folder / "redis").rglob("r1.pid")).read_text().split()[0])
    return lambda: measure_peer(found, name, [str(python), f"{name}_run.py"], environment, store, scale)


async def _databases(server: PostgresServer, *names: str) -> None:
    admin = await asyncpg.connect(server.dsn())
    for name in names:
        await admin.execute(f"create database {name}")
    await admin.close()


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--rounds", type=int, default=3)
    arguments.add_argument("--scale", type=float, default=1.0, help="of the number of runs in each window")
    asked = arguments.parse_args()
    resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
    fewer_collections()
    install.HOME.mkdir(parents=True, exist_ok=True)
    missing: dict[str, str] = {}
    with tempfile.TemporaryDirectory() as name:
        # 200 connections: a peer's pool, ours, and the launcher's reserve.
        settings = {"shared_buffers": "256MB", "max_wal_size": "4GB", "max_connections": "200"}
        with PostgresServer(settings=settings) as server:
            rows = _ratios(measure(server, Path(name), missing, asked))
    if program := install.installed(missing, "Node-RED", install.node_red):
        rows += hold(program, asked.rounds)
    left_out = [row(f"peers: left out, {what}: {why}"[:150], 1, "peers", at_most=0) for what, why in missing.items()]
    publish([row("peers: fdatasync p50 (machine)", fdatasync_p50_ms(), "ms"), *rows, *left_out])


if __name__ == "__main__":
    main()
