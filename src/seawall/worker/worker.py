"""The worker's main object: joins leases, refill, executions and flush, and stops them in order."""

from __future__ import annotations

import asyncio
import gc
import os
import random
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from types import TracebackType
from uuid import UUID

from seawall.guard import Supervisor
from seawall.guard.budget import Budget
from seawall.guard.spell import Spells
from seawall.kernel.alert import Alerts
from seawall.kernel.approval import Links
from seawall.kernel.approval import Settings as LinkSettings
from seawall.kernel.clock import Clock
from seawall.kernel.error import Unavailable, Uncertain
from seawall.kernel.log import fields, logger
from seawall.kernel.metric import Metrics
from seawall.kernel.seam.hint import HintChannel
from seawall.store import pool
from seawall.store.end import Ended
from seawall.store.hint import NotifyHints
from seawall.store.lease import Taken, give_way
from seawall.store.pool import Store
from seawall.store.queue import Rule
from seawall.store.workflow import Work
from seawall.worker.bench import Bench
from seawall.worker.cancel import Cancels
from seawall.worker.cron import Crons
from seawall.worker.ear import Ears
from seawall.worker.ending import Endings
from seawall.worker.execution import Execution
from seawall.worker.flush import Flusher
from seawall.worker.hint import Hints, Listening
from seawall.worker.lease import Leases
from seawall.worker.line.admission import Admission
from seawall.worker.presence import Presence, live_s
from seawall.worker.refill import Refiller
from seawall.worker.settings import Settings
from seawall.worker.shard import Held
from seawall.worker.solo import DRAIN_S, Solos
from seawall.worker.timer import Timers
from seawall.worker.usage import Usage
from seawall.workflow import App

log = logger("worker")

CONNECTIONS = 16
"""One for each loop that uses the store, so that no loop waits for another's connection; and those by which runs begin
others."""

STATEMENT_S = 2.0
"""A statement's longest time. Below the supervisor's stall limit: a store that hangs is a reason to be unready, not for
killing the loop that waits for it."""

LAST_FLUSH_S = 2.0
FLUSH_LEAST_S = 0.1
"""What ended in the last moment of the budget is kept all the same; its share for closing pays for it."""

TURN_LOOK_S = 1.0

BROKEN_MAX = 20


