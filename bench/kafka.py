"""What a durable answer through Kafka costs our process, against the producer library alone on the same brokers.

Three real brokers, `acks=all`, two in sync. Ours is the whole journal of a cluster (breaker, spool, positions) from
``submit`` to ``done``, with so many records in flight as a collector holds requests. The peer is the same library with
the same settings in a bare loop, with as many in flight, and used in each of the ways its documentation shows: one
record at a time or batches, and a callback for each ack, since without one nobody knows what may be answered; what that
knowledge costs is told by a run without. Windows take turns; a ratio is of one round's windows, against the cheaper of
the peer's two ways. CPU is this process' alone: the brokers' isn't in it.

    python bench/kafka.py             # about two minutes; fetches Kafka when it isn't there (100 MB)
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path

import uvloop
from confluent_kafka import KafkaError, Message, Producer

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from bench.result import PLACE, Row, publish, row

from seawall.guard.panel import Panel
from seawall.guard.supervisor import Supervisor
from seawall.journal import LocalFilesystem, Settings, cluster
from seawall.journal.kafka.client import client_of
from seawall.journal.kafka.topic import BATCH_BYTES, Admin
from seawall.journal.spool.joint import Joint, Means
from seawall.kernel.alert import Alerts
from seawall.kernel.clock import SystemClock
from seawall.kernel.event import EventIds, Record, encode, source_id_of
from seawall.kernel.metric import Metrics
from seawall.kernel.seam.journal import Outcome, Position
from seawall.lab.part.kafka import Kafka

ROUNDS = 5
ATTEMPTS = 5
BODY_BYTES = 1200
SOURCES = 64
PARTITIONS = 6
IN_FLIGHT = {256: 8_000, 2000: 30_000}
"""Records in flight → records in one window. A collector holds 2,000 requests at most."""

DEEP = 20_000  # the peer's own best: its queue full
RATE = 200
RATE_RECORDS = 400
SHARE_MIN = 0.5

CLOCK = SystemClock()
IDS = EventIds(CLOCK)


def record() -> bytes:
    """An encoded event of a source of its own: 1.3 KB."""
    return encode(
        Record(id=IDS.next(), source_id=os.urandom(16), kind="none", tenant="acme", source="shop",
               received_us=CLOCK.wall_us(), body=os.urandom(BODY_BYTES))
    )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Window:
    """One window's figures."""

    cpu_us: float
    per_s: float


