"""Lines: runs that wait to be let in by their keys, outside of what a refill reads.

Nothing is counted but rows of runs, under a lock for each workflow; so no count can leak, and whoever looks second sees
whom the first one let in.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import NamedTuple
from uuid import UUID

from seawall.kernel.allowance import COUNT_MAX, EACH_MAX, Allowance, allowance
from seawall.kernel.made import News
from seawall.kernel.status import CHANNEL_RUN
from seawall.store.lease import Lease
from seawall.store.pool import Session, Store
from seawall.store.statement import statements

_SQL = statements("line")

ADMIT, MOVE, ANEW = 1, 2, 3


@dataclass(frozen=True, slots=True)
class Version:
    """A version of a workflow whose runs may be let in."""

    id: int
    allowance: Allowance
    priority: int
    queue_id: int
    shards: int
    leads: bool  # this worker looks through its lines
    beside: int | None = None  # where runs of replays wait

    def place(self, queue_id: int) -> int:
        """The queue that a run from this one goes to: its own, unless its workflow has moved."""
        return queue_id if queue_id in (self.queue_id, self.beside) else self.queue_id


class Waiting(NamedTuple):
    """A run that stands in a line."""

    id: int
    workflow_id: int
    tenant: str
    line: bytes
    keys: Sequence[bytes]  # of limits
    gates: Sequence[bytes]  # of rates that it has to pass still
    vt: int
    queue_id: int


class Change(NamedTuple):
    """What becomes of a run in a line."""

    id: int
    what: int  # ADMIT, MOVE or ANEW
    vt: int = 0
    queue_id: int = 0
    shards: int = 1
    line: bytes | None = None


class Placed(NamedTuple):
    """Where a run is ready now."""

    queue_id: int
    shard: int
    vt: int


class Unkeyed(NamedTuple):
    """A ready run that nobody has looked at for its keys."""

    id: int
    workflow_id: int
    tenant: str
    found: bool  # False: its event is gone
    body: bytes | None


class Keyed(NamedTuple):
    """Keys of such a run."""

    id: int
    keys: Sequence[bytes]
    gates: Sequence[bytes]


async def versions(store: Store, names: Collection[str], *, owner: UUID, live_s: float) -> dict[str, list[Version]]:
    """By name, what live workers have of these workflows, in queues that aren't paused.

    Raises:
        Unavailable: The store is away.
    """
    found: dict[str, list[Version]] = {}
    for row in await store.fetch(_SQL["versions"], sorted(names), owner, live_s):
        declared = allowance(row["name"], row["allowance"])
        assert declared is not None, "the statement asks for those alone"
        found.setdefault(row["name"], []).append(
            Version(row["id"], declared, row["priority"], row["queue_id"], row["shards"], row["leads"], row["beside"])
        )
    return found


async def lines(store: Store, span: tuple[bytes, bytes], *, lines_max: int) -> list[bytes]:
    """Keys in whose lines runs wait, in order.

    Raises:
        Unavailable: The store is away.
    """
    return [row["line"] for row in await store.fetch(_SQL["lines"], *span, lines_max)]


async def lock(session: Session, name: str) -> None:
    """Be the only one who lets in runs of a workflow, until the end of the transaction."""
    await session.execute(_SQL["lock"], int.from_bytes(sha256(name.encode()).digest()[:4], signed=True))


async def first(
    session: Session, lines: Sequence[bytes], workflow_ids: Sequence[int], *, each_max: int
) -> list[Waiting]:
    """The first of each line, in order of (virtual time, id) altogether."""
    rows = await session.fetch(_SQL["first"], lines, workflow_ids, each_max)
    return [
        Waiting(
            r["id"], r["workflow_id"], r["tenant"], r["line"], r["keys"] or (), r["gates"] or (), r["vt"], r["queue_id"]
        )
        for r in rows
    ]


async def standing(session: Session, keys: Sequence[bytes]) -> tuple[int, dict[bytes, int], dict[bytes, int]]:
    """The store's clock in microseconds; by key, how many runs count; by key of a rate that let somebody in, when the
    next one would begin."""
    rows = await session.fetch(_SQL["standing"], keys, COUNT_MAX)
    now_us: int = rows[0]["now_us"]
    spaced = {r["key"]: r["next_us"] for r in rows if r["next_us"] is not None}
    return now_us, {r["key"]: r["admitted"] for r in rows}, spaced


async def held(store: Store, keys: Sequence[bytes], *, runs_max: int) -> list[int]:
    """Runs that were held and count under these keys, though no refill names them; at most ``runs_max``.

    Raises:
        Unavailable: The store is away.
    """
    return [row["id"] for row in await store.fetch(_SQL["held"], keys, runs_max)]


async def put_down(store: Store, run_ids: Sequence[int]) -> int:
    """Have such runs count no more, as far as nobody has them in hand; returns how many. The caller has seen the end of
    the refills that began before it found them.

    Raises:
        Unavailable, Uncertain: Safe to repeat.
    """
    return await store.execute(_SQL["put_down"], run_ids)


async def settle(session: Session, changes: Sequence[Change], spaced: Mapping[bytes, int]) -> list[Placed]:
    """Write what was decided; returns where those that were let in are ready, or are to be keyed anew."""
    columns = list(zip(*changes, strict=True))
    rows = await session.fetch(_SQL["settle"], *columns, list(spaced), list(spaced.values()))
    return [Placed(*row) for row in rows]


async def unkeyed(store: Store, run_ids: Sequence[int], *, bytes_max: int) -> list[Unkeyed]:
    """Of these runs, those that are ready and have no keys, with their bodies; exceeded by one body at most.

    Raises:
        Unavailable: The store is away.
    """
    return [Unkeyed(*row) for row in await store.fetch(_SQL["unkeyed"], run_ids, bytes_max)]


async def line_up(store: Store, leases: Sequence[Lease], runs: Sequence[Keyed]) -> list[tuple[bytes | None, int]]:
    """Put runs into lines, unless they are in another worker's shard by now; returns lines and workflow ids.

    Raises:
        Unavailable, Uncertain: Safe to repeat.
    """
    rows = await store.fetch(
        _SQL["line_up"],
        [x.queue_id for x in leases],
        [x.shard for x in leases],
        [x.epoch for x in leases],
        [run.id for run in runs],
        *key_columns([(run.keys, run.gates) for run in runs]),
    )
    return [(row["line"], row["workflow_id"]) for row in rows]


def key_columns(runs: Sequence[tuple[Sequence[bytes], Sequence[bytes]]]) -> list[list[bytes | None]]:
    """Keys of limits and of rates of some runs, as arrays: the first ones of each kind, the second ones."""
    return [
        [kinds[kind][n] if n < len(kinds[kind]) else None for kinds in runs] for kind in (0, 1) for n in range(EACH_MAX)
    ]


async def tell(store: Store, placed: Sequence[Placed]) -> None:
    """Hint other workers at runs that were let in.

    Raises:
        Unavailable, Uncertain: They find them by looking.
    """
    news = News()
    for one in placed:
        news.add(one.queue_id, one.vt, one.shard)
    for payload in news.payloads():
        await store.fetch(_SQL["notify"], CHANNEL_RUN, payload)


async def prune_rates(store: Store, *, rows_max: int) -> int:
    """Delete what says nothing any more, at most ``rows_max``; returns how many went.

    Raises:
        Unavailable, Uncertain: Safe to repeat.
    """
    return await store.execute(_SQL["prune_rates"], rows_max)
