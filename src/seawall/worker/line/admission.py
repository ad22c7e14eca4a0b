"""Lets runs in that wait in lines for others of their key, or for their turn under a rate.

Three things tell it where to look: a run of the key ended here, the router or a worker put new ones into the line, or a
rate's time has come. All of these may be lost; so whoever has a queue's first shard also looks through all its lines, a
stretch each second. Of several workers that look at one key at once the second waits for the first (store/line.py).
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from uuid import UUID

from seawall.guard import Heart
from seawall.guard.patience import patiently
from seawall.guard.retry import Backoff
from seawall.kernel.allowance import TENANT, span
from seawall.kernel.clock import Clock
from seawall.kernel.error import Unavailable, Uncertain
from seawall.kernel.json import parse
from seawall.kernel.made import Made
from seawall.kernel.metric import Metrics
from seawall.kernel.placement import Placement
from seawall.store import line
from seawall.store.driver import DEPENDENCY
from seawall.store.lease import Shard
from seawall.store.line import ADMIT, ANEW, MOVE, Change, Placed, Version
from seawall.store.pool import Store
from seawall.store.queue import virtual_now
from seawall.worker.line.held import HeldRuns
from seawall.worker.line.keying import Keying
from seawall.worker.line.look import Looks
from seawall.worker.line.turnstile import Standing, Verdict, decide
from seawall.worker.shard import Held
from seawall.workflow import Workflow

EVERY_S = 1.0
"""How often it is looked what is declared, and through the next stretch of lines."""

PASS_LINES, PASS_RUNS, EACH_MIN = 200, 1600, 8
"""Lines of one transaction, runs that it reads of all of them, and of each at least."""

PASS_COUNTS = 20_000
"""Rows that one transaction counts, about: fewer lines at once where limits are high."""

SWEEP_LINES = 500
PRUNE_ROWS = 5000
PRUNE_S = 60.0
BACKOFF_MIN_S, BACKOFF_MAX_S = 0.05, 0.5
SHORT_S, SOON_S = 0.001, 0.1


class Admission:
    """One worker's part in it.

    Args:
        owner: Names this worker in its leases.
        names: Of workflows that declare limits or rates, or have done so; nothing is asked of the store without any.
        workflows: By the store's id.
        shards: In hand now.
        ready: Called with a queue and a run of it that was let in, for those in our hands.
        live_s: For how long a worker counts that wasn't seen.
    """

    def __init__(
        self,
        store: Store,
        metrics: Metrics,
        *,
        clock: Clock,
        owner: UUID,
        names: Callable[[], Iterable[str]],
        workflows: Callable[[], Mapping[int, Workflow]],
        shards: Callable[[], Iterable[Held]],
        ready: Callable[[int, Made], None],
        live_s: Callable[[], float],
    ) -> None:
        self._store = store
        self._clock = clock
        self._owner = owner
        self._names = names
        self._workflows = workflows
        self._shards = shards
        self._ready = ready
        self._live_s = live_s
        self._placement = Placement()
        self._versions: dict[str, list[Version]] = {}
        self._looks = Looks()
        self._keying = Keying(store, workflows)
        self._held = HeldRuns(store)
        self._cursors: dict[str, bytes] = {}  # by workflow, how far its lines were looked through
        self._know_at = self._prune_at = 0.0
        self._let_in = metrics.counter(
            "seawall_runs_let_in_total", "Runs that waited for others of their key or for their turn, and were let in."
        )
        self._passes = metrics.counter("seawall_line_passes_total", "Looks at lines of runs that wait to be let in.")

    # ── what tells it where to look ──

    def left(self, workflow: Workflow, tenant: str, body: bytes) -> None:
        """A run isn't under way any more: its keys may have room."""
        allowance = workflow.allowance
        if allowance is None or not allowance.limits:
            return
        value = parse(body)[0] if any(rule.key not in (None, TENANT) for rule in allowance.limits) else None
        self._looks.add(workflow.name, allowance.keys(tenant, value)[0])

    def lined(self, workflow_id: int, key: bytes) -> None:
        """A line has new runs. One worker looks for all."""
        workflow = self._workflows().get(workflow_id)
        if workflow is not None and any(version.leads for version in self._versions.get(workflow.name, ())):
            self._looks.add(workflow.name, (key,))

    def met(self, held: Held, run_ids: Iterable[int]) -> None:
        """A refill read runs without keys, of workflows that have rules."""
        self._keying.met(held, run_ids)
        self._looks.wake.set()

    def soon(self) -> None:
        """Runs may have gone back into lines, nobody knows which."""
        if self._versions:
            self._know_at = min(self._know_at, self._clock.monotonic() + SOON_S)
            self._looks.wake.set()

    # ── the loop ──

    async def run(self, heart: Heart) -> None:
        """The supervised loop."""
        backoff = Backoff(BACKOFF_MIN_S, BACKOFF_MAX_S, random.Random())
        while True:
            try:
                worked = await patiently(heart, self._round(), what=DEPENDENCY)
                backoff.reset()
                await heart.beat()
                if not worked:
                    await self._wait()
            except (Unavailable, Uncertain) as error:
                heart.unready(str(error))
                await asyncio.sleep(backoff.pause_s())

    async def _wait(self) -> None:
        now = self._clock.monotonic()
        wait_s = min(EVERY_S, self._looks.next_s(now), self._know_at - now)
        if not self._looks.wake.is_set():
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(max(SHORT_S, wait_s)):
                    await self._looks.wake.wait()
        self._looks.wake.clear()

    async def _round(self) -> bool:
        """One piece of work; False when there is none."""
        now = self._clock.monotonic()
        if now >= self._know_at:
            await self._know()
            self._know_at = now + EVERY_S
        if self._keying.some:
            for workflow, key in await self._keying.work():
                self._looks.add(workflow, (key,))
            return True
        name = self._looks.name(now)
        if name is None:
            return False
        await self._pass(name)
        return True

    async def _know(self) -> None:
        """What is declared, how far virtual time is, and the next stretch of lines of those that are ours to look
        through."""
        names = set(self._names())
        if not names:
            self._versions = {}
            return
        self._placement.observe(*await virtual_now(self._store))
        self._versions = await line.versions(self._store, names, owner=self._owner, live_s=self._live_s())
        for name, versions in self._versions.items():
            if any(version.leads for version in versions):
                await self._sweep(name)
            self._looks.add(name, await self._held.work(name, keys_max=self._lines_max(versions)))
        now = self._clock.monotonic()
        if now >= self._prune_at:
            gone = await line.prune_rates(self._store, rows_max=PRUNE_ROWS)
            # More keys than these may have had their turn since: as many come as are let in.
            self._prune_at = now + (PRUNE_S if gone < PRUNE_ROWS else EVERY_S)

    async def _sweep(self, name: str) -> None:
        start, end = span(name)
        most = min(SWEEP_LINES, 8 * self._lines_max(self._versions[name]))
        found = await line.lines(self._store, (self._cursors.get(name, start), end), lines_max=most)
        self._cursors[name] = found[-1] if len(found) == most else start
        self._looks.add(name, found)

    def _lines_max(self, versions: Sequence[Version]) -> int:
        rules = [rule for version in versions for rule in version.allowance.limits]
        return max(1, min(PASS_LINES, PASS_COUNTS // max((rule.most for rule in rules), default=1)))

    async def _pass(self, name: str) -> None:
        """Let in whoever may go in, of the lines that are next."""
        ours = self._versions.get(name, ())
        chosen = self._looks.take(name, self._lines_max(ours))
        if not ours:
            return  # nobody has it, or its queue is paused; all of them are found again by looking
        self._passes.value += 1
        try:
            verdict, placed, now_us = await self._let(name, {version.id: version for version in ours}, chosen)
        except (Unavailable, Uncertain):
            self._looks.add(name, chosen)
            raise
        self._let_in.value += len(verdict.admitted)
        self._looks.add(name, verdict.more)
        self._held.full(name, verdict.full)
        now = self._clock.monotonic()
        for key, at_us in verdict.looks_us.items():
            self._looks.at(name, key, now + max(0, at_us - now_us) / 1_000_000)
        await self._tell(placed)

    async def _let(
        self, name: str, versions: Mapping[int, Version], lines: Sequence[bytes]
    ) -> tuple[Verdict, list[Placed], int]:
        """What was decided, where those are ready that were let in, and the store's clock when it was decided."""
        each_max = max(EACH_MIN, PASS_RUNS // len(lines))
        async with self._store.transaction() as session:
            await line.lock(session, name)
            waiting = await line.first(session, lines, list(versions), each_max=each_max)
            if not waiting:
                return Verdict(), [], 0
            keys = {key: None for run in waiting for key in (run.line, *run.keys, *run.gates)}
            standing = Standing(*await line.standing(session, list(keys)))
            now_us = standing.now_us
            verdict = decide(
                waiting, {id: version.allowance for id, version in versions.items()}, standing,
                read_max=each_max, lines=lines,
            )  # fmt: skip
            changes = _changes(verdict, versions, self._placement)
            placed = await line.settle(session, changes, verdict.spaced) if changes else []
        return verdict, placed, now_us

    async def _tell(self, placed: Sequence[Placed]) -> None:
        ours = {Shard(held.lease.queue_id, held.lease.shard) for held in self._shards()}
        foreign: list[Placed] = []
        for one in placed:
            if Shard(one.queue_id, one.shard) in ours:
                self._ready(one.queue_id, Made.of(one.vt, one.shard))
            elif one.shard >= 0:
                foreign.append(one)
        if foreign:
            with contextlib.suppress(Unavailable, Uncertain):  # they look by themselves too
                await line.tell(self._store, foreign)


def _changes(verdict: Verdict, versions: Mapping[int, Version], placement: Placement) -> list[Change]:
    changes = [Change(run.id, MOVE, line=key) for run, key in verdict.moved]
    changes += [Change(run.id, ANEW) for run in verdict.anew]
    for run in verdict.admitted:
        version = versions[run.workflow_id]
        # Charged to its tenant as it comes in: in the line it took nobody's turn.
        queue_id = version.place(run.queue_id)
        vt = placement.next(queue_id, run.tenant, backlog=False, apart="let in", priority=version.priority)
        kept = run.keys[0] if run.keys else None  # with no limit, it never goes into a line again
        changes.append(Change(run.id, ADMIT, vt, queue_id, version.shards, kept))
    return changes
