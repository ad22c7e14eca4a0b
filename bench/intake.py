"""Durable, signature-verified acknowledgements: how many per CPU-second of the collector, and how fast.

Three servers run beside each other and get windows of the same load in turn, so that a busy moment of the machine hits
all of them: the shipped collector on its real journal (Standard Webhooks signatures, 1 KiB bodies, 12 headers, every
guard on), the same front with a journal that keeps nothing and a source without signature ("no-op"), and a Go net/http
handler that only answers 202. Figures are medians over the rounds; CPU is the server process's own, from /proc.

    python bench/intake.py            # about a minute
"""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection as Pipe
from pathlib import Path
from typing import TYPE_CHECKING, Any

import uvloop

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from bench import load
from bench.result import Row, cpu_s, fdatasync_p50_ms, publish, row

if TYPE_CHECKING:
    from seawall.journal import Log
    from seawall.kernel.seam.journal import Position

ROUNDS = 5
CLOSED_S = 2.0
PACED_S = 2.0
CONNECTIONS = 64
RATE = 1000
TOKEN = "bench"
BUILD = Path(__file__).resolve().parent.parent / "build"


@dataclass(frozen=True, slots=True)
class Server:
    """A server under load."""

    name: str
    pid: int
    port: int


# ── The servers ──────────────────────────────────────────────────────────────────────────────────────────────────────


def _collector(pipe: Pipe, core: int | None, *, durable: bool) -> None:
    """Runs the shipped collector until the pipe says something."""
    if core is not None:
        os.sched_setaffinity(0, {core})
    with tempfile.TemporaryDirectory(dir=BUILD) as folder:
        uvloop.run(_collect(pipe, Path(folder), durable=durable))


async def _collect(pipe: Pipe, folder: Path, *, durable: bool) -> None:
    from contextlib import AsyncExitStack

    from seawall.collector import Collector, Settings, Snapshot
    from seawall.guard import Supervisor
    from seawall.journal import LocalFilesystem, Log
    from seawall.journal import Settings as JournalSettings
    from seawall.kernel.clock import SystemClock
    from seawall.kernel.event import EventIds
    from seawall.kernel.metric import Metrics
    from seawall.store.vault import Vault

    clock, metrics, supervisor = SystemClock(), Metrics(), Supervisor(Metrics())
    async with AsyncExitStack() as stack:
        journal: Any = _Nothing()
        backlog = None
        if durable:
            (folder / "c1").mkdir()
            log = Log(folder / "c1", JournalSettings(), metrics=metrics, on_failure=print, clock=clock)
            journal = await stack.enter_async_context(log)
            log.register(supervisor)
            backlog = _Routed(log)
        snapshot = Snapshot(
            Settings(), name="c1", sources=_OneSource(signed=durable), vault=Vault(bytes(32)), clock=clock,
            filesystem=LocalFilesystem(), file=folder / "snapshot", metrics=metrics,
        )  # fmt: skip
        collector = Collector(
            Settings(), listen="127.0.0.1:0", journal=journal, snapshot=snapshot, waiting=_Nobody(), events=_Nobody(),
            clock=clock, metrics=metrics, ids=EventIds(clock), backlog=backlog,
        )  # fmt: skip
        await stack.enter_async_context(collector)
        collector.register(supervisor)
        await stack.enter_async_context(supervisor)
        while snapshot.stale:
            await asyncio.sleep(0.01)
        pipe.send(collector.port)
        stop = asyncio.Event()
        asyncio.get_running_loop().add_reader(pipe.fileno(), stop.set)
        await stop.wait()


class _OneSource:
    """The store's part in this: one source that never changes."""

    def __init__(self, *, signed: bool) -> None:
        from seawall.store.source import Loaded, token_hash

        self._row = Loaded(
            id=bytes(16), name="bench", kind="standard" if signed else "none", tenant="default", settings="{}",
            token_hash=token_hash(TOKEN), version=1, removed=False, secrets=((1, load.SECRET),) if signed else (),
        )  # fmt: skip

    async def edition(self, *, timeout_s: float) -> tuple[int, str]:
        return 1, ""

    async def load(self, *, timeout_s: float) -> tuple[Any, list[object]]:
        from seawall.store.source import Edition

        return Edition(1, ""), [self._row]

    async def seen(self, collector: str, version: int, *, timeout_s: float) -> None:
        pass

    async def forget(self, collector: str, *, timeout_s: float) -> None:
        pass


class _Nobody:
    """Nobody waits here, and nobody asks."""


class _Routed:
    """What waits to be routed: nothing, at each look."""

    def __init__(self, log: Log) -> None:
        self._log = log
        self.log_id = log.log_id
        self.room_bytes = log.room_bytes

    async def unread(self) -> list[_Rest]:
        return [_Rest(self._log.synced_end)]


@dataclass(frozen=True, slots=True)
class _Rest:
    at: Position
    end: None = None


class _Nothing:
    """The no-op's journal: keeps nothing, and says so at once."""

    refusal = None

    def __init__(self) -> None:
        from seawall.kernel.seam.journal import Position

        self._here = Position(bytes(16), 1, 0)

    def submit(self, payload: bytes, done: object) -> None:
        done(self._here)