def fewer_collections() -> None:
    """Make Python's cyclic garbage collector look less often: for a process that is a worker and nothing else.

    A thousand runs in hand are some ten thousand objects that live for milliseconds and have no cycles; looking through
    them every 700 allocations costs a tenth of the worker's CPU (bench/execution.py). What was imported is never
    looked at again.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 50)


def _brisk(store: pool.Settings) -> pool.Settings:
    """A worker's own bounds: nobody waits for a connection, and no statement outlasts a loop's patience."""
    return replace(
        store,
        connections_max=max(CONNECTIONS, store.connections_max),
        statement_timeout_s=min(STATEMENT_S, store.statement_timeout_s),
        connect_timeout_s=min(STATEMENT_S, store.connect_timeout_s),
        lock_timeout_s=min(STATEMENT_S * 0.75, store.lock_timeout_s),
    )


# Size: it builds and joins all parts of a worker, and is what they tell each other.
class Worker:
    """Runs an app's workflows. ``async with`` it around the supervisor that its loops were registered with.

    Args:
        store: How to reach PostgreSQL.
        owner: Names this process in its leases. Random, or the name of a former process that is certainly dead (its
            lock was free): what that one had is taken at once instead of after ``lease_ttl_s``.
        solo_queue: Run only this queue's suspects, one at a time; see ``until_idle``.
        solo_turn_s: How long one of them may run while others wait behind it; None: as the settings say.
        solo_command: Starts such a process (``worker/solo.py``); empty: somebody else runs suspects.
        die: Ends the process when it must not go on; only a test passes another.
        queues: Serve only these, in a process of their own; empty: all of the app's.
        channels: What hints of replies go through, before PostgreSQL's own.
        broken: Open breakers of steps.
        store_clock: Goes on from the store's time between two looks at it; None: ``clock``. A rehearsal's stands still.
        links: Makes links by which people decide; None: with a key of its own, so that nobody opens them. For tests.
        flusher: Makes the flusher; the benchmark passes one that commits each outcome by itself.
    """

    def __init__(
        self,
        store: pool.Settings,
        app: App,
        settings: Settings,
        *,
        clock: Clock,
        metrics: Metrics,
        owner: UUID,
        chance: random.Random | None = None,
        solo_queue: str | None = None,
        solo_turn_s: float | None = None,
        solo_command: Sequence[str] = (),
        alerts: Alerts | None = None,
        die: Callable[[int], object] = os._exit,
        channels: Sequence[HintChannel] = (),
        queues: Collection[str] = (),
        broken: Callable[[], Sequence[str]] = tuple,
        store_clock: Clock | None = None,
        links: Links | None = None,
        flusher: type[Flusher] = Flusher,
    ) -> None:
        self._solo = solo_queue is not None
        self._turn_s = solo_turn_s or settings.solo_turn_s
        settings = self._fitting(settings)
        limits = _brisk(store)
        self._settings = settings
        self._clock = clock
        self._die = die
        self._store = Store(limits, role="worker")
        alerts = alerts or Alerts(metrics, clock)
        spells = Spells(alerts, clock)
        self._stopped = False
        self._busy_at = clock.monotonic()
        self._flusher = flusher(
            self._store, settings, metrics, settled=self._settled, lost=self._lost, hint=self._hint, die=die
        )
        self._ears = Ears(self._store, metrics, spells, clock=clock)
        chance = chance or random.Random()
        self._usage = Usage(
            self._store, metrics, owner=owner, clock=clock, chance=chance, held=lambda: self._leases.held(),
            queues=lambda: self._leases.queue_names, workflows=lambda: self._leases.workflow_names,
        )  # fmt: skip
        self._bench = Bench(
            settings, self._flusher, self._store,
            ears=self._ears, clock=clock, store_clock=store_clock or clock, metrics=metrics, chance=chance,
            usage=self._usage, links=links or Links(LinkSettings(), os.urandom(32), base=lambda: ""),
            leave=self._leave, spells=spells, alone=self._solo,
        )  # fmt: skip
        self._leases = Leases(
            self._store, settings, app, metrics,
            owner=owner, solo_queue=solo_queue, lost=self._drop_all, taken=self._taken, spells=spells, clock=clock,
            unwritten=self._flusher.has, queues=queues,
        )  # fmt: skip
        self._refiller = Refiller(
            self._store, settings, self._bench, metrics,
            clock=clock, shards=self._leases.held, workflows=lambda: self._leases.workflows,
            rules=self._rules, unkeyed=None if self._solo else self._unkeyed,
            cancels=Cancels(self._bench, clock=clock, ended=self._ended),
        )  # fmt: skip
        self._admission = Admission(
            self._store, metrics, clock=clock, owner=owner, live_s=lambda: live_s(self._settings),
            names=self._limited, workflows=lambda: self._leases.workflows,
            shards=self._leases.held, ready=self._refiller.hint,
        )  # fmt: skip
        self._timers = Timers(self._store, settings, queue_ids=lambda: self._leases.queue_ids, woken=self._woken)
        self._endings = Endings(
            self._store, settings, clock=clock, counted=self._bench.counted, tell=self._timers.tell
        )  # fmt: skip
        self._presence = Presence(
            self._store, settings, metrics,
            clock=clock, owner=owner, met=self._refiller.met, registered=lambda: self._leases.registered,
            forgotten=self._leases.register_again, alerts=alerts,
            work=lambda: Work(self._bench.tried, self._bench.failed, tuple(broken())[:BROKEN_MAX]),
        )  # fmt: skip
        self._crons = Crons(
            self._store, app.crons, metrics, clock=clock, spells=spells, look_s=lambda: 2 * self._settings.timer_s,
            ready=lambda: bool(self._leases.workflows) and not self._bench.parked,
        )  # fmt: skip
        self._hints = Hints([*channels, NotifyHints(self._store)], metrics)
        self._listening = Listening(limits, self._refiller.hint, self._admission.lined, self._woken, self._leases.given)
        self._solos = self._helpers(solo_command, metrics, owner, spells) if solo_command and not self._solo else None

    def _helpers(self, command: Sequence[str], metrics: Metrics, owner: UUID, spells: Spells) -> Solos:
        """Processes for suspects."""
        return Solos(
            self._store, self._settings, metrics,
            command=command, owner=owner, queue_ids=lambda: self._leases.queue_ids,
            workflow_ids=lambda: list(self._leases.workflows), spells=spells,
        )  # fmt: skip

    def _rules(self) -> Mapping[int, Rule]:
        """Of queues. A suspect has the one slot of its process, and only a pause is for it too."""
        rules = self._leases.rules
        return {id: Rule(paused=rule.paused, shards=rule.shards) for id, rule in rules.items()} if self._solo else rules

    def _limited(self) -> set[str]:
        """Names of workflows whose runs may stand in lines, whoever declares them."""
        return {name for rule in self._leases.rules.values() for name in rule.limited}

    def _fitting(self, settings: Settings) -> Settings:
        """A process for suspects has one run at a time, whatever is set."""
        if not self._solo:
            return settings
        return replace(settings, inflight_max=1, refill_runs=1, drain_s=min(DRAIN_S, settings.drain_s))

    def reload(self, settings: Settings) -> None:
        """Go on with other bounds. What is in hand beyond a lower one is finished, and nothing is taken until then."""
        settings = self._fitting(settings)
        self._settings = self._flusher.settings = self._leases.settings = self._refiller.settings = settings
        self._timers.settings = self._presence.settings = self._endings.settings = settings
        if self._solos is not None:
            self._solos.settings = settings

    def register(self, supervisor: Supervisor) -> None:
        """Add its loops, those that others lean on first."""
        supervisor.add("worker.flush", self._flusher.run)
        supervisor.add("worker.deadline", self._bench.deadlines.run)
        supervisor.add("worker.lease", self._leases.run)
        supervisor.add("worker.refill", self._refiller.run)
        supervisor.add("worker.timer", self._timers.run)
        supervisor.add("worker.wait", self._ears.run)
        supervisor.add("worker.beat", self._bench.beats.run)
        supervisor.add("worker.usage", self._usage.run, essential=False)
        if not self._solo:
            supervisor.add("worker.admission", self._admission.run)
            supervisor.add("worker.ending", self._endings.run)
            supervisor.add("worker.cron", self._crons.run, essential=False)
            supervisor.add("worker.presence", self._presence.run, essential=False)
        supervisor.add("worker.hint", self._hints.run, essential=False)
        supervisor.add("worker.listen", self._listening.run, essential=False)
        if self._solos is not None:
            supervisor.add("worker.solo", self._solos.run)

    async def __aenter__(self) -> Worker:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def stop(self, budget: Budget) -> None:
        """The polite part of stopping, while the loops still run: begin nothing, let steps that have begun end and be
        kept, for at most ``drain_s`` of the budget. What is cut off is done again by whoever runs it next."""
        self._bench.parked = self._bench.beats.hasty = True
        self._leases.park()
        if self._solos is not None:
            self._solos.park()
        ours = budget.part(self._settings.drain_s)
        while self._bench.deadlines.steps and not ours.spent:  # noqa: ASYNC110 - once in a process's life
            await asyncio.sleep(0.02)
        await self._flusher.drain(max(FLUSH_LEAST_S, ours.left_s))

    async def close(self) -> None:
        """After the loops have ended: drop what is under way, write what is pending, give the leases back. Bounded;
        harmless when called twice."""
        if self._stopped:
            return
        self._stopped = True
        self._bench.parked = True
        held = self._leases.held()
        tasks = [run.task for shard in held for run in shard.inflight.values() if run.task is not None]
        for shard in held:
            self._drop_all(shard)
        if tasks:
            await asyncio.wait(tasks, timeout=1.0)
        if self._solos is not None:
            await self._solos.close()
        await self._flusher.finish(LAST_FLUSH_S)
        try:
            await self._leases.release()
        except (Unavailable, Uncertain) as error:
            log.warning("the leases were not given back; they expire", extra=fields(cause=str(error)))
        self._bench.close()
        await self._store.close()

    async def until_idle(self) -> None:
        """Return when there has been nothing to run for ``solo_idle_s``, or the turn of the run in hand is over and
        others wait: the end of a process for suspects. What it breaks off begins again in a process of its own, so that
        threads which it left behind can't run beside it."""
        turn: tuple[int, float] = (0, 0.0)
        while True:
            now = self._clock.monotonic()
            run = next((run for held in self._leases.held() for run in held.inflight.values()), None)
            if run is not None:
                self._busy_at = now
                if turn[0] != run.id:
                    turn = (run.id, now + self._turn_s)
                elif now >= turn[1]:
                    turn = (run.id, now + TURN_LOOK_S)
                    if await self._gave_way(run):
                        return
            elif now - self._busy_at > self._settings.solo_idle_s:
                return
            await asyncio.sleep(0.05)

    async def _gave_way(self, run: Execution) -> bool:
        try:
            gave = await give_way(self._store, run.held.lease, run.id)
        except (Unavailable, Uncertain):
            return False
        if gave:
            log.warning("a suspect takes long, and others wait: it goes behind them", extra=run.fields())
        return gave

    # ── what the parts tell each other ──

    def _settled(self, execution: Execution) -> None:
        self._bench.left(execution)
        if execution.final and (parent := execution.parent) is not None:
            self._timers.tell(parent)
        if execution.bereaves:
            self._endings.bereaved(execution.id)
        self._refiller.freed()
        if execution.workflow.allowance is not None:
            execution.gone(self._admission.left)

    def _ended(self, run: Ended) -> None:
        """A run was ended that this worker didn't have in hand."""
        self._endings.bereaved(run.id)
        if run.kin:
            self._timers.tell_of(run.event_id)
        if run.ticket:
            self._hints.add(run.event_id.hex)

    def _woken(self) -> None:
        """Runs were woken, or hints may have been missed: they are ready, or back in their lines."""
        self._refiller.sweep()
        self._admission.soon()

    def _unkeyed(self, held: Held, run_ids: Sequence[int]) -> None:
        self._admission.met(held, run_ids)

    def _hint(self, execution: Execution) -> None:
        self._hints.add(execution.event_id.hex)

    def _lost(self, held: Held) -> None:
        self._leases.forget(held)

    def _drop_all(self, held: Held) -> None:
        """Its runs are somebody else's now, or nobody's: they stop, and nothing more is written of them."""
        for execution in list(held.inflight.values()):
            execution.drop()
            self._bench.left(execution)

    def _taken(self, taken: Taken) -> None:
        self._busy_at = self._clock.monotonic()
        for run in taken.dead:
            self._ended(run)
        if taken.suspects and self._solos is not None:
            self._solos.hint()
        self._refiller.sweep()

    def _leave(self, status: int, reason: str) -> None:
        log.critical("the process ends", extra=fields(reason=reason))
        self._die(status)
