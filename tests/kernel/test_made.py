"""What workers are told of new runs: nothing is forgotten that was added, and nothing that is said can harm."""

from __future__ import annotations

from hypothesis import example, given
from hypothesis import strategies as st

from seawall.kernel.made import ALL_SHARDS, VT_MAX, Made, News, heard

RUNS = st.lists(st.tuples(st.integers(0, 30_000), st.integers(0, 10**17), st.none() | st.integers(-1, 200)))


@given(RUNS)
def test_who_hears_looks_wherever_a_new_run_is(runs: list[tuple[int, int, int | None]]) -> None:
    news = News()
    for queue_id, vt, shard in runs:
        news.add(queue_id, vt, shard)
    payloads = news.payloads()
    told = dict(pair for payload in payloads for pair in heard(payload))
    assert told.keys() == {queue_id for queue_id, _, _ in runs}
    for queue_id, vt, shard in runs:
        assert told[queue_id].first <= vt <= told[queue_id].last
        assert told[queue_id].has(0 if shard is None else shard)
        assert {told[queue_id].first, told[queue_id].last} <= {v for q, v, _ in runs if q == queue_id}
    assert all(len(payload) < 7_500 for payload in payloads)


def test_shards_that_are_known_are_the_only_ones_that_are_named() -> None:
    news = News()
    for shard in (2, 5):
        news.add(7, 100 + shard, shard)
    assert news.payloads() == ["7:102-105@24"]
    ((_, made),) = heard("7:102-105@24")
    assert [shard for shard in range(-1, 64) if made.has(shard)] == [-1, 2, 5]
    assert list(heard("7:100")) == [(7, Made(100, VT_MAX, ALL_SHARDS))]


PIECES = st.from_regex(r"[0-9]{0,7}:[0-9]{0,20}(-[0-9]{0,20})?(@[0-9a-f]{0,20})?", fullmatch=True)
"""Nearly what is understood: of any text at all, hardly anything ever is."""


@given(st.lists(PIECES, max_size=5).map(",".join) | st.text("09af:-@,", max_size=200) | st.text(max_size=200))
@example("99999:999999999999999999-999999999999999999@ffffffffffffffff")
def test_what_anybody_may_say_is_bounded(payload: str) -> None:
    for queue_id, made in heard(payload):
        assert (
            0 <= queue_id < 100_000
            and 0 <= made.first <= VT_MAX
            and 0 <= made.last <= VT_MAX
            and -1 <= made.shards < 1 << 64
        )
