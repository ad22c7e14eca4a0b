"""One platform of profile cluster on real parts, each line of which can be broken: what the rows of
`test_outage_matrix.py` share.

Clients reach brokers and Redis through the fault proxy; the parts among themselves, and our own questions, don't.
"""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import signal
import subprocess
import threading
import time
import urllib.request
from base64 import b64encode
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from math import inf
from pathlib import Path

from confluent_kafka import Consumer, ElectionType, KafkaException, TopicPartition
from confluent_kafka.admin import (  # type: ignore[attr-defined]
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
)

from seawall.kernel.error import Unavailable
from seawall.kernel.event import decode
from seawall.lab.checker import ledger
from seawall.lab.part.fault import Fault
from seawall.lab.part.kafka import Kafka
from seawall.lab.part.node import DEFAULT
from seawall.lab.part.proxy import FaultProxy
from seawall.lab.part.redis import Redis
from seawall.lab.platform import Platform, Source
from seawall.lab.traffic import Plan, Target, Traffic
from seawall.lab.tree import Tree
from seawall.testing.postgres import PostgresServer

ROOT = Path(__file__).resolve().parents[2]
FETCHED = ROOT / DEFAULT / "fetched"
APP = ROOT / "examples" / "demo.py"

TOPIC = "seawall"
PROBE = "probe"
PARTITIONS = 3
TOPIC_SETTINGS = {"max.message.bytes": "12582912", "retention.bytes": "-1", "min.insync.replicas": "2"}
RATE = 80.0
BYTES_MAX = 4096
READY_S = 90.0
SETTLE_S = 90.0
ANSWER_S = 20.0
WATCH_S = 0.05
STALL_S = 0.25
"""A sender that is woken so late sends what was due meanwhile in a burst."""
QUIET_S = 3.0
"""More than the ack deadline, until which everybody may wait when Kafka falls silent."""

CONFIG = """
[kafka]
bootstrap = "{bootstrap}"
topic = "{topic}"
pending_records_max = {pending}

[cache]
url = "redis://{redis}"

[collector]
# So high that it never refuses: but each event asks Redis.
tenant_rate_per_s = 100000

[journal]
# So small that a small disk has room for it.
segment_bytes = 1048576
fill_bytes = 65536
reserve_bytes = 1048576
resume_bytes = 3145728
"""


