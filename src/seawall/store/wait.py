"""Waits for events: opened by workers, ended by routers, or by their deadline.

Neither can miss the other. Both take a lock on the wait's key, and look for what the other one writes in a statement
that begins behind it: whoever comes second sees what the first has committed. A wait's time is over only when all that
was accepted before is routed; whatever a router finds later comes too late for everybody.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence, Set
from dataclasses import dataclass
from typing import NamedTuple
from uuid import UUID

from seawall.kernel.error import SeawallError
from seawall.kernel.made import News
from seawall.kernel.placement import AHEAD, STEP, Turns
from seawall.kernel.status import CHANNEL_RUN
from seawall.store.driver import Unheard
from seawall.store.lease import Lease
from seawall.store.pool import Row, Session, Store, text_array
from seawall.store.statement import statements

_SQL = statements("wait")

SHAPES_PER_TYPE_MAX = 50
"""Ways to wait for one type: fields belong into code, and not into data."""

SHAPES_MAX = 10_000
"""Ways to wait altogether: a router knows so many."""

LOCKS = 256
"""Numbers of locks. One for each key would be more than a server has, when events can be waited for in many ways."""

MATCHES_MAX = 20
"""How often waits of one run that could hear the same event are looked at in one transaction."""

HEARD_MAX = 1000
"""Waits that one batch of a router ends, and that are ended at once later: some tens of milliseconds, and a batch has
seconds for all that it does."""

HOLD_S = 900.0
"""How long the end of a wait is held for logs that are behind."""


class Place(NamedTuple):
    """Which wait of which run."""

    run_id: int
    name: str
    nth: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """A wait that is to be open."""

    lease: Lease
    place: Place
    key: bytes
    lookback_us: int
    timeout_us: int | None
    shape: UUID | None = None  # the stamp of what `know_shape` made of its fields


@dataclass(slots=True, kw_only=True)
class Standing:
    """How a wait stands."""

    until_us: int | None
    now_us: int  # the store's clock
    event: Row | None = None  # that came: id, type, source, tenant, received_at, headers, body
    over: bool = False
    unsure: bool = False  # it is over though logs are behind


class Forgotten(SeawallError):
    """The store doesn't know any more by what is waited: it was put back. Nothing was opened; make it known again."""

    def __init__(self) -> None:
        super().__init__("the store has lost by which fields runs wait")


@dataclass(frozen=True, slots=True)
class Known:
    """Fields that events are noted by."""

    stamp: UUID
    batches: Sequence[str]  # transactions of routers, under way since before they may have heard of it


def lock_of(key: bytes) -> int:
    """The number of the lock on a key. Two keys of one number wait for each other without need."""
    return _LOCK_0 + key[0] % LOCKS


_LOCK_0 = 7_204_000


async def lock(session: Session, keys: Sequence[bytes]) -> None:
    """Take the locks on keys until the transaction's end."""
    await session.execute(_SQL["lock_keys"], sorted({lock_of(key) for key in keys}))


async def know_shape(store: Store, type: str, fields: Sequence[str]) -> Known | None:
    """Have routers note events of a type by these fields. Batches that are under way may not know of it yet: see
    ``passed``. None: there are too many, for this type or altogether.

    Raises:
        Unavailable, Uncertain: Safe to repeat.
        Unstorable: These are no names that can be kept.
    """
    async with store.transaction() as session:
        await session.execute(_SQL["lock_shapes"])
        stamp = await session.value(
            _SQL["know_shape"], *text_array([type]), list(fields), SHAPES_PER_TYPE_MAX, SHAPES_MAX
        )
    if stamp is None:
        return None
    # Asked for behind the commit: whatever begins later reads it.
    return Known(stamp, await store.value(_SQL["batches"]))


async def passed(store: Store, known: Known) -> bool:
    """Whether every batch from before has ended.

    Raises:
        Unavailable: The store is away.
    """
    return not set(known.batches).intersection(await store.value(_SQL["batches"]))


