"""Everything that intake may need is broken, one row after the other, on real parts: Redis, Kafka, the store, the disk,
the collector itself, and all at once (incidents I4 and I5).

Each row is judged by the ledger of its own traffic: every answer is 2xx, none is late, and nothing that was accepted is
lost, invented, corrupted or run twice; and by what the collectors themselves say when they stop. ``make test-parts``
ends with a table of the rows. Marked ``parts``; the long forms are for ``make soak``.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from pathlib import Path

import outage_fault as fault
import pytest
from disk_rig import needs_root
from outage_fault import Run
from outage_rig import Rig, Sender, Told

from seawall.lab.checker.verdict import Verdict
from seawall.lab.checker.verify import verify
from seawall.lab.platform import Platform
from seawall.testing.postgres import PostgresServer

pytestmark = pytest.mark.parts

SHORT_S, LONG_S = 3.0, 60.0
DRAIN_S = 120.0
FELT_MIN = 10

REDIS_S = 0.25
KAFKA_S = 1.1
STALLS = 2
"""A machine that is late itself is forgiven: the sender may be, and the collector."""

RESTART_S = 10.0
"""By how much the slowest answer may be slower than the slowest before the fault. Over a restart, senders wait in the
queue of the socket, which the platform's parent holds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One fault.

    Attributes:
        name: As in the table.
        broken: The context of it.
        slower_s: See above.
        meanwhile: What happens inside of it.
        whole: It is broken from before the traffic begins until after its end.
        proof: What counted FELT_MIN afterwards, if it happened: a count of the exit reports, or a metric.
        also: Answers that are right here, beside 202; 0: none, since the connection was cut.
    """

    name: str
    broken: Callable[[Run], AbstractContextManager[None]]
    slower_s: float
    proof: str = ""
    meanwhile: Callable[[Run], None] = fault.hold
    whole: bool = False
    also: frozenset[int] = frozenset()
    killed: bool = False  # by -9: those collectors say nothing


ALONE = "seawall_limiter_local_total"
CUT = frozenset({0})

ROWS: Sequence[Row] = (
    Row(name="nothing is wrong", broken=fault.nothing, slower_s=REDIS_S),
    Row(name="Redis killed", broken=fault.redis_killed, slower_s=REDIS_S, proof=ALONE),
    Row(name="Redis stopped (SIGSTOP)", broken=fault.redis_stopped, slower_s=REDIS_S, proof=ALONE),
    Row(name="Redis 2 s slow", broken=fault.redis_slow, slower_s=REDIS_S, proof=ALONE),
    Row(name="Redis a black hole", broken=fault.redis_hole, slower_s=REDIS_S, proof=ALONE),
    Row(name="Redis -LOADING", broken=fault.redis_loading, slower_s=REDIS_S, proof=ALONE),
    Row(name="Redis fails over", broken=fault.redis_fails_over, slower_s=REDIS_S, proof=ALONE),
    Row(name="Redis -READONLY", broken=fault.redis_readonly, slower_s=REDIS_S, proof=ALONE),
    Row(name="Redis FLUSHALL", broken=fault.redis_forgets, slower_s=REDIS_S),
    Row(name="Redis maxmemory", broken=fault.redis_full, slower_s=REDIS_S, proof=ALONE),
    Row(name="Kafka's leader killed", broken=fault.kafka_leader_killed, slower_s=KAFKA_S, proof="spooled"),
    Row(name="Kafka killed", broken=fault.kafka_killed, slower_s=KAFKA_S, proof="spooled"),
    Row(name="Kafka's leader stopped (SIGSTOP)", broken=fault.kafka_leader_stopped, slower_s=KAFKA_S, proof="spooled"),
    Row(name="Kafka stopped (SIGSTOP)", broken=fault.kafka_stopped, slower_s=KAFKA_S, proof="spooled"),
    Row(name="Kafka a black hole", broken=fault.kafka_hole, slower_s=KAFKA_S, proof="spooled"),
    Row(
        name="Kafka: two gone, NOT_ENOUGH_REPLICAS", broken=fault.kafka_two_gone, slower_s=KAFKA_S, proof="spooled"
    ),
    Row(name="Kafka's leader changes", broken=fault.kafka_leader_changes, slower_s=KAFKA_S),
    Row(
        name="Kafka: message too large", broken=fault.kafka_takes_less, slower_s=RESTART_S, proof="parked", also=CUT
    ),
    Row(
        name="Kafka's queue full", broken=fault.kafka_queue_short, slower_s=KAFKA_S, proof="spooled", whole=True
    ),
    Row(name="Store killed", broken=fault.store_killed, slower_s=KAFKA_S),
    Row(name="Store gone at start", broken=fault.store_gone_at_start, slower_s=RESTART_S, also=CUT),
    Row(name="Store gone throughout", broken=fault.store_gone_throughout, slower_s=KAFKA_S, whole=True),
    Row(
        name="Spool's disk full", broken=fault.spool_on_small_disk, slower_s=KAFKA_S, proof="spooled", whole=True,
        meanwhile=fault.disk_full, also=frozenset({503}),
    ),
    Row(
        name="Collector restarted in mid-outage", broken=fault.kafka_hole, slower_s=RESTART_S, proof="spooled",
        meanwhile=fault.restart, also=CUT,
    ),
    Row(
        name="Collector killed -9 in mid-outage", broken=fault.kafka_hole, slower_s=RESTART_S, proof="spooled",
        meanwhile=fault.kill, also=CUT, killed=True,
    ),
    Row(
        name="All at once", broken=fault.all_gone, slower_s=RESTART_S, proof="spooled", meanwhile=fault.kill, also=CUT,
        killed=True,
    ),
)  # fmt: skip

EACH = [
    pytest.param(row, id=row.name, marks=needs_root if row.broken is fault.spool_on_small_disk else ())
    for row in ROWS
]  # fmt: skip


@pytest.fixture(scope="module")
def rig(tmp_path_factory: pytest.TempPathFactory, _prepared: PostgresServer) -> Iterator[Rig]:
    """One for all rows: each must leave behind what the next can bear."""
    with PostgresServer(prepared=_prepared) as store, Rig(tmp_path_factory.mktemp("outage"), store) as made:
        yield made


Record = Callable[[str, object], None]


def _judge(rig: Rig, row: Row, path: Path, record: Record, *, hold_s: float) -> None:
    rig.settle()
    began, offset = time.monotonic(), rig.log.stat().st_size
    with Platform(rig.tree.place) as platform:
        sender = Sender(platform, path, seed=ROWS.index(row))
        run = Run(rig, sender, hold_s, rig.ends())
        rig.fresh = False
        _act(row, run)
        verdict = verify(platform, sender.book(), timeout_s=DRAIN_S, workflows=("weigh",), must_succeed=True)
        sender.close()
    told, alone = sender.told(), rig.metric(ALONE)
    rig.replace(signal.SIGTERM)
    copies, two_ids = rig.copies(run.ends)
    record("outage", {
        "row": row.name, **verdict.counts(), "copies": copies, "slowest_ms": round(told.slowest_s * 1000),
        "seconds": round(time.monotonic() - began, 1),
    })  # fmt: skip
    reports = rig.reports(offset)
    assert verdict.holds and not two_ids, f"{verdict.counts()} {verdict.examples}\n{rig.tree.log_tail(40)}"
    _check_answers(row, told)
    _check_reports(row, verdict, reports)
    felt = alone if row.proof == ALONE else sum(said[row.proof] for said in reports) if row.proof else FELT_MIN
    assert felt >= FELT_MIN, f"the fault was felt {felt} times: {reports}"


def _act(row: Row, run: Run) -> None:
    """Traffic, and the fault in it or around it."""
    with ExitStack() as stack:
        if row.whole:
            stack.enter_context(row.broken(run))
        with run.sender as sender:
            sender.goes_on()
            sender.broken_us = time.time_ns() // 1000
            with row.broken(run) if not row.whole else fault.nothing(run):
                row.meanwhile(run)
            sender.goes_on()


def _check_answers(row: Row, told: Told) -> None:
    assert told.statuses.keys() <= {202} | row.also, told
    assert told.statuses[202] > 200, told
    assert told.slowest_s <= told.healthy_s + row.slower_s + STALLS * told.stall_s, told


def _check_reports(row: Row, verdict: Verdict, reports: Sequence[Mapping[str, int]]) -> None:
    """What the collectors of this row said when they stopped."""
    assert reports, "no exit report"
    accepted = sum(said["accepted"] for said in reports)
    assert all(said["lost"] == 0 for said in reports), reports
    # An answer that a cut connection swallowed was told to nobody; what was accepted is there all the same.
    assert accepted <= verdict.accepted + verdict.recovered, reports
    assert row.killed or accepted >= verdict.accepted, reports
    # What lay in the spool at a kill is forwarded by the next one, beside its own.
    assert sum(said["forwarded"] for said in reports) >= sum(said["spooled"] for said in reports), reports


@pytest.mark.parametrize("row", EACH)
def test_an_outage_costs_nothing(rig: Rig, row: Row, tmp_path: Path, record_property: Record) -> None:
    _judge(rig, row, tmp_path / "ledger", record_property, hold_s=SHORT_S)


@pytest.mark.soak
@pytest.mark.parametrize("row", EACH)
def test_a_minutes_outage_costs_nothing(rig: Rig, row: Row, tmp_path: Path, record_property: Record) -> None:
    _judge(rig, row, tmp_path / "ledger", record_property, hold_s=LONG_S)
