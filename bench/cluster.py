"""Intake on a cluster while Redis and Kafka are black holes: what it costs, how soon it is noticed, and how it ends.

Two real collector processes (`seawall run collector`), with the same limits: one of profile embedded, one of profile
cluster on three real brokers and a real Redis, which it reaches through the lab's fault proxy. A black hole tells
nobody: no RST, no FIN. In order: a healthy minute; each breaker's opening, again and again; both holes at once, with
windows of the two collectors taking turns; two minutes of that at a fixed rate, for memory; and the end of it, when the
spool is drained beside fresh events. Figures are medians over rounds, a ratio is of one round's windows; what a bound
says of every request is judged by the slowest of all.

    python bench/cluster.py           # about six minutes; fetches Kafka and Redis when they aren't there (100 MB)
"""

from __future__ import annotations

import asyncio
import json
import multiprocessing
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from types import TracebackType

import asyncpg

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from bench import load
from bench.result import PLACE, Row, cpu_s, publish, row

from seawall import migrate
from seawall.journal import LocalFilesystem
from seawall.lab.part.doctor import examine
from seawall.lab.part.fault import Fault
from seawall.lab.part.kafka import Kafka
from seawall.lab.part.port import free
from seawall.lab.part.proxy import FaultProxy
from seawall.lab.part.redis import Redis
from seawall.machine.folder import Folder
from seawall.store import pool
from seawall.store.source import Sources
from seawall.store.vault import Vault
from seawall.testing.postgres import PostgresServer

PARTS = PLACE.parent / "parts"
TOPIC = {"min.insync.replicas": "2", "max.message.bytes": "12582912", "retention.bytes": "-1"}
HOLE = Fault(kind="hole")

RATE = 500
HEALTHY_S = 60
OUTAGE_S = 120
SETTLED_S = 20
"""Of the outage: until its memory is looked at."""

OPENINGS = 5
OPENING_RATE = 200
OPENING_S = 5.0
HOLE_AFTER_S = 1.5
ROUNDS = 15
CLOSED_S = 1.0
PACED_S = 1.5
DRAIN_S = 4.0
DRAIN_MAX_S = 90.0
CONNECTIONS = 64
MANY = 512
"""Where requests are to wait: none waits behind another one of its connection."""

PATIENCE_S = 90.0
ANSWER_S = 10.0
"""After a window's end, for answers that are missing still: the slowest must not be left out."""

P50_MAX, CPU_MAX = 1.5, 1.2
BREAKERS = {"redis": (1.0, 250.0), "kafka": (2.0, 1100.0)}
"""Seconds until it is open; milliseconds by which a request before that may be slower."""

DRAIN_MIN, FRESH_MAX = 5.0, 2.0
SLOPE_MAX = 1.0
"""MiB a minute: 35 bytes for each event of the outage. Who kept anything of an event would keep more."""

CONFIG = """
[collector]
# So high that it never refuses; but each event asks.
tenant_rate_per_s = 100000
"""
CLUSTER = """
profile = "cluster"

[kafka]
bootstrap = "{bootstrap}"
topic = "bench"

[cache]
url = "redis://127.0.0.1:{redis}"
"""


# ── The collectors, and who sends ────────────────────────────────────────────────────────────────────────────────────


