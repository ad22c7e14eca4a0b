"""Asks the store how waits for events stand, those of many runs in one transaction."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from uuid import UUID

from seawall.guard import Heart
from seawall.guard.patience import patiently
from seawall.guard.retry import Backoff
from seawall.guard.spell import Spells
from seawall.kernel.clock import Clock
from seawall.kernel.error import Unavailable, Uncertain, Unstorable
from seawall.kernel.log import fields, logger
from seawall.kernel.metric import Metrics
from seawall.kernel.seam.wait import Arrived, Heard
from seawall.store.driver import DEPENDENCY
from seawall.store.pool import Row, Store
from seawall.store.wait import (
    SHAPES_PER_TYPE_MAX,
    Asked,
    Forgotten,
    Known,
    Standing,
    know_shape,
    look,
    passed,
)  # fmt: skip

log = logger("worker")

LOOKS_MAX = 200
"""Waits in one transaction."""

LOOK_S = 1.5
IDLE_S = 0.5
HELD_LOOK_US = 2_000_000
"""How soon a wait whose time is over, and that is held for logs that are behind, is looked at again."""

LEARN_S = 15.0
"""How long routers may take to know of new fields: longer than a batch of theirs may take."""

LEARN_LOOK_S = 0.05

TOO_MANY = (
    f"{{}} is waited for by {SHAPES_PER_TYPE_MAX} sets of fields already, or all types by too many, so not by {{}}: "
    "what differs from run to run belongs into a value, not into a name"
)

Shape = tuple[str, tuple[str, ...]]


@dataclass(slots=True)
class _Question:
    asked: Asked
    shape: Shape
    answer: asyncio.Future[Standing | None]


class Ears:
    """All open waits of one process, as far as somebody looks at them."""

    def __init__(self, store: Store, metrics: Metrics, spells: Spells, *, clock: Clock) -> None:
        self._store = store
        self._spells = spells
        self._clock = clock
        self._questions: list[_Question] = []
        self.away = False
        """Somebody has asked, and the store didn't answer."""
        self._learned: dict[Shape, UUID] = {}  # by what the store knows them; few, since it refuses to have many
        self._learning: dict[Shape, tuple[Known, float]] = {}  # and when at the latest
        self._kick = asyncio.Event()
        self._looks = metrics.counter("seawall_waits_looked_at_total", "Looks at how a wait for an event stands.")
        self._held = metrics.counter(
            "seawall_waits_ended_unsure_total",
            "Waits that ended without an event while some log was behind for too long.",
        )

    async def look(self, asked: Asked, type: str, names: Sequence[str]) -> Standing | None:
        """How a wait stands, opened if it isn't open yet. None: the run's lease is gone.

        Raises:
            ValueError: Too many different fields are waited by.
        """
        question = _Question(asked, (type, tuple(names)), asyncio.get_running_loop().create_future())
        self._questions.append(question)
        self._kick.set()
        return await question.answer

    async def run(self, heart: Heart) -> None:
        """The supervised loop."""
        backoff = Backoff(0.05, 0.5, random.Random())
        while True:
            try:
                await patiently(heart, self._round(), what=DEPENDENCY)
                self.away = False
                backoff.reset()
                await heart.beat()
            except (Unavailable, Uncertain) as error:
                self.away = True
                heart.unready(str(error))
                await asyncio.sleep(backoff.pause_s())
                continue
            await self._wait()

    async def _wait(self) -> None:
        ready = any(question.shape in self._learned for question in self._questions)
        wait_s = 0.0 if ready else LEARN_LOOK_S if self._learning else IDLE_S
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(wait_s):
                await self._kick.wait()
        self._kick.clear()

    async def _round(self) -> None:
        self._questions = [question for question in self._questions if not question.answer.done()]
        await self._learn()
        ready = [question for question in self._questions if question.shape in self._learned][:LOOKS_MAX]
        if not ready:
            return
        asked = [replace(question.asked, shape=self._learned[question.shape]) for question in ready]
        try:
            found = await look(self._store, asked, timeout_s=LOOK_S)
        except Forgotten:
            log.warning("the store was put back: it is told again by which fields runs wait")
            self._learned.clear()
            return
        self._looks.value += len(ready)
        for question in ready:
            standing = found.get(question.asked.place)
            if not question.answer.done():
                question.answer.set_result(standing)
            if standing is not None and standing.unsure:
                self._ended_unsure(question.asked)

    async def _learn(self) -> None:
        """Have routers note events by fields that nobody has waited by, and wait until each of them surely does."""
        now = self._clock.monotonic()
        for shape in {q.shape for q in self._questions} - self._learned.keys() - self._learning.keys():
            try:
                known = await know_shape(self._store, *shape)
            except Unstorable as error:
                self._refuse(shape, f"fields that can't be waited by: {error}")
                continue
            if known is not None:
                self._learning[shape] = (known, now + LEARN_S)
            else:
                self._refuse(shape, TOO_MANY.format(shape[0], ", ".join(shape[1])))
        for shape, (known, at_most) in [*self._learning.items()]:
            sure = await passed(self._store, known)
            if not sure and now < at_most:
                continue
            if not sure:
                log.warning(
                    "a router's batch lasts very long; an event of it may be missed", extra=fields(type=shape[0])
                )
            del self._learning[shape]
            self._learned[shape] = known.stamp

    def _refuse(self, shape: Shape, why: str) -> None:
        for question in self._questions:
            if question.shape == shape and not question.answer.done():
                question.answer.set_exception(ValueError(why))

    def _ended_unsure(self, asked: Asked) -> None:
        self._held.value += 1
        log.warning(
            "a wait ended though routing is behind", extra=fields(run=asked.place.run_id, wait=asked.place.name)
        )
        self._spells.saw(
            "wait-ended-unsure", f"run {asked.place.run_id} was told that no event came, while routing is behind",
            unaffected="waits that an event ends", cure="look why a log isn't routed: seawall doctor",
        )  # fmt: skip


def heard(standing: Standing) -> Heard:
    """What a run is told of its wait."""
    if standing.event is not None:
        return Heard(event=_arrived(standing.event))
    until_us = standing.until_us
    if until_us is not None and until_us <= standing.now_us:
        until_us = standing.now_us + HELD_LOOK_US
    return Heard(over=standing.over, until_us=until_us)


def _arrived(row: Row) -> Arrived:
    return Arrived(
        id=str(row["id"]), type=row["type"], source=row["source"], tenant=row["tenant"],
        received_us=int(row["received_at"].timestamp() * 1_000_000), headers=row["headers"], body=row["body"],
    )  # fmt: skip