async def look(store: Store, asked: Sequence[Asked], *, timeout_s: float) -> dict[Place, Standing]:
    """Open waits that aren't open yet, end those whose time is over, and say how all of them stand.

    Returns:
        Without those of a lease that is gone.

    Raises:
        Unavailable: Nothing was written.
        Uncertain: It may have been; safe to repeat.
        Forgotten: Nothing was written; some of the shapes aren't there.

    Durability: committed before return.
    """
    stamps = {one.shape for one in asked}
    asked = sorted(asked, key=lambda one: one.place)  # runs are locked in one order by all
    found: dict[Place, Standing] = {}
    events: dict[Place, UUID] = {}
    async with store.transaction(timeout_s=timeout_s) as session:
        if await session.value(_SQL["shapes_there"], list(stamps)) < len(stamps):
            raise Forgotten
        await lock(session, [one.key for one in asked])
        for row in await session.fetch(_SQL["open"], *_columns(asked)):
            place = Place(row["run_id"], row["name"], row["nth"])
            found[place] = Standing(until_us=row["until_us"], now_us=row["now_us"], over=row["over"])
            if row["event_id"] is not None:
                events[place] = row["event_id"]
        matched, more = await _match(session, [place for place, w in found.items() if not (place in events or w.over)])
        events |= matched
        late = [
            place
            for place, wait in found.items()
            if place not in events and not wait.over and wait.until_us is not None and wait.until_us <= wait.now_us
        ]
        if more:  # it is soon asked again
            for place in found.keys() - events.keys():
                found[place].until_us = found[place].now_us
        elif late:
            for row in await session.fetch(_SQL["end_late"], *_places(late), int(HOLD_S * 1_000_000)):
                place = Place(row["run_id"], row["name"], row["nth"])
                found[place].over, found[place].unsure = True, row["unsure"]
    if events:
        rows = await store.fetch(_SQL["heard"], [*set(events.values())], timeout_s=timeout_s)
        bodies = {row["id"]: row for row in rows}
        for place, id in events.items():
            found[place].event = bodies.get(id)
            found[place].over = id not in bodies  # older than anything is kept
    return found


async def _match(session: Session, waits: Sequence[Place]) -> tuple[dict[Place, UUID], bool]:
    """End waits by what came already: which, by what event, and whether there may be more."""
    found: dict[Place, UUID] = {}
    more = bool(waits)
    for _ in range(MATCHES_MAX):
        if not more:
            break
        rows = await session.fetch(_SQL["match"], *_places(waits))
        found |= {Place(row["run_id"], row["name"], row["nth"]): row["event_id"] for row in rows}
        more = any(row["more"] for row in rows)
    return found, more


def _places(places: Sequence[Place]) -> tuple[Sequence[object], ...]:
    return tuple(zip(*places, strict=True))


def _columns(asked: Sequence[Asked]) -> list[list[object]]:
    return [
        [a.lease.queue_id for a in asked],
        [a.lease.shard for a in asked],
        [a.lease.epoch for a in asked],
        [a.place.run_id for a in asked],
        [a.place.name for a in asked],
        [a.place.nth for a in asked],
        [a.key for a in asked],
        [a.lookback_us for a in asked],
        [a.timeout_us for a in asked],
    ]


class Noted(NamedTuple):
    """An event, by one of the keys that it can be waited for."""

    key: bytes
    received_us: int
    event_id: bytes


class Woken(NamedTuple):
    """A run that was woken."""

    queue_id: int
    vt: int


async def note(session: Session, came: Sequence[Noted]) -> list[Woken]:
    """In a router's transaction: note events, and wake the runs that waited for them. Where too many wait for one it is
    only noted that they have to be told: see ``hear_broad``."""
    await lock(session, [one.key for one in came])
    wanted = await session.fetch(_SQL["note"], *_noted(came), HEARD_MAX)
    few = [came[row["place"] - 1] for row in wanted if not row["broad"]]
    runs: set[int] = set()
    for _ in range(MATCHES_MAX if few else 0):  # what is left finds itself: its run is woken, and looks
        rows = await session.fetch(_SQL["hear"], *_noted(few))
        runs.update(row["run_id"] for row in rows)
        if not any(row["more"] for row in rows):
            break
    return await wake(session, runs)


