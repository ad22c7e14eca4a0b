"""Handlers of the endpoints of queues."""

from __future__ import annotations

from seawall.console.answer import Answer, json
from seawall.console.ask import Ask
from seawall.console.shape import QueueChange, QueueList, QueueWish
from seawall.kernel.clock import Clock
from seawall.kernel.error import Rejected
from seawall.kernel.limit import NAME_CHARS_MAX
from seawall.kernel.moment import span_s
from seawall.kernel.placement import WEIGHT_MAX
from seawall.kernel.seam.change import TEXT_MAX
from seawall.store import queue, usage
from seawall.store.change import Author
from seawall.store.pool import Store
from seawall.workflow.app import SLOTS_MAX

SINCE = "15m"


class QueueDesk:
    """Each handler raises Rejected, Unavailable or Uncertain."""

    def __init__(self, store: Store, *, clock: Clock, query_s: float) -> None:
        self._store = store
        self._clock = clock
        self._query_s = query_s

    async def page(self, ask: Ask) -> Answer:
        return json(QueueList(items=await queue.lines(self._store, timeout_s=self._query_s)))

    async def top(self, ask: Ask) -> Answer:
        """Who holds slots."""
        window_s = span_s(ask.text("since") or SINCE)
        if window_s is None or not usage.WINDOW_MIN_S <= window_s <= usage.WINDOW_MAX_S:
            raise Rejected(422, "Bad since", "since is how long ago, from 1m to 6h: 90s, 30m, 2h")
        by = ask.text("by") or usage.BY[0]
        return json(await usage.top(self._store, by=by, window_s=window_s, timeout_s=self._query_s))

    async def put(self, ask: Ask) -> Answer:
        name, given = ask.path["name"], ask.parsed(QueueWish)
        wish = queue.Wish(
            reserved=_number("reserved", given.reserved, 0), most=_number("max", given.max, 1), paused=given.paused,
            depth_max=_number("depth_max", given.depth_max, 0), weights=_weights(given.weights),
        )  # fmt: skip
        if len(given.why) > TEXT_MAX:
            raise Rejected(422, "Bad reason", f"why has at most {TEXT_MAX} characters")
        author = Author(ask.by, self._clock, given.why.strip())
        before, after = await queue.put(self._store, name, wish, author, timeout_s=self._query_s)
        return json(QueueChange(name=name, before=before, after=after))


def _number(what: str, value: int | str | None, least: int) -> int | str | None:
    if value is None or value == queue.DECLARED or (isinstance(value, int) and least <= value <= SLOTS_MAX):
        return value
    raise Rejected(422, "Bad number", f"{what} is {least} to {SLOTS_MAX}, or {queue.DECLARED}; not {str(value)[:64]!r}")


def _weights(given: dict[str, int | str] | None) -> dict[str, int | str] | None:
    for tenant, weight in (given or {}).items():
        if not 0 < len(tenant) <= NAME_CHARS_MAX or not tenant.isprintable():
            raise Rejected(422, "Bad tenant", f"1 to {NAME_CHARS_MAX} printable characters, not {tenant[:64]!r}")
        if weight != queue.DECLARED and not (isinstance(weight, int) and 1 <= weight <= WEIGHT_MAX):
            raise Rejected(422, "Bad weight", f"a weight is 1 to {WEIGHT_MAX}, or {queue.DECLARED}")
    return given
