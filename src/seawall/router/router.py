"""The router of one machine: finds logs, drains each, and forgets what has been routed for long enough."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Mapping
from functools import partial
from types import TracebackType

from seawall.guard.patience import patiently, rest
from seawall.guard.spell import Spells
from seawall.guard.steady import Steady
from seawall.guard.supervisor import Heart, Supervisor
from seawall.kernel.alert import Alerts
from seawall.kernel.clock import Clock
from seawall.kernel.correlation import LOOKBACK_MAX_S
from seawall.kernel.error import Unavailable, Uncertain
from seawall.kernel.log import fields, logger
from seawall.kernel.metric import Metrics
from seawall.kernel.placement import Placement
from seawall.kernel.seam.flag import Switch, always
from seawall.kernel.seam.journal import Displaced, JournalReader, Position
from seawall.kernel.seam.place import Places
from seawall.router.batch import SECOND_US
from seawall.router.broadcast import Broadcast
from seawall.router.bulk import Bulks
from seawall.router.catalogue import Rulebook
from seawall.router.country import with_countries
from seawall.router.depth import Depths
from seawall.router.drain import Desk, Drain
from seawall.router.governor import DrainGovernor
from seawall.router.meter import Meter
from seawall.router.range import STORE
from seawall.router.replay import Replays
from seawall.router.revoked import Revoked
from seawall.router.settings import Settings
from seawall.store import router as rows
from seawall.store import version
from seawall.store import wait as waits
from seawall.store.drain import BACKLOG, rate
from seawall.store.lease import look
from seawall.store.pool import Store
from seawall.store.queue import virtual_now

log = logger("router")

EVERY_S = 1.0
"""How often new logs, virtual time and expired keys are looked for."""

CHECKPOINTS_MAX = 256
PRUNE_ROWS = 1000
PRUNE_ROUNDS_MAX = 20
THAW_S = 5.0
"""Longest time for letting go of some runs at once."""

PRUNE_GRACE_US = 600 * SECOND_US
"""How long an expired key is kept still, for records that wait unread in a log of another router."""

LOOKBACK_US = int(LOOKBACK_MAX_S * SECOND_US)
ACCEPT_US = SECOND_US
"""An event is received by the clock so much before it is accepted, at most, as far as waits are concerned."""

Logs = Callable[[], Awaitable[Mapping[str, JournalReader]]]
"""Finds all logs there are, by name; for a known name the same reader again. OSError or Unavailable: it can't look."""


