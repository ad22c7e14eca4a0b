"""A store whose time stands still until a test moves it. For rehearsals of workflows only: no process of the product
comes here.

Our statements are the product's, word for word. Each says ``now()`` without a schema, and a database of a rehearsal has
functions of its own of that name, before PostgreSQL's: so nothing is added to what a product's store does.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

from seawall.store.pool import Store
from seawall.store.statement import statements

_SQL = statements("rehearsal")


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """What is left to be done in a store."""

    ready: Sequence[int]  # runs that may begin, or are in hand
    due: int  # runs whose moment has come, and that aren't ready yet
    next_us: int | None  # the next moment that a run waits for, or that a schedule is due


@dataclass(frozen=True, slots=True, kw_only=True)
class Answered:
    """What an event's workflow replied."""

    status: int
    content_type: str
    body: bytes


async def make(admin: Store, name: str, *, template: str = "") -> None:
    """Make a database, of a template or empty.

    Args:
        name, template: Of letters, digits and _ only: they become part of the statement.

    Raises:
        Unavailable, Uncertain: The server is away, or somebody is connected to the template.
    """
    assert f"{name}{template}".replace("_", "").isalnum(), (name, template)
    sql = _SQL["make_database"] if template else _SQL["make_first_database"]
    await admin.execute(sql.format(name=name, template=template))
    await admin.execute(_SQL["look_here"].format(name=name))


async def drop(admin: Store, name: str) -> None:
    """Drop a database, whoever is connected to it.

    Raises:
        Unavailable, Uncertain: The server is away.
    """
    await admin.execute(_SQL["drop_database"].format(name=name))


async def lay_clock(store: Store) -> None:
    """Have the time of an empty database follow a test's. Before the schema is applied."""
    await store.execute(_SQL["lay_clock"])


async def move_clock(store: Store, to_us: int, *, logs: Sequence[bytes]) -> None:
    """Let time pass, and tell runs that wait for events that all which came before is routed.

    Args:
        logs: Ids of the logs that are routed, each to its end.

    Raises:
        Unavailable, Uncertain: Safe to repeat.
    """
    async with store.transaction() as session:
        await session.execute(_SQL["move_clock"], to_us)
        # Behind the move, so that what says when it was told says the new time.
        told = [UUID(bytes=id) for id in logs]
        await session.execute(statements("wait")["progress"], told, [to_us] * len(told))


async def standing(store: Store) -> Standing:
    """How it stands now.

    Raises:
        Unavailable: The store is away.
    """
    row = await store.row(_SQL["standing"])
    assert row is not None
    return Standing(ready=row["ready"], due=row["due"], next_us=row["next_us"])


async def schedules(store: Store) -> int:
    """How many schedules are known to the store.

    Raises:
        Unavailable: The store is away.
    """
    return int(await store.value(_SQL["schedules"]))


async def arrived(store: Store, event_id: bytes) -> bool:
    """Whether an event is routed.

    Raises:
        Unavailable: The store is away.
    """
    return bool(await store.value(_SQL["arrived"], UUID(bytes=event_id)))


async def reply(store: Store, event_id: bytes) -> Answered | None:
    """An event's reply; None: there is none (yet).

    Raises:
        Unavailable: The store is away.
    """
    row = await store.row(_SQL["reply"], UUID(bytes=event_id))
    return None if row is None else Answered(status=row["status"], content_type=row["content_type"], body=row["body"])
