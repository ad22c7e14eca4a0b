"""Which events count as the same one."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from hashlib import sha256
from uuid import UUID

import pytest

from router.rig import CLOCK, IDS, SOURCE, Rig, append, id_uuid, record, until
from seawall.kernel.clock import SystemClock
from seawall.kernel.seam.journal import JournalReader
from seawall.store.line import key_columns
from seawall.store.router import _event_columns, _run_columns
from seawall.store.statement import statements

HOUR_US = 3_600_000_000


async def statuses(rig: Rig) -> dict[bytes, int]:
    return {row["id"].bytes: row["status"] for row in await rig.database.fetch("select id, status from event")}


async def test_the_same_key_and_body_collapses_into_the_first_event(rig: Rig) -> None:
    await rig.workflow("*")
    first, again = record(key="k"), record(key="k")
    journal = rig.log()
    await append(journal, first)
    async with rig.router():
        await rig.arrived(1)
        await append(journal, again)
        await rig.arrived(1, table="duplicate")
    [row] = await rig.database.fetch("select * from duplicate")
    assert (row["id"].bytes, row["first_id"].bytes) == (again.id, first.id)
    assert await statuses(rig) == {first.id: 1}
    assert await rig.count("run") == 1


@pytest.mark.parametrize("together", [True, False])
async def test_another_body_under_the_same_key_is_kept_as_a_conflict_and_not_run(rig: Rig, together: bool) -> None:
    await rig.workflow("*")
    first, other = record(key="k"), record(key="k", body=b'{"type":"order.paid","x":1}')
    journal = rig.log()
    await append(journal, first, *([other] if together else []))
    async with rig.router():
        await rig.arrived(1)
        if not together:
            await append(journal, other)
        await rig.arrived(2)
    assert await statuses(rig) == {first.id: 1, other.id: 3}
    row = await rig.event(other.id)
    assert row["body"] == other.body
    assert first.id.hex() in row["reason"]
    assert await rig.count("run") == 1


async def test_a_key_counts_only_within_its_source(rig: Rig) -> None:
    one, two = record(key="k"), record(key="k", source_id=b"\x02" * 16)
    await append(rig.log(), one, two)
    async with rig.router():
        await rig.arrived(2)
    assert await statuses(rig) == {one.id: 1, two.id: 1}


@pytest.mark.parametrize("together", [True, False])
async def test_a_key_may_come_again_when_its_window_has_passed_since_the_first_was_received(
    rig: Rig, together: bool
) -> None:
    first = record(key="k")
    inside = record(key="k", received_us=first.received_us + 23 * HOUR_US)
    outside = record(key="k", received_us=first.received_us + 24 * HOUR_US)
    later = record(key="k", received_us=outside.received_us + 23 * HOUR_US)
    journal = rig.log()
    records = [first, inside, outside, later]
    if together:
        await append(journal, *records)
    async with rig.router():
        for number, each in enumerate([] if together else records):
            await append(journal, each)
            await rig.arrived(number + 1, table="(select id from event union all select id from duplicate) as every")
        await rig.arrived(2)
        await rig.arrived(2, table="duplicate")
    assert await statuses(rig) == {first.id: 1, outside.id: 1}
    firsts = {row["id"].bytes: row["first_id"].bytes for row in await rig.database.fetch("select * from duplicate")}
    assert firsts == {inside.id: first.id, later.id: outside.id}


@pytest.mark.parametrize("body", [b'{"type":"order.paid"}', b'{"type":"order.sent"}'])
async def test_an_event_from_the_backlog_is_no_copy_of_one_that_came_after_its_window(rig: Rig, body: bytes) -> None:
    """Fresh records are read first: the later use of a key is stored before the earlier one."""
    await rig.workflow("*")
    later = record(key="k")
    first = record(key="k", received_us=later.received_us - 24 * HOUR_US, body=body)
    near = record(key="k", received_us=later.received_us - 23 * HOUR_US)
    async with rig.router():
        await append(rig.log("fresh"), later)
        await rig.arrived(1)
        await append(rig.log("backlog"), first, near)
        await rig.arrived(2)
        await rig.arrived(1, table="duplicate")
    assert await statuses(rig) == {first.id: 1, later.id: 1}
    assert await rig.count("run") == 2


async def test_a_second_copy_of_a_collapsed_event_is_nothing_when_its_key_is_forgotten(rig: Rig) -> None:
    """A record that Kafka and the spool both have, whose spooled copy comes after the window: it ran."""
    await rig.workflow("*")
    first, again = record(key="k"), record(key="k")
    await append(rig.log(), first, again)
    async with rig.router():
        await rig.arrived(1, table="duplicate")
        await rig.database.execute("delete from dedupe")
        new, third = record(key="k"), record(key="k")
        await append(rig.log("spool"), again, new, third, first, again, record())
        await rig.arrived(3)
        await rig.arrived(2, table="duplicate")
    assert await rig.count("run") == 3
    assert await rig.count("event", f"id = '{id_uuid(again.id)}'") == 0
    rows = await rig.database.fetch("select id, first_id from duplicate")
    assert {row["id"].bytes: row["first_id"].bytes for row in rows} == {again.id: first.id, third.id: new.id}


async def test_a_second_copy_of_a_conflict_claims_no_key_that_is_forgotten(rig: Rig) -> None:
    """The next event under the key was collapsed into it, which never ran."""
    await rig.workflow("*")
    other = b'{"type":"order.paid","x":1}'
    first, conflict, later = record(key="k"), record(key="k", body=other), record(key="k", body=other)
    journal = rig.log()
    await append(journal, first, conflict)
    async with rig.router():
        await rig.arrived(2)
        await rig.database.execute("delete from dedupe")
        await append(journal, conflict, later)
        await rig.arrived(3)
    assert await statuses(rig) == {first.id: 1, conflict.id: 3, later.id: 1}
    assert await rig.count("run") == 2
    assert rig.number("seawall_router_reread_total") == 1


async def test_a_router_that_was_away_forgets_no_key_before_it_knows_what_is_unread(rig: Rig) -> None:
    """Else a copy that waits in a log, which came within the window, would run."""
    await rig.workflow("*")
    first = IDS.next()
    again = record(key="k", received_us=CLOCK.wall_us() - 2 * HOUR_US)
    await rig.database.execute(
        "insert into dedupe (source_id, key_hash, event_id, body_hash, seen_at, expires_at)"
        " values ($1, $2, $3, $4, now() - interval '25 hours', now() - interval '1 hour')",
        id_uuid(SOURCE), sha256(b"k").digest()[:16], id_uuid(first), sha256(again.body).digest()[:16],
    )  # fmt: skip
    await append(rig.log(), again)
    real, listed = rig.find, asyncio.Event()

    async def find() -> Mapping[str, JournalReader]:
        await listed.wait()
        return await real()

    rig.find = find  # type: ignore[method-assign]
    async with rig.router() as supervisor:
        await until(lambda: supervisor.ready("router.housekeeping"))
        listed.set()
        await rig.arrived(1, table="duplicate")
    assert await rig.count("run") == 0


@pytest.mark.parametrize(("kind", "field"), [("stripe", "id"), ("slack", "event_id")])
async def test_stripe_and_slack_keys_come_from_the_body(rig: Rig, kind: str, field: str) -> None:
    body = b'{"type":"x","%b":"evt_1"}' % field.encode()
    first, again = record(kind=kind, body=body), record(kind=kind, body=body)
    await append(rig.log(), first, again)
    async with rig.router():
        await rig.arrived(1)
        await rig.arrived(1, table="duplicate")
    assert (await rig.event(first.id))["dedupe_key"] == "evt_1"


async def test_keys_of_any_bytes_are_kept_apart(rig: Rig) -> None:
    records = [record(key=key) for key in ("\udcff", "\udcfe", "a\0b", "é", "x" * 512)]
    await append(rig.log(), *records)
    async with rig.router():
        await rig.arrived(len(records))
    assert await rig.count("dedupe") == len(records)


async def test_expired_keys_are_pruned_and_live_ones_stay(rig: Rig) -> None:
    live = record(key="k")
    await rig.database.execute(
        "insert into dedupe select $1, decode(lpad(to_hex(n), 32, '0'), 'hex'), $2, '', now() - interval '3 days', "
        "now() - interval '2 days' from generate_series(1, 2500) n",
        id_uuid(SOURCE), id_uuid(live.id),
    )  # fmt: skip
    await append(rig.log(), live)
    async with rig.router():
        await rig.arrived(1)

        async def pruned() -> bool:
            return await rig.count("dedupe") == 1

        await until(pruned)
    assert await rig.count("dedupe", "expires_at > now()") == 1


class Leaping(SystemClock):
    """The machine's clock, ahead by so much."""

    ahead_us = 0

    def wall_us(self) -> int:
        return super().wall_us() + self.ahead_us


