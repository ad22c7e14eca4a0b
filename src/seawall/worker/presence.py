"""Says that this worker is there with its workflows, and finds runs that wait for what no worker has."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from uuid import UUID

from seawall.guard import Heart
from seawall.guard.patience import patiently
from seawall.kernel.alert import Alerts
from seawall.kernel.clock import Clock
from seawall.kernel.error import Unavailable, Uncertain
from seawall.kernel.log import fields, logger
from seawall.kernel.metric import Metrics
from seawall.store.driver import DEPENDENCY
from seawall.store.pool import Store
from seawall.store.workflow import Changes, Work, nobodys, seen
from seawall.worker.settings import Settings

log = logger("worker")

SEEN_S = 2.0
SUMMARY_CHARS_MAX = 300


def live_s(settings: Settings) -> float:
    """How long a worker that isn't seen still counts: its lease has expired by then, and somebody may have it."""
    return max(3 * settings.lease_ttl_s, 2 * SEEN_S)


def say_changes(changes: Changes, *, first: bool = False) -> None:
    """Log what new events start from now on. At a start, which says what is registered, only quietly."""
    if changes.chosen:
        level = logging.DEBUG if first else logging.INFO
        log.log(level, "new events start these workflow versions", extra=fields(workflows=changes.chosen))
    if changes.removed:
        log.warning(
            "new events don't start these any more: no worker has them", extra=fields(workflows=changes.removed)
        )


class Presence:
    """One worker's part in what all workers have.

    Args:
        met: Workflows by the store's id, of which this worker has lately met runs without having them.
        registered: Whether the store knew this worker when it was asked last.
        forgotten: Called when it doesn't any more.
        work: What this worker has seen of its work.
    """

    def __init__(
        self,
        store: Store,
        settings: Settings,
        metrics: Metrics,
        *,
        clock: Clock,
        owner: UUID,
        met: Callable[[], Sequence[int]],
        registered: Callable[[], bool],
        forgotten: Callable[[], None],
        work: Callable[[], Work],
        alerts: Alerts,
    ) -> None:
        self._store = store
        self.settings = settings
        self._clock = clock
        self._owner = owner
        self._met = met
        self._registered = registered
        self._forgotten = forgotten
        self._work = work
        self._alerts = alerts
        self._stranded: list[str] = []
        self._seen_before: Sequence[str] = ()
        metrics.gauge(
            "seawall_stranded_count", "Workflow versions and queues with runs that wait, and that no live worker has."
        ).read = lambda: len(self._stranded)

    async def run(self, heart: Heart) -> None:
        """The supervised loop. It is unready, with the names, while runs wait for what nobody has."""
        while True:
            try:
                await patiently(heart, self._round(), what=DEPENDENCY)
                if self._stranded:
                    heart.unready(f"runs wait for what no live worker has: {', '.join(self._stranded)}")
                else:
                    await heart.beat()
            except (Unavailable, Uncertain) as error:
                heart.unready(str(error))
            await asyncio.sleep(min(SEEN_S, self.settings.lease_ttl_s / 3))
            heart.touch()  # a store that doesn't answer takes its whole time: with the pause it would look like a hang

    async def _round(self) -> None:
        wait_s = live_s(self.settings)
        # Before the store is asked: it can't know what is being registered just now, and once is enough.
        registered = self._registered()
        changes = await seen(self._store, owner=self._owner, live_s=wait_s, work=self._work())
        if changes is not None:
            say_changes(changes)
        elif registered:
            self._forgotten()
        looked = await nobodys(self._store, self._met(), live_s=wait_s)
        # Twice: after an outage all leases have run out and no worker was seen, until they say so again.
        found, self._seen_before = [name for name in looked if name in self._seen_before], looked
        if found:
            self._alerts.raised(
                "workflow-missing", f"runs wait for what no live worker has: {', '.join(found)}"[:SUMMARY_CHARS_MAX],
                unaffected="runs of other workflows", cure="start a worker whose app has it",
            )  # fmt: skip
        else:
            self._alerts.cleared("workflow-missing")
        self._stranded = found
