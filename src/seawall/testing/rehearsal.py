"""Runs of a user's workflows in a test: the real router, worker and store, and time that passes when the test says so.

There is no server, data folder or network: an event goes into a journal in memory, and from there its usual way. Time
stands still meanwhile, in the store as well (`seawall.store.rehearsal`). ``advance`` lets it go from one moment that
something waits for to the next, and waits at each until there is nothing left to do: three days take no longer than
what happens in them.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator, Callable, Mapping
from datetime import UTC, datetime
from functools import partial
from types import TracebackType
from typing import Any
from uuid import UUID, uuid4

import msgspec

from seawall.guard import Supervisor
from seawall.guard.spell import Spells
from seawall.kernel import approval as linking
from seawall.kernel.alert import Alerts
from seawall.kernel.clock import SystemClock
from seawall.kernel.event import EventIds, Record, encode, id_text
from seawall.kernel.metric import Metrics
from seawall.kernel.placement import Placement
from seawall.kernel.seam.approval import Decision, Via
from seawall.router import settings as routing
from seawall.router.batch import Batch
from seawall.router.broadcast import Broadcast
from seawall.router.catalogue import Rulebook
from seawall.router.drain import Desk, Drain
from seawall.router.match import read
from seawall.router.meter import Meter
from seawall.router.revoked import Revoked
from seawall.store import approval, pool, rehearsal, report
from seawall.store.pool import Store
from seawall.testing.clock import ManualClock
from seawall.testing.journal import MemoryJournal
from seawall.testing.look import Reply, Run
from seawall.testing.overlay import Function, Replaced, Script
from seawall.testing.postgres import Database
from seawall.testing.stage import Stage
from seawall.worker import Settings, Worker
from seawall.workflow import App

SOURCE = "rehearsal"
_SOURCE_ID = b"\x01" * 16
_LOOK_S = 0.003
_SURE_S = 0.015
_QUERY_S = 5.0
SLACK_US = 10_000
"""So much after the moment that ``advance`` goes to still belongs to it: the store rounds its timers up."""

START_S = 30.0
"""Real seconds for a worker to begin, and for an event to be routed."""

HOPS_MAX = 100_000
"""Moments at which something happened, in one ``advance``: more is a workflow that waits for nothing in a circle."""

RUNS_MAX = 100
_LINKS = linking.Links(linking.Settings(url="https://seawall.test"), bytes(32), base=lambda: "")
_QUICK = Settings(poll_s=0.02, timer_s=0.01, drain_s=0.0, lease_ttl_s=5.0, renew_s=0.5)


class _Stamps:
    """The worker's own clock. Its loops go by real time; each stamp is the test's, a microsecond later than the one
    before, so that what happens in one moment has an order."""

    def __init__(self, clock: ManualClock) -> None:
        self._clock = clock
        self._last_us = 0
        self.monotonic = SystemClock().monotonic

    def wall_us(self) -> int:
        self._last_us = max(self._last_us + 1, self._clock.wall_us())
        return self._last_us


class Restless(AssertionError):
    """Something goes on though no time passes: a step that hangs, or runs that wait for a slot."""


# Size: all that a test does and sees, over parts that are the product's own.
class Rehearsal:
    """One app, in a world of its own. Begin it with ``async with``, of a fixture or of ``rehearse``.

    Args:
        app: What the user's file declares.
        clock: Shows the time; it stands still but for ``advance``, and a millisecond for each event.
        patience_s: Real seconds for which something may go on without time passing.
        seed: For the jitter of retries.
    """

    def __init__(
        self, app: App, stage: Stage, *, clock: ManualClock | None = None, patience_s: float = 10.0, seed: int = 0
    ) -> None:
        self.clock = clock or ManualClock(wall_us=int(datetime.now(UTC).timestamp()) * 1_000_000)
        self._stage = stage
        self._script = Script(self.clock)
        self._app = app
        self._patience_s = patience_s
        self._chance = random.Random(seed)
        self._ids = EventIds(self.clock)
        self._journal = MemoryJournal()
        self._open = contextlib.AsyncExitStack()
        self._turn = asyncio.Lock()
        self._died: int | None = None

    async def __aenter__(self) -> Rehearsal:
        async with contextlib.AsyncExitStack() as opening:
            database = await opening.enter_async_context(self._stage.database())
            self._store = await opening.enter_async_context(
                Store(pool.Settings(dsn=database.dsn, connections_max=2), role="rehearsal")
            )
            await self._move(self.clock.wall_us())
            self._worker_dsn = database.worker_dsn
            await opening.enter_async_context(self._router(database))
            self._worker = await opening.enter_async_context(contextlib.AsyncExitStack())
            await self._worker.enter_async_context(self._working(self._app))
            self._open = opening.pop_all()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._open.aclose()

    # ── what a test does ──

    async def send(
        self, type: str, json: Any = None, *, body: bytes | None = None, tenant: str = "default",
        headers: Mapping[str, str] | None = None, key: str = "",
    ) -> str:  # fmt: skip
        """Have an event come in, and everything happen that it leads to without time passing.

        Args:
            type: What the event is to be. One such as ``github.push`` comes as that provider sends it.
            json: Its body, as JSON.
            body: Its body's bytes, in place of ``json``.
            key: The sender's dedupe key.

        Returns:
            The event's id.

        Raises:
            ValueError: Routing would find another type in the body.
            Restless: What it leads to doesn't come to rest.
        """
        data = msgspec.json.encode(json) if body is None else body
        async with self._turn:
            await self._move(self.clock.wall_us() + 1000)
            record = _record(self._ids.next(), type, data, tenant, dict(headers or {}), key, self.clock.wall_us())
            self._journal.submit(encode(record), lambda _: None)
            await self._until(partial(rehearsal.arrived, self._store, record.id), f"event {type} is routed")
            await self._settled()
        return id_text(record.id)

    async def advance(
        self, seconds: float = 0.0, *, minutes: float = 0.0, hours: float = 0.0, days: float = 0.0
    ) -> None:
        """Let time pass, from one moment that something waits for to the next: all that is due by the end happens,
        each at its own moment. (The end may be some milliseconds later, since the store rounds its timers up.)

        Raises:
            Restless: Something goes on at a moment, and doesn't come to rest.
        """
        total_s = seconds + 60 * minutes + 3600 * hours + 86_400 * days
        assert total_s >= 0, "time goes forwards"
        async with self._turn:
            end_us = self.clock.wall_us() + round(total_s * 1_000_000)
            for _ in range(HOPS_MAX):
                next_us = await self._settled()
                if next_us is None or next_us > end_us + SLACK_US:
                    break
                await self._move(next_us)
            else:
                raise Restless(f"something happened at {HOPS_MAX} moments, and goes on")
            await self._move(max(end_us, self.clock.wall_us()))
            await self._settled()

    async def ended(self, event: str, *, days: float = 366.0) -> Run:
        """Let time pass until the one run that an event began has ended, and no longer; returns it.

        Raises:
            AssertionError: It has begun no run, or several, or the run isn't over after so many days: it may wait for
                an event.
        """
        latest_us = self.clock.wall_us() + round(days * 86_400_000_000)
        while True:
            async with self._turn:
                next_us = await self._settled()
                # Only now: it may have ended meanwhile, and then no more time is to pass.
                if (run := await self.run(event)).over:
                    return run
                assert next_us is not None and next_us <= latest_us, f"it is not over, and nothing is due: {run}"
                await self._move(next_us)

    async def deploy(self, app: App) -> None:
        """Stop the worker and start one with other code: whatever is under way goes on with that.

        Raises:
            Restless: What is under way doesn't come to rest.
        """
        async with self._turn:
            await self._settled()
            await self._worker.aclose()
            await self._worker.enter_async_context(self._working(app))
            await self._settled()

    async def approve(
        self, event: str, *, approved: bool = True, by: str = "tester", comment: str = "", question: str = ""
    ) -> None:
        """Decide what the one run that an event began asks people, as an operator does, and have everything happen that
        it leads to.

        Args:
            question: Which one, where it asks several things.

        Raises:
            AssertionError: It asks no such thing now, or several.
        """
        run = await self.run(event)
        async with self._turn:
            asked = [one for one in await approval.of_run(self._store, run.id, timeout_s=_QUERY_S) if one.open]
            meant = [one.claim for one in asked if question in ("", one.question)]
            assert len(meant) == 1, (
                f"one request is meant; open are: {', '.join(one.question for one in asked) or 'none'}"
            )
            decision = Decision(approved=approved, by=by, via=Via.API, comment=comment)
            _, won = await approval.decide(self._store, meant[0], decision, clock=self.clock, timeout_s=_QUERY_S)
            assert won, "its time is over"
            await self._settled()

    def replace(
        self, step: str | Function, *, result: object = None, error: BaseException | None = None,
        using: Function | None = None,
    ) -> Replaced:  # fmt: skip
        """Play a step from now on: instead of its function, something of the test's is called.

        Args:
            step: Its name (``name=``, else the function's), or the function itself.
            result: What it returns.
            error: What it raises, each time; retries are made as usual.
            using: A function to call in its place.

        Returns:
            Its ``calls``: arguments and named arguments of each.
        """

        async def play(*args: Any, **kwargs: Any) -> object:
            if error is not None:
                raise error
            return result

        return self._script.replace(step, using or play)

    # ── what a test sees ──

    @property
    def now(self) -> datetime:
        """The time here, UTC."""
        return datetime.fromtimestamp(self.clock.wall_us() / 1_000_000, tz=UTC)

    async def runs(self, event: str) -> list[Run]:
        """Runs that an event began, by workflow."""
        id = UUID(event).bytes
        lines, _ = await report.runs(
            self._store, before=report.RUN_ID_MAX, limit=RUNS_MAX, timeout_s=_QUERY_S, event=id
        )  # fmt: skip
        found = [await report.run(self._store, int(line.id), timeout_s=_QUERY_S) for line in lines]
        return sorted((Run.of(detail) for detail in found if detail is not None), key=lambda run: run.workflow)

    async def run(self, event: str) -> Run:
        """The one run that an event began.

        Raises:
            AssertionError: It began none, or several.
        """
        found = await self.runs(event)
        assert len(found) == 1, f"event {event} began {len(found)} runs: {', '.join(run.workflow for run in found)}"
        return found[0]

    async def reply(self, event: str) -> Reply | None:
        """What a workflow answered to an event; None: nothing (yet)."""
        found = await rehearsal.reply(self._store, UUID(event).bytes)
        return None if found is None else Reply(found.status, found.content_type, found.body)

    # ── its parts ──

    @contextlib.asynccontextmanager
    async def _working(self, app: App) -> AsyncIterator[None]:
        """A worker process, without the process."""
        metrics = Metrics()
        supervisor = Supervisor(metrics)
        made = Worker(
            pool.Settings(dsn=self._worker_dsn), app.over(self._script.laid), _QUICK,
            clock=_Stamps(self.clock), store_clock=self.clock, metrics=metrics, owner=uuid4(),
            chance=self._chance, die=self._dies, links=_LINKS,
        )  # fmt: skip
        async with made:
            made.register(supervisor)
            async with supervisor:
                await self._until(lambda: supervisor.ready("worker.lease") and supervisor.ready("worker.listen"), "up")
                await self._until(partial(self._scheduled, len(app.crons)), "schedules are known")
                yield

    @contextlib.asynccontextmanager
    async def _router(self, database: Database) -> AsyncIterator[None]:
        settings, metrics = routing.Settings(), Metrics()
        alerts = Alerts(metrics, self.clock)
        spells = Spells(alerts, self.clock)
        async with Store(pool.Settings(dsn=database.dsn, connections_max=3), role="router") as store:
            desk = Desk(
                store=store, settings=settings, clock=self.clock, placement=Placement(), spells=spells,
                rulebook=Rulebook(store, settings, runs_expected=True, alerts=alerts),
                meter=Meter(metrics, Revoked(spells)), enrich=_as_it_is,
            )  # fmt: skip
            supervisor = Supervisor(metrics)
            # Without the loops of a router that looks after logs on a disk: this one is whole, and never behind.
            supervisor.add(f"router.fresh.{SOURCE}", Drain(SOURCE, self._journal.reader(), desk).fresh)
            supervisor.add("router.broadcast", Broadcast(store, metrics).run)
            async with supervisor:
                yield

    async def _scheduled(self, count: int) -> bool:
        return not count or await rehearsal.schedules(self._store) >= count

    def _dies(self, status: int) -> None:
        self._died = status

    async def _move(self, to_us: int) -> None:
        """Let time pass at once. First here, then in the store: what the store wakes must find the new time here."""
        self.clock.advance((to_us - self.clock.wall_us()) / 1_000_000)
        await rehearsal.move_clock(self._store, self.clock.wall_us(), logs=[self._journal.log_id])
        self._script.passed()

    async def _settled(self) -> int | None:
        """Wait until nothing can happen without time passing; returns the next moment at which something does."""
        busy: list[str] = []
        try:
            async with asyncio.timeout(self._patience_s):
                worked = False
                while (standing := await self._still(busy)) is None or worked:
                    # A run that has ended wakes the one that waits for it a moment later: once more, to be sure.
                    worked = standing is None
                    await asyncio.sleep(_LOOK_S if worked else _SURE_S)
                return min((us for us in (standing.next_us, self._script.next_us) if us), default=None)
        except TimeoutError:
            raise Restless(
                f"still at work after {self._patience_s:g} s: {', '.join(busy) or 'waking'}; a step that hangs, say"
            ) from None

    async def _still(self, busy: list[str]) -> rehearsal.Standing | None:
        """How it stands; None: something goes on, ``busy`` says what."""
        standing = await rehearsal.standing(self._store)
        busy[:] = [f"run {id}" for id in standing.ready if not self._script.calm(id)]
        if self._died is not None:
            raise Restless(f"the worker would have ended its process, with status {self._died}")
        return None if busy or standing.due else standing

    async def _until(self, holds: Callable[[], Any], what: str) -> None:
        try:
            async with asyncio.timeout(START_S):
                while not (await found if asyncio.iscoroutine(found := holds()) else found):  # noqa: ASYNC110
                    await asyncio.sleep(_LOOK_S)
        except TimeoutError:
            raise Restless(f"not after {START_S:g} s: {what}") from None


@contextlib.asynccontextmanager
async def rehearse(app: App, stage: Stage | None = None, **options: Any) -> AsyncIterator[Rehearsal]:
    """A rehearsal of an app; ``options`` are those of `Rehearsal`. Without a stage it starts a PostgreSQL of its own,
    which takes a second or two: tests share one, by the fixture of `seawall.testing.plugin`."""
    async with contextlib.AsyncExitStack() as opened:
        if stage is None:
            stage = opened.enter_context(Stage())
        yield await opened.enter_async_context(Rehearsal(app, stage, **options))


async def _as_it_is(batch: Batch) -> Batch:
    return batch


def _record(
    id: bytes, type: str, body: bytes, tenant: str, headers: dict[str, str], key: str, received_us: int
) -> Record:
    """An event as its provider sends it, so that routing finds the type that was asked for."""
    provider, _, word = type.partition(".")
    kind = provider if provider in ("github", "shopify", "stripe", "slack", "pagerduty") and word else "none"
    named = {"github": "x-github-event", "shopify": "x-shopify-topic"}.get(kind)
    given = {name.lower() for name in headers}
    if named is not None and named not in given:
        headers[named] = word
    elif kind == "none" and "ce-type" not in given:
        headers["ce-type"] = type
    headers.setdefault("content-type", "application/json")
    flat = "\0".join(part for header in headers.items() for part in header).encode("latin-1")
    record = Record(
        id=id, source_id=_SOURCE_ID, kind=kind, tenant=tenant, source=SOURCE, received_us=received_us, key=key,
        headers=flat, body=body,
    )  # fmt: skip
    found = read(record, {}).type
    if found != type:
        raise ValueError(f"an event of type {type} was to be sent, but its body makes it {found!r}")
    return record
