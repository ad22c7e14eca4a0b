"""Moments as people write them: how long ago (90s, 30m, 2h, 7d), or a time with its zone; and rates (5/s, 300/m)."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Final

ALLOWED: Final = "how long ago (90s, 30m, 2h, 7d), or a time like 2026-01-31T12:00:00Z"

_SPAN: Final = re.compile(r"([0-9]{1,9})([smhd])")
_RATE: Final = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,6})?)(?:/([smh]))?")
_SECONDS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


def span_s(text: str) -> int | None:
    """Seconds of ``2h`` and the like; None: it isn't one."""
    span = _SPAN.fullmatch(text)
    return int(span[1]) * _SECONDS[span[2]] if span is not None else None


def moment_us(text: str, *, now_us: int) -> int:
    """Microseconds since 1970, not before it.

    Raises:
        ValueError: It is neither; says what was wrong.
    """
    span = span_s(text)
    if span is not None:
        return max(0, now_us - span * 1_000_000)
    try:
        at = datetime.fromisoformat(text)
        if at.tzinfo is None:
            raise ValueError("it names no time zone")
        return max(0, (at - _EPOCH) // timedelta(microseconds=1))
    except (ValueError, OverflowError) as error:
        raise ValueError(f"{ALLOWED}: {error}") from error


def per_second(text: str) -> float:
    """A rate (``5/s``, ``300/m``, ``20/h``) as so many in a second; a number alone is one already.

    Raises:
        ValueError: It is none, or not more than 0.
    """
    rate = _RATE.fullmatch(text)
    found = float(rate[1]) / _SECONDS[rate[2] or "s"] if rate is not None else 0.0
    if found <= 0:
        raise ValueError(f"{text[:64]!r} is no rate: write 5/s, 300/m or 20/h")
    return found