class Rig:
    """Parts, proxy and platform, in one folder. A context manager."""

    def __init__(self, folder: Path, store: PostgresServer) -> None:
        self.folder = folder
        self.store = store
        self.proxy = FaultProxy(folder / "proxy")
        self.kafka = Kafka(folder / "kafka3", brokers=3, fetched=FETCHED)
        self.redis = Redis(folder / "redis", replica=True, fetched=FETCHED)
        self.log = folder / "up.log"
        (folder / "dsn").touch(0o600)
        (folder / "dsn").write_text(store.dsn())
        self.config = folder / "seawall.toml"
        options = ("--dsn-file", str(folder / "dsn"), "--config", str(self.config), "--profile", "cluster")
        self.tree = Tree(folder / "data", app=APP, log=self.log, options=options)
        self._stack = ExitStack()
        self.fresh = True  # whether the collector has seen no event yet

    def __enter__(self) -> Rig:
        with ExitStack() as stack:
            stack.enter_context(self.proxy)
            for name in self.kafka.brokers:
                self.kafka.advertise(name, self.proxy.link(name, self.kafka.port(name)))
            self._redis_ports = [self.proxy.link(name, self.redis.port(name)) for name in self.redis.servers]
            stack.enter_context(self.kafka)
            stack.enter_context(self.redis)
            for name in (TOPIC, PROBE):
                self.kafka.make_topic(name, partitions=PARTITIONS, settings=TOPIC_SETTINGS)
            # Past the proxy.
            self._admin = AdminClient({"bootstrap.servers": self.kafka.direct, "log_level": 0})
            self.configure()
            stack.enter_context(self.tree)
            self.tree.start()
            self.tree.wait_ready(READY_S)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.close()

    def configure(self, *, pending: int = 20_000) -> None:
        """Write the platform's settings; in force at its next start."""
        hosts = ",".join(f"127.0.0.1:{port}" for port in self._redis_ports)
        said = CONFIG.format(bootstrap=self.kafka.bootstrap, topic=TOPIC, redis=hosts, pending=pending)
        self.config.write_text(said)

    def settle(self) -> None:
        """Nothing is broken, and everything has healed from what was."""
        for name in (*self.kafka.brokers, *self.redis.servers):
            self.proxy.clear(name)
        self.kafka.settle(SETTLE_S)
        self.redis.settle(SETTLE_S)
        if not self.fresh:
            self.restart()
        self.tree.wait_ready(READY_S)

    # ── Lines and processes ────────────────────────────────────────────────────────────────────────────────────────
    @contextmanager
    def broken(self, names: Sequence[str], fault: Fault) -> Iterator[None]:
        """A fault on the lines of clients to these nodes."""
        for name in names:
            self.proxy.set(name, fault)
        try:
            yield
        finally:
            for name in names:
                self.proxy.clear(name)

    @contextmanager
    def killed(
        self, part: Kafka | Redis, names: Sequence[str], number: signal.Signals = signal.SIGKILL
    ) -> Iterator[None]:
        """Nodes that are gone, and whose ports refuse."""
        try:
            with self.broken(names, Fault(kind="refuse")):
                for name in names:
                    part.kill(name, number)
                yield
        finally:
            part.up()

    @contextmanager
    def stopped(self, part: Kafka | Redis, names: Sequence[str]) -> Iterator[None]:
        """Nodes that hold their connections and say nothing (SIGSTOP)."""
        for name in names:
            part.stop(name)
        try:
            yield
        finally:
            for name in names:
                part.cont(name)

    @contextmanager
    def topic(self, name: str, value: str) -> Iterator[None]:
        """Another setting of the topic."""
        self._alter(name, value)
        try:
            yield
        finally:
            self._alter(name, TOPIC_SETTINGS[name])

    def _alter(self, name: str, value: str) -> None:
        entry = ConfigEntry(name, value, incremental_operation=AlterConfigOpType.SET)
        resource = ConfigResource(ConfigResource.Type.TOPIC, TOPIC, incremental_configs=[entry])
        self._admin.incremental_alter_configs([resource])[resource].result(ANSWER_S)

    def elect(self) -> None:
        """Have each partition led by the first of its replicas."""
        wanted = [TopicPartition(TOPIC, number) for number in range(PARTITIONS)]
        self._admin.elect_leaders(ElectionType.PREFERRED, wanted).result(ANSWER_S)

    def leader(self, ends: Mapping[int, int]) -> str:
        """The broker that leads the partition which has grown since ``ends``: where the traffic goes."""
        end = time.monotonic() + ANSWER_S
        while True:
            for number, now in self.ends().items():
                if now > ends[number]:
                    return self.kafka.leader(TOPIC, number)
            assert time.monotonic() < end, "no event comes to Kafka"
            time.sleep(0.1)

    def restart(self) -> None:
        """Stop the collector by SIGTERM, and wait until all is ready again."""
        self.replace(signal.SIGTERM)
        self.tree.wait_ready(READY_S)

    def replace(self, number: signal.Signals) -> None:
        """End the collector; on return another one is there. It need not be ready: what it needs may be gone."""
        old = self.tree.pid("collector")
        assert old is not None, f"there is no collector\n{self.tree.log_tail()}"
        os.kill(old, number)
        end = time.monotonic() + READY_S
        while self.tree.pid("collector") in (None, old):
            assert time.monotonic() < end, self.tree.log_tail()
            time.sleep(0.05)
        self.fresh = True

    def wait_intake(self) -> None:
        """Wait until the collector takes events, whatever of the rest is gone."""
        end = time.monotonic() + READY_S
        while not self._takes():
            assert time.monotonic() < end, self.tree.log_tail()
            time.sleep(0.05)

    def _takes(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.tree.place().listen}/readyz", timeout=ANSWER_S) as answer:
                return bool(answer.status == 200)
        except (OSError, Unavailable):
            return False

    @property
    def spool(self) -> Path:
        return self.tree.data / "spool"

    # ── What can be seen ───────────────────────────────────────────────────────────────────────────────────────────
    def metric(self, name: str) -> float:
        """A metric's sum over its labels, of all roles."""
        with urllib.request.urlopen(f"{self.tree.place().admin}/metrics", timeout=ANSWER_S) as answer:
            lines = answer.read().decode().splitlines()
        return sum(float(line.split()[-1]) for line in lines if line.startswith((f"{name} ", f"{name}{{")))

    def reports(self, offset: int) -> list[Mapping[str, int]]:
        """The exit reports of collectors since a place in the log."""
        with self.log.open("rb") as file:
            file.seek(offset)
            found = [json.loads(line) for line in file.read().splitlines() if b'"exit report"' in line]
        return [said for said in found if said["role"] == "collector"]

    def ends(self) -> dict[int, int]:
        """By partition, where the topic ends."""
        latest = time.monotonic() + ANSWER_S
        with _consumer(self.kafka.direct) as consumer:
            while True:
                try:
                    return {
                        number: consumer.get_watermark_offsets(TopicPartition(TOPIC, number), timeout=ANSWER_S)[1]
                        for number in range(PARTITIONS)
                    }
                except KafkaException:
                    # A leader that has just begun to lead doesn't know its end yet.
                    if time.monotonic() > latest:
                        raise
                time.sleep(0.1)

    def copies(self, since: Mapping[int, int]) -> tuple[int, int]:
        """(records beyond the first one with the same id, keys that came under two ids) of the topic, since then."""
        until = self.ends()
        ids: dict[str, set[bytes]] = {}
        count = 0
        with _consumer(self.kafka.direct) as consumer:
            for number, end in until.items():
                for offset, payload in _records(consumer, number, since[number], end):
                    record = decode(payload)
                    assert record.key, f"record {offset} of partition {number} has no key"
                    ids.setdefault(record.key, set()).add(record.id)
                    count += 1
        return count - sum(len(each) for each in ids.values()), sum(len(each) > 1 for each in ids.values())


