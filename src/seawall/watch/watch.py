"""Looks at everything, every few seconds, and says what is wrong: alerts in this process, beside those of all roles.

What this machine's roles say of themselves is looked at here, by their sockets; what all machines share (the queues) by
whichever watch has the lease. Both are rules without I/O (``progress``, ``ledger``, ``queue``, ``verdict``).
"""

from __future__ import annotations

import asyncio
import random
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Final, Protocol
from uuid import UUID

from seawall.guard import Heart, Supervisor
from seawall.kernel.alert import Alerts
from seawall.kernel.clock import Clock
from seawall.kernel.error import SeawallError, Unavailable, Uncertain
from seawall.kernel.metric import Metrics
from seawall.kernel.seam.panel import AlertLine
from seawall.store import report
from seawall.store import watch as rows
from seawall.store.pool import Store
from seawall.store.watch import WAITING_MAX, Drawn, QueueState
from seawall.watch.health import RoleHealth, read_metrics
from seawall.watch.history import History
from seawall.watch.lapse import lapsed
from seawall.watch.ledger import Account, Count
from seawall.watch.progress import Restarts, silent, stalled
from seawall.watch.queue import QueueLook, QueueMemory, Spread, late
from seawall.watch.setting import Settings
from seawall.watch.verdict import Finding, Rule, Verdict
from seawall.watch.webhook import Webhook, checked

LOOK_S: Final = 2.0
STORE_S: Final = 10.0
LEASE_S: Final = 25.0
WINDOW_S: Final = 120.0
ASK_S: Final = 1.0
QUERY_S: Final = 2.5
BEAT_S: Final = 0.5
LOAD_S: Final = 5.0
"""So long nothing is told while the store hasn't said what a former life of this process has told."""

START_S: Final = 60.0
"""A platform that starts may take so long: until then nobody is called silent, or stalled."""

_NUMBER = re.compile(rb"^(seawall_\w+)(?:\{([^}]*)\})? ([0-9.eE+-]+)$", re.MULTILINE)


class Roles(Protocol):
    """What watch asks of all roles of this machine (``fleet``). Every answer comes within about a second."""

    async def healths(self) -> Sequence[RoleHealth]:
        """Of each role that there should be, but the one that asks."""

    async def alerts(self) -> tuple[Sequence[AlertLine], Sequence[str]]:
        """What is wrong now, and the roles that couldn't be asked."""


