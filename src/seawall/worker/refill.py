"""Reads what is ready and starts it: one statement for all shards in hand, and nothing is written for a single run."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Callable, Iterable, Mapping, Sequence

from seawall.guard import Heart
from seawall.guard.retry import Backoff
from seawall.kernel.cause import Cause
from seawall.kernel.clock import Clock
from seawall.kernel.error import Unavailable, Uncertain
from seawall.kernel.log import fields, logger
from seawall.kernel.made import Made
from seawall.kernel.metric import Metrics
from seawall.kernel.placement import without_delay
from seawall.kernel.seam.run import Memo
from seawall.store.child import parent_of
from seawall.store.flush import Spent
from seawall.store.pool import Session, Store
from seawall.store.queue import Rule
from seawall.store.run import BEGIN, Ready, Wish, memos, prepare, refill
from seawall.store.until import Begun, begin
from seawall.worker.bench import Bench
from seawall.worker.cancel import Cancels
from seawall.worker.cursor import Cursors, advance
from seawall.worker.execution import Execution
from seawall.worker.flush import Flusher
from seawall.worker.settings import Settings
from seawall.worker.shard import Held, Refill
from seawall.worker.slot import Allowed, Slots, wished, wished_next
from seawall.workflow import Workflow

log = logger("worker")

BACKOFF_MIN_S = 0.05
BACKOFF_MAX_S = 0.5
WAIT_MAX_S = 1.0
UNKNOWN_LOG_S = 60.0
KEPT_BYTES = 1 << 20
"""Bodies of one refill for reserved slots, when all bodies in hand are as large as they may be."""

MET_S = 5.0

Memos = dict[tuple[str, int], Memo | None]
"""What is kept of a run's steps; None: a wait that is open, or has ended and isn't kept yet."""


# Size: one loop, and all that it must not do while a refill is under way.
class Refiller:
    """Keeps this process busy, within its bounds.

    Args:
        shards: The shards in hand now, read anew for each refill.
        workflows: By the store's id; empty until they are registered.
        rules: Of queues, by id.
        cancels: Looks for runs that were cancelled, while no refill is under way.
        unkeyed: Called with ready runs that have no keys yet, of workflows with limits or rates; None: they are run.
    """

    def __init__(
        self, store: Store, settings: Settings, bench: Bench, metrics: Metrics, *, clock: Clock,
        shards: Callable[[], Iterable[Held]], workflows: Callable[[], Mapping[int, Workflow]],
        rules: Callable[[], Mapping[int, Rule]], cancels: Cancels,
        unkeyed: Callable[[Held, Sequence[int]], None] | None,
    ) -> None:  # fmt: skip
        self._store = store
        self.settings = settings
        self._bench = bench
        self._flusher: Flusher = bench.flusher
        self._clock = clock
        self._shards = shards
        self._cancels = cancels
        self._rules = rules
        self._slots = Slots(rules, clock)
        self._workflows = workflows
        self._unkeyed = unkeyed
        self._wake = asyncio.Event()
        self._cursors = Cursors()
        self._doubtful: list[tuple[Held, Spent]] = []  # refill rows that may be committed, without a run that started
        self._poll_at = 0.0  # monotonic; everything is looked at
        self._unknown_at: dict[int, float] = {}
        self._met_at: dict[int, float] = {}  # workflows that we don't have, by when one of their runs was read last
        self._read = metrics.counter("seawall_runs_started_total", "Executions of runs begun by this worker.")

    def hint(self, queue_id: int, made: Made) -> None:
        """A queue has new runs. Every worker hears of those of all queues; who serves it, reads."""
        if queue_id in self._rules():
            self._cursors.hint(queue_id, made)
            self._wake.set()

    def sweep(self) -> None:
        """Anything may be ready: hints may have been missed, or runs were woken."""
        self._cursors.sweep()
        self._wake.set()

    def met(self) -> list[int]:
        """Workflows that we don't have, and of which the last sweeps met runs."""
        since = self._clock.monotonic() - max(MET_S, 3 * self.settings.sweep_s)
        self._met_at = {id: at for id, at in self._met_at.items() if at > since}
        return list(self._met_at)

    def freed(self) -> None:
        """A run left: look again when that makes the room that was missing, soon."""
        if self._slots.freed():
            self._wake.set()

    async def run(self, heart: Heart) -> None:
        """The supervised loop."""
        backoff = Backoff(BACKOFF_MIN_S, BACKOFF_MAX_S, random.Random())
        while True:
            self._clear_doubtful()
            try:
                await self._serve(heart, backoff)
            except (Unavailable, Uncertain) as error:
                heart.unready(str(error))
                await asyncio.sleep(backoff.pause_s())

    async def _serve(self, heart: Heart, backoff: Backoff) -> None:
        """As long as one connection lasts."""
        async with self._store.own_connection() as session:
            await heart.beat()
            await prepare(session)
            while session.usable:
                await self._cancels.look(session, self._shards())
                heart.touch()
                more = await self._round(session, heart)
                backoff.reset()
                await heart.beat()
                if not more:
                    await self._wait()

    async def _wait(self) -> None:
        wait_s = min(self.settings.poll_s, WAIT_MAX_S)
        wait_s = min(wait_s, self._slots.wait_s or wait_s, self._cursors.wait_s(self._clock.monotonic()) or wait_s)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(wait_s):
                await self._wake.wait()
        self._wake.clear()

    async def _round(self, session: Session, heart: Heart) -> bool:
        """One refill, when there is room for it, and one of what is next elsewhere; True when there is more to read at
        once."""
        if self._flusher.bytes > self.settings.unflushed_bytes_max:
            self._slots.wait_for(1)
            return False
        if self._bench.parked or not self._workflows():
            return False
        shards = [held for held in self._shards() if not held.lost and held.leaving_until is None]
        now, sweep_s = self._clock.monotonic(), self.settings.sweep_s
        self._cursors.due(shards, now)
        slots = self._width(shards)
        free = slots - self._bench.count
        allowed = self._slots.allowed(shards, free=free, slots=slots, settings=self.settings)
        more = await self._forwards(session, heart, shards, allowed)
        self._cursors.look_anew([h for h in shards if h.lease.queue_id not in allowed.rooms], now, sweep_s)
        if self._cursors.behind:
            await self._express(session, heart, shards, besides=allowed)
        return more

    @property
    def _free(self) -> int:
        return self.settings.inflight_max - self._bench.count

    def _width(self, shards: Sequence[Held]) -> int:
        """Slots for what is read on: fewer than there are, while somebody waits for a run. What is next has all."""
        slots = self.settings.inflight_max
        if (most := self._flusher.width.most(slots, now=asyncio.get_running_loop().time())) == slots:
            return slots
        busy = sum(not run.commits for held in shards for run in held.inflight.values())
        return min(slots, most + busy)

    @property
    def _bytes_free(self) -> int:
        return self.settings.inflight_body_bytes_max - self._bench.body_bytes

    async def _forwards(self, session: Session, heart: Heart, shards: Sequence[Held], allowed: Allowed) -> bool:
        """Read on, where enough slots are free; True when there is more."""
        bytes_max = self._bytes_free
        if bytes_max <= 0:  # one queue's bodies are no reason why another one doesn't get what is kept for it
            self._slots.wait_for(1)
            allowed, bytes_max = allowed.kept(), KEPT_BYTES
        shards = [held for held in shards if held.lease.queue_id in allowed.rooms]
        if not shards:
            return False
        now, sweep_s = self._clock.monotonic(), self.settings.sweep_s
        self._cursors.go_back(shards, now)
        sweeping = {held for held in shards if now >= held.sweep_at}
        if now < self._poll_at:  # of hundreds of queues most have nothing new
            shards = [held for held in shards if held.unread or held in sweeping]
            if not shards:
                return False
        else:
            self._poll_at = now + min(self.settings.poll_s, WAIT_MAX_S)
        wishes = wished(shards, {held: held.sweep_from(now, sweep_s) for held in sweeping}, allowed)
        without = [
            id
            for wish, held in zip(wishes, shards, strict=True) if wish.after < held.top
            for id, execution in held.inflight.items() if wish.after[0] <= execution.vt <= wish.until[0]
        ]  # fmt: skip
        more = False
        for held, mine, whole in await self._refill(session, heart, shards, wishes, allowed, without, bytes_max):
            more |= advance(held, mine, sweep_s=sweep_s if held in sweeping else None, whole=whole, now=now)
        if sweeping:
            self._cursors.swept(sweeping)
        return more

    async def _express(self, session: Session, heart: Heart, shards: Sequence[Held], *, besides: Allowed) -> None:
        """Read what is next of queues for which too few slots are free to read on: somebody who comes while others have
        them doesn't wait until enough of theirs are free."""
        claims = self._slots.claims(self._cursors.behind.keys())
        named = [
            held for held in self._cursors.named(shards, claims)
            if not held.lost and held.lease.queue_id not in besides.rooms
        ]  # fmt: skip
        if not named:
            return
        asking = {held.lease.queue_id for held in named}
        allowed = self._slots.express(asking, claims, free=self._free, settings=self.settings)
        shards = [held for held in named if held.lease.queue_id in allowed.rooms]
        bytes_max = self._bytes_free
        if not shards or bytes_max <= 0:
            return
        news = self._cursors.next(shards, self._clock.monotonic())
        if news is None:
            return
        wishes = wished_next(shards, news, allowed)
        without = [
            id
            for held, made in zip(shards, news, strict=True)
            for id, execution in held.inflight.items()
            if made.first <= execution.vt <= made.last
        ]
        read = await self._refill(session, heart, shards, wishes, allowed, without, bytes_max)
        now = self._clock.monotonic()
        for (held, mine, whole), made in zip(read, news, strict=True):
            if mine:
                held.read_beyond((mine[-1].vt, mine[-1].id))
            if whole:
                held.met = BEGIN
            else:
                self._cursors.again(held, made, mine, now)

    async def _refill(
        self, session: Session, heart: Heart, shards: Sequence[Held], wishes: Sequence[Wish], allowed: Allowed,
        without: Sequence[int], bytes_max: int,
    ) -> list[tuple[Held, Sequence[Ready], bool]]:  # fmt: skip
        """One statement, and its runs begun; by shard, what was read of it, and whether that is all there is."""
        # Noted before they are sent: if we never learn the outcome, their rows must not stay behind.
        self._doubtful.extend(
            (held, Spent(*wish.lease, wish.number)) for held, wish in zip(shards, wishes, strict=True)
        )
        for held in shards:
            held.reading = True  # until its rows are begun, or it is cleared that they never will be
        rows = await refill(
            session,
            wishes,
            known=list(self._workflows()),
            keyed=[id for id, workflow in self._workflows().items() if workflow.allowance] if self._unkeyed else [],
            without=without,
            shared=allowed.shared,
            bytes_max=bytes_max,
        )
        heart.touch()
        read_at = self._bench.monotonic()
        cut = sum(len(row.body or b"") for row in rows) >= bytes_max
        by_shard: dict[tuple[int, int], list[Ready]] = {}
        for row in rows:
            by_shard.setdefault((row.queue_id, row.shard), []).append(row)
        cut_queues = self._slots.took(allowed, rows)
        read = [(held, by_shard.get(held.lease[:2], []), wish.most) for held, wish in zip(shards, wishes, strict=True)]
        await self._start_all(session, shards, by_shard, read_at)
        for held in shards:
            held.reading = False
        return [
            (held, mine, not cut and len(mine) < most and held.lease.queue_id not in cut_queues)
            for held, mine, most in read
        ]

    async def _start_all(
        self, session: Session, shards: Sequence[Held], by_shard: Mapping[tuple[int, int], Sequence[Ready]],
        read_at: float,
    ) -> None:  # fmt: skip
        workflows = self._workflows()
        starting: list[tuple[Held, list[Ready]]] = []
        for held in shards:
            mine = by_shard.get(held.lease[:2], ())
            known = [row for row in mine if row.known and row.id not in held.inflight]
            if len(known) < len(mine):
                self._unknown(held, [row for row in mine if not row.known])
            if known:
                starting.append((held, known))
            elif any(
                row.known for row in mine
            ):  # all in hand, and their places changed meanwhile: nobody spends the row
                self._flusher.clear(held, Spent(*held.lease, held.refills))
        kept = await self._memos(session, starting)
        await self._clocks(session, starting)
        self._doubtful.clear()
        for held, rows in starting:
            self._bench.usage.tally.began(rows)
            refill = Refill(held, held.refills, len(rows), read_at)
            for row in rows:
                self._start(refill, row, workflows[row.workflow_id], kept.get(row.id))
            held.begun = max(held.begun, without_delay(rows[-1].vt, workflows[rows[-1].workflow_id].priority))

    async def _memos(self, session: Session, starting: Sequence[tuple[Held, Sequence[Ready]]]) -> dict[int, Memos]:
        ids = [row.id for held, rows in starting for row in rows if held.may_have_memos(row)]
        kept: dict[int, Memos] = {}
        if ids:
            for row in await memos(session, ids):
                memo = None if row["result"] is None else Memo(row["result"], row["failed"])
                kept.setdefault(row["run_id"], {}).setdefault((row["name"], row["nth"]), memo)
        return kept

    async def _clocks(self, session: Session, starting: Sequence[tuple[Held, Sequence[Ready]]]) -> None:
        """Of workflows with a total timeout: time begins before a run's code does, or a crash would give it more."""
        total_ms = {id: int(w.total_timeout_s * 1000) for id, w in self._workflows().items() if w.total_timeout_s}
        if not total_ms:
            return
        begun = [
            Begun(row.id, total_ms[row.workflow_id], parent_of(row.source, row.headers) if row.found else None)
            for _, rows in starting for row in rows if row.workflow_id in total_ms
        ]  # fmt: skip
        if begun:
            await begin(session, begun)

    def _start(self, refill: Refill, row: Ready, workflow: Workflow, kept: Memos | None) -> None:
        execution = Execution(self._bench, refill, row, workflow, kept)
        refill.held.inflight[execution.id] = execution
        self._bench.began(execution)
        self._read.value += 1
        if execution.ticket:
            self._flusher.width.asked(now=asyncio.get_running_loop().time())
        if refill.held.lost:
            execution.drop()
            self._bench.left(execution)
        elif row.found:
            execution.begin()
        else:
            execution.bury("its event is gone", Cause.EVENT_GONE)

    def _clear_doubtful(self) -> None:
        """After a refill that may have been committed without our knowing: its runs are read again, its row goes."""
        for held, spent in self._doubtful:
            held.reading = False
            if not held.lost:
                self._flusher.clear(held, spent)
        self._doubtful.clear()

    def _unknown(self, held: Held, rows: Sequence[Ready]) -> None:
        now, ours = self._clock.monotonic(), self._workflows()
        if self._unkeyed is not None and (unkeyed := [row.id for row in rows if row.workflow_id in ours]):
            self._unkeyed(held, unkeyed)
        for workflow_id in {row.workflow_id for row in rows} - ours.keys():
            self._met_at[workflow_id] = now
            if now >= self._unknown_at.get(workflow_id, 0.0):
                self._unknown_at[workflow_id] = now + UNKNOWN_LOG_S
                log.warning(  # an alert where no other worker has it: presence.py
                    "runs wait for a workflow version that this worker doesn't have",
                    extra=fields(workflow_id=workflow_id),
                )
