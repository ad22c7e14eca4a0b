"""Waits between tries."""

from __future__ import annotations

import random

import pytest

from seawall import Retry
from seawall.workflow.retry import RETRY_AFTER_MAX_S, retry_after_s


def test_waits_are_spread_from_zero_to_a_ceiling_that_grows_and_is_bounded() -> None:
    chance = random.Random(1)
    retry = Retry(attempts=1000, first_s=1, factor=2, max_s=60)
    for failures, ceiling in ((1, 1.0), (2, 2.0), (5, 16.0), (7, 60.0), (999, 60.0)):
        waits = [retry.delay_s(failures, ValueError(), chance) for _ in range(500)]
        assert 0 <= min(waits) < ceiling * 0.05 and ceiling * 0.95 < max(waits) <= ceiling


@pytest.mark.parametrize(
    "options",
    [{"attempts": 0}, {"attempts": 1.5}, {"attempts": 1001}, {"factor": 0.5}, {"first_s": -1}, {"max_s": float("inf")}],
)
def test_a_retry_out_of_range_is_refused(options: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(options))):
        Retry(**options)  # type: ignore[arg-type]


def test_retry_after_is_bounded_and_nonsense_is_ignored() -> None:
    error = ValueError()
    for asked, floor in ((10, 10.0), ("5", 5.0), (1e12, RETRY_AFTER_MAX_S), ("Wed, 21 Oct", 0.0), (None, 0.0)):
        error.retry_after = asked  # type: ignore[attr-defined]
        assert retry_after_s(error) == floor