class Watch:
    """Watches. Its loops aren't essential to the role that it lives in: what they find is shown, not that role's fault.

    Args:
        roles: This machine's.
        ledger: Sockets of a collector and its router, which can be balanced; None: they can't here.
        machine: Its name in the history, the same after a restart.
        owner: This process, for the lease.
    """

    def __init__(
        self, store: Store, settings: Settings, roles: Roles, *, ledger: tuple[Path, Path] | None, machine: str,
        owner: UUID, clock: Clock, metrics: Metrics, alerts: Alerts, rng: random.Random,
    ) -> None:  # fmt: skip
        self._store = store
        self._settings = settings
        self._roles = roles
        self._ledger = ledger
        self._owner = owner
        self._clock = clock
        self._alerts = alerts
        self.webhook = Webhook(settings, clock=clock, metrics=metrics, rng=rng)
        self._history = History(store, machine=machine, clock=clock, metrics=metrics, tell=self.webhook.tell)
        self._restarts = Restarts()
        self._account = Account()
        self._queues: dict[str, QueueMemory] = {}
        self._compared_at = float("-inf")  # with what queues were like before
        self._leads = False
        self._began = clock.monotonic()
        self._silent = Rule("role-silent", 10.0, 5.0, label="child")
        self._stalled = Rule("loop-without-progress", 20.0, 10.0, label="child")
        self._balance = Rule("ledger-imbalance", 30.0, 30.0)
        self._away = Rule("store-away", 10.0, 4.0)
        self._late = Rule("queue-late", settings.late_for_s, 30.0, label="queue")
        self._grows = Rule("queue-grows", STORE_S, 30.0, label="queue")
        self._slower = Rule("queue-slower", 60.0, 60.0, label="queue")
        self._lapsed = Rule("workflow-lapsed", 0.0, 0.0, label="workflow")
        self.store_s = min(STORE_S, max(LOOK_S, settings.late_for_s))
        """Between two looks at the queues: what is bad for as long as it must be is seen then, not up to 10 s later."""
        metrics.gauge("seawall_watch_leads_count", "1: this process watches the queues.").read = lambda: self._leads

    def reload(self, settings: Settings) -> None:
        """Go on with other settings. Raises Misconfigured before anything changed."""
        checked(settings)
        self._settings = self.webhook.settings = settings

    def register(self, supervisor: Supervisor) -> None:
        """Add its loops."""
        supervisor.add("watch.look", self._look_again, essential=False)
        supervisor.add("watch.store", self._ask_again, essential=False)
        supervisor.add("watch.webhook", self.webhook.run, essential=False)

    async def __aenter__(self) -> Watch:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._leads:
            self._leads = False
            try:
                await rows.leave(self._store, self._owner, timeout_s=ASK_S)
            except (Unavailable, Uncertain):
                return  # it expires

    # ── this machine's roles ──
    async def _look_again(self, heart: Heart) -> None:
        while True:
            await self.look()
            await _pause(heart, LOOK_S, "")

    async def look(self) -> None:
        """Look at the roles once, and tell of what changed."""
        healths, trouble, count = await asyncio.gather(self._roles.healths(), self._trouble(), self._counted())
        now = self._clock.monotonic()
        if now - self._began > START_S:
            self._silent.apply(silent(healths), self._alerts, now)
            self._stalled.apply(stalled(healths, self._restarts, now), self._alerts, now)
        self._away.apply({"": _away(trouble)}, self._alerts, now)
        if self._ledger is not None:
            self._balance.apply({"": self._account.step(count)}, self._alerts, now)
        if self._history.loaded or now - self._began > LOAD_S:
            self._history.saw(*await self._roles.alerts())

    async def _trouble(self) -> str:
        try:
            await report.ping(self._store, timeout_s=ASK_S)
        except SeawallError as error:
            return str(error)
        return ""

    async def _counted(self) -> Count | None:
        """What collector and router count: the collector first, so that what comes in between is no imbalance."""
        if self._ledger is None:
            return None
        collector, router = self._ledger
        durable = numbers(await read_metrics(collector, ASK_S) or b"")
        handled = numbers(await read_metrics(router, ASK_S) or b"")
        lag_s = handled.get("seawall_router_lag_seconds")
        if "seawall_journal_records_total" not in durable or lag_s is None:
            return None
        stored = handled.get("seawall_router_events_total", 0.0) + handled.get("seawall_router_duplicates_total", 0.0)
        return Count(
            durable=durable["seawall_journal_records_total"], handled=stored, lag_s=lag_s,
            reread=handled.get("seawall_router_reread_total", 0.0),
        )  # fmt: skip

    # ── what all machines share ──
    async def _ask_again(self, heart: Heart) -> None:
        while True:
            trouble = ""
            asking = asyncio.create_task(self.ask(), name="watch.ask")
            try:
                while not asking.done():
                    heart.touch()
                    await asyncio.wait([asking], timeout=BEAT_S)
                await asking
            except (Unavailable, Uncertain) as error:
                trouble = str(error)
            finally:
                asking.cancel()
            await _pause(heart, self.store_s, trouble)

    async def ask(self) -> None:
        """Keep what was found, and look at the queues and workflows if nobody else does.

        Raises:
            Unavailable, Uncertain: The store is away: what was raised stays.
        """
        await self._history.load()
        await self._history.write()
        self._leads = await rows.lead(self._store, self._owner, ttl_s=LEASE_S, timeout_s=QUERY_S)
        if not self._leads:
            for rule in (self._late, self._grows, self._slower, self._lapsed):
                rule.end(self._alerts)
            self._queues.clear()
            return
        found = await rows.queues(self._store, window_s=WINDOW_S, timeout_s=QUERY_S)
        self._judge([self._seen(one) for one in found])
        gone = await rows.lapsed(self._store, timeout_s=QUERY_S)
        self._lapsed.apply({one.name: lapsed(one) for one in gone}, self._alerts, self._clock.monotonic())

    def _judge(self, looks: Sequence[QueueLook]) -> None:
        now = self._clock.monotonic()
        self._queues = {look.name: self._queues.get(look.name, QueueMemory()) for look in looks}
        self._late.apply({look.name: late(look) for look in looks}, self._alerts, now)
        if now - self._compared_at < STORE_S:  # minutes are compared: more looks cost more, and say nothing more
            return
        self._compared_at = now
        grows = {look.name: self._queues[look.name].growing(look, now) for look in looks}
        self._grows.apply(grows, self._alerts, now)
        slower = {
            look.name: self._queues[look.name].slower(look, now, raised=self._slower.is_raised(look.name))
            for look in looks
        }
        self._slower.apply(slower, self._alerts, now)

    def _seen(self, one: QueueState) -> QueueLook:
        return QueueLook(
            name=one.name, paused=one.paused, waiting=one.waiting, capped=one.waiting >= WAITING_MAX,
            target_s=one.latency_s if one.latency_s is not None else self._settings.latency_s, oldest_s=one.oldest_s,
            starts=_spread(one.starts), ends=_spread(one.ends),
        )  # fmt: skip


def _spread(drawn: Drawn | None) -> Spread | None:
    return Spread(drawn.count, drawn.p50_s, drawn.p99_s) if drawn is not None else None


def _away(trouble: str) -> Finding:
    if not trouble:
        return Finding(verdict=Verdict.FINE)
    return Finding(
        verdict=Verdict.BAD, summary=f"the store doesn't answer: {trouble}",
        unaffected="events are accepted and kept; they are routed and run when it is back",
        cure="look at PostgreSQL; seawall doctor",
    )  # fmt: skip


def numbers(page: bytes) -> Mapping[str, float]:
    """Of a page of metrics: each name's sum over all its labels. Lags are no sum: the largest."""
    found: dict[str, float] = {}
    for name, _, value in _NUMBER.findall(page):
        key, number = name.decode(), float(value)
        found[key] = (
            max(found[key], number) if key.endswith("_lag_seconds") and key in found else found.get(key, 0.0) + number
        )
    return found


async def _pause(heart: Heart, seconds: float, trouble: str) -> None:
    """Wait, and say meanwhile that we live, and what is wrong."""
    left_s = seconds
    while left_s > 0:
        if trouble:
            heart.unready(trouble)
        else:
            await heart.beat()
        await asyncio.sleep(min(BEAT_S, left_s))
        left_s -= BEAT_S
