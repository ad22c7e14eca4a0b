"""Schedules: which moments there are, through a year of a wall clock that leaps, and what becomes of each."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from seawall import App, Context, Event
from seawall.workflow.cron import LATE_US, MISSED_MAX, Decision, Line, Schedule, decide, due_us, share

MINUTE = 60_000_000
HOUR = 60 * MINUTE
ZONES = ("UTC", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Asia/Kathmandu", "America/Sao_Paulo")


def us(*at: int, zone: Any = UTC) -> int:
    return int(datetime(*at, tzinfo=zone).timestamp()) * 1_000_000  # type: ignore[misc]


def moments(expression: str, zone: str, start_us: int, until_us: int) -> list[int]:
    return list(itertools.takewhile(lambda at: at < until_us, Schedule(expression, zone).after(start_us)))


@settings(max_examples=25, deadline=None)
@given(zone=st.sampled_from(ZONES), hour=st.integers(0, 23), minute=st.integers(0, 59), year=st.integers(2024, 2036))
def test_an_entry_that_names_its_hour_comes_once_on_each_day_of_a_year(
    zone: str, hour: int, minute: int, year: int
) -> None:
    start, end = us(year, 1, 3), us(year + 1, 1, 3)
    found = moments(f"{minute} {hour} * * *", zone, start, end)
    days = (end - start) // (24 * HOUR)
    assert abs(len(found) - days) <= 1
    gaps = {later - earlier for earlier, later in itertools.pairwise(found)}
    assert max(gaps) <= 26 * HOUR and min(gaps) >= 22 * HOUR
    local = {
        datetime.fromtimestamp(at // 1_000_000, UTC).astimezone(Schedule("* * * * *", zone)._zone).date()
        for at in found
    }
    assert len(local) == len(found), "twice on one day"


@settings(max_examples=8, deadline=None)
@given(zone=st.sampled_from(ZONES), step=st.sampled_from((5, 10, 15, 30)), year=st.integers(2024, 2036))
def test_an_entry_for_every_hour_comes_evenly_whatever_the_wall_clock_does(zone: str, step: int, year: int) -> None:
    found = moments(f"*/{step} * * * *", zone, us(year, 3, 20), us(year, 4, 12))
    assert {later - earlier for earlier, later in itertools.pairwise(found)} == {step * MINUTE}


@pytest.mark.parametrize("expression", ["30 2 * * *", "*/30 2 * * *", "* 2 * * *", "0 1-3 * * *", "15 */2 * * *"])
def test_a_skipped_hour_runs_when_it_is_over_and_a_doubled_one_once(expression: str) -> None:
    skipped = moments(expression, "Europe/Berlin", us(2026, 3, 29, 0), us(2026, 3, 29, 3))
    assert us(2026, 3, 29, 1) in skipped  # 03:00, where the wall clock goes on
    assert len(set(skipped)) == len(skipped)
    first, usual = us(2026, 10, 25, 0), us(2026, 10, 20, 0)  # 02:00 by the wall clock, which repeats it an hour later
    doubled = moments(expression, "Europe/Berlin", first - 1, first + 2 * HOUR)
    assert [at - first for at in doubled if at < first + HOUR] == [
        at - usual for at in moments(expression, "Europe/Berlin", usual - 1, usual + HOUR)
    ]
    assert [at for at in doubled if at >= first + HOUR] == []


@given(start=st.integers(us(2026, 10, 24), us(2026, 10, 26)), count=st.integers(1, 30))
def test_going_on_from_any_moment_gives_the_same_ones(start: int, count: int) -> None:
    schedule = Schedule("*/20 1-4 * * *", "Europe/Berlin")
    whole = list(itertools.islice(schedule.after(start), count))
    step, at = [], start
    for _ in range(count):
        at = next(schedule.after(at))
        step.append(at)
    assert step == whole


@pytest.mark.parametrize(
    ("expression", "zone", "said"),
    [
        ("61 * * * *", "UTC", "Bad minute"), ("* * * *", "UTC", "five fields"), ("0 0 30 2 *", "UTC", "day-of-month"),
        ("* * * * *", "../etc/passwd", "no time zone"), ("* * * * *", "Nowhere", "no time zone"), ("", "UTC", "five"),
        ("* * * * * *", "UTC", "five fields"), ("* * * * *", "", "no time zone"), ("*/0 * * * *", "UTC", "Bad minute"),
    ],
)  # fmt: skip
def test_what_is_no_schedule_is_refused_when_it_is_declared(expression: str, zone: str, said: str) -> None:
    async def tick(event: Event, ctx: Context) -> None: ...

    with pytest.raises(ValueError, match=said):
        App().cron(expression, tz=zone)(tick)


def test_a_schedule_is_a_workflow_that_no_event_begins_and_is_declared_once() -> None:
    app = App()

    async def tick(event: Event, ctx: Context) -> None: ...

    app.cron("0 3 * * *", tz="Europe/Berlin", per_tenant=True, queue="ingest")(tick)
    assert [(w.name, w.on, w.queue) for w in app.workflows] == [("tick", "", "ingest")]
    assert [(c.name, c.zone, c.overlap, c.catch_up, c.tenant) for c in app.crons] == [
        ("tick", "Europe/Berlin", "skip", "one", None)
    ]
    with pytest.raises(ValueError, match="declared twice"):
        app.cron("0 3 * * *", version="2")(tick)
    for wrong in ({"overlap": "both"}, {"catch_up": "some"}):
        with pytest.raises(ValueError, match="one of"):
            App().cron("0 3 * * *", **wrong)(tick)


TEN = Schedule("*/10 * * * *", "UTC")
AT = us(2026, 5, 1, 12)


def line(**more: Any) -> Line:
    given = {
        "name": "tick", "tenant": "x", "moment_us": AT, "spread": False, "blocked": False, "running": False,
        "paused": False, "overlap": "skip", "catch_up": "one", **more,
    }  # fmt: skip
    return Line(**given)


def said(found: Decision) -> dict[str, Any]:
    return {
        "begins": found.begins_us and (found.begins_us - AT) // MINUTE, "next": (found.moment_us - AT) // MINUTE,
        "skipped": found.skipped, "missed": found.missed, "blocked": found.blocked, "cancels": found.cancels,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("given", "minutes", "begins", "next_one", "skipped", "missed", "blocked", "cancels"),
    [
        ({}, 0, 0, 10, 0, 0, False, False),
        ({"running": True}, 0, None, 10, 1, 0, False, False),  # ten minutes that take twelve never pile up
        ({"running": True, "overlap": "cancel"}, 0, 0, 10, 0, 0, False, True),
        ({"running": True, "overlap": "queue"}, 0, None, 0, 0, 0, True, False),
        ({"running": True, "overlap": "queue", "blocked": True}, 25, None, 20, 2, 0, True, False),
        ({"blocked": True, "overlap": "queue", "catch_up": "none"}, 7, 0, 10, 0, 0, False, False),
        ({"paused": True}, 25, None, 30, 0, 0, False, False),
        ({}, 45, 40, 50, 0, 4, False, False),
        ({"catch_up": "none"}, 45, None, 50, 0, 5, False, False),
        ({"catch_up": "none"}, 0, 0, 10, 0, 0, False, False),
        ({"catch_up": "none"}, 40, 40, 50, 0, 4, False, False),  # the latest one is in time
        ({"catch_up": "all"}, 45, 0, 10, 0, 0, False, False),
        ({"catch_up": "all", "running": True}, 45, None, 0, 0, 0, True, False),  # one after the other
        ({"catch_up": "all", "running": True}, 0, None, 10, 1, 0, False, False),
    ],
)  # fmt: skip
def test_what_becomes_of_a_moment(
    given: dict[str, Any], minutes: int, begins: int | None, next_one: int, skipped: int, missed: int, blocked: bool,
    cancels: bool,
) -> None:  # fmt: skip
    assert said(decide(line(**given), TEN, AT + minutes * MINUTE)) == {
        "begins": begins, "next": next_one, "skipped": skipped, "missed": missed, "blocked": blocked,
        "cancels": cancels,
    }  # fmt: skip


def test_all_that_was_missed_is_made_up_for_in_order_and_bounded() -> None:
    at, now, begun, missed = AT, AT + 3 * 24 * HOUR, list[int](), 0
    while at <= now:
        found = decide(line(moment_us=at, catch_up="all"), TEN, now)
        assert found.begins_us is not None
        begun.append(found.begins_us)
        missed += found.missed
        at = found.moment_us
    assert begun == sorted(set(begun)) and len(begun) == MISSED_MAX and begun[-1] == now
    assert missed + len(begun) == 3 * 24 * 6 + 1


def test_what_passed_is_looked_for_once_for_all_lines_of_a_schedule(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each by itself took a hundred lines more than the time of their transaction, again and again."""
    looked, after = itertools.count(), Schedule.after

    def counted(self: Schedule, us: int) -> Iterator[int]:
        for moment in after(self, us):
            next(looked)
            yield moment

    monkeypatch.setattr(Schedule, "after", counted)
    schedule, days = Schedule("* * * * *", "UTC"), 3 * 86_400_000_000
    lines = [line(tenant=f"t{n}", spread=True) for n in range(100)]
    found = [decide(one, schedule, AT + days) for one in lines]
    assert all(what.begins_us is not None and what.moment_us > AT + days - 60_000_000 for what in found)
    assert next(looked) < 3 * 1440 + 10
    back = decide(lines[0], schedule, AT + 120_000_000)
    assert back.begins_us is not None and back.begins_us <= AT + 120_000_000, "a clock that leapt and came back"


