"""The table of outages at the end of ``make test-parts`` says what its rows said, and which of them failed."""

from __future__ import annotations

from outages import COLUMNS, table


def _row(name: str, lost: int) -> dict[str, object]:
    return {"row": name, **dict.fromkeys(COLUMNS, 7), "lost": lost}


def test_each_row_stands_under_its_columns_and_a_failed_one_is_marked() -> None:
    head, first, second, _ = table([(_row("Redis killed", 0), True), (_row("a row with a long name", 3), False)])
    assert head.split() == ["outage", *" ".join(COLUMNS.values()).split()]
    assert first.split()[2:] == ["7", "7", "7", "0", "7", "7", "7", "7", "7"]
    assert second.endswith("  FAILED") and "FAILED" not in first
    at = head.index("lost") + len("lost")
    assert first[:at].endswith(" 0") and second[:at].endswith(" 3")
