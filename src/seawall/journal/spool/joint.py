"""The journal of a cluster, whole: Kafka, the local log as its spool, the log of parked records, and what forwards.

It opens while Kafka is away, and while it never was there: then everything goes to the spool.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Callable, Collection, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType

from seawall.guard.panel import Panel
from seawall.guard.spell import Spells
from seawall.guard.supervisor import Supervisor
from seawall.journal.cluster import Settings
from seawall.journal.kafka.client import Client
from seawall.journal.kafka.producer import KafkaLog
from seawall.journal.kafka.topic import Look, TopicWatch
from seawall.journal.log import Log
from seawall.journal.settings import Settings as LocalSettings
from seawall.journal.spool.forward import Forwarder, Source
from seawall.journal.spool.leftover import Leftovers
from seawall.journal.spool.order import Order
from seawall.journal.spool.spool import WITHOUT, Places, Spool
from seawall.kernel.alert import Alerts
from seawall.kernel.clock import Clock
from seawall.kernel.error import SeawallError, Unavailable
from seawall.kernel.metric import Metrics
from seawall.kernel.seam.backlog import Stretch
from seawall.kernel.seam.filesystem import Filesystem
from seawall.kernel.seam.flag import Switch, always
from seawall.kernel.seam.journal import Done, Position

FIRST_LOOK_S = 1.0
"""How long an opening waits for Kafka: long enough to begin with it where it is there. Records that wait in the spool
say that it was away when the last process stopped: nobody waits for it then, since senders would, at the door."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Means:
    """What the journal is built from."""

    client: Client
    look: Look  # Admin.look
    settings: Settings
    local: LocalSettings
    folder: Path  # of the spool; that of parked records lies beside it
    on_failure: Callable[[str], None]
    filesystem: Filesystem
    clock: Clock
    metrics: Metrics
    alerts: Alerts
    panel: Panel
    rng: random.Random
    ordered: Callable[[], Collection[bytes]] = frozenset  # ids of sources that are, now
    forwarding: Switch = always  # whether the spool is forwarded
    spool_rate: Callable[[], float | None] = lambda: (
        None
    )  # records a second, as the governor says; None: as settings do


@dataclass(frozen=True, slots=True)
class _Rest:
    at: Position
    end: Position | None = None


