"""What is broken in the rows of `test_outage_matrix.py`: each a context, inside of which it is broken.

Whatever is said to be so is looked at here, past the platform: a fault that didn't happen would prove nothing.
"""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from confluent_kafka import KafkaError, Message, Producer
from outage_rig import ANSWER_S, PARTITIONS, PROBE, READY_S, TOPIC, Rig, Sender, small_disk

from seawall.lab.part.fault import Fault
from seawall.lab.part.resp import Refused

HOLE = Fault(kind="hole")
KEYS = 2000
FULL = 50  # refusals
LAG = "seawall_journal_forward_lag_seconds"


@dataclass(slots=True)
class Run:
    """One row's."""

    rig: Rig
    sender: Sender
    hold_s: float
    ends: Mapping[int, int]  # of the topic, before it began


# ── Redis ──────────────────────────────────────────────────────────────────────────────────────────────────────────
@contextmanager
def nothing(run: Run) -> Iterator[None]:
    yield


@contextmanager
def redis_killed(run: Run) -> Iterator[None]:
    with run.rig.killed(run.rig.redis, run.rig.redis.servers):
        yield


@contextmanager
def redis_stopped(run: Run) -> Iterator[None]:
    with run.rig.stopped(run.rig.redis, run.rig.redis.servers):
        yield


@contextmanager
def redis_slow(run: Run) -> Iterator[None]:
    with run.rig.broken(run.rig.redis.servers, Fault(kind="latency", way="up", ms=2000)):
        yield


@contextmanager
def redis_hole(run: Run) -> Iterator[None]:
    with run.rig.broken(run.rig.redis.servers, HOLE):
        yield


@contextmanager
def redis_loading(run: Run) -> Iterator[None]:
    """It reads its data again, slowly, and answers -LOADING meanwhile."""
    redis, node = run.rig.redis, run.rig.redis.primary()
    redis.ask(node, "DEBUG", "POPULATE", str(KEYS))
    redis.ask(node, "CONFIG", "SET", "key-load-delay", str(round(run.hold_s * 1e6 / KEYS)))
    redis.ask(node, "CONFIG", "SET", "loading-process-events-interval-bytes", "1024")
    said: list[object] = []
    asked = threading.Thread(
        target=lambda: said.append(redis.ask(node, "DEBUG", "RELOAD", timeout_s=run.hold_s + READY_S))
    )
    asked.start()
    try:
        _until(lambda: _refusal(run.rig, node).startswith("LOADING"), "it loads")
        yield
    finally:
        asked.join(run.hold_s + READY_S)
        redis.ask(node, "CONFIG", "SET", "key-load-delay", "0")
    assert said == ["OK"]


@contextmanager
def redis_readonly(run: Run) -> Iterator[None]:
    """Each of both follows the other, and no sentinel is there to end that."""
    redis = run.rig.redis
    first = redis.primary()
    second = next(name for name in redis.servers if name != first)
    for name in redis.sentinels:
        redis.kill(name)
    redis.ask(first, "REPLICAOF", "127.0.0.1", str(redis.port(second)))
    assert _refusal(run.rig, first).startswith("READONLY")
    try:
        yield
    finally:
        redis.ask(first, "REPLICAOF", "NO", "ONE")
        for name in redis.sentinels:
            redis.start(name)


@contextmanager
def redis_fails_over(run: Run) -> Iterator[None]:
    redis = run.rig.redis
    first = redis.primary()
    with run.rig.killed(redis, [first]):
        _until(lambda: redis.primary() != first, "sentinels agree on another one")
        yield


@contextmanager
def redis_forgets(run: Run) -> Iterator[None]:
    """All of its data and scripts are gone, again and again."""
    ending = threading.Event()

    def forget() -> None:
        while not ending.wait(0.2):
            for command in (("FLUSHALL",), ("SCRIPT", "FLUSH")):
                run.rig.redis.ask(node, *command)
            times.append(1)

    node, times = run.rig.redis.primary(), [0]
    thread = threading.Thread(target=forget)
    thread.start()
    try:
        yield
    finally:
        ending.set()
        thread.join(ANSWER_S)
    assert sum(times) > run.hold_s


@contextmanager
def redis_full(run: Run) -> Iterator[None]:
    redis, node = run.rig.redis, run.rig.redis.primary()
    redis.ask(node, "CONFIG", "SET", "maxmemory", "1")
    assert _refusal(run.rig, node).startswith("OOM")
    try:
        yield
    finally:
        redis.ask(node, "CONFIG", "SET", "maxmemory", "0")


def _refusal(rig: Rig, node: str) -> str:
    """What it says to a write; "" when it takes it."""
    try:
        rig.redis.ask(node, "SET", "row", "1")
    except Refused as error:
        return str(error)
    return ""


# ── Kafka ──────────────────────────────────────────────────────────────────────────────────────────────────────────
@contextmanager
def kafka_leader_killed(run: Run) -> Iterator[None]:
    with run.rig.killed(run.rig.kafka, [run.rig.leader(run.ends)]):
        yield


@contextmanager
def kafka_killed(run: Run) -> Iterator[None]:
    with run.rig.killed(run.rig.kafka, run.rig.kafka.brokers):
        yield


@contextmanager
def kafka_leader_stopped(run: Run) -> Iterator[None]:
    with run.rig.stopped(run.rig.kafka, [run.rig.leader(run.ends)]):
        yield


@contextmanager
def kafka_stopped(run: Run) -> Iterator[None]:
    with run.rig.stopped(run.rig.kafka, run.rig.kafka.brokers):
        yield


@contextmanager
def kafka_hole(run: Run) -> Iterator[None]:
    with run.rig.broken(run.rig.kafka.brokers, HOLE):
        yield


