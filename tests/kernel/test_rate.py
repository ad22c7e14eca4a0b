"""Rates as people write them."""

from __future__ import annotations

import pytest

from seawall.kernel.moment import per_second


@pytest.mark.parametrize(("text", "expected"), [("5/s", 5), ("300/m", 5), ("18/h", 0.005), ("2.5", 2.5)])
def test_rates(text: str, expected: float) -> None:
    assert per_second(text) == pytest.approx(expected)


@pytest.mark.parametrize("text", ["", "0", "0/s", "-1/s", "1/d", "nan", "inf", "1e9", "5 / s", "٣/s"])
def test_what_is_no_rate_is_refused_with_what_is(text: str) -> None:
    with pytest.raises(ValueError, match="write 5/s"):
        per_second(text)