class Joint:
    """Implements ``Journal``, and ``Backlog`` of its spool. ``async with`` opens it; leaving spools what waits for
    Kafka, and closes.

    Raises (on entering): as ``Log``.
    """

    def __init__(self, means: Means) -> None:
        self._means = means
        m = means
        self._spells = Spells(m.alerts, m.clock)  # of all: what is forwarded may come back with another forwarder
        self.topic = TopicWatch(m.look, m.settings, clock=m.clock, alerts=m.alerts)
        self.kafka = KafkaLog(m.client, m.settings, self.topic, metrics=m.metrics)
        self.local, self.parked = (
            Log(
                folder,
                local,
                metrics=m.metrics,
                on_failure=m.on_failure,
                filesystem=m.filesystem,
                clock=m.clock,
                alerts=m.alerts,
            )
            for folder, local in (
                (m.folder, m.local),
                (m.folder.with_name(f"{m.folder.name}.parked"), _to_the_last(m.local)),
            )
        )
        places = Places(
            kafka=self.kafka, local=self.local, parked=self.parked, confirmed=lambda: self.topic.confirmed,
            forwarding=self._forwards, answers=lambda: self.topic.answers,
        )  # fmt: skip
        self.spool = Spool(places, m.settings, clock=m.clock, metrics=m.metrics, alerts=m.alerts, rng=m.rng)
        self.order = Order(
            self.spool, m.ordered, spooled=lambda position: position.log_id == self.local.log_id,
            behind=lambda position: self.forwarder.behind(position), settings=m.settings, clock=m.clock,
            metrics=m.metrics,
        )  # fmt: skip
        m.panel.add(self.spool.breaker, without=WITHOUT)
        self.forwarder = self._forwarder(self.local)
        self.returner = self._forwarder(self.parked, until_start=True)
        self.leftovers = Leftovers(
            m.folder.parent, frozenset((self.local.name, self.parked.name)), self._forwarder,
            filesystem=m.filesystem, clock=m.clock,
        )  # fmt: skip
        self._stack = AsyncExitStack()

    @property
    def refusal(self) -> SeawallError | None:
        return self.order.refusal

    def submit(self, payload: bytes, done: Done) -> None:
        self.order.submit(payload, done)

    @property
    def log_id(self) -> bytes:
        """Of the spool: see the seam ``Backlog``."""
        return self.local.log_id

    async def unread(self) -> Sequence[Stretch]:
        """Spooled records that Kafka hasn't."""
        return [_Rest(self.forwarder.at)]

    async def room_bytes(self) -> int:
        """Of the spool's disk."""
        return await self.local.room_bytes()

    def register(self, supervisor: Supervisor) -> None:
        """Add its loops. None of those that need Kafka makes the role unready: accepting doesn't."""
        self.local.register(supervisor)
        self.parked.register(supervisor)
        supervisor.add("journal.spool", self.spool.watch)
        for name, run in (
            ("topic", self.topic.run), ("producer", self.kafka.watch), ("forward", self.forwarder.run),
            ("return", self.returner.run), ("leftover", self.leftovers.run),
        ):  # fmt: skip
            supervisor.add(f"journal.kafka.{name}", run, essential=False)

    def reload(self, local: LocalSettings) -> None:
        """Go on with other settings of the local logs."""
        self.local.reload(local)
        self.parked.reload(_to_the_last(local))

    def report(self) -> dict[str, int]:
        """Counts of this process' life, for its exit report."""
        spool = self.spool
        return {
            "replicated": int(spool.replicated.value), "spooled": int(spool.spooled.value),
            "parked": int(spool.parked.value),
            "forwarded": int(self.forwarder.forwarded.value) + self.leftovers.forwarded,
            "durable": int(spool.replicated.value + spool.spooled.value + spool.parked_fresh.value),
        }  # fmt: skip

    async def __aenter__(self) -> Joint:
        async with AsyncExitStack() as stack:
            for part in (self.local, self.parked, self.forwarder, self.returner, self.kafka):
                await stack.enter_async_context(part)
            # Before Kafka and the logs are closed, in this order: what waits goes to the local log.
            stack.callback(self._stop)
            if not await self.forwarder.holds():
                with contextlib.suppress(Unavailable, TimeoutError):
                    async with asyncio.timeout(FIRST_LOOK_S):
                        await self.topic.look()
            self.spool.tick()
            self._stack = stack.pop_all()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stack.aclose()

    def _stop(self) -> None:
        """What waits for Kafka goes to the local log, and then what waits for that."""
        self.spool.stop()
        self.order.stop()

    def _forwards(self, *, tenant: str = "", source: str = "") -> bool:
        """Whether spooled records are on their way, or would be: the trials of Kafka's breaker are made with them."""
        return self._means.forwarding(tenant=tenant, source=source) and not self.forwarder.unable

    def _topic_id(self) -> bytes:
        return self.topic.topic.id if self.topic.topic is not None else b""

    def _forwarder(self, source: Source, *, until_start: bool = False) -> Forwarder:
        m = self._means
        return Forwarder(
            source, self.kafka, self.spool.breaker, m.settings, park=self.spool.park, filesystem=m.filesystem,
            clock=m.clock, metrics=m.metrics, spells=self._spells, until_start=until_start,
            on=m.forwarding, rate=m.spool_rate,
            troubles=lambda: (self.topic.failures, self.kafka.troubles, self._topic_id()),
        )  # fmt: skip


def _to_the_last(local: LocalSettings) -> LocalSettings:
    """For parked records: they may take what is held back from others. Without a place for one that Kafka refuses, all
    behind it would wait, and their room would never be free again."""
    return replace(local, reserve_bytes=0, resume_bytes=local.fill_bytes)
