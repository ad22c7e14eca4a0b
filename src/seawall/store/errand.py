"""The work on bulks (bulk.py): one piece after the other, each a transaction with how far it has come in it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Protocol
from uuid import UUID

from seawall.store.bulk import KEEP_S, UNDO_S, Act
from seawall.store.cancel import Marked, mark
from seawall.store.pool import Row, Session, Store
from seawall.store.statement import statements

_SQL = statements("bulk")

PIECE_RUNS: Final = 2_000
"""A flush that ends one of them waits for the whole piece: some 50 ms."""

PIECE_S: Final = 10.0
ROUNDS_MAX: Final = 100
"""How often those are looked at again that somebody was flushing."""

PRUNE_ROWS: Final = 5_000
PRUNED_AFTER_S: Final = UNDO_S + 3600.0
PUT_OFF, MISSED = 1, 2
HELD: Final = 2
READY: Final = 0


class Placing(Protocol):
    """Where runs wait that come back."""

    def vt(self, queue_id: int, tenant: str, priority: int) -> int:
        """The virtual time of a run: behind those of its tenant that came back before it."""

    def shard(self, event_id: UUID, tenant: str, shards: int) -> int: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """What a piece has done."""

    bulk: int
    act: Act
    done: int
    missed: int
    put_off: int
    over: bool  # it was the bulk's last
    marked: Marked | None = None  # of a cancellation: what is to be settled, while the next piece is done


class _Fates:
    """What became of the runs of one piece."""

    def __init__(self, asked: Sequence[int], done: Sequence[int], seen: Sequence[int], there: Sequence[int]) -> None:
        self.done = done
        self.put_off = sorted(set(there) - set(seen) - set(done))  # there, and not seen: somebody has the row locked
        self.missed = sorted(set(asked) - set(done) - set(self.put_off))
        self.marked: Marked | None = None


async def work(store: Store, placing: Placing) -> Piece | None:
    """Do one piece of the oldest bulk that nobody works on; None: there is none.

    Raises:
        Unavailable: Nothing was done.
        Uncertain: It may have been. Go on with the next one: the store knows how far it has come.

    Durability: committed before return.
    """
    async with store.transaction(timeout_s=PIECE_S) as session:
        bulk = await session.row(_SQL["take"])
        if bulk is None:
            return None
        await session.fetch(_SQL["steady"])
        ids = await _next(session, bulk)
        if not ids:
            return await _next_round(session, bulk)
        fates = await _act(session, bulk, ids, placing)
        await _note(session, bulk, fates)
        await session.execute(
            _SQL["advance"], bulk["id"], ids[-1], len(fates.done), len(fates.missed), bulk["rounds"], False
        )
    return _said(bulk, fates)


async def _next(session: Session, bulk: Row) -> list[int]:
    sql = _SQL["next_off" if bulk["rounds"] else "next_down" if Act(bulk["act"]) is Act.RETRY else "next"]
    return [row["run_id"] for row in await session.fetch(sql, bulk["id"], bulk["after"], PIECE_RUNS)]


async def _next_round(session: Session, bulk: Row) -> Piece:
    """All were looked at; those that were put off come again, until they are none, or were busy each time."""
    left = [row["run_id"] for row in await session.fetch(_SQL["next_off"], bulk["id"], -1, PIECE_RUNS)]
    over = not left or bulk["rounds"] >= ROUNDS_MAX
    missed = left if over else []
    if missed:
        await session.execute(_SQL["mark"], bulk["id"], missed, MISSED)
    await session.execute(_SQL["advance"], bulk["id"], -1, 0, len(missed), bulk["rounds"] + 1, over)
    marked = None
    if Act(bulk["act"]) is Act.CANCEL:  # a router may have died between the two halves, and nobody serves the queue
        marked = Marked([], await session.value(_SQL["unsettled"], bulk["id"], PIECE_RUNS))
    return Piece(
        bulk=bulk["id"], act=Act(bulk["act"]), done=0, missed=len(missed), put_off=len(left) - len(missed), over=over,
        marked=marked,
    )  # fmt: skip


async def _act(session: Session, bulk: Row, ids: Sequence[int], placing: Placing) -> _Fates:
    act = Act(bulk["act"])
    if act is Act.HOLD:
        row = await session.row(_SQL["hold"], ids)
    elif act is Act.CANCEL:
        return await _cancel(session, bulk, ids)
    elif act is Act.RELEASE:
        row = await _release(session, ids, placing)
    else:
        row = await _retry(session, bulk["id"], ids, placing)
    assert row is not None
    return _Fates(ids, row["done"], row["seen"], row["there"])


async def _cancel(session: Session, bulk: Row, ids: Sequence[int]) -> _Fates:
    row = await session.row(_SQL["free"], ids)
    assert row is not None
    why = f"cancelled by {bulk['by']}, bulk {bulk['id']}"
    marked = await mark(session, row["free"], f"{why}: {bulk['why']}" if bulk["why"] else why)
    done = [*(one.id for one in marked.ended), *marked.cancelling]
    if len(row["there"]) < len(
        ids
    ):  # a parent that an earlier piece has cancelled took them with it: the undo is theirs too
        done += await session.value(_SQL["orphaned"], ids)
    fates = _Fates(ids, done, row["free"], row["there"])
    fates.marked = marked
    return fates


async def _release(session: Session, ids: Sequence[int], placing: Placing) -> Row | None:
    found = await session.fetch(_SQL["held"], ids)
    vts = [placing.vt(run["queue_id"], run["tenant"], run["priority"]) for run in found]
    return await session.row(_SQL["release"], ids, [run["id"] for run in found], vts)


async def _retry(session: Session, bulk: int, ids: Sequence[int], placing: Placing) -> Row | None:
    found = await session.fetch(_SQL["ended"], ids, bulk)
    return await session.row(
        _SQL["retry"],
        ids,
        [run["id"] for run in found],
        [run["queue_id"] for run in found],
        [placing.shard(run["event_id"], run["tenant"], run["shards"]) for run in found],
        [HELD if run["was"] == HELD else READY for run in found],
        [placing.vt(run["queue_id"], run["tenant"], run["priority"]) for run in found],
    )


async def _note(session: Session, bulk: Row, fates: _Fates) -> None:
    """The common path, in which all were done at once, writes nothing."""
    if fates.missed:
        await session.execute(_SQL["mark"], bulk["id"], fates.missed, MISSED)
    if fates.put_off and not bulk["rounds"]:
        await session.execute(_SQL["mark"], bulk["id"], fates.put_off, PUT_OFF)
    if fates.done and bulk["rounds"]:
        await session.execute(_SQL["mark"], bulk["id"], fates.done, None)


def _said(bulk: Row, fates: _Fates) -> Piece:
    return Piece(
        bulk=bulk["id"], act=Act(bulk["act"]), done=len(fates.done), missed=len(fates.missed),
        put_off=len(fates.put_off), over=False, marked=fates.marked,
    )  # fmt: skip


async def prune(store: Store) -> int:
    """Forget which runs they were, where nothing can be undone any more, and bulks long gone; at most PRUNE_ROWS.

    Raises:
        Unavailable, Uncertain: Safe to repeat.
    """
    gone = await store.execute(_SQL["prune"], PRUNED_AFTER_S, PRUNE_ROWS)
    if gone < PRUNE_ROWS:
        await store.execute(_SQL["forget"], KEEP_S)
    return gone
