"""What a topic is like, and what is wrong with it for a journal. Apart from Kafka's driver, as ``cluster.py``.

Nothing that Kafka says stops a start or an intake: an intake that needs Kafka's word couldn't start in an outage. It
decides what an ack is worth, whether anything is given to Kafka at all, and what people are told.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from seawall.journal.cluster import Settings
from seawall.kernel.limit import RECORD_BYTES_MAX

REPLICAS_MIN = 3
IN_SYNC_MIN = 2
RECORD_OVERHEAD_BYTES = 1024
"""More than Kafka adds to one of our records in a batch by itself."""

PARTITIONS_MAX = 100
"""Each costs a router two loops and a reader's buffer (decision 0010)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Defect:
    """One thing that is wrong with a topic."""

    check: str  # its name, which stays the same
    critical: bool  # it may cost events; else latency, in a bad hour
    what: str
    why: str
    cure: str

    def line(self) -> str:
        """All of it in one line."""
        return f"{self.what}: {self.why}; {self.cure}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Topic:
    """A topic as it was found."""

    cluster_id: str
    name: str
    id: bytes  # 16 bytes, given when it was made: tells it from another one that had its name; b"" when not said
    partitions: int
    replicas: int  # of the partition that has the fewest
    in_sync_min: int
    record_bytes_max: int
    retention_s: float  # math.inf: for ever
    compacted: bool = False
    unclean: bool = False  # a replica that lacks records may become the leader
    retention_bytes: int = -1

    @property
    def replicated(self) -> bool:
        """Whether an ack means two machines at least, whichever of them dies."""
        return self.replicas >= REPLICAS_MIN and self.in_sync_min >= IN_SYNC_MIN and not self.unclean

    @property
    def keeps(self) -> bool:
        """Whether it keeps records until they were read. A compacted one deletes all but a key's newest, and our key is
        the source: such a topic is given nothing, and events stay in the spool."""
        return not self.compacted

    def same(self, other: Topic | None) -> bool:
        """Whether this very topic was found both times, and not another one under its name."""
        return other is not None and (self.id, self.cluster_id) == (other.id, other.cluster_id)

    def log_id(self, partition: int) -> bytes:
        """The partition's name in positions: it says where, and ``id`` says which one was there."""
        said = f"seawall kafka log\0{self.cluster_id}\0{self.name}\0{partition}"
        return hashlib.sha256(said.encode()).digest()[:16]

    def defects(self, settings: Settings) -> list[Defect]:
        """What is wrong with it for a journal, each with its cure; none of it stops accepting."""
        return [*self._of_acks(), *self._of_retention(settings), *self._of_size()]

    def problems(self, settings: Settings) -> list[str]:
        """``defects``, each in one line."""
        return [defect.line() for defect in self.defects(settings)]

    def _of_acks(self) -> list[Defect]:
        found = []
        if not self.replicated:
            found.append(Defect(
                check="kafka-replication", critical=False,
                what=f"replicas {self.replicas}, min.insync.replicas {self.in_sync_min}, unclean election "
                f"{str(self.unclean).lower()}",
                why="an ack may be one machine's memory, so each event is synced to our disk first",
                cure=f"wanted: {REPLICAS_MIN}, {IN_SYNC_MIN}, false",
            ))  # fmt: skip
        if self.replicas <= self.in_sync_min and self.in_sync_min > 1:
            found.append(Defect(
                check="kafka-replication", critical=False,
                what=f"min.insync.replicas is {self.in_sync_min} of {self.replicas} replicas",
                why="with one broker away Kafka takes nothing, and a restart of any of them is an outage",
                cure=f"{REPLICAS_MIN} replicas and min.insync.replicas {IN_SYNC_MIN}",
            ))  # fmt: skip
        return found

    def _of_retention(self, settings: Settings) -> list[Defect]:
        found = []
        if not self.keeps:
            found.append(Defect(
                check="kafka-compaction", critical=True, what="cleanup.policy has compact",
                why="later events of a source would delete earlier ones, so nothing is sent there and all events stay "
                "in the spool, unrouted",
                cure="use delete",
            ))  # fmt: skip
        if self.retention_s < settings.retention_min_s:
            found.append(Defect(
                check="kafka-retention", critical=True, what=f"retention.ms is {self.retention_s * 1000:.0f}",
                why="an outage of the store that is longer loses events",
                cure=f"wanted: {settings.retention_min_s * 1000} at least",
            ))  # fmt: skip
        if self.retention_bytes >= 0:
            found.append(Defect(
                check="kafka-retention", critical=True, what=f"retention.bytes is {self.retention_bytes}",
                why="a busy hour can delete what wasn't read", cure="use -1",
            ))  # fmt: skip
        return found

    def _of_size(self) -> list[Defect]:
        found = []
        wanted = RECORD_BYTES_MAX + RECORD_OVERHEAD_BYTES
        if self.record_bytes_max < wanted:
            found.append(Defect(
                check="kafka-size", critical=False, what=f"max.message.bytes is {self.record_bytes_max}",
                why="larger events are parked", cure=f"{wanted} takes all",
            ))  # fmt: skip
        if self.partitions > PARTITIONS_MAX:
            found.append(Defect(
                check="kafka-partitions", critical=False, what=f"it has {self.partitions} partitions",
                why="a router has two loops and a buffer for each", cure=f"use a topic with {PARTITIONS_MAX} at most",
            ))  # fmt: skip
        return found
