"""Which weak parts there are. Light: whoever only names them imports none."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class WeakPart:
    """One protection that is missing."""

    name: str
    incident: str  # I1 … I5, or "": what research says, and none of the five
    lacks: str  # in words, as docs/lab.md says it
    making: str  # module:class, of what puts it in place
    canary: str  # the test that shows it to a checker: in tests/lab/canary/


PARTS = {
    part.name: part
    for part in (
        WeakPart(
            name="deaf-listener", incident="I1",
            lacks="listens for replies on one channel, once: no reconciling read, no echo, no re-reads",
            making="seawall.lab.weak.deaf:DeafListening", canary="test_deaf_listener.py",
        ),
        WeakPart(
            name="unwatched-listener", incident="I1",
            lacks="as `deaf-listener`, and nobody notices when its loop ends; SIGUSR2 ends it from inside",
            making="seawall.lab.weak.mortal:UnwatchedListening", canary="test_unwatched_listener.py",
        ),
        WeakPart(
            name="mortal-listener", incident="I1",
            lacks="nothing: the real listener, which SIGUSR2 ends from inside; for runs with the protection",
            making="seawall.lab.weak.mortal:MortalListening", canary="test_unwatched_listener.py",
        ),
        WeakPart(
            name="memory-ack", incident="I4",
            lacks="answers 202 from memory; what Kafka hasn't is written at the end, in 4 s, under a kill after 3 s",
            making="seawall.lab.weak.memory:MemoryAcks", canary="test_memory_ack.py",
        ),
        WeakPart(
            name="patient-client", incident="I4",
            lacks="waits up to 20 s for Redis and Kafka, and has no breakers",
            making="seawall.lab.weak.client:PatientClients", canary="test_clients.py",
        ),
        WeakPart(
            name="unbroken-client", incident="I4",
            lacks="waits 750 ms for Redis and Kafka, for each event anew: no breakers",
            making="seawall.lab.weak.client:UnbrokenClients", canary="test_clients.py",
        ),
        WeakPart(
            name="shared-queue", incident="I2",
            lacks="one queue for all work: no reserved slots, no fair share of tenants",
            making="seawall.lab.weak.queue:OneQueue", canary="test_queues.py",
        ),
        WeakPart(
            name="unfair-queue", incident="I2",
            lacks="queues are first in, first out over all tenants",
            making="seawall.lab.weak.queue:Unfair", canary="test_queues.py",
        ),
        WeakPart(
            name="free-drain", incident="I5",
            lacks="drains at once as fast as they may at most: no governor",
            making="seawall.lab.weak.drain:FreeDrains", canary="test_free_drain.py",
        ),
        WeakPart(
            name="unready-flag", incident="I5",
            lacks="flags are what somebody configured, whether what they require is ready or not",
            making="seawall.lab.weak.flag:UnreadyFlags", canary="test_unready_flag.py",
        ),
        WeakPart(
            name="retried-fsync", incident="",
            lacks="a failed sync is tried again, and the second one is believed (fsyncgate)",
            making="seawall.lab.weak.disk:RetriedSyncs", canary="test_retried_fsync.py",
        ),
    )
}  # fmt: skip


WHOLE = frozenset({"mortal-listener"})
"""Those that lack nothing: a run with the protections may have them."""


def program(names: Sequence[str]) -> tuple[str, ...]:
    """What stands for ``seawall`` in a command, so that the platform has these weak parts; none: the product itself."""
    if not names:
        return sys.executable, "-m", "seawall"
    return sys.executable, "-m", "seawall.lab.weak", "--parts", ",".join(names), "--"