@contextmanager
def _ours(name: str, *, durable: bool, core: int | None) -> Iterator[Server]:
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    process = context.Process(target=_collector, args=(there, core), kwargs={"durable": durable}, daemon=True)
    process.start()
    try:
        assert here.poll(20), f"{name} didn't come up"
        assert process.pid is not None
        yield Server(name, process.pid, here.recv())
    finally:
        here.send("stop")
        process.join(5)
        process.terminate()


@contextmanager
def _go(core: int | None) -> Iterator[Server | None]:
    """The peer; None, named on the terminal, when there is no Go here."""
    go = shutil.which("go") or shutil.which("go", path="/usr/local/go/bin")
    if go is None:
        print("peer left out: Go net/http (no `go` on this machine)")
        yield None
        return
    binary = BUILD / "noop"
    subprocess.run([go, "build", "-o", binary, Path(__file__).parent / "peer" / "noop.go"], check=True, timeout=300)
    process = subprocess.Popen([binary], stdout=subprocess.PIPE, env={**os.environ, "GOMAXPROCS": "1"})
    try:
        assert process.stdout is not None
        port = int(process.stdout.readline())
        if core is not None:
            os.sched_setaffinity(process.pid, {core})
        yield Server("go", process.pid, port)
    finally:
        process.terminate()
        process.wait(5)


# ── The measurement ──────────────────────────────────────────────────────────────────────────────────────────────────


class Load:
    """The load process, as this one sees it."""

    def __init__(self, core: int | None) -> None:
        context = multiprocessing.get_context("spawn")
        self._here, there = context.Pipe()
        self._process = context.Process(target=load.serve, args=(there, core), daemon=True)
        self._process.start()

    def run(self, kind: str, server: Server, **arguments: object) -> load.Found:
        self._here.send((kind, {"port": server.port, "token": TOKEN, **arguments}))
        found: load.Found = self._here.recv()
        assert not found.others, f"{server.name}: {found.others} answers were not 202"
        return found

    def close(self) -> None:
        self._here.send(None)
        self._process.join(5)


def per_cpu_s(servers: list[Server], clients: Load) -> dict[str, list[float]]:
    """Answers per CPU-second of each server, a window each in every round; one more round only warms up."""
    seen: dict[str, list[float]] = {s.name: [] for s in servers}
    for n in range(ROUNDS + 1):
        for server in servers:
            before = cpu_s(server.pid)
            found = clients.run("closed", server, connections=CONNECTIONS, seconds=CLOSED_S if n else 0.5)
            spent = cpu_s(server.pid) - before
            if n:
                seen[server.name].append(found.answers / spent)
                print(f"  {server.name:9} {found.answers / found.seconds:8,.0f}/s  {found.answers / spent:8,.0f}/CPU-s")
    return seen


def p50_ms(servers: list[Server], clients: Load) -> dict[str, list[float]]:
    """Median latency of each window at a fixed rate, counted from the scheduled moment."""
    seen: dict[str, list[float]] = {s.name: [] for s in servers}
    for _ in range(ROUNDS):
        for server in servers:
            found = clients.run("paced", server, connections=CONNECTIONS, seconds=PACED_S, rate=RATE)
            seen[server.name].append(statistics.median(found.latencies_ms))
            p99 = found.latencies_ms[int(len(found.latencies_ms) * 0.99)]
            print(f"  {server.name:9} p50 {seen[server.name][-1]:6.2f} ms  p99 {p99:6.2f} ms")
    return seen


def main() -> None:
    BUILD.mkdir(exist_ok=True)
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
    first, second = (cores[0], cores[1]) if len(cores) > 1 else (None, None)
    rows: list[Row] = []
    floor = [fdatasync_p50_ms()]
    with (
        _ours("seawall", durable=True, core=first) as real,
        _ours("no-op", durable=False, core=first) as noop,
        _go(first) as go,
    ):
        clients = Load(second)
        print(f"{CONNECTIONS} connections, closed loop, {CLOSED_S:g} s windows")
        rate = per_cpu_s([s for s in (real, noop, go) if s is not None], clients)
        floor.append(fdatasync_p50_ms())
        print(f"{RATE}/s, open loop, {PACED_S:g} s windows")
        late = p50_ms([real, noop], clients)
        floor.append(fdatasync_p50_ms())
        clients.close()
    sync_ms = statistics.median(floor)
    rows.append(row("intake: fdatasync p50", sync_ms, "ms"))
    rows.append(row("intake: durable verified acks", statistics.median(rate["seawall"]), "/CPU-s", at_least=12_000))
    rows.append(row("intake: no-op of the same front", statistics.median(rate["no-op"]), "/CPU-s"))
    if "go" in rate:
        # Each round's own ratio: what else the machine does in a round hits all of them.
        ratio = statistics.median(ours / theirs for ours, theirs in zip(rate["seawall"], rate["go"], strict=True))
        rows.append(row("intake: Go net/http no-op", statistics.median(rate["go"]), "/CPU-s"))
        rows.append(row("intake: durable acks by Go's no-op", ratio, "ratio", at_least=0.55))
    rows.append(row("intake: p50 at 1,000/s, durable", statistics.median(late["seawall"]), "ms"))
    rows.append(row("intake: p50 at 1,000/s, no-op", statistics.median(late["no-op"]), "ms"))
    over = (
        statistics.median(durable - empty for durable, empty in zip(late["seawall"], late["no-op"], strict=True))
        / sync_ms
    )
    rows.append(row("intake: p50 over the no-op, in fdatasync p50s", over, "ratio", at_most=4))
    publish(rows)


if __name__ == "__main__":
    main()