class Collector:
    """One `seawall run collector` with a database and a source of its own. A context manager."""

    def __init__(self, name: str, folder: Path, server: PostgresServer, config: str) -> None:
        self.name = name
        self._folder = folder / name
        self._server = server
        self._config = config
        self._log = folder / f"{name}.log"
        self.port, self._health = free(2)

    def __enter__(self) -> Collector:
        folder = Folder(self._folder, LocalFilesystem())
        folder.prepare()
        self.token = asyncio.run(self._source(folder))
        secret = self._folder / "dsn"
        secret.touch(0o600)
        secret.write_text(self._server.dsn(database=self.name))
        folder.settings_file.write_text(f'dsn_file = "{secret}"\n{self._config}')
        command = [
            sys.executable, "-m", "seawall", "run", "collector", "--data", str(self._folder),
            "--listen", f"127.0.0.1:{self.port}", "--health", f"127.0.0.1:{self._health}",
        ]  # fmt: skip
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        self.pid = self._process.pid
        try:
            until(self._ready, f"{self.name} is ready")
        except BaseException:
            self._end()
            print(self._log.read_text()[-2000:])
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end()

    def metric(self, name: str, label: str = "") -> float:
        """A metric's sum over its labels, or over those of which one is ``label``."""
        lines = [line for line in self._get("/metrics").splitlines() if line.startswith((f"{name} ", f"{name}{{"))]
        return sum(float(line.split()[-1]) for line in lines if label in line)

    def open(self, breaker: str) -> bool:
        return self.metric("seawall_breaker_state_code", f'to="{breaker}"') != 0

    def opened_at(self, breaker: str, since: float) -> float | None:
        """When a breaker opened first since then, by the collector's own log."""
        for line in self._log.read_text().splitlines():
            said = json.loads(line) if line.startswith("{") else {}
            if said.get("message") == "a breaker opened" and said["breaker"] == breaker:
                at = datetime.fromisoformat(said["at"]).timestamp()
                if at >= since:
                    return at
        return None

    def rss_mib(self) -> float:
        lines = Path(f"/proc/{self.pid}/status").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS:")) / 1024

    def _end(self) -> None:
        self._process.terminate()
        try:
            self._process.wait(30)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    async def _source(self, folder: Folder) -> str:
        connection = await asyncpg.connect(self._server.dsn())
        await connection.execute(f"create database {self.name}")
        await connection.close()
        settings = pool.Settings(dsn=self._server.dsn(database=self.name))
        await migrate.apply(settings)
        async with pool.Store(settings, role="bench") as store:
            made = await Sources(store, Vault(folder.key())).add(
                name="bench", kind="standard", tenant="default", settings="{}", secret=load.SECRET
            )
        return made.token

    def _ready(self) -> bool:
        if self._process.poll() is not None:
            raise RuntimeError(f"{self.name} ended with {self._process.returncode}")
        try:
            return bool(self._get("/readyz"))
        except OSError:
            return False

    def _get(self, path: str) -> str:
        with urllib.request.urlopen(f"http://127.0.0.1:{self._health}{path}", timeout=10) as answer:
            return str(answer.read().decode())


def until(true: Callable[[], bool], what: str) -> None:
    end = time.monotonic() + PATIENCE_S
    while not true():
        if time.monotonic() > end:
            raise RuntimeError(f"not within {PATIENCE_S:g} s: {what}")
        time.sleep(0.1)


class Sender:
    """The process of bench/load.py: a window begins here and is awaited later, so that something can happen in it."""

    def __init__(self) -> None:
        context = multiprocessing.get_context("spawn")
        self._here, there = context.Pipe()
        self._process = context.Process(target=load.serve, args=(there, None), daemon=True)
        self._process.start()
        there.close()
        self.failed = 0

    def begin(self, collector: Collector, seconds: float, *, rate: int = 0, connections: int = CONNECTIONS) -> None:
        """At a fixed rate, or (0) as fast as it goes."""
        said = {"port": collector.port, "token": collector.token, "connections": connections, "seconds": seconds}
        self._due = int(rate * seconds)
        self._here.send(("paced", {**said, "rate": rate, "patience_s": ANSWER_S}) if rate else ("closed", said))

    @property
    def sends(self) -> bool:
        return not self._here.poll(0)

    def found(self) -> load.Found:
        """The window's figures. What wasn't answered 202 is counted in ``failed``."""
        found: load.Found = self._here.recv()
        unanswered = max(0, self._due - found.answers - found.others)
        if found.others or unanswered:
            print(f"  {found.others} answers were not 202, {unanswered} never came", flush=True)
        self.failed += found.others + unanswered
        return found

    def run(self, collector: Collector, seconds: float, *, rate: int = 0) -> load.Found:
        self.begin(collector, seconds, rate=rate)
        return self.found()

    def close(self) -> None:
        self._here.send(None)
        self._process.join(5)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rig:
    """All that is there."""

    embedded: Collector
    cluster: Collector
    sender: Sender
    proxy: FaultProxy
    lines: dict[str, Sequence[str]]  # of the proxy, by breaker

    def dig(self, *names: str) -> None:
        for line in self._of(names):
            self.proxy.set(line, HOLE)

    def fill(self, *names: str) -> None:
        for line in self._of(names):
            self.proxy.clear(line)

    def settle(self) -> None:
        """Until all is well: breakers closed, nothing in the spool, and fresh events answered by Kafka."""
        cluster = self.cluster
        until(
            lambda: not any(map(cluster.open, BREAKERS)) and not cluster.metric("seawall_journal_forward_lag_seconds"),
            "breakers are closed, and the spool is empty",
        )
        until(self._flows, "Kafka answers fresh events")

    def _flows(self) -> bool:
        before = self.spooled
        self.sender.run(self.cluster, 0.5, rate=100)
        return self.spooled == before

    @property
    def spooled(self) -> float:
        return self.cluster.metric("seawall_journal_spooled_total")

    def _of(self, names: Sequence[str]) -> list[str]:
        return [line for name in names for line in self.lines[name]]


