"""A record that can't be stored, or that kills whoever reads it, ends alone as a dead letter with its bytes."""

from __future__ import annotations

import pytest

from router.rig import Rig, append, record, until
from seawall.kernel.cause import Cause
from seawall.kernel.event import encode, id_day
from seawall.kernel.metric import Metrics


async def test_values_that_the_store_refuses_are_found_and_their_neighbours_are_routed(rig: Rig) -> None:
    await rig.workflow("*")
    records = [record() for _ in range(100)]
    bad = {
        3: record(key_id=2**32 - 1),
        4: record(received_us=2**63 - 1),
        50: record(config_version=2**64 - 1, key="k"),
        99: record(received_us=2**62),
    }
    for index, each in bad.items():
        records[index] = each
    await append(rig.log(), *records)
    async with rig.router():
        await rig.arrived(100)
    dead = {row["id"].bytes: row for row in await rig.database.fetch("select * from event where status = 4")}
    assert set(dead) == {r.id for r in bad.values()}
    for each in bad.values():
        assert dead[each.id]["body"] == each.body
        assert dead[each.id]["type"] == "shop"
        assert dead[each.id]["reason"]
    assert await rig.count("run") == 96
    assert await rig.count("router_note") == 2
    assert rig.number("seawall_router_refused_total") < 40


async def test_a_dead_letter_is_made_only_of_what_failed_while_it_was_alone(rig: Rig) -> None:
    """Halving must not blame a neighbour of the culprit, wherever in the batch it stands."""
    records = [record() for _ in range(16)]
    journal = rig.log()
    async with rig.router(batch_records=8):
        for place in range(8):
            batch = [*records[:place], record(key_id=2**32 - 1), *records[place + 1 :]]
            batch = [record() if r.key_id == 0 else r for r in batch]
            await append(journal, *batch)
            await rig.arrived(16 * (place + 1))
    assert await rig.count("event", "status = 4") == 8
    assert await rig.count("event", "status = 4 and key_id <> 2147483647") == 0


async def test_two_routers_condemn_only_the_culprits(rig: Rig) -> None:
    """Who found one guilty and came too late condemned the record behind it."""
    await rig.workflow("*")
    journal = rig.log()
    async with rig.router(batch_records=1), rig.router(batch_records=1, metrics=Metrics()):
        for place in range(40):
            batch = [record() for _ in range(5)]
            batch[place % 5] = record(key_id=2**32 - 1)
            await append(journal, *batch)
            await rig.arrived(5 * (place + 1))
    assert await rig.count("event", "status = 4") == 40
    assert await rig.count("run") == 160


@pytest.mark.parametrize("payload", [b"", b"\x63 of another version", encode(record())[:-1]])
async def test_a_record_that_can_not_be_decoded_is_kept_whole_as_a_dead_event(rig: Rig, payload: bytes) -> None:
    await rig.workflow("*")
    fine = record()
    await append(rig.log(), payload, fine)
    async with rig.router():
        await rig.arrived(2)
    [row] = await rig.database.fetch("select * from event where status = 4")
    assert row["body"] == payload
    assert (row["type"], row["cause"]) == ("unreadable", Cause.DECODE)
    assert abs(id_day(row["id"].bytes) - id_day(fine.id)) <= 1
    assert await rig.count("run") == 1


async def test_a_record_without_an_id_is_the_same_dead_event_when_it_is_read_again(rig: Rig) -> None:
    await append(rig.log(), b"junk", record())
    async with rig.router():
        await rig.arrived(2)
    await rig.database.execute('update log_position set segment = 1, "offset" = 64')
    async with rig.router():
        await until(lambda: rig.number("seawall_router_reread_total") == 2)
    assert await rig.count("event") == 2
    assert await rig.database.fetchval("select tries from router_note") == 2


async def test_a_name_that_is_not_text_is_a_dead_event_too(rig: Rig) -> None:
    payload = encode(record(tenant="acme")).replace(b"acme", b"ac\xffe")
    await append(rig.log(), payload)
    async with rig.router():
        await rig.arrived(1)
    assert await rig.count("event", "status = 4") == 1


@pytest.mark.parametrize(
    "body",
    [
        b"", b"[" * 100_000, b'{"type":"\\u0000"}', b'{"type":"\\ud800"}', b'{"type":7}', b"\xff\xfe", b'"x"', b"null",
        b'{"type":"' + "\u00e9".encode() * 5000 + b'"}', b"1" * 5000, b'{"type":"a\\u0000b"}',
    ],
)  # fmt: skip
async def test_no_body_whatsoever_stops_the_line(rig: Rig, body: bytes) -> None:
    await rig.workflow("*")
    odd, fine = record(body=body, target="/x\0y", headers=b"a\0b"), record()
    await append(rig.log(), odd, fine)
    async with rig.router():
        await rig.arrived(2)
    row = await rig.event(odd.id)
    assert (row["status"], row["body"]) == (1, body)
    assert len(row["type"]) <= 200
    assert await rig.count("run") == 2


async def starts_so_far(rig: Rig, starts: int) -> None:
    await rig.database.execute("update log_position set starts = $1", starts)


async def test_after_six_starts_without_progress_the_record_there_is_dead_unparsed_and_the_rest_lives(rig: Rig) -> None:
    await rig.workflow("*")
    records = [record() for _ in range(5)]
    journal = rig.log()
    await append(journal, records[0])
    async with rig.router():
        await rig.arrived(1)
    await append(journal, *records[1:])
    await starts_so_far(rig, 5)
    async with rig.router():
        await rig.arrived(5)
    row = await rig.event(records[1].id)
    assert (row["status"], row["type"], row["body"]) == (4, "shop", records[1].body)
    assert row["cause"] == Cause.REFUSED
    assert "5 processes ended" in row["reason"]
    assert await rig.count("event", "status = 1") == 4
    assert await rig.database.fetchval("select starts from log_position") == 0


async def test_after_three_starts_without_progress_records_are_stored_one_by_one(rig: Rig) -> None:
    journal = rig.log()
    await append(journal, record())
    async with rig.router():
        await rig.arrived(1)
    await append(journal, *[record() for _ in range(6)])
    await starts_so_far(rig, 2)
    before = rig.number("seawall_router_batches_total")
    async with rig.router():
        await rig.arrived(7)
        await until(lambda: rig.number("seawall_router_batches_total") == before + 6)
    assert await rig.count("event", "status = 4") == 0


async def test_a_start_is_counted_before_anything_is_parsed(rig: Rig) -> None:
    """The count must be there when the process ends in the parser."""
    await append(rig.log(), record())
    await rig.database.execute("alter table event add constraint never check (false)")
    async with rig.router():
        await until(lambda: rig.number("seawall_router_refused_total") >= 2)
        assert await rig.database.fetchval("select starts from log_position") == 1


async def test_a_store_that_refuses_even_a_dead_letter_is_an_alarm(rig: Rig) -> None:
    await append(rig.log(), record())
    await rig.database.execute("alter table event add constraint never check (false)")
    async with rig.router() as supervisor:
        await until(lambda: any("never" in loop.reason and not loop.ready for loop in supervisor.health()))
        assert rig.number("seawall_router_refused_total") < 10
        await rig.database.execute("alter table event drop constraint never")
        await rig.arrived(1)
