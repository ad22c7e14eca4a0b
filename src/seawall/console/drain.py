"""Handlers of the endpoints of drains: what is done at which rate, and who decides it."""

from __future__ import annotations

import math

from seawall.console.answer import Answer, json
from seawall.console.ask import Ask
from seawall.console.shape import Drains, QueueChange, ThrottleWish
from seawall.guard.governor import Course
from seawall.kernel.clock import Clock
from seawall.kernel.error import Rejected
from seawall.kernel.seam.change import TEXT_MAX
from seawall.store import drain
from seawall.store.change import Author
from seawall.store.pool import Store

RATE_MIN, RATE_MAX = 0.0001, 1_000_000.0
OVER_S_MAX = 30 * 86_400.0
FLOOR = 0.1
"""Share of the first rate below which a rising throttle is never cut, unless something else is asked for."""


class DrainDesk:
    """Each handler raises Rejected, Unavailable or Uncertain."""

    def __init__(self, store: Store, *, clock: Clock, query_s: float) -> None:
        self._store = store
        self._clock = clock
        self._query_s = query_s

    async def page(self, ask: Ask) -> Answer:
        decided, items = await drain.standing(self._store, timeout_s=self._query_s)
        return json(Drains(governor=decided, items=items))

    async def throttle(self, ask: Ask) -> Answer:
        name, given = ask.path["name"], ask.parsed(ThrottleWish)
        if len(given.why) > TEXT_MAX:
            raise Rejected(422, "Bad reason", f"why has at most {TEXT_MAX} characters")
        author = Author(ask.by, self._clock, given.why.strip())
        before, after = await drain.throttle(
            self._store, name, course(given), author, timeout_s=self._query_s
        )  # fmt: skip
        return json(QueueChange(name=name, before=before, after=after))


def course(wish: ThrottleWish) -> Course | None:
    """What is asked for; None: no throttle any more.

    Raises:
        Rejected: Its numbers don't fit each other.
    """
    rate, goal, over_s, floor = wish.rate, wish.raise_to, wish.over_s, wish.floor
    if rate is None:
        if (goal, over_s, floor) != (None, None, None):
            raise Rejected(422, "Bad throttle", "raise_to, over_s and floor need a rate")
        return None
    for what, value in (("rate", rate), ("raise_to", goal), ("floor", floor)):
        if value is not None and not (math.isfinite(value) and RATE_MIN <= value <= RATE_MAX):
            raise Rejected(422, "Bad throttle", f"{what} is {RATE_MIN:g} to {RATE_MAX:g} a second; not {value:g}")
    if goal is None:
        if over_s is not None or floor is not None:
            raise Rejected(422, "Bad throttle", "over_s and floor are for a rate that rises: give raise_to")
        return Course(rate=rate, floor=rate, goal=rate)
    if goal <= rate:
        raise Rejected(422, "Bad throttle", f"raise_to, {goal:g} a second, must be more than the rate, {rate:g}")
    if over_s is None or not (math.isfinite(over_s) and 1 <= over_s <= OVER_S_MAX):
        raise Rejected(422, "Bad throttle", f"raise_to needs over_s: 1 to {OVER_S_MAX:g} seconds")
    floor = max(RATE_MIN, FLOOR * rate) if floor is None else floor
    if floor > rate:
        raise Rejected(422, "Bad throttle", f"floor, {floor:g} a second, is more than the rate, {rate:g}")
    return Course(rate=rate, floor=floor, goal=goal, slope=(goal - rate) / over_s)
