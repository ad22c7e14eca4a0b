"""The way from a log to rows, over a real store."""

from __future__ import annotations

import pytest

from router.rig import Rig, append, id_uuid, record, until
from seawall.kernel import made
from seawall.kernel.alert import Alerts
from seawall.kernel.allowance import span
from seawall.kernel.clock import SystemClock
from seawall.kernel.event import id_day
from seawall.kernel.made import Made
from seawall.kernel.placement import COST
from seawall.store import router as rows
from seawall.store.pool import Settings, Store
from seawall.store.source import Sources
from seawall.store.vault import Vault
from seawall.testing import ManualClock
from stall import Stopwatch


async def test_a_record_becomes_an_event_with_its_exact_bytes_and_a_run(rig: Rig) -> None:
    workflow_id = await rig.workflow("order.*")
    body = b'{"type":"order.paid","x":"\xff"}'
    one = record(headers=b"X-A\0b\0X-A\0c", body=b'{"type": "order.paid"}')
    two = record(body=body, target="/a?b=1", key_id=0, config_version=7)
    journal = rig.log()
    positions = await append(journal, one, two)
    async with rig.router():
        await rig.arrived(2)
    row = await rig.event(one.id)
    assert (row["type"], row["status"], row["tenant"], row["source"]) == ("order.paid", 1, "acme", "shop")
    assert (row["headers"], row["body"]) == (one.headers, one.body)
    assert (row["log_id"].bytes, row["segment"], row["offset"]) == (
        journal.log_id, positions[0].segment_id, positions[0].offset_bytes,
    )  # fmt: skip
    assert (await rig.event(two.id))["body"] == body
    assert (await rig.event(two.id))["type"] == "shop"
    [run] = await rig.database.fetch("select * from run")
    assert (run["event_id"].bytes, run["workflow_id"], run["state"], run["ticket"]) == (one.id, workflow_id, 0, False)
    assert run["id"] >> 44 == id_day(one.id)
    assert 0 <= run["shard"] < 4
    position = await rig.database.fetchrow("select * from log_position")
    assert position is not None
    assert (position["segment"], position["offset"]) == (positions[1].segment_id, positions[1].offset_bytes)


async def test_records_that_come_while_it_runs_are_routed_at_once(rig: Rig) -> None:
    await rig.workflow("order.paid")
    journal = rig.log(segment_bytes_max=1000)
    async with rig.router() as supervisor:
        await until(lambda: (loops := supervisor.health()) and all(loop.ready for loop in loops))
        for number in range(1, 21):
            await append(journal, record())
            watch = Stopwatch()
            await rig.arrived(number, table="run")
            assert watch.s < 2.0
    assert len(journal.segments) > 1
    assert await rig.count("event") == 20


async def test_events_wait_in_the_log_until_the_apps_workflows_are_registered(rig: Rig) -> None:
    journal = rig.log()
    await append(journal, record(), record())
    async with rig.router(runs_expected=True) as supervisor:
        await until(lambda: any("no workflow" in loop.reason for loop in supervisor.health()))
        assert await rig.count("event") == 0
        await rig.workflow("order.*")
        await rig.arrived(2, table="run")
    assert await rig.count("event") == 2


async def test_each_active_workflow_that_matches_gets_one_run_in_its_queue(rig: Rig) -> None:
    first = await rig.workflow("order.*", name="a", queue="fast")
    second = await rig.workflow("*", name="b", queue="slow")
    await rig.workflow("invoice.*", name="c")
    await rig.workflow("order.paid", name="d", version="1")
    third = await rig.workflow("order.paid", name="d", version="2")
    await append(rig.log(), record())
    async with rig.router():
        await rig.arrived(3, table="run")
    rows = await rig.database.fetch(
        "select workflow_id, q.name from run join queue q on q.id = run.queue_id order by workflow_id"
    )
    assert [tuple(row) for row in rows] == [(first, "fast"), (second, "slow"), (third, "default")]


async def test_a_workflow_registered_before_the_event_always_gets_its_run(rig: Rig) -> None:
    journal = rig.log()
    async with rig.router():
        for number in range(1, 11):
            await rig.workflow(f"type-{number}", name=f"flow-{number}")
            await append(journal, record(body=b'{"type":"type-%d"}' % number))
            await rig.arrived(number)
            assert await rig.count("run") == number