@contextmanager
def _consumer(bootstrap: str) -> Iterator[Consumer]:
    made = Consumer({
        "bootstrap.servers": bootstrap, "group.id": "ledger", "enable.auto.commit": False, "log_level": 0,
        "auto.offset.reset": "error", "error_cb": lambda error: None,
    })  # fmt: skip
    try:
        yield made
    finally:
        made.close()


def _records(consumer: Consumer, number: int, begin: int, end: int) -> Iterator[tuple[int, bytes]]:
    if begin >= end:
        return
    consumer.assign([TopicPartition(TOPIC, number, begin)])
    latest = time.monotonic() + ANSWER_S
    while True:
        for message in consumer.consume(1000, 0.5):
            value, offset = message.value(), message.offset()
            if message.error() is not None or value is None or offset is None:
                continue
            yield offset, value
            if offset >= end - 1:
                return
        assert time.monotonic() < latest, f"partition {number} can't be read up to {end}"


@dataclass(frozen=True, slots=True)
class Told:
    """What one row's ledger says of the answers."""

    statuses: Mapping[int, int]  # how many of each; 0: no answer
    slowest_s: float
    healthy_s: float  # the slowest of those before the fault
    stall_s: float  # by how much the machine itself was late at its worst


class Sender:
    """``seawall lab traffic`` in a thread, to a source of its own. A context manager: it sends while inside."""

    def __init__(self, platform: Platform, path: Path, *, seed: int, rate: float = RATE) -> None:
        self._run = f"t{secrets.token_hex(6)}"
        secret = "whsec_" + b64encode(secrets.token_bytes(24)).decode()
        self._source: Source = platform.own_source(f"lab-{self._run}", kind="standard", secret=secret)
        self._platform = platform
        self._path = path
        self._plan = Plan(rate=rate, seconds=3600, seed=seed, bytes_max=BYTES_MAX)
        self._target = Target(address=self._address, path=self._source.path, secret=secret.encode())
        self._begun = threading.Event()
        self._stall_s = 0.0
        self.stalled_at = -inf  # by the monotonic clock, when the machine last kept us from running for ``STALL_S``
        self.broken_us = 0  # when the fault began

    def __enter__(self) -> Sender:
        self._thread = threading.Thread(target=asyncio.run, args=(self._send(),), name="traffic")
        self._thread.start()
        assert self._begun.wait(ANSWER_S), "the traffic began"
        return self

    def __exit__(self, *error: object) -> None:
        self._loop.call_soon_threadsafe(self._traffic.stop)
        self._thread.join(60)
        assert not self._thread.is_alive(), "the traffic ended"

    def close(self) -> None:
        """Remove the source: what one row leaves must not count as somebody else in the next."""
        self._platform.remove_source(self._source.name)

    def goes_on(self, count: int = 80, *, within_s: float = 30.0) -> None:
        """Until so many more events were answered 2xx."""
        goal = self.acked + count
        self.until(lambda: self.acked >= goal, f"{count} more answers", within_s=within_s)

    def hold(self, seconds: float) -> None:
        """For so long; and at no time is nobody answered 2xx for ``QUIET_S``."""
        acked, since = self.acked, time.monotonic()
        end = since + seconds
        while (now := time.monotonic()) < end:
            if self.acked > acked:
                acked, since = self.acked, now
            assert now - since < QUIET_S, f"nobody was answered: {dict(self._traffic.tally.answers)}"
            time.sleep(0.05)

    def until(self, true: Callable[[], bool], what: str, *, within_s: float = 30.0) -> None:
        end = time.monotonic() + within_s
        while not true():
            assert time.monotonic() < end, f"not within {within_s:g} s: {what}; {dict(self._traffic.tally.answers)}"
            time.sleep(0.05)

    def answers(self, status: int) -> int:
        """How many so far."""
        return self._traffic.tally.answers[str(status)]

    @property
    def acked(self) -> int:
        return len(self._traffic.tally.latencies_s)

    def told(self) -> Told:
        """After the end."""
        statuses: dict[int, int] = {}
        slowest = healthy = 0
        for attempt in self.book().runs[0].attempts:
            statuses[attempt.status] = statuses.get(attempt.status, 0) + 1
            if attempt.acked:
                took = attempt.answered_us - attempt.sent_us
                slowest = max(slowest, took)
                if attempt.answered_us < self.broken_us:
                    healthy = max(healthy, took)
        return Told(statuses, slowest / 1e6, healthy / 1e6, self._stall_s)

    def book(self) -> ledger.Book:
        return ledger.read(self._path)

    def _address(self) -> tuple[str, int]:
        return self._platform.listen(self._source)

    async def _send(self) -> None:
        self._loop = asyncio.get_running_loop()
        plan = self._plan
        with ledger.Ledger(self._path) as book:
            book.begin(self._run, {
                "source": self._source.name, "source_id": self._source.id, "seed": plan.seed, "type": plan.type,
                "bytes_max": plan.bytes_max,
            })  # fmt: skip
            self._traffic = Traffic(plan, self._target, book, run=self._run)
            self._begun.set()
            watching = asyncio.create_task(self._watch())
            await self._traffic.send()
            watching.cancel()

    async def _watch(self) -> None:
        """How late a process is woken that, like the collector, mostly sleeps and now and then syncs a page to disk."""
        with self._path.with_name("stall").open("wb", buffering=0) as file:
            while True:
                began = time.monotonic()
                await asyncio.sleep(WATCH_S)
                file.write(bytes(4096))
                await asyncio.to_thread(os.fsync, file.fileno())
                now = time.monotonic()
                self._stall_s = max(self._stall_s, now - began - WATCH_S)
                if now - began - WATCH_S > STALL_S:
                    self.stalled_at = now


@contextmanager
def small_disk(point: Path, size: str) -> Iterator[Path]:
    """A disk of its own, in memory, at a folder. Needs root."""
    point.mkdir(parents=True, exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size},mode=700", "none", point], check=True, timeout=30)
    try:
        yield point
    finally:
        subprocess.run(["umount", point], check=True, timeout=30)