class Watch:
    """Measures one window."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._cpu, self._began = time.process_time(), time.perf_counter()

    def window(self) -> Window:
        cpu, took = time.process_time() - self._cpu, time.perf_counter() - self._began
        return Window(cpu / self._count * 1e6, self._count / took)


class Peer:
    """The library alone. ``known`` counts the acks it was told of."""

    def __init__(self, settings: cluster.Settings, payloads: list[bytes]) -> None:
        self._topic = settings.topic
        self._records = [(payload, source_id_of(payload)) for payload in payloads]
        self._flying = 0
        self.known = 0
        self._producer = Producer(
            client_of(settings, "peer").config(
                acks="all", enable_idempotence=True, linger_ms=settings.linger_ms, batch_size=BATCH_BYTES,
                partitioner="murmur2_random",
            )
        )  # fmt: skip

    def _acked(self, error: KafkaError | None, message: Message) -> None:
        assert error is None, error
        self._flying -= 1
        self.known += 1

    def one_at_a_time(self, in_flight: int, count: int) -> Window:
        watch, producer = Watch(count), self._producer
        for n in range(count):
            while self._flying >= in_flight:
                producer.poll(0.05)
            payload, key = self._records[n % SOURCES]
            producer.produce(self._topic, payload, key, on_delivery=self._acked)
            self._flying += 1
            producer.poll(0)
        producer.flush()
        return watch.window()

    def batches(self, in_flight: int, count: int) -> Window:
        watch, sent = Watch(count), 0
        while sent < count:
            room = min(in_flight - self._flying, count - sent)
            if room < min(in_flight // 4, count - sent):
                self._producer.poll(0.05)
                continue
            self._flying += room
            self._batch(sent, room, on_delivery=self._acked)
            sent += room
        self._producer.flush()
        return watch.window()

    def unknown(self, in_flight: int, count: int) -> Window:
        """Without callbacks: nobody learns what became of a record."""
        watch, sent = Watch(count), 0
        while sent < count:
            room = min(in_flight - len(self._producer), count - sent)
            if room < min(in_flight // 4, count - sent):
                self._producer.poll(0.005)
                continue
            self._batch(sent, room)
            sent += room
        self._producer.flush()
        return watch.window()

    def _batch(self, first: int, count: int, **options: Callable[[KafkaError | None, Message], None]) -> None:
        chosen = (self._records[n % SOURCES] for n in range(first, first + count))
        self._producer.produce_batch(self._topic, [{"value": value, "key": key} for value, key in chosen], **options)

    def paced(self) -> float:
        """The median time to an ack, in ms, at ``RATE`` a second, waiting in ``poll`` all the time."""
        took: list[float] = []
        due = time.perf_counter()
        for n in range(RATE_RECORDS):
            while (left := due - time.perf_counter()) > 0:
                self._producer.poll(left)
            began = time.perf_counter()
            payload, key = self._records[n % SOURCES]

            def acked(error: KafkaError | None, message: Message, began: float = began) -> None:
                assert error is None, error
                took.append(time.perf_counter() - began)

            self._producer.produce(self._topic, payload, key, on_delivery=acked)
            due += 1 / RATE
        self._producer.flush()
        return statistics.median(took) * 1000


async def ours(journal: Joint, payloads: list[bytes], in_flight: int, count: int) -> Window:
    """A window in which every answer was Kafka's. Brokers that a busy machine makes slow open the breaker: such a
    window measured the local log, and is taken again."""
    for _ in range(ATTEMPTS):
        while not journal.spool.flows or journal.forwarder.waits:
            await asyncio.sleep(0.05)
        window, replicated = await _ours(journal, payloads, in_flight, count)
        if replicated == count:
            return window
    raise RuntimeError(f"{ATTEMPTS} windows, and in each of them Kafka was too slow to be waited for")


async def _ours(journal: Joint, payloads: list[bytes], in_flight: int, count: int) -> tuple[Window, int]:
    """Keep ``in_flight`` records on their way until ``count`` were answered; how many as replicated."""
    loop = asyncio.get_running_loop()
    finished = loop.create_future()
    left, answered, replicated, due = count, 0, 0, 0

    def refill() -> None:
        nonlocal left, due
        room, due = min(due, left), 0
        for _ in range(room):
            left -= 1
            journal.submit(payloads[left % SOURCES], done)

    def done(outcome: Outcome) -> None:
        nonlocal answered, replicated, due
        assert isinstance(outcome, Position), outcome
        answered += 1
        replicated += outcome.replicated
        if not due:
            # By way of the loop, as requests come in: not from within the answer.
            loop.call_soon(refill)
        due += 1
        if answered == count:
            finished.set_result(None)

    watch = Watch(count)
    due = in_flight
    refill()
    await finished
    return watch.window(), replicated


async def paced(journal: Joint, payloads: list[bytes]) -> float:
    """The median time to a durable answer, in ms, at ``RATE`` a second."""
    loop = asyncio.get_running_loop()
    took: list[float] = []
    due = loop.time()
    for n in range(RATE_RECORDS):
        await asyncio.sleep(max(0.0, due - loop.time()))
        began = time.perf_counter()
        journal.submit(payloads[n % SOURCES], lambda outcome, began=began: took.append(time.perf_counter() - began))  # type: ignore[misc]
        due += 1 / RATE
    while len(took) < RATE_RECORDS:
        await asyncio.sleep(0.01)
    return statistics.median(took) * 1000


@contextlib.asynccontextmanager
async def opened(settings: cluster.Settings, folder: Path) -> AsyncIterator[Joint]:
    """The journal as a collector has it, with its loops."""
    client, metrics = client_of(settings, "bench"), Metrics()

    means = Means(
        client=client, look=Admin(client, settings).look, settings=settings, local=Settings(),
        folder=folder / "spool" / "c1", on_failure=print, filesystem=LocalFilesystem(), clock=CLOCK, metrics=metrics,
        alerts=Alerts(metrics, CLOCK), panel=Panel(), rng=random.Random(7),
    )  # fmt: skip
    async with Joint(means) as journal:
        supervisor = Supervisor(metrics)
        journal.register(supervisor)
        async with supervisor:
            yield journal


async def measure(settings: cluster.Settings, folder: Path) -> list[Row]:
    payloads = [record() for _ in range(SOURCES)]
    peer = Peer(settings, payloads)
    found: dict[tuple[str, int], list[Window]] = {}
    times: dict[str, list[float]] = {"ours": [], "the library": []}
    async with opened(settings, folder) as journal:
        for _ in range(3):  # brokers that have just started compile what they run
            await ours(journal, payloads, 256, 5000)
            peer.batches(256, 5000)
        for _ in range(ROUNDS):
            for size, count in IN_FLIGHT.items():
                found.setdefault(("ours", size), []).append(await ours(journal, payloads, size, count))
                for name in ("one_at_a_time", "batches", "unknown"):
                    found.setdefault((name, size), []).append(getattr(peer, name)(size, count))
            found.setdefault(("batches", DEEP), []).append(peer.batches(DEEP, max(IN_FLIGHT.values())))
            times["ours"].append(await paced(journal, payloads))
            times["the library"].append(peer.paced())
    rows = []
    for size in IN_FLIGHT:
        rows += _rows(found, size)
    alone = statistics.median(w.cpu_us for w in found["batches", DEEP])
    rows.append(row(f"kafka: the library, {DEEP} in flight, CPU per record", alone, "us"))
    for name, each in times.items():
        rows.append(row(f"kafka: {name}, ack at {RATE}/s, p50", statistics.median(each), "ms"))
    return rows


def _rows(found: dict[tuple[str, int], list[Window]], size: int) -> list[Row]:
    said = {
        "ours": "durable answers", "one_at_a_time": "the library, one by one", "batches": "the library, in batches",
        "unknown": "the library, acks not known",
    }  # fmt: skip
    rows = []
    for name, words in said.items():
        cpu_us = statistics.median(w.cpu_us for w in found[name, size])
        per_s = statistics.median(w.per_s for w in found[name, size])
        rows.append(row(f"kafka: {words}, {size} in flight, CPU", cpu_us, "us"))
        rows.append(row(f"kafka: {words}, {size} in flight", per_s, "1/s"))
    rounds = zip(found["ours", size], found["one_at_a_time", size], found["batches", size], strict=True)
    shares = [min(one.cpu_us, batch.cpu_us) / ours.cpu_us for ours, one, batch in rounds]
    name = f"kafka: per CPU-second / the library's, {size} in flight"
    rows.append(row(name, statistics.median(shares), "ratio", at_least=SHARE_MIN))
    return rows


def main() -> None:
    PLACE.parent.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=PLACE.parent) as name:
        folder = Path(name)
        with Kafka(folder / "kafka3", brokers=3, fetched=PLACE.parent / "parts" / "fetched") as part:
            part.make_topic(
                "bench", partitions=PARTITIONS,
                settings={"min.insync.replicas": "2", "max.message.bytes": "12582912", "retention.bytes": "-1"},
            )  # fmt: skip
            # A window of the peer blocks our loops for seconds: what was known of the topic must outlast it. And beside
            # other work the brokers may take longer than a sender would wait.
            settings = cluster.Settings(bootstrap=part.bootstrap, topic="bench", confirm_s=120.0, ack_timeout_s=10.0)
            publish(uvloop.run(measure(settings, folder)))


if __name__ == "__main__":
    main()
