"""The real Kafka, Redis and pgbouncer, killed and stopped. Marked ``parts``: run by ``make test-parts``."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from confluent_kafka import KafkaError, Message, Producer

from seawall.kernel.error import Unavailable
from seawall.lab.part import proof
from seawall.lab.part.fault import Fault
from seawall.lab.part.kafka import Kafka
from seawall.lab.part.node import DEFAULT
from seawall.lab.part.postgres import Postgres
from seawall.lab.part.proxy import FaultProxy
from seawall.lab.part.redis import Redis

pytestmark = pytest.mark.parts
ROOT = Path(__file__).resolve().parents[2]
FETCHED = ROOT / DEFAULT / "fetched"


def send(bootstrap: str, topic: str, value: bytes, **settings: object) -> KafkaError | None:
    """What the broker said of one record; None: acknowledged."""
    said: list[KafkaError | None] = []

    def heard(error: KafkaError | None, _: Message) -> None:
        said.append(error)

    producer = Producer({"bootstrap.servers": bootstrap, "acks": "all", "log_level": 0,
                         "delivery.timeout.ms": 4000, **settings})  # fmt: skip
    producer.produce(topic, value, on_delivery=heard)
    producer.flush(20)
    assert len(said) == 1, "a producer says something in its own time"
    return said[0]


def code(error: KafkaError | None) -> str:
    return error.name() if error is not None else ""


def test_a_lone_broker_keeps_what_it_acknowledged_over_kill_9(tmp_path: Path) -> None:
    with Kafka(tmp_path / "kafka", fetched=FETCHED) as part:
        part.make_topic("orders")
        assert send(part.bootstrap, "orders", b"one") is None
        part.kill("broker1")
        assert code(send(part.bootstrap, "orders", b"lost")) == "_MSG_TIMED_OUT"
        part.start("broker1")
        part.wait_ready()
        part.settle()
        assert proof.read_topic(part.bootstrap, "orders", 1) == [b"one"]


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kafka]:
    with Kafka(tmp_path_factory.mktemp("cluster") / "kafka3", brokers=3, fetched=FETCHED) as part:
        part.make_topic("orders")
        yield part


def test_one_broker_of_three_may_go_and_two_may_not(cluster: Kafka) -> None:
    cluster.settle()
    assert cluster.in_sync("orders") == {"broker1", "broker2", "broker3"}
    leader = cluster.leader("orders")
    others = sorted({"broker1", "broker2", "broker3"} - {leader})
    cluster.kill(others[0])
    assert send(cluster.bootstrap, "orders", b"two of three", **{"delivery.timeout.ms": 30_000}) is None
    cluster.kill(others[1])
    latest = time.monotonic() + 40
    while (said := code(send(cluster.bootstrap, "orders", b"one of three", retries=0))) != "NOT_ENOUGH_REPLICAS":
        assert time.monotonic() < latest, said
    for name in others:
        cluster.start(name)
    cluster.settle(90)
    assert send(cluster.bootstrap, "orders", b"all again") is None


def test_a_stopped_leader_is_replaced_and_comes_back(cluster: Kafka) -> None:
    cluster.settle()
    leader = cluster.leader("orders")
    cluster.stop(leader)
    latest = time.monotonic() + 40
    while _leader(cluster) in ("", leader):
        assert time.monotonic() < latest
        time.sleep(0.2)
    cluster.cont(leader)
    cluster.settle(90)
    assert leader in cluster.in_sync("orders")


def _leader(part: Kafka) -> str:
    try:
        return part.leader("orders")
    except Unavailable:
        return ""


def test_clients_go_through_a_proxy_and_brokers_among_themselves_do_not(tmp_path: Path) -> None:
    part = Kafka(tmp_path / "kafka", fetched=FETCHED)
    with FaultProxy(tmp_path / "proxy") as proxy:
        part.advertise("broker1", proxy.link("broker1", part.port("broker1")))
        with part:
            part.make_topic("orders")
            assert send(part.bootstrap, "orders", b"one") is None
            proxy.set("broker1", Fault(kind="hole"))
            assert code(send(part.bootstrap, "orders", b"two")) == "_MSG_TIMED_OUT"
            assert part.unsettled() == "", "the cluster itself is well"
            proxy.clear("broker1")
            assert send(part.bootstrap, "orders", b"three") is None
            with pytest.raises(Unavailable, match="already exists"):
                part.make_topic("orders")


def test_a_redis_fail_over_keeps_what_the_replica_has(tmp_path: Path) -> None:
    with Redis(tmp_path / "redis", replica=True, fetched=FETCHED) as part:
        assert part.engine.name.startswith("redis ")
        part.settle()
        part.ask("r1", "SET", "key", "value")
        part.settle()
        part.stop("r1")
        latest = time.monotonic() + 30
        while part.primary() != "r2":
            assert time.monotonic() < latest
            time.sleep(0.05)
        part.cont("r1")
        part.settle()
        assert part.ask("r2", "GET", "key") == "value" == part.ask("r1", "GET", "key")


def test_the_bouncer_is_routed_to_the_new_primary(tmp_path: Path) -> None:
    part = Postgres(tmp_path / "postgres", fetched=FETCHED)
    try:
        with part:
            part.write("bouncer", "first")
            part.settle()
            part.kill("a")
            part.promote("b")
            part.route("b")
            part.write("bouncer", "second")
            assert part.read("b") == "second"
    finally:
        part.wipe()


def test_what_was_proven_is_not_done_again() -> None:
    proof.prove(ROOT / DEFAULT, ["redis", "proxy"], lambda _: None)
    again = proof.prove(ROOT / DEFAULT, ["redis", "proxy"], lambda _: None)
    assert [each.seconds for each in again] == [0.0, 0.0]
