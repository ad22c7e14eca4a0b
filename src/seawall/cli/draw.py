"""A run's timeline, drawn in text."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final

TIMELINE_COLUMNS: Final = ("after", "what", "name", "took", "tries", "worker", "drawn")
WIDTH: Final = 32
UNITS: Final = ((86_400.0, "d"), (3600.0, "h"), (60.0, "min"))


def drawn(moments: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows of a table: each moment with a bar where it lies between the first and the last one."""
    spans = [_span(moment) for moment in moments]
    first = min(at for at, _ in spans)
    whole_s = max((max(end for _, end in spans) - first).total_seconds(), 1e-6)
    rows = []
    for moment, (at, end) in zip(moments, spans, strict=True):
        begins = int((at - first).total_seconds() / whole_s * (WIDTH - 1))
        length = max(1, round((end - at).total_seconds() / whole_s * WIDTH))
        mark = "." if moment["what"] in ("queued", "wait") else "#"
        rows.append(
            {
                "after": span((at - first).total_seconds()),
                "what": moment["what"] + (", failed" if moment["failed"] else ""),
                "name": moment["name"],
                "took": _took(moment),
                "tries": moment["attempt"] if moment["what"] == "step" else "",
                "worker": moment["worker"],
                "drawn": ":" + " " * begins + mark * min(length, WIDTH - begins),
            }
        )
    return rows


def span(seconds: float) -> str:
    """A time in the largest unit that it fills."""
    for unit_s, unit in UNITS:
        if seconds >= unit_s:
            return f"{seconds / unit_s:.4g} {unit}"
    return f"{seconds:.3f} s"


def _span(moment: dict[str, Any]) -> tuple[datetime, datetime]:
    at = datetime.fromisoformat(moment["at"])
    until = datetime.fromisoformat(moment["until"]) if moment["until"] and not moment["open"] else at
    return at, max(at, until)


def _took(moment: dict[str, Any]) -> str:
    if moment["open"]:
        return f"until {moment['until']}" if moment["until"] else "goes on"
    return span(moment["took_s"]) if moment["took_s"] is not None else ""