async def test_a_clock_that_leaps_ahead_costs_no_key_that_is_live(rig: Rig) -> None:
    """Deleted by it, they don't come back when it is set right, and repeats within their window ran."""
    clock, live = Leaping(), record(key="k")
    await append(rig.log(), live)
    async with rig.router(clock=clock) as supervisor:
        await rig.arrived(1)
        clock.ahead_us = 3 * 86_400_000_000
        await rig.database.execute(
            "insert into dedupe select source_id, '\\x00', event_id, '', seen_at - interval '3 days', "
            "expires_at - interval '3 days' from dedupe"
        )

        async def pruned() -> bool:
            return await rig.count("dedupe") == 1

        await until(pruned)
        assert supervisor.ready("router.housekeeping")
    assert await rig.count("dedupe", "expires_at > now()") == 1


async def test_a_batch_of_duplicates_is_looked_up_one_by_one_however_many_events_there_are(rig: Rig) -> None:
    """A storm of repeats read the whole table of events for each batch: a tenth of a second in 400,000."""
    filled = "seawall_test_day"
    first, last = UUID(int=0x019A_0000 << 96), UUID(int=0x019B_0000 << 96)
    await rig.database.execute(
        f"create table {filled} partition of event for values from ('{first}') to ('{last}');"
        f"insert into {filled} select ('019a0000-0000-7000-8000-' || lpad(to_hex(n), 12, '0'))::uuid, '{first}', '', "
        f"'', '', 1, null, now(), now(), null, '', '', '', '', 0, 0, '{first}', 0, 0 from generate_series(1, 20000) n;"
        "analyze event"
    )
    ids = [UUID(int=(0x019A_0001 << 96) + n) for n in range(500)]
    plan = await rig.database.fetch(
        f"explain {statements('router')['keep']}", first, *_event_columns([]), *_run_columns([]), ids, ids, [], [],
        *_run_columns([]), *key_columns([]), *_run_columns([]),
    )  # fmt: skip
    told = "\n".join(row[0] for row in plan)
    assert "Hash" not in told and f"Seq Scan on {filled}" not in told, told