async def hear_broad(store: Store, *, turns: Turns, timeout_s: float) -> list[Woken] | None:
    """Tell some of the runs that wait for an event which very many wait for, and wake them: at most ``HEARD_MAX``, and
    of the events with one key the earliest first.

    Returns:
        Those that were woken. None: nobody is left to be told.

    Raises:
        Unavailable: Nothing was written.
        Uncertain: It may have been; safe to repeat.

    Durability: committed before return. Where a crash breaks it off it goes on where it was.
    """
    key = await store.value(_SQL["broad"], timeout_s=timeout_s)
    if key is None:
        return None
    async with store.transaction(timeout_s=timeout_s) as session:
        await lock(session, [key])
        rows = await session.fetch(_SQL["hear_broad"], key, HEARD_MAX)
        woken = await _wake(session, {row["run_id"] for row in rows}, turns)
    turns.saw(places(woken))
    return [_woken(row) for row in woken]


async def tell(store: Store, woken: Sequence[Woken]) -> None:
    """Say to workers that runs were woken. Who isn't told looks by itself, a second later.

    Raises:
        Unavailable, Uncertain: Nobody may have been told.
    """
    channels, payloads = zip(*notices(woken), strict=True)
    with contextlib.suppress(Unheard):
        await store.fetch(statements("router")["notify"], channels, payloads)


def notices(woken: Sequence[Woken]) -> list[tuple[str, str]]:
    """What to notify on which channel, for workers to hear of it."""
    news = News()
    for queue_id, vt in woken:
        news.add(queue_id, vt)
    return [(CHANNEL_RUN, payload) for payload in news.payloads()]


async def wake(session: Session, runs: Set[int]) -> list[Woken]:
    """In a transaction: count a wake for each of these runs, and let those that wait go on."""
    return [_woken(row) for row in await _wake(session, runs, Turns())]


async def _wake(session: Session, runs: Set[int], turns: Turns) -> list[Row]:
    return await session.fetch(_SQL["wake_heard"], [*runs], STEP, AHEAD, *turns.columns()) if runs else []


def _woken(row: Row) -> Woken:
    return Woken(row["queue_id"], row["vt"])


def places(rows: Sequence[Row]) -> list[tuple[int, str, int, int]]:
    """Of rows of statement ``wake_heard``, for ``Turns.saw``: of runs that were made ready."""
    return [(row["queue_id"], row["tenant"], row["place"], row["now"]) for row in rows if row["place"] is not None]


def _noted(came: Sequence[Noted]) -> tuple[list[object], ...]:
    return [one.key for one in came], [one.received_us for one in came], [UUID(bytes=one.event_id) for one in came]


async def shapes(store: Store, *, rows_max: int) -> dict[str, list[tuple[str, ...]]]:
    """By type, by which fields its events can be waited for.

    Raises:
        Unavailable: The store is away.
    """
    found: dict[str, list[tuple[str, ...]]] = {}
    for row in await store.fetch(_SQL["shapes"], rows_max):
        found.setdefault(row["type"], []).append(tuple(row["fields"]))
    return found


async def progress(store: Store, passed_us: Sequence[tuple[bytes, int]]) -> None:
    """Say up to when all that each log (by id) accepted is routed.

    Raises:
        Unavailable, Uncertain: Safe to repeat.
    """
    await store.execute(_SQL["progress"], [UUID(bytes=id) for id, _ in passed_us], [us for _, us in passed_us])


async def prune(store: Store, *, before_us: int, rows_max: int) -> int:
    """Forget by what events of before could be waited for; returns how many went, at most ``rows_max``.

    Raises:
        Unavailable, Uncertain: Safe to repeat.
    """
    return await store.execute(_SQL["prune"], before_us, rows_max)


async def prune_ended(store: Store, *, after: int, rows_max: int) -> tuple[int, int]:
    """Forget waits of runs that have ended, of the next ``rows_max`` rows; returns how many went, and where to go on.

    Raises:
        Unavailable, Uncertain: Safe to repeat.
    """
    row = await store.row(_SQL["prune_ended"], after, rows_max)
    assert row is not None
    return row["gone"], row["next"]
