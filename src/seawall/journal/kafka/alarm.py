"""The words of alerts about reading Kafka: what is wrong, what isn't affected, and what to do."""

from __future__ import annotations

from collections.abc import Mapping

from seawall.journal.topic import Topic
from seawall.kernel.alert import Alerts

NAMED_MAX = 5
"""Partitions that one line names."""


def stuck(alerts: Alerts, topic: Topic, ends: Mapping[int, int]) -> None:
    """Of these partitions nothing comes, though they end there; none: it is over."""
    if not ends:
        alerts.cleared("kafka-reading-stuck", topic=topic.name)
        return
    named = ", ".join(f"{partition} (ends at {end})" for partition, end in [*ends.items()][:NAMED_MAX])
    alerts.raised(
        "kafka-reading-stuck",
        f"topic {topic.name}: nothing comes of {len(ends)} partitions, though their leaders answer: {named}",
        unaffected="accepting events: they are kept, and routed when they come",
        cure="consumers are replaced by themselves; if it stays, look at the brokers", topic=topic.name,
    )  # fmt: skip


def partitions_gone(alerts: Alerts, topic: Topic, *, read: int) -> None:
    """There were ``read`` partitions; when there are fewer now, what wasn't read of the others is out of reach."""
    if read <= topic.partitions:
        alerts.cleared("kafka-partitions-gone", topic=topic.name)
        return
    alerts.raised(
        "kafka-partitions-gone",
        f"topic {topic.name} had {read} partitions and has {topic.partitions}: what wasn't read of the others is out "
        "of reach",
        unaffected="accepting events, and the partitions that are there",
        cure="if the cluster is another one, bring the old one's records over; then restart the router",
        topic=topic.name,
    )  # fmt: skip


def other_cluster(alerts: Alerts, old: Topic, new: Topic) -> None:
    """Nothing of ours can mend it, so it stays until the process ends."""
    alerts.raised(
        "kafka-cluster-changed",
        f"the brokers are of cluster {new.cluster_id} now, and were of {old.cluster_id}: what wasn't read of that one "
        "isn't read",
        unaffected="accepting events, and routing what the new cluster has",
        cure="if the old cluster has unread events, let a router read it to its end: it goes on where it was",
        topic=new.name,
    )  # fmt: skip
