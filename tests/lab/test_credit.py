"""Burst credits: what is left of them, and when bytes are through."""

from __future__ import annotations

import pytest

from seawall.kernel.error import Rejected
from seawall.lab.part.credit import Credit
from seawall.lab.part.fault import Fault

FAULT = Fault(kind="credit", bytes=1000, bytes_s=100, burst_s=500)


def test_with_credits_left_bytes_go_at_the_bursts_rate() -> None:
    credit = Credit(FAULT, 0.0)
    assert credit.due(250, 0.0) == pytest.approx(0.5)
    assert credit.due(250, 0.0) == pytest.approx(1.0), "behind those before"
    assert credit.left(0.0) == 500 and credit.left(2.0) == 700 and credit.left(60.0) == 1000


def test_without_them_they_never_go_faster_than_the_base() -> None:
    credit, now = Credit(FAULT, 0.0), 0.0
    credit.due(1000, now)
    now = 2.0
    credit.due(200, now)
    assert credit.left(now) == 0.0
    for _ in range(20):  # each waits for the one before, as a client does that waits for its answer
        now = credit.due(50, now)
    assert now == pytest.approx(2.0 + 20 * 50 / 100)
    assert credit.left(now) == 0.0


def test_what_came_back_meanwhile_can_be_burst_again() -> None:
    credit = Credit(FAULT, 0.0)
    credit.due(1000, 0.0)
    assert credit.due(100, 10.0) == pytest.approx(10.2)


@pytest.mark.parametrize("wrong", [{"bytes": 0}, {"bytes_s": 0}, {"burst_s": 100}, {"way": "up"}])
def test_a_bucket_must_make_sense(wrong: dict[str, object]) -> None:
    with pytest.raises(Rejected, match="credit"):
        Fault(**{"kind": "credit", "bytes": 1000, "bytes_s": 100, "burst_s": 500, **wrong})  # type: ignore[arg-type]