async def test_workflows_beyond_those_that_are_read_are_told_until_they_are_read(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Their events were kept and began nothing, without a word."""
    monkeypatch.setattr(rows, "WORKFLOWS_MAX", 2)
    for name in ("a", "b", "c", "d"):
        await rig.workflow("order.*", name=name)
    journal, alerts = rig.log(), Alerts(rig.metrics, SystemClock())
    async with rig.router(alerts=alerts):
        await append(journal, record())
        await rig.arrived(1)
        [raised] = alerts.active()
        assert raised.name == "workflows-unread" and "from c on" in raised.summary
        assert await rig.count("run") == 2
        await rig.database.execute("update workflow set active = false where name in ('a', 'b')")
        await append(journal, record())
        await rig.arrived(2)
        assert not alerts.active()
        assert await rig.count("run", "workflow_id in (select id from workflow where name in ('c', 'd'))") == 2


async def test_a_workflow_whose_number_is_anothers_by_now_keys_no_runs_of_that(rig: Rig) -> None:
    """After a fail-over two may have been registered again in another order. Keyed by the wrong name, a run would stand
    in a line that nobody looks through for its workflow."""
    for name in ("one", "two"):
        await rig.workflow("order.*", name=name)
    await rig.database.execute("update workflow set allowance = $1", '[["limit", 1, null]]')
    journal = rig.log()
    await append(journal, record())
    async with rig.router():
        await rig.arrived(2, table="run")
        for before, after in (("one", "x"), ("two", "one"), ("x", "two")):
            await rig.database.execute("update workflow set name = $2 where name = $1", before, after)
        await append(journal, record())
        await rig.arrived(4, table="run")
    rows = await rig.database.fetch(
        "select w.name, r.keys[1] as key from run r join workflow w on w.id = r.workflow_id order by r.id"
    )
    assert [span(row["name"])[0] < row["key"] < span(row["name"])[1] for row in rows] == [False, False, True, True]


async def test_two_routers_on_one_log_store_every_event_exactly_once(rig: Rig) -> None:
    await rig.workflow("*")
    journal = rig.log()
    records = [record(key=f"k{n % 400}") for n in range(600)]
    async with rig.router(batch_records=7), rig.router(batch_records=11):
        for start in range(0, 600, 50):
            await append(journal, *records[start : start + 50])
        await rig.arrived(400)
        await rig.arrived(200, table="duplicate")
    assert await rig.count("event") == 400
    assert await rig.count("run") == 400
    assert await rig.count("duplicate") == 200
    firsts = {row["id"].bytes for row in await rig.database.fetch("select id from event")}
    assert firsts == {r.id for r in records[:400]}


async def test_records_read_again_change_nothing_and_are_counted(rig: Rig) -> None:
    await rig.workflow("*")
    journal = rig.log()
    records = [record(key=f"k{n % 5}", wait_ms=n) for n in range(10)]
    await append(journal, *records)
    async with rig.router():
        await rig.arrived(5)
        await rig.arrived(5, table="duplicate")
    await rig.database.execute('update log_position set segment = 1, "offset" = 64')
    async with rig.router():
        await until(lambda: rig.number("seawall_router_reread_total") == 10)
    assert await rig.count("event") == 5
    assert await rig.count("run") == 5
    assert await rig.count("duplicate") == 5
    assert await rig.count("ticket") == 9


async def test_tickets_lead_to_the_event_that_runs_and_those_without_a_run_are_told_at_once(rig: Rig) -> None:
    await rig.workflow("order.*")
    heard: list[tuple[str, str]] = []
    for channel in ("seawall_run", "seawall_reply"):
        await rig.database.add_listener(channel, lambda _c, _p, name, payload: heard.append((name, payload)))
    first = record(key="k", wait_ms=1000)
    again = record(key="k", wait_ms=1000)
    other = record(body=b'{"type":"unknown"}', wait_ms=1000)
    await append(rig.log(), first, again, other)
    async with rig.router():
        await rig.arrived(3, table="ticket")
    tickets = {row["id"].bytes: row["event_id"].bytes for row in await rig.database.fetch("select * from ticket")}
    assert tickets == {first.id: first.id, again.id: first.id, other.id: other.id}
    assert await rig.database.fetchval("select ticket from run")
    queue_id, shard = await rig.database.fetchrow("select queue_id, shard from run")
    await until(lambda: len(heard) == 2)
    (_, replies), (_, runs) = sorted(heard)
    assert replies == f"{again.id.hex()},{other.id.hex()}"
    assert list(made.heard(runs)) == [(queue_id, Made.of(COST, shard))]


@pytest.mark.parametrize("key_id", [0, 1])
async def test_an_event_for_a_source_already_removed_is_held(rig: Rig, key_id: int) -> None:
    await rig.workflow("*")
    before = record(key_id=key_id)
    await rig.database.execute(
        "insert into source (id, name, kind, token_hash, version, removed_at)"
        " values ($1, 'shop', 'none', '\\x00', 1, now())",
        id_uuid(before.source_id),
    )
    late = record(key_id=key_id, received_us=before.received_us + 60_000_000)
    other = record(source_id=b"\x02" * 16, key_id=key_id, received_us=late.received_us)
    await append(rig.log(), before, late, other)
    alerts = Alerts(rig.metrics, SystemClock())
    async with rig.router(alerts=alerts):
        await rig.arrived(3)
        await until(alerts.active)
    assert alerts.active()[0].summary == "source shop accepted events after it had been removed"
    row = await rig.event(late.id)
    assert (row["status"], row["reason"]) == (2, "its source had been removed")
    assert [(await rig.event(e.id))["status"] for e in (before, other)] == [1, 1]
    assert await rig.count("run") == 2


async def test_a_revoked_secret_has_ended_by_the_slowest_collectors_clock(rig: Rig) -> None:
    early = record(key_id=1)
    await rig.database.execute(
        "insert into source (id, name, kind, token_hash, version) values ($1, 'shop', 'none', '\\x00', 1)",
        id_uuid(early.source_id),
    )
    await rig.database.execute(
        "insert into source_secret (source_id, key_id, sealed, revoked_at)"
        " values ($1, 1, '', now() + interval '30 seconds')",
        id_uuid(early.source_id),
    )
    clock = ManualClock(wall_us=SystemClock().wall_us() - 40_000_000)
    async with Store(Settings(dsn=rig.dsn), role="test") as store:
        sources = Sources(store, Vault(bytes(32)), clock=clock)
        await sources.edition(timeout_s=2)
        await sources.seen("c1", 1, timeout_s=2)
    before = record(key_id=1, received_us=early.received_us - 60_000_000)
    await append(rig.log(), before, early)
    async with rig.router():
        await rig.arrived(2)
    assert (await rig.event(before.id))["status"] == 1
    assert (await rig.event(early.id))["status"] == 2, (
        "it came 30 s before the revocation, by a clock that is 40 s late"
    )


async def test_an_event_under_a_secret_already_revoked_is_held(rig: Rig) -> None:
    await rig.workflow("*")
    one = record(key_id=1, key="k")
    await rig.database.execute(
        "insert into source (id, name, kind, token_hash, version) values ($1, 'shop', 'none', '\\x00', 1)",
        id_uuid(one.source_id),
    )
    await rig.database.execute(
        "insert into source_secret (source_id, key_id, sealed, revoked_at) values ($1, 1, '', now())",
        id_uuid(one.source_id),
    )
    late = record(key_id=1, key="k", received_us=one.received_us + 60_000_000)
    genuine = record(key_id=2, key="k")
    await append(rig.log(), one, late, genuine)
    alerts = Alerts(rig.metrics, SystemClock())
    async with rig.router(alerts=alerts):
        await rig.arrived(2)
        await rig.arrived(1, table="duplicate")
        await until(alerts.active)
    [alert] = alerts.active()
    assert (alert.name, dict(alert.labels)) == ("accepted-under-revoked-secret", {"source": "shop"})
    assert (await rig.event(one.id))["status"] == 1
    row = await rig.event(late.id)
    assert (row["status"], row["reason"]) == (2, "signed with key 1, which had been revoked")
    assert await rig.count("run") == 1


@pytest.mark.slow
async def test_a_store_that_is_too_slow_for_whole_batches_gets_smaller_ones(rig: Rig) -> None:
    """A batch that ran out of time was tried again as it was, for ever."""
    await rig.database.execute(
        "create function slow() returns trigger language plpgsql as $$ begin perform pg_sleep(0.02); return new; end $$"
    )
    await rig.database.execute("create trigger slow before insert on event for each row execute function slow()")
    await append(rig.log(), *[record() for _ in range(150)])
    async with rig.router(transaction_timeout_s=1.0):
        await rig.arrived(150)
    assert await rig.count("event", "status = 1") == 150


async def test_an_idle_router_sees_that_the_store_went_back(rig: Rig) -> None:
    """A fail-over to a replica that lagged, and no record comes after it: what was lost isn't left to the next one."""
    journal = rig.log()
    [first, _] = await append(journal, record(), record())
    async with rig.router():
        await rig.arrived(2)
        await rig.database.execute('delete from event where "offset" > $1', first.offset_bytes)
        back = 'update log_position set segment = $1, "offset" = $2'
        await rig.database.execute(back, first.segment_id, first.offset_bytes)
        await rig.arrived(2)
