"""Apache Kafka in KRaft mode: one node, or one controller and three brokers.

A controller of its own matters: with combined nodes, killing two of three takes the quorum too, and then nobody can
shrink the in-sync set, so that a producer never sees ``NOT_ENOUGH_REPLICAS``.

Each broker has two listeners: one for clients, whose advertised port may be a proxy's (``advertise``), and one for the
brokers among themselves and for our own questions, so that a fault on the way of clients is on theirs alone.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient, ClusterMetadata, NewTopic, PartitionMetadata  # type: ignore[attr-defined]

from seawall.kernel.error import Unavailable
from seawall.lab.part import broker, fetch
from seawall.lab.part.broker import CONTROLLER
from seawall.lab.part.node import FETCHED, POLL_S, Say, quiet, whole
from seawall.lab.part.part import Part
from seawall.lab.part.port import LOOPBACK
from seawall.lab.part.process import Launch

ADVERTISED = "advertised.json"
ASK_S = 3.0
ASK_TIMES = 4
TOPIC_S = 30.0


class Kafka(Part):
    """A Kafka cluster. Nodes: ``broker1`` to ``brokerN``, and, with three, ``controller``.

    Args:
        folder: Its own.
        brokers: 1 (a node that is broker and controller) or 3.
        settings: More of server.properties, for every node; they win over ours.
        archive: A class archive to write at the end of the first broker; see `proof`.
    """

    def __init__(
        self, folder: Path, *, brokers: int = 1, settings: Mapping[str, str] | None = None, archive: Path | None = None,
        fetched: Path = FETCHED, say: Say = quiet,
    ) -> None:  # fmt: skip
        assert brokers in (1, 3), "one node, or three brokers and their controller"
        self.kind = "kafka" if brokers == 1 else "kafka3"
        self.brokers = tuple(f"broker{number}" for number in range(1, brokers + 1))
        nodes = self.brokers if brokers == 1 else (CONTROLLER, *self.brokers)
        inner = [f"{name}.inner" for name in self.brokers]
        super().__init__(folder, nodes=nodes, ports=[*self.brokers, *inner, CONTROLLER], fetched=fetched, say=say)
        self._settings = dict(settings or {})
        self._archive = archive
        # In the folder: a broker that another process starts again must be where clients look for it.
        self._file = self.folder / ADVERTISED
        self._advertised = _advertised(self._file)
        self._admin: AdminClient | None = None

    # ── For those who use it ───────────────────────────────────────────────────────────────────────────────────────
    @property
    def bootstrap(self) -> str:
        """``host:port,…`` for clients: the brokers' advertised addresses."""
        shown = [self._advertised.get(name, (LOOPBACK, self.port(name))) for name in self.brokers]
        return ",".join(f"{host}:{port}" for host, port in shown)

    @property
    def direct(self) -> str:
        """``host:port,…`` past every proxy: for questions about the cluster, whatever is broken for clients."""
        return ",".join(self.address(f"{name}.inner") for name in self.brokers)

    def advertise(self, node: str, port: int, host: str = LOOPBACK) -> None:
        """Tell clients to come to this address, a proxy's, for a broker. At the node's next start."""
        self._advertised[node] = (host, port)
        self._make()
        whole(self._file, json.dumps(self._advertised))

    def make_topic(
        self, name: str, *, partitions: int = 1, replication: int = 0, settings: Mapping[str, str] | None = None
    ) -> None:
        """Make a topic; with no ``replication`` given, on every broker.

        Raises:
            Unavailable: It couldn't be made, for instance since it is there.
        """
        topic = NewTopic(name, partitions, replication or len(self.brokers), config=dict(settings or {}))
        made = self._asked().create_topics([topic], operation_timeout=TOPIC_S, request_timeout=TOPIC_S)[name]
        try:
            made.result(TOPIC_S)
        except KafkaException as error:
            raise Unavailable(f"the topic {name}", str(error)) from error
        for number in range(partitions):
            self._partition(name, number)

    def leader(self, topic: str, partition: int = 0) -> str:
        """The broker that leads a partition; "" while nobody does.

        Raises:
            Unavailable: The cluster doesn't answer, or has no such partition.
        """
        found = self._partition(topic, partition).leader
        return f"broker{found}" if found > 0 else ""

    def in_sync(self, topic: str, partition: int = 0) -> frozenset[str]:
        """The brokers that have everything of a partition. Raises as `leader`."""
        return frozenset(f"broker{each}" for each in self._partition(topic, partition).isrs)

    # ── As a part ──────────────────────────────────────────────────────────────────────────────────────────────────
    def prepare(self) -> None:
        broker.java()
        jars = fetch.kafka(self.fetched, self.say)
        template = broker.template(self.fetched, jars)
        (self.folder / "log4j2.properties").write_text(broker.LOG4J)
        cluster = self.folder / "cluster.id"
        if not cluster.exists():
            whole(cluster, broker.new_id())
        for name in self.nodes:
            whole(self.folder / f"{name}.properties", self._properties(name))
            data = self.folder / f"data-{name}"
            if not data.exists():
                broker.new_data(name, template, data, cluster.read_text())

    def launch(self, node: str) -> Launch:
        jars = self.fetched / f"kafka-{fetch.KAFKA}"
        whole(self.folder / f"{node}.properties", self._properties(node))
        archive = jars.with_name(f"{jars.name}.jsa")
        extra = [f"-XX:SharedArchiveFile={archive}"] if archive.exists() else []
        if self._archive is not None and node == self.brokers[0]:
            extra = [f"-XX:ArchiveClassesAtExit={self._archive}"]
        return Launch(
            command=[
                broker.java(), *broker.JVM, *extra, f"-Dlog4j2.configurationFile={self.folder / 'log4j2.properties'}",
                f"-Dseawall.log={self.folder / node}.kafka.log", "-cp", f"{jars}/*", "kafka.Kafka",
                str(self.folder / f"{node}.properties"),
            ],
            environment={"HOME": str(self.folder)},
        )  # fmt: skip

    def unready(self) -> str:
        try:
            found = self._metadata()
        except Unavailable as error:
            return error.cause
        missing = len(self.brokers) - len(found.brokers)
        return f"{missing} of {len(self.brokers)} brokers aren't registered" if missing else ""

    def unsettled(self) -> str:
        """Every broker is registered, and every partition is whole and led by a broker."""
        # Any of the brokers may answer, and one of them may not have heard yet.
        return next(filter(None, (self._unwhole() for _ in range(ASK_TIMES))), "")

    def open(self, node: str) -> bool:
        return super().open(node if node == CONTROLLER else f"{node}.inner")

    def stages(self) -> Sequence[Sequence[str]]:
        # A broker hands its partitions over as it leaves, and waits for the controller's word.
        return [self.brokers, [name for name in self.nodes if name not in self.brokers]]

    def down(self) -> None:
        self._admin = None
        super().down()

    def tail(self, node: str, lines: int = 12) -> str:
        """The end of what it logged."""
        with suppress(OSError):
            text = (self.folder / f"{node}.kafka.log").read_text("utf-8", "replace")
            return "\n".join(text.splitlines()[-lines:]) or super().tail(node, lines)
        return super().tail(node, lines)

    # ── Inside ─────────────────────────────────────────────────────────────────────────────────────────────────────
    def _asked(self) -> AdminClient:
        if self._admin is None:
            # log_level 0: a broker that we killed is no news, and librdkafka would say it on standard error.
            self._admin = AdminClient({
                "bootstrap.servers": self.direct, "log_level": 0, "socket.timeout.ms": 2000,
                "reconnect.backoff.ms": 50, "reconnect.backoff.max.ms": 500,
            })  # fmt: skip
        return self._admin

    def _unwhole(self) -> str:
        try:
            found = self._metadata()
        except Unavailable as error:
            return error.cause
        if len(found.brokers) < len(self.brokers):
            return f"{len(found.brokers)} of {len(self.brokers)} brokers are registered"
        for name, partition, state in _partitions(found):
            if state.leader < 0 or set(state.isrs) != set(state.replicas):
                return f"{name}/{partition}: leader {state.leader}, in sync {state.isrs} of {state.replicas}"
        return ""

    def _partition(self, topic: str, number: int) -> PartitionMetadata:
        """Its state. A topic is known to the broker that made it before the others have heard of it."""
        latest = time.monotonic() + ASK_S
        while True:
            with suppress(KeyError):
                return self._metadata().topics[topic].partitions[number]
            if time.monotonic() > latest:
                raise Unavailable(self.kind, f"there is no {topic}/{number}")
            time.sleep(POLL_S)

    def _metadata(self) -> ClusterMetadata:
        try:
            return self._asked().list_topics(timeout=ASK_S)
        except KafkaException as error:
            raise Unavailable(self.kind, str(error)) from error

    def _properties(self, node: str) -> str:
        controls = node == CONTROLLER
        own = broker.properties(
            node, folder=self.folder / f"data-{node}", single=len(self.brokers) == 1,
            client=0 if controls else self.port(node), inner=0 if controls else self.port(f"{node}.inner"),
            controller=self.port(CONTROLLER),
            shown=(LOOPBACK, 0) if controls else self._advertised.get(node, (LOOPBACK, self.port(node))),
        )  # fmt: skip
        return broker.text(own | self._settings)


def _advertised(file: Path) -> dict[str, tuple[str, int]]:
    try:
        return {str(name): (str(host), int(port)) for name, (host, port) in json.loads(file.read_text("ascii")).items()}
    except (OSError, ValueError, TypeError, AttributeError):
        return {}


def _partitions(found: ClusterMetadata) -> Iterator[tuple[str, int, PartitionMetadata]]:
    for name, topic in found.topics.items():
        for number, state in topic.partitions.items():
            yield name, number, state