# ── The measurements ─────────────────────────────────────────────────────────────────────────────────────────────────


def healthy(rig: Rig) -> tuple[list[Row], float]:
    """Nothing is wrong for a minute; and the median time to an ack then."""
    before = rig.spooled
    found = rig.sender.run(rig.cluster, HEALTHY_S, rate=RATE)
    p50 = statistics.median(found.latencies_ms)
    rows = [
        row(f"cluster: spooled in {HEALTHY_S} healthy s at {RATE}/s", rig.spooled - before, "records", at_most=0),
        row("cluster: slowest ack of that minute", found.latencies_ms[-1], "ms"),
    ]
    return rows, p50


def openings(rig: Rig, breaker: str) -> list[Row]:
    """How soon its breaker opens, and what requests pay until then."""
    open_s, slower_ms, stalls_ms, failed = [], [], [], rig.sender.failed
    for _ in range(OPENINGS):
        rig.settle()
        calm = rig.sender.run(rig.cluster, 2.0, rate=OPENING_RATE).latencies_ms
        rig.sender.begin(rig.cluster, OPENING_S, rate=OPENING_RATE, connections=MANY)
        time.sleep(HOLE_AFTER_S)
        began = time.time()
        rig.dig(breaker)
        found = rig.sender.found()
        at = rig.cluster.opened_at(breaker, began)
        rig.fill(breaker)
        if at is None:
            raise RuntimeError(f"{breaker}: its breaker didn't open within the window")
        open_s.append(at - began)
        slower_ms.append(found.latencies_ms[-1] - statistics.median(calm))
        stalls_ms.append(calm[-1] - statistics.median(calm))
        print(f"  {breaker:9} open in {open_s[-1]:5.2f} s, slowest request {slower_ms[-1]:6.0f} ms slower", flush=True)
    seconds, ms = BREAKERS[breaker]
    said = f"cluster: {breaker} a black hole,"
    return [
        row(f"{said} breaker open, median", statistics.median(open_s), "s"),
        row(f"{said} breaker open, longest", max(open_s), "s", at_most=seconds),
        row(f"{said} slowest request before, median", statistics.median(slower_ms), "ms slower"),
        row(f"{said} slowest request before, of all", max(slower_ms), "ms slower", at_most=ms),
        row(f"{said} slowest request of a healthy window, of all", max(stalls_ms), "ms slower"),
        row(f"{said} not answered 202", rig.sender.failed - failed, "requests", at_most=0),
    ]


@dataclass(frozen=True, slots=True)
class Window:
    """One collector's part of a round."""

    p50_ms: float
    paced_us: float  # CPU per event at RATE
    closed_us: float  # CPU per event as fast as it goes


