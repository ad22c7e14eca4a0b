"""What Kafka's errors mean to us: the record's own fault, certainly not kept, or nobody knows."""

from __future__ import annotations

from confluent_kafka import KafkaError

from seawall.kernel.error import Rejected, SeawallError, Unavailable, Uncertain

KAFKA = "Kafka"

_THE_RECORDS = frozenset((KafkaError.MSG_SIZE_TOO_LARGE, KafkaError.RECORD_LIST_TOO_LARGE, KafkaError.INVALID_RECORD))
"""Repeating can't help. Everything else is Kafka's trouble, the lack of a right included."""

_NEVER_SENT = frozenset((
    KafkaError._PURGE_QUEUE, KafkaError._QUEUE_FULL, KafkaError.TOPIC_AUTHORIZATION_FAILED,
    KafkaError.CLUSTER_AUTHORIZATION_FAILED, KafkaError._UNKNOWN_TOPIC, KafkaError._UNKNOWN_PARTITION,
    KafkaError.NOT_ENOUGH_REPLICAS,
))  # fmt: skip


def meaning(error: KafkaError) -> SeawallError:
    """Rejected: this record will never be taken. Unavailable: it isn't in the log. Uncertain: it may be."""
    said = f"{error.name()}: {error.str()}"
    if error.code() in _THE_RECORDS:
        return Rejected(413, "refused by Kafka", said)
    if error.code() in _NEVER_SENT:
        return Unavailable(KAFKA, said)
    return Uncertain(f"Kafka's answer is {said}")
