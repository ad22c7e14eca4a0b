"""Selections: what is written is what is meant, or refused with what may be written."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from seawall.kernel.cause import Cause
from seawall.kernel.error import Rejected
from seawall.kernel.event import DAY_MS
from seawall.kernel.selection import Selection, of_events, of_runs
from seawall.kernel.status import DAY_SHIFT, EventStatus, RunStatus

NOW_US = 1_800_000_000_000_000
HOUR_US = 3_600_000_000


def runs(text: str) -> Selection:
    return of_runs(text, now_us=NOW_US)


def test_terms_are_joined_by_a_comma_or_by_and() -> None:
    assert runs("source=gh, tenant=acme") == runs("source=gh and tenant=acme") == runs(" SOURCE = gh AND tenant=acme ")
    assert runs("source=gh").source == ("gh",)
    assert runs("") == Selection()


def test_alternatives_are_joined_by_a_bar_and_other_characters_stand_in_quotes() -> None:
    assert runs('tenant=a | "b, c and d" |"say \\"x\\""').tenant == ("a", "b, c and d", 'say "x"')


def test_states_are_words_of_lists_and_ready_means_that_it_may_begin_or_is_in_hand() -> None:
    assert runs("state=failed|dead").states == {RunStatus.FAILED, RunStatus.DEAD}
    assert runs("state=ready").states == {RunStatus.QUEUED, RunStatus.RUNNING}
    assert of_events("state=dead", now_us=NOW_US).states == {EventStatus.DEAD}


def test_causes_are_those_of_what_is_looked_for() -> None:
    assert runs("cause=non-retryable|killed").causes == {Cause.NON_RETRYABLE, Cause.KILLED}
    assert of_events("cause=decode", now_us=NOW_US).causes == {Cause.DECODE}


def test_a_star_in_a_type_stands_for_anything_and_nothing_else_does() -> None:
    assert runs(r'type=github.*|"100%_\\"').likes == ["github.%", r"100\%\_\\"]


def test_moments_bound_the_ids_that_are_looked_at() -> None:
    found = runs("since=2h, until=1h")
    assert (found.since_us, found.until_us) == (NOW_US - 2 * HOUR_US, NOW_US - HOUR_US)
    low, high = (int.from_bytes(id[:6], "big") for id in found.event_ids)
    assert (low, high) == ((NOW_US - 2 * HOUR_US) // 1000, (NOW_US - HOUR_US) // 1000)
    assert found.run_ids == (low // DAY_MS << DAY_SHIFT, high // DAY_MS + 1 << DAY_SHIFT)
    whole = runs("")
    assert whole.event_ids == (bytes(16), b"\xff" * 6 + bytes(10))
    assert whole.run_ids[0] == 0 < whole.run_ids[1] <= 2**63 - 1


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("colour=red", "'colour' isn't known here; there are source, type, tenant, queue"),
        ("state=broken", "state=broken isn't known; there are ready, queued, waiting, held"),
        ("cause=decode", "cause=decode isn't known; there are attempts"),
        ("tenant", "a word, = and a value are missing"),
        ("tenant=", "tenant has no value"),
        ("tenant=a|", "tenant has no value"),
        ("tenant=a b", "joined by , or and"),
        ("tenant=a,", "nothing behind it"),
        ("tenant=a, tenant=b", "tenant is given twice; write tenant=ONE|OTHER"),
        ("since=soon", "how long ago"),
        ("since=2026-01-31T12:00:00", "names no time zone"),
        ("since=1h|2h", "one moment"),
        ("since=1h, until=2h", "since must be before until"),
        ('tenant="a', "has no value"),
        ('tenant=""', "1 to 50 values of 1 to 200 characters"),
        ("tenant=" + "|".join("x" * 51), "1 to 50 values"),
        ("tenant=" + "x" * 201, "1 to 200 characters"),
        ("tenant=" + "x" * 2000, "at most 2000 characters"),
        ('tenant="\0"', "without NUL"),
        ('tenant="\ud800"', "without NUL"),
        ("since=9999999999999d", "how long ago"),
    ],
)
def test_what_can_not_be_meant_is_refused_with_what_can(text: str, says: str) -> None:
    with pytest.raises(Rejected, match="Bad selection") as error:
        runs(text)
    assert says in error.value.detail
    assert error.value.status == 422


def test_events_have_no_queue() -> None:
    with pytest.raises(Rejected, match="'queue' isn't known here; there are source, type, tenant, state"):
        of_events("queue=runbooks", now_us=NOW_US)


@given(st.text(alphabet='source=typn,|" \\and*%2h\x00é', max_size=60) | st.text(max_size=60))
def test_any_text_is_a_selection_or_refused(text: str) -> None:
    try:
        found = runs(text)
    except Rejected:
        return
    low, high = found.event_ids
    assert len(low) == len(high) == 16
    assert 0 <= found.run_ids[0] <= found.run_ids[1] < 2**63


@given(st.text(min_size=1, max_size=50).filter(lambda t: "\0" not in t and t.isprintable()))
def test_any_name_can_be_written_in_quotes(name: str) -> None:
    quoted = name.replace("\\", "\\\\").replace('"', '\\"')
    assert runs(f'tenant="{quoted}"').tenant == (name,)