def window(rig: Rig, collector: Collector) -> Window:
    before = cpu_s(collector.pid)
    paced = rig.sender.run(collector, PACED_S, rate=RATE)
    between = cpu_s(collector.pid)
    closed = rig.sender.run(collector, CLOSED_S)
    after = cpu_s(collector.pid)
    made = Window(
        statistics.median(paced.latencies_ms), (between - before) / paced.answers * 1e6,
        (after - between) / closed.answers * 1e6,
    )  # fmt: skip
    said = f"p50 {made.p50_ms:6.2f} ms, CPU {made.paced_us:5.0f} us, {made.closed_us:5.1f} us at full speed"
    print(f"  {collector.name:9} {said}", flush=True)
    return made


def outage(rig: Rig) -> list[Row]:
    """Both holes, and both breakers open: against the embedded profile, in turns."""
    found: dict[str, list[Window]] = {"embedded": [], "cluster": []}
    replicated = rig.cluster.metric("seawall_journal_replicated_total")
    for n in range(ROUNDS + 1):
        pair = (rig.embedded, rig.cluster) if n % 2 else (rig.cluster, rig.embedded)
        for collector in pair:
            made = window(rig, collector)
            if n:  # the first one warms up
                found[collector.name].append(made)
    if rig.cluster.metric("seawall_journal_replicated_total") != replicated:
        raise RuntimeError("Kafka answered through a black hole")
    rows = []
    for what, unit, bound in (("p50_ms", "ms", P50_MAX), ("paced_us", "us", CPU_MAX), ("closed_us", "us", CPU_MAX)):
        words = {"p50_ms": f"p50 at {RATE}/s", "paced_us": f"CPU per event at {RATE}/s",
                 "closed_us": "CPU per event at full speed"}[what]  # fmt: skip
        each = {name: [getattr(w, what) for w in windows] for name, windows in found.items()}
        for name, values in each.items():
            rows.append(row(f"cluster: in an outage, {name}, {words}", statistics.median(values), unit))
        shares = [ours / base for ours, base in zip(each["cluster"], each["embedded"], strict=True)]
        share = statistics.median(shares)
        rows.append(row(f"cluster: in an outage / embedded, {words}", share, "ratio", at_most=bound))
    return rows


def memory(rig: Rig, seconds: float = OUTAGE_S) -> list[Row]:
    """How memory moves while the outage goes on. What the collector remembers of recent events, and bounds, is full by
    now: the windows at full speed were more than that."""
    seen: list[tuple[float, float]] = []
    began = time.monotonic()
    rig.sender.begin(rig.cluster, seconds, rate=RATE)
    while rig.sender.sends:
        time.sleep(0.5)
        seen.append((time.monotonic() - began, rig.cluster.rss_mib()))
    rig.sender.found()
    late = [(at, mib) for at, mib in seen if at >= SETTLED_S]
    slope = statistics.linear_regression(*zip(*late, strict=True)).slope * 60
    print(f"  from {seen[0][1]:.1f} to {seen[-1][1]:.1f} MiB, at most {max(mib for _, mib in seen):.1f}", flush=True)
    return [
        row("cluster: RSS in the outage, at its end", seen[-1][1], "MiB"),
        row(f"cluster: RSS in an outage of {seconds:g} s at {RATE}/s, slope", slope, "MiB/min", at_most=SLOPE_MAX),
    ]