def test_a_line_that_stood_still_for_years_takes_no_time_to_go_on() -> None:
    every = Schedule("* * * * *", "UTC")
    now = AT + 5 * 365 * 24 * HOUR
    found = decide(line(), every, now)
    assert found.begins_us == now and found.moment_us == now + MINUTE


@given(st.sets(st.text(min_size=1, max_size=8), min_size=200, max_size=300))
@settings(max_examples=5)
def test_tenants_are_spread_over_the_time_between_two_moments_and_stay_where_they_are(tenants: set[str]) -> None:
    shares = [share("tick", tenant) for tenant in tenants]
    assert shares == [share("tick", tenant) for tenant in tenants]
    assert max(sum(n / 4 <= part < (n + 1) / 4 for part in shares) for n in range(4)) < len(tenants) / 2
    for tenant in tenants:
        own = line(tenant=tenant, spread=True)
        due = due_us(own, AT, AT + 10 * MINUTE)
        assert AT <= due < AT + 10 * MINUTE
        found = decide(line(tenant=tenant, spread=True, catch_up="none"), TEN, due + LATE_US // 2)
        assert (found.begins_us, found.missed, found.moment_us) == (AT, 0, AT + 10 * MINUTE)
        assert found.due_us == due + 10 * MINUTE


def test_moments_are_said_by_the_wall_clock() -> None:
    schedule = Schedule("30 2 * * *", "Europe/Berlin")
    assert schedule.said(us(2026, 3, 29, 1)) == "2026-03-29T03:00:00+02:00"
    assert datetime.fromisoformat(schedule.said(AT)) == datetime(2026, 5, 1, 12, tzinfo=UTC)
