"""What is forwarded, as a part of what was asked for: over hosts that are restarted, and can't be read for a moment."""

from __future__ import annotations

import pytest

from seawall.lab.zone.share import Share, grown


@pytest.mark.parametrize(
    ("before", "now", "by"), [(10, 14, 4), (10, 10, 0), (10, 3, 3), (None, 1000, 0), (1000, None, 0), (None, None, 0)]
)
def test_a_counter_that_begins_anew_or_can_not_be_read_makes_no_spike(
    before: float | None, now: float | None, by: float
) -> None:
    assert grown(before, now) == by


def test_a_share_is_of_the_last_seconds_alone() -> None:
    share = Share(5.0)
    assert share.ratio is None
    for at_s in range(10):
        share.add(at_s, 10, 10)
    assert share.ratio == 1.0
    for at_s in range(10, 16):
        share.add(at_s, 5, 10)
    assert share.ratio == 0.5
    share.add(100.0, 0, 0)
    assert share.ratio is None, "nobody asked for anything"