def drain(rig: Rig, calm_ms: float) -> list[Row]:
    """The holes are filled: the spool goes to Kafka, beside fresh events at RATE. For DRAIN_MAX_S at most: a spool that
    is drained more slowly than events arrive would never be empty."""
    cluster = rig.cluster
    until(lambda: not cluster.open("kafka"), "Kafka's breaker closes again")
    latencies: list[float] = []
    shares: list[float] = []
    empty, latest = False, time.monotonic() + DRAIN_MAX_S
    while not empty and time.monotonic() < latest:
        before = _counts(cluster)
        rig.sender.begin(cluster, DRAIN_S, rate=RATE)
        # What is forwarded and what arrives are counted over the same time, within the window.
        time.sleep(DRAIN_S)
        forwarded, accepted = (now - then for now, then in zip(_counts(cluster), before, strict=True))
        found = rig.sender.found()
        empty = not cluster.metric("seawall_journal_forward_lag_seconds")
        if not empty or not shares:
            shares.append(forwarded / max(1.0, accepted))
            latencies.append(statistics.median(found.latencies_ms))
            print(f"  forwarded {forwarded:6,.0f} beside {accepted:6,.0f}, p50 {latencies[-1]:7.2f} ms", flush=True)
    rows = [row("cluster: healthy ack, p50, before", calm_ms, "ms")]
    if empty:
        rig.settle()
        after_ms = statistics.median(rig.sender.run(cluster, DRAIN_S * 2, rate=RATE).latencies_ms)
        calm_ms = statistics.mean((calm_ms, after_ms))
        rows.append(row("cluster: healthy ack, p50, after", after_ms, "ms"))
    fresh = statistics.median(latencies)
    return [
        *rows,
        row(f"cluster: spool not empty after {DRAIN_MAX_S:g} s", not empty, ""),
        row("cluster: spool drained / arrivals", statistics.median(shares), "ratio", at_least=DRAIN_MIN),
        row("cluster: fresh ack beside the drain, p50", fresh, "ms"),
        row("cluster: fresh ack beside the drain / healthy", fresh / calm_ms, "ratio", at_most=FRESH_MAX),
    ]


def _counts(cluster: Collector) -> tuple[float, float]:
    return cluster.metric("seawall_journal_forwarded_total"), cluster.metric("seawall_accepted_total")


def measure(rig: Rig) -> None:
    """Each part's rows are published when they are there: a later part that fails takes none of them along."""
    rig.settle()
    rig.sender.run(rig.cluster, 5.0)  # brokers that have just started compile what they run
    rig.settle()
    rows, calm_ms = healthy(rig)
    publish(rows)
    for breaker in BREAKERS:
        publish(openings(rig, breaker))
    rig.settle()
    failed = rig.sender.failed
    rig.dig(*BREAKERS)
    rig.sender.run(rig.cluster, 3.0, rate=RATE)
    until(lambda: all(map(rig.cluster.open, BREAKERS)), "both breakers are open")
    publish(outage(rig))
    publish(memory(rig))
    rig.fill(*BREAKERS)
    rows = drain(rig, calm_ms)
    failed = rig.sender.failed - failed
    publish([*rows, row("cluster: not answered 202, outage and drain", failed, "requests", at_most=0)])


def main() -> None:
    PLACE.parent.mkdir(exist_ok=True)
    lacking = [c for c in examine(PARTS) if not c.ok and {"all", "kafka3", "redis"} & set(c.parts.split(", "))]
    if lacking:
        why = "; ".join(f"{check.name}: {check.found} (cure: {check.cure})" for check in lacking)
        print(f"left out, all of this benchmark: {why}")
        publish([row("cluster: all rows left out, for want of", len(lacking), " ".join(c.name for c in lacking))])
        return
    with ExitStack() as stack:
        enter = stack.enter_context
        folder = Path(enter(tempfile.TemporaryDirectory(dir=PLACE.parent)))
        proxy = enter(FaultProxy(folder / "proxy"))
        kafka = Kafka(folder / "kafka3", brokers=3, fetched=PARTS / "fetched")
        for name in kafka.brokers:
            kafka.advertise(name, proxy.link(name, kafka.port(name)))
        enter(kafka)
        kafka.make_topic("bench", partitions=6, settings=TOPIC)
        redis = enter(Redis(folder / "redis", fetched=PARTS / "fetched"))
        server = enter(PostgresServer(durable=False))
        said = CLUSTER.format(bootstrap=kafka.bootstrap, redis=proxy.link("r1", redis.port("r1")))
        rig = Rig(
            embedded=enter(Collector("embedded", folder, server, CONFIG)),
            cluster=enter(Collector("cluster", folder, server, said + CONFIG)),
            sender=Sender(), proxy=proxy, lines={"kafka": kafka.brokers, "redis": ("r1",)},
        )  # fmt: skip
        stack.callback(rig.sender.close)
        measure(rig)


if __name__ == "__main__":
    main()