@contextmanager
def kafka_two_gone(run: Run) -> Iterator[None]:
    """First nobody knows; then the cluster has noticed, and refuses."""
    with run.rig.killed(run.rig.kafka, _two(run)):
        run.sender.hold(run.hold_s)
        _until(lambda: _produced(run.rig) == "NOT_ENOUGH_REPLICAS", "it refuses", within_s=60)
        yield


def _two(run: Run) -> Sequence[str]:
    leader = run.rig.leader(run.ends)
    return [leader, next(name for name in run.rig.kafka.brokers if name != leader)]


def _produced(rig: Rig) -> str:
    """What the brokers say to a record of our own, without any retry. It is none of the platform's."""
    said: list[str] = []

    def heard(error: KafkaError | None, _: Message) -> None:
        said.append(error.name() if error is not None else "")

    producer = Producer({"bootstrap.servers": rig.kafka.direct, "acks": "all", "log_level": 0, "retries": 0,
                         "delivery.timeout.ms": 2000, "error_cb": lambda error: None})  # fmt: skip
    producer.produce(PROBE, b"probe", on_delivery=heard)
    producer.flush(10)
    return said[0] if said else "nothing"


@contextmanager
def kafka_leader_changes(run: Run) -> Iterator[None]:
    """Twice: its leader leaves in order, and is elected again when it is back, while nothing else happens."""
    kafka, leader = run.rig.kafka, run.rig.leader(run.ends)
    with run.rig.killed(kafka, [leader], signal.SIGTERM):
        assert leader not in _leaders(run.rig)
        yield
    kafka.settle()
    run.rig.elect()
    _until(lambda: leader in _leaders(run.rig), "it leads again")


def _leaders(rig: Rig) -> set[str]:
    return {rig.kafka.leader(TOPIC, number) for number in range(PARTITIONS)}


@contextmanager
def kafka_takes_less(run: Run) -> Iterator[None]:
    """Larger records are refused; afterwards the cure is taken that the alert names."""
    with run.rig.topic("max.message.bytes", "2048"):
        yield
    run.rig.restart()


@contextmanager
def kafka_queue_short(run: Run) -> Iterator[None]:
    """There is room for two records on their way, and acks take so long that it is always full."""
    rig = run.rig
    rig.tree.stop()
    rig.configure(pending=2)
    rig.tree.start()
    rig.tree.wait_ready(READY_S)
    try:
        with rig.broken(rig.kafka.brokers, Fault(kind="latency", way="down", ms=200)):
            yield
    finally:
        rig.tree.stop()
        rig.configure()
        rig.tree.start()
        rig.tree.wait_ready(READY_S)


# ── The store ──────────────────────────────────────────────────────────────────────────────────────────────────────
@contextmanager
def store_killed(run: Run) -> Iterator[None]:
    run.rig.store.kill()
    try:
        yield
    finally:
        run.rig.store.start()


@contextmanager
def store_gone_at_start(run: Run) -> Iterator[None]:
    run.rig.tree.stop()
    run.rig.store.stop()
    run.rig.tree.start()
    try:
        run.sender.goes_on(within_s=READY_S)
        yield
    finally:
        run.rig.store.start()


@contextmanager
def store_gone_throughout(run: Run) -> Iterator[None]:
    """From before the collector begins until after it has ended."""
    run.rig.store.stop()
    try:
        run.rig.replace(signal.SIGTERM)
        run.rig.wait_intake()
        yield
        run.rig.replace(signal.SIGTERM)
    finally:
        run.rig.store.start()


# ── The disk, and all of it ────────────────────────────────────────────────────────────────────────────────────────
@contextmanager
def spool_on_small_disk(run: Run) -> Iterator[None]:
    """Its real folder is empty by then, but for what was forwarded; it is hidden below."""
    tree = run.rig.tree
    tree.stop()
    try:
        with small_disk(run.rig.spool, "16m"):
            try:
                tree.start()
                tree.wait_ready(READY_S)
                yield
                # What lies there must have gone to Kafka before the disk goes.
                _until(lambda: run.rig.metric(LAG) == 0, "all is forwarded", within_s=60)
            finally:
                tree.stop()
    finally:
        tree.start()
        tree.wait_ready(READY_S)


def disk_full(run: Run) -> None:
    """Kafka is away, so all goes to the spool, and that has no room any more; then it has."""
    with kafka_hole(run):
        run.sender.hold(run.hold_s)
        filler = _fill(run.rig.spool)
        run.sender.until(lambda: run.sender.answers(503) >= FULL, "refusals")
        time.sleep(run.hold_s)
        filler.unlink()
        run.sender.goes_on()


def _fill(disk: Path) -> Path:
    filler = disk / "filler"
    with filler.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(64 * 1024))
        except OSError:
            return filler


@contextmanager
def all_gone(run: Run) -> Iterator[None]:
    with ExitStack() as stack:
        for each in (redis_killed, kafka_killed, store_killed):
            stack.enter_context(each(run))
        yield


# ── What happens to the collector meanwhile ────────────────────────────────────────────────────────────────────────
def hold(run: Run) -> None:
    run.sender.hold(run.hold_s)


def restart(run: Run) -> None:
    _renew(run, signal.SIGTERM)


def kill(run: Run) -> None:
    _renew(run, signal.SIGKILL)


def _renew(run: Run, number: signal.Signals) -> None:
    run.sender.hold(run.hold_s / 2)
    run.rig.replace(number)
    run.sender.goes_on()
    run.sender.hold(run.hold_s / 2)


def _until(true: Callable[[], bool], what: str, *, within_s: float = 30.0) -> None:
    end = time.monotonic() + within_s
    while not true():
        assert time.monotonic() < end, f"not within {within_s:g} s: {what}"
        time.sleep(0.05)
