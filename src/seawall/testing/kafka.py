"""The brokers that librdkafka brings along for its own tests: Kafka's protocol in memory, with faults on demand.

Good for what a client does; says nothing about what real brokers keep. It answers no question about a topic's settings,
so what an ack is worth has to be told (``facts``). Needs the extra ``kafka``.
"""

from __future__ import annotations

import ctypes
import math
import os
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import confluent_kafka

from seawall.kernel.error import Misconfigured

PRODUCE, FETCH = 0, 1
"""Kinds of requests, by Kafka's numbers."""

TOO_LARGE, NOT_ENOUGH_REPLICAS = 10, 19
"""Errors, by Kafka's numbers."""


def _library() -> ctypes.CDLL:
    """The driver's own library; its folder lies beside the package."""
    assert confluent_kafka.__file__ is not None
    package = Path(confluent_kafka.__file__).parent
    found = [*package.parent.glob("confluent_kafka.libs/librdkafka*"), *package.glob(".dylibs/librdkafka*")]
    if not found:
        raise Misconfigured([f"no librdkafka beside {package}: the wheel brings one, a build from source doesn't"])
    library = ctypes.CDLL(str(found[0]))
    pointer, text, number = ctypes.c_void_p, ctypes.c_char_p, ctypes.c_int
    shapes: dict[str, tuple[object, list[object]]] = {
        "conf_new": (pointer, []),
        "conf_set": (number, [pointer, text, text, text, ctypes.c_size_t]),
        "new": (pointer, [number, pointer, text, ctypes.c_size_t]),
        "destroy": (None, [pointer]),
        "mock_cluster_new": (pointer, [pointer, number]),
        "mock_cluster_destroy": (None, [pointer]),
        "mock_cluster_bootstraps": (text, [pointer]),
        "mock_topic_create": (number, [pointer, text, number, number]),
        "mock_push_request_errors_array": (None, [pointer, ctypes.c_int16, ctypes.c_size_t, pointer]),
        "mock_clear_request_errors": (None, [pointer, ctypes.c_int16]),
        "mock_broker_set_down": (number, [pointer, ctypes.c_int32]),
        "mock_broker_set_up": (number, [pointer, ctypes.c_int32]),
        "mock_broker_set_rtt": (number, [pointer, ctypes.c_int32, number]),
        "mock_partition_set_leader": (number, [pointer, text, ctypes.c_int32, ctypes.c_int32]),
    }
    for name, (result, arguments) in shapes.items():
        function = getattr(library, f"rd_kafka_{name}")
        function.restype, function.argtypes = result, arguments
    return library


class MockKafka:
    """So many brokers on loopback, in this process. ``with`` starts and stops them.

    A partition keeps its newest 5 MB only.
    """

    def __init__(self, topic: str, *, partitions: int = 1, brokers: int = 3) -> None:
        self.topic = topic
        self.partitions = partitions
        self.brokers = range(1, brokers + 1)
        self.id = os.urandom(16)
        self._library = _library()

    def __enter__(self) -> MockKafka:
        library, said = self._library, ctypes.create_string_buffer(512)
        config = library.rd_kafka_conf_new()
        library.rd_kafka_conf_set(config, b"log_level", b"0", said, len(said))
        self._client = library.rd_kafka_new(0, config, said, len(said))
        assert self._client, said.value
        self._cluster = library.rd_kafka_mock_cluster_new(self._client, len(self.brokers))
        self.bootstrap: str = library.rd_kafka_mock_cluster_bootstraps(self._cluster).decode()
        library.rd_kafka_mock_topic_create(self._cluster, self.topic.encode(), self.partitions, len(self.brokers))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._library.rd_kafka_mock_cluster_destroy(self._cluster)
        self._library.rd_kafka_destroy(self._client)

    def facts(self, **changes: Any) -> dict[str, Any]:
        """What a look at the topic would find, were these real brokers: the fields of ``journal.kafka.Topic``."""
        said = {
            "cluster_id": "mock", "name": self.topic, "id": self.id, "partitions": self.partitions,
            "replicas": len(self.brokers), "in_sync_min": 2, "record_bytes_max": 16 * 1024 * 1024,
            "retention_s": math.inf,
        }  # fmt: skip
        return {**said, **changes}

    def fail(self, request: int, errors: Sequence[int]) -> None:
        """Answer the next requests of a kind with these errors, one each."""
        numbers = (ctypes.c_int * len(errors))(*errors)
        self._library.rd_kafka_mock_push_request_errors_array(self._cluster, request, len(errors), numbers)

    def heal(self, request: int) -> None:
        """Forget the errors that are still due."""
        self._library.rd_kafka_mock_clear_request_errors(self._cluster, request)

    def down(self) -> None:
        """Close all connections and take no new one."""
        for broker in self.brokers:
            self._library.rd_kafka_mock_broker_set_down(self._cluster, broker)

    def up(self) -> None:
        """Take connections again; what was written is there."""
        for broker in self.brokers:
            self._library.rd_kafka_mock_broker_set_up(self._cluster, broker)

    def slow(self, milliseconds: int) -> None:
        """Do what is asked at once, and answer so much later."""
        for broker in self.brokers:
            self._library.rd_kafka_mock_broker_set_rtt(self._cluster, broker, milliseconds)

    def lead(self, partition: int, broker: int) -> None:
        """Make another broker the leader of a partition."""
        self._library.rd_kafka_mock_partition_set_leader(self._cluster, self.topic.encode(), partition, broker)
