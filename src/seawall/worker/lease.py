"""Keeps this process's shards: registers what it can do, takes what is free, renews what it has, lets go of the lost.

It is one loop on the event loop, so a process whose event loop doesn't tick renews nothing, and loses its shards.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Collection, Mapping
from uuid import UUID

import msgspec

from seawall.guard import Heart
from seawall.guard.patience import patiently
from seawall.guard.spell import Spells
from seawall.kernel.clock import Clock
from seawall.kernel.error import Fenced, Unavailable, Uncertain
from seawall.kernel.log import fields, logger
from seawall.kernel.metric import Metrics
from seawall.kernel.status import SUSPECT_SHARD
from seawall.store.driver import DEPENDENCY
from seawall.store.lease import Free, Shard, Taken, free, leave, look, peers, release, renew, take
from seawall.store.pool import Store
from seawall.store.queue import Rule, rules
from seawall.store.workflow import Declared, Line, left_behind, register
from seawall.worker.balance import Balance
from seawall.worker.handover import Handover, shards_of
from seawall.worker.presence import live_s, say_changes
from seawall.worker.settings import Settings
from seawall.worker.shard import Held
from seawall.worker.slot import most
from seawall.workflow import App, Workflow
from seawall.workflow.app import Queue

log = logger("worker")

SETTLE_MAX_S = 2.5

AGAIN_S = 0.05
"""Between two rounds at the least, however often somebody gives shards back; and between two looks, without the store,
whether a shard that is given up can go: its new runs wait for that."""

TOUCH_S = 1.0


# Size: one loop, and what each of its steps must know of the others.
class Leases:
    """The shards of one process.

    Args:
        owner: Names this process; may be the name of a former one that is known to be dead, whose shards are then taken
            at once.
        solo_queue: Only the suspects of this queue; None: all shards of the app's queues, without suspects.
        lost: Called with a shard that belongs to somebody else now; drops its runs.
        taken: Called with what each takeover found.
        unwritten: Whether outcomes of a shard wait for the store.
        queues: Only these, in a process of their own; empty: all of the app's.
    """

    def __init__(
        self,
        store: Store,
        settings: Settings,
        app: App,
        metrics: Metrics,
        *,
        owner: UUID,
        solo_queue: str | None,
        lost: Callable[[Held], None],
        taken: Callable[[Taken], None],
        spells: Spells,
        clock: Clock,
        unwritten: Callable[[Held], bool],
        queues: Collection[str] = (),
    ) -> None:
        self._store = store
        self.settings = settings
        self._app = app
        self._owner = owner
        self._solo_queue = solo_queue
        self._lost = lost
        self._taken = taken
        self._spells = spells
        self._clock = clock
        self._own = bool(queues)
        self._only = frozenset(queues)
        self._balance = Balance(own=self._own, settle_s=min(SETTLE_MAX_S, settings.lease_ttl_s / 2))
        self._handover = Handover(
            self._balance, metrics, unwritten=unwritten, most=lambda id, shards: most(self.rules.get(id), shards)
        )
        self._held: dict[Shard, Held] = {}
        self._registered = False
        self._doubted = False  # something was lost since we last began to register
        self._history: UUID | None = None
        self._had: dict[Shard, int] = {}  # of shards that we had, under which epoch
        self._parked = False
        self._wake = asyncio.Event()
        self.workflows: Mapping[int, Workflow] = {}
        self.rules: Mapping[int, Rule] = {}
        self.queue_ids: list[int] = []
        self.queue_names: Mapping[int, str] = {}
        self.workflow_names: Mapping[int, str] = {}
        metrics.gauge("seawall_leases_held_count", "Shards in this process's hands.").read = lambda: len(self._held)
        self._takeovers = metrics.counter("seawall_takeovers_total", "Shards taken by this process.")
        self._suspects = metrics.counter(
            "seawall_suspects_total", "Runs put aside since the process they were in died."
        )

    def held(self) -> list[Held]:
        return list(self._held.values())

    @property
    def registered(self) -> bool:
        """Whether the store knows our workflows, as far as we know."""
        return self._registered

    def register_again(self) -> None:
        """The store may not know our workflows any more."""
        self._registered, self._doubted = False, True

    def forget(self, held: Held) -> None:
        """Its lease is gone: a flush or a renewal said so."""
        if not held.lost:
            held.lost = True
            # A store that was restored to an older state may not know our workflows any more than our leases.
            self.register_again()
            shard = Shard(held.lease.queue_id, held.lease.shard)
            self._held.pop(shard, None)
            self._had[shard] = held.lease.epoch
            log.warning("a shard was lost", extra=fields(queue=held.lease.queue_id, shard=held.lease.shard))
            self._lost(held)

    async def run(self, heart: Heart) -> None:
        """The supervised loop."""
        while True:
            try:
                self._spells.rest()
                await patiently(heart, self._known(), what=DEPENDENCY)
                self.rules = await patiently(heart, rules(self._store, self.queue_ids), what=DEPENDENCY)
                if self._solo_queue is None and not self._own:  # also queues that were made beside ours just now
                    self.queue_names = {**self.queue_names, **{id: rule.name for id, rule in self.rules.items()}}
                    self.queue_ids = sorted(self.queue_names)
                await heart.beat()
                if self._solo_queue is None:
                    await patiently(heart, self._share(heart), what=DEPENDENCY)
                # Numbers of workflows and queues may mean others in a store that doesn't know our leases any more.
                if not self._parked and self._registered:
                    await patiently(heart, self._take(heart), what=DEPENDENCY)
                await heart.beat()
                soon = True
            except (Unavailable, Uncertain) as error:
                heart.unready(str(error))
                soon = False
            await self._wait(heart, soon=soon)
            heart.touch()

    def given(self, queue_ids: Collection[int]) -> None:
        """Shards of these queues were given back: one of them may be ours to take."""
        if not self._parked and not set(queue_ids).isdisjoint(self.queue_ids):
            self._wake.set()

    async def _wait(self, heart: Heart, *, soon: bool) -> None:
        """Until the next round is due; with ``soon``, also until there is a shard to take, or one to give back."""
        loop = asyncio.get_running_loop()
        due = loop.time() + min(self.settings.renew_s, self.settings.lease_ttl_s / 3)
        await asyncio.sleep(AGAIN_S)
        while (left_s := due - loop.time()) > 0:
            held, eager = self.held(), soon and not self._parked
            if eager and (self._wake.is_set() or self._handover.ended(held)):
                break
            heart.touch()
            leaving = any(shard.leaving_until is not None for shard in held)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(min(left_s, AGAIN_S if leaving else TOUCH_S)):
                    await (self._wake.wait() if eager else asyncio.sleep(left_s))
        self._wake.clear()

    async def release(self) -> None:
        """Give everything back, for good. Raises Unavailable or Uncertain: it expires by itself then."""
        self._parked = True
        held = self.held()
        self._held.clear()
        for shard in held:
            shard.lost = True
        if held:
            await release(self._store, [shard.lease for shard in held], owner=self._owner)
        await leave(self._store, self._owner)

    def park(self) -> None:
        """Take nothing more, but keep what is in hand."""
        self._parked = True

    async def _known(self) -> None:
        """Have the store know us, and our leases."""
        await self._look()
        if not self._registered:
            await self._register()
        await self._renew()

    async def _look(self) -> None:
        """Notice a fail-over. The replica may have lagged: what we know of the store may be what it never heard of."""
        history = await look(self._store)
        if self._history not in (None, history):
            log.warning(
                "the store is another server now: what was in hand is begun again, what it lacks is routed again",
                extra=fields(history=str(history), before=str(self._history)),
            )  # fmt: skip
            self._spells.saw(
                "store-failed-over", "the store is another server now, and may lack its former one's last seconds",
                unaffected="accepted events: what it lacks is routed again from the journal",
                cure="nothing, if it was meant; else look at PostgreSQL",
            )  # fmt: skip
            self.register_again()
            for held in self.held():
                self.forget(held)
        self._history = history

    async def _register(self) -> None:
        self._doubted = False
        declared = [declared_of(w) for w in self._app.workflows]
        owner = self._owner if self._solo_queue is None else None
        queues = [line_of(q) for q in self._app.queues]
        known, changes = await register(self._store, declared, owner=owner, live_s=live_s(self.settings), queues=queues)
        say_changes(changes, first=True)
        by_name = {(w.name, w.version): w for w in self._app.workflows}
        # A workflow that was moved to another queue has runs in the old one still, and nobody else would run them.
        left = await left_behind(self._store, known)
        serving = [(k.queue_id, k.queue) for k in known] + [(q.queue_id, q.queue) for q in left if q.ours]
        self.queue_names = {id: name for id, name in serving if self._serves(name)}
        self.queue_ids = sorted(self.queue_names)
        if not self._own and (stranded := [q.queue for q in left if not q.ours]):
            self._spells.saw(
                "queue-unused", f"runs wait in queues that no workflow of this app uses: {', '.join(stranded)}",
                unaffected="other queues", cure="start a worker whose app has workflows for them",
            )  # fmt: skip
        self.workflows = {k.id: by_name[k.name, k.version] for k in known}
        self.workflow_names = {k.id: k.name for k in known}
        self._registered = not self._doubted
        log.info("workflows are registered", extra=fields(workflows=[f"{k.name}@{k.version}" for k in known]))

    def _serves(self, queue: str) -> bool:
        return self._solo_queue in (None, queue) and (not self._only or queue in self._only)

    async def _renew(self) -> None:
        held = self.held()
        if not held:
            return
        ttl_s = self.settings.lease_ttl_s
        leases, begun = [shard.lease for shard in held], [shard.begun for shard in held]
        ours = await renew(self._store, leases, begun=begun, owner=self._owner, ttl_s=ttl_s)
        for shard in held:
            if Shard(shard.lease.queue_id, shard.lease.shard) not in ours:
                self.forget(shard)

    async def _share(self, heart: Heart) -> None:
        """Hear who else serves our queues, and give up what is theirs."""
        serves = [] if self._parked else self.queue_ids
        ttl_s = self.settings.lease_ttl_s
        self._balance.saw(await peers(self._store, serves, owner=self._owner, own=self._own, live_s=ttl_s))
        await heart.beat()
        for held in [] if self._parked else self._handover.due(self.held(), self._clock.monotonic()):
            await release(self._store, [held.lease], owner=self._owner)
            shard = Shard(held.lease.queue_id, held.lease.shard)
            self._held.pop(shard, None)
            self._had[shard] = held.lease.epoch  # a store that forgets this has it in our hands again
            self._handover.gave(held, self._clock.monotonic())

    def _wants(self, one: Free) -> bool:
        if self._solo_queue is not None:
            return True
        queue_id = one.shard.queue_id
        rule = self.rules.get(queue_id) or Rule()
        return self._balance.may_take(
            one.shard, mine=shards_of(self._held, queue_id), shards=rule.shards, orphan=one.orphan,
            now=self._clock.monotonic(),
        )  # fmt: skip

    async def _take(self, heart: Heart) -> None:
        settings = self.settings
        offered = await free(
            self._store,
            self.queue_ids,
            owner=self._owner,
            suspects=self._solo_queue is not None,
            grace_s=settings.lease_ttl_s,
        )
        offered = [one for one in offered if one.shard not in self._held]
        self._balance.offered((one.shard for one in offered), self._clock.monotonic())
        for one in offered:
            if self._parked or not self._registered or not self._wants(one):
                continue
            shard = one.shard
            try:
                taken = await take(
                    self._store, shard, owner=self._owner, ttl_s=settings.lease_ttl_s, deaths_max=settings.deaths_max,
                    history=self._history, ours=self._had.get(shard),
                )  # fmt: skip
            except Fenced:
                continue  # another worker was faster
            self._balance.took(shard, self._clock.monotonic())
            self._won(shard, taken)
            await heart.beat()

    def _won(self, shard: Shard, taken: Taken) -> None:
        self._held[shard] = Held(taken.lease, taken.memo_below)
        self._had.pop(shard, None)
        self._takeovers.value += 1
        self._suspects.value += taken.suspects
        say_taken(self._spells, shard, taken)
        self._taken(taken)


def declared_of(workflow: Workflow) -> Declared:
    """As it is registered."""
    allowance = workflow.allowance
    return Declared(
        workflow.name, workflow.version, workflow.on, workflow.queue, None if allowance is None else allowance.text,
        workflow.priority,
    )  # fmt: skip


def say_taken(spells: Spells, shard: Shard, taken: Taken) -> None:
    """What a takeover found, for people."""
    said = fields(queue=shard.queue_id, shard=shard.number, epoch=taken.lease.epoch, suspects=taken.suspects)
    if taken.suspects and shard.number != SUSPECT_SHARD:
        log.warning("a process died: the runs it had are suspects and run alone", extra=said)
        spells.saw(
            "worker-died", f"a worker's process died with {taken.suspects} runs in hand: they run alone now",
            unaffected="other runs", cure="seawall runs list; one of them may end processes",
        )  # fmt: skip
    else:
        log.debug("a shard was taken", extra=said)
    for run in taken.dead:
        log.warning("run is dead", extra=fields(run=run.id, event=str(run.event_id), reason="its process kept dying"))
        spells.saw(
            "run-ends-processes", f"run {run.id} is dead: its process kept dying",
            unaffected="other runs", cure=f"seawall runs show {run.id}",
        )  # fmt: skip


def line_of(queue: Queue) -> Line:
    """As it is registered."""
    weights = None if queue.weights is None else msgspec.json.encode(queue.weights).decode()
    return Line(queue.name, queue.reserved, queue.most, queue.latency_s, queue.depth_max, weights)