class Router:
    """Drains all logs of one data folder into the store.

    Several routers may work on the same logs: the compare-and-set of positions lets one of them win each batch.

    Args:
        runs_expected: There is an app. Until its workflows are registered in this store, events stay in the log: in a
            store that is new, or was restored to before, they would be stored without runs, and never get any.
        places: Knows countries of addresses; None: nobody does.
        geo: Whether ``places`` are asked, by tenant and source.
        draining: Whether a backlog is drained. While it isn't, it stays in its log, and fresh events go on.
        spool_rate: Records a second at which each collector forwards its spool, unless the governor says less.
        placement: Makes what says where a run waits.
        governor: Makes what governs drains.
    """

    def __init__(
        self, store: Store, logs: Logs, settings: Settings, *, clock: Clock, metrics: Metrics,
        runs_expected: bool = False, alerts: Alerts | None = None, places: Places | None = None,
        geo: Switch = always, draining: Switch = always, spool_rate: int | None = None,
        placement: type[Placement] = Placement, governor: type[DrainGovernor] = DrainGovernor,
    ) -> None:  # fmt: skip
        self._store = store
        self._logs = logs
        self._clock = clock
        self._steady = Steady(clock)
        self._metrics = metrics
        self._placement = placement()
        alerts = alerts or Alerts(metrics, clock)
        self._spells = Spells(alerts, clock)
        self._depths = Depths(store, metrics, self._spells, clock=clock)
        self._desk = Desk(
            store=store, settings=settings, clock=clock, placement=self._placement, spells=self._spells,
            rulebook=Rulebook(store, settings, runs_expected=runs_expected, alerts=alerts), depths=self._depths,
            meter=Meter(metrics, Revoked(self._spells)), draining=draining,
            enrich=partial(with_countries, places=places, on=geo),
        )  # fmt: skip
        self._broadcast = Broadcast(store, metrics)
        self._governor = governor(
            store, settings, clock=clock, metrics=metrics, spells=self._spells, spool_rate=spool_rate
        )
        self._bulks = Bulks(store, self._placement, metrics)
        self._replays = Replays(store, self._placement, metrics)
        self._drains: dict[str, Drain] = {}
        self._checkpoints: dict[str, deque[tuple[float, Position]]] = {}
        self._supervisor: Supervisor | None = None

    async def __aenter__(self) -> Router:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Nothing to give back: loops belong to the supervisor, readers to whoever found them."""

    def reload(self, settings: Settings) -> None:
        """Go on with other bounds and rates, from the next batch on."""
        self._desk.settings = self._governor.settings = settings
        for drain in self._drains.values():
            drain.reload()

    def register(self, supervisor: Supervisor) -> None:
        """Add the router's loops; each log that is found adds two more."""
        self._supervisor = supervisor
        supervisor.add("router.discover", self._discover)
        supervisor.add("router.clock", self._refresh)
        supervisor.add("router.depth", self._depths.run, essential=False)
        supervisor.add("router.broadcast", self._broadcast.run, essential=False)
        supervisor.add("router.housekeeping", self._housekeeping, essential=False)
        supervisor.add("router.bulk", self._bulks.run, essential=False)
        supervisor.add("router.replay", self._replays.run, essential=False)
        supervisor.add("router.governor", self._governor.run, essential=False)

    async def _discover(self, heart: Heart) -> None:
        while True:
            try:
                found = await patiently(heart, _find(self._logs), what="journal folder")
            except (OSError, Unavailable) as error:
                await rest(heart, EVERY_S, reason=f"journal folder: {error}")
                continue
            for name, reader in found.items():
                if name not in self._drains:
                    self._begin(name, reader)
            await heart.beat()
            await asyncio.sleep(EVERY_S)

    def _begin(self, name: str, reader: JournalReader) -> None:
        assert self._supervisor is not None
        drain = self._drains[name] = Drain(name, reader, self._desk)
        self._checkpoints[name] = deque(maxlen=CHECKPOINTS_MAX)
        lag = self._metrics.gauge("seawall_router_lag_seconds", "Age of the oldest unread record of a log.", log=name)
        lag.read = lambda: self._age_s(drain)
        count = self._metrics.gauge(
            "seawall_router_ranges_count", "Stretches of a log that are left to read.", log=name
        )
        count.read = lambda: drain.ranges.count
        self._supervisor.add(f"router.fresh.{name}", drain.fresh)
        self._supervisor.add(f"router.backlog.{name}", drain.backlog)
        log.debug("a log is routed", extra=fields(log=name, log_id=reader.log_id.hex()))

    def _age_s(self, drain: Drain) -> float:
        behind_us = drain.ranges.waiting_us
        return max(0, self._clock.wall_us() - behind_us) / SECOND_US if behind_us else 0.0

    async def _refresh(self, heart: Heart) -> None:
        """Read each queue's virtual time, and the backlog's rate; without the store the last ones are good enough."""
        while True:
            try:
                self._spells.rest()
                # Who first looks at a promoted server makes its numbers leap; better here than in a batch.
                await patiently(heart, look(self._store), what=STORE)
                self._placement.observe(*await patiently(heart, virtual_now(self._store), what=STORE))
                self._steer(await patiently(heart, rate(self._store, BACKLOG), what=STORE))
            except (Unavailable, Uncertain) as error:
                await rest(heart, EVERY_S, reason=str(error))
                continue
            await heart.beat()
            await asyncio.sleep(EVERY_S)

    def _steer(self, backlog_rate: float | None) -> None:
        if backlog_rate != self._desk.backlog_rate:
            self._desk.backlog_rate = backlog_rate
            for drain in self._drains.values():
                drain.reload()

    async def _housekeeping(self, heart: Heart) -> None:
        """Delete what nobody can need any more: segments and dedupe keys. More logs may be found in mid-round."""
        while True:
            try:
                stays = [why for each in [*self._drains.items()] if (why := await self._forget(heart, *each))]
                await self._prune(heart)
                await self._tell_progress(heart)
                await self._thaw(heart)
            except (Unavailable, Uncertain) as error:
                stays = [str(error)]
            if stays:
                await rest(heart, EVERY_S, reason="; ".join(stays))
            else:
                await heart.beat()
                await asyncio.sleep(EVERY_S)

    async def _forget(self, heart: Heart, name: str, drain: Drain) -> str:
        """Let go of segments before a checkpoint that has been durable for ``journal_keep_s``; why they stay, or "".

        Checkpoints are remembered from when we saw them, so a restart only makes us wait anew: a store that was
        restored to an older state still finds its records in the log.
        """
        at = await patiently(heart, drain.ranges.checkpoint(), what=STORE)
        if at is None:
            return ""
        seen, now, keep_s = self._checkpoints[name], self._clock.monotonic(), self._desk.settings.journal_keep_s
        if not seen or now - seen[-1][0] >= keep_s / CHECKPOINTS_MAX * 2:
            seen.append((now, at))
        old: tuple[float, Position] | None = None
        while seen and now - seen[0][0] >= keep_s:
            old = seen.popleft()
        # A position that went back (a restore) makes records before the older checkpoint needed again.
        if old is not None and at >= old[1]:
            try:
                self._desk.meter.forgotten.value += drain.reader.forget(old[1])
            except Displaced:
                seen.clear()  # checkpoints of a log that isn't this one say nothing about it
            except Unavailable as error:
                seen.appendleft(old)
                return f"log {name}: routed segments stay: {error}"
        return ""

    async def _prune(self, heart: Heart) -> None:
        """Delete dedupe keys that had expired before the oldest unread record came."""
        if not self._drains:
            return  # nobody knows yet what is unread
        now_us = self._steady.now_us()
        oldest_us = [now_us if d.ranges.behind_us is None else d.ranges.behind_us for d in self._drains.values()]
        before_us = min([now_us, *oldest_us]) - PRUNE_GRACE_US
        if before_us <= 0:
            return
        for _ in range(PRUNE_ROUNDS_MAX):
            work = rows.prune_dedupe(self._store, before_us=before_us, rows_max=PRUNE_ROWS)
            if await patiently(heart, work, what=STORE) < PRUNE_ROWS:
                break
        for _ in range(PRUNE_ROUNDS_MAX):
            work = waits.prune(self._store, before_us=before_us - LOOKBACK_US, rows_max=PRUNE_ROWS)
            if await patiently(heart, work, what=STORE) < PRUNE_ROWS:
                break

    async def _thaw(self, heart: Heart) -> None:
        """Let go of runs that were held while their workflow was frozen: as a backlog, beside what is fresh."""

        def place(queue_id: int, tenant: str) -> int:
            return self._placement.next(queue_id, tenant, backlog=True)

        for _ in range(PRUNE_ROUNDS_MAX):
            work = version.thaw(self._store, place, timeout_s=THAW_S)
            if await patiently(heart, work, what=STORE) < version.THAW_MAX:
                break

    async def _tell_progress(self, heart: Heart) -> None:
        """Say up to when all logs are routed: no run may hear before that that nothing came."""
        if passed := _passed(self._drains.values()):
            await patiently(heart, waits.progress(self._store, passed), what=STORE)


def _passed(drains: Iterable[Drain]) -> list[tuple[bytes, int]]:
    """By log, up to when it is routed. One that lies there twice, in a copy too, is as far as the later of both."""
    found: dict[bytes, int] = {}
    for drain in drains:
        if us := drain.ranges.passed_us:
            found[drain.reader.log_id] = min(us - ACCEPT_US, found.get(drain.reader.log_id, us))
    return [*found.items()]


async def _find(logs: Logs) -> Mapping[str, JournalReader]:
    return await logs()
