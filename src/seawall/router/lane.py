"""How many records the next batch may hold: the search for the one that can't be stored, or that ends processes.

*Refused by the store*: the batch is halved until the culprit is alone, log2(n) rollbacks for n records; then it
becomes a dead letter and the line goes on at full width. The common path writes nothing for this.

*Takes too long* (a store that is slow): half as many next time, or none of them would ever be stored; a bit
more after each batch that is.

*Ends the process* (a crash in a parser, out of memory): nothing is left to halve with, so the store counts the loops
that began at this position. From the third on records are stored one by one, which brings the position right before
the culprit; from the sixth on the record there becomes a dead letter without its body being touched.
"""

from __future__ import annotations

from dataclasses import dataclass

from seawall.kernel.seam.journal import Position
from seawall.store.position import Range

GROWTH = 16
"""So many batches, and a store that was slow gets whole ones again."""

CAREFUL_STARTS = 3
DEADLY_STARTS = 6


@dataclass(frozen=True, slots=True)
class Verdict:
    """The next record, alone, becomes a dead letter."""

    tries: int
    reason: str


class Lane:
    """The width of one loop's batches, and which ranges it has begun."""

    def __init__(self, *, backlog: bool, records_max: int) -> None:
        self.backlog = backlog
        self.records_max = records_max  # without trouble
        self._most = records_max  # what the store is believed to manage in time
        self._suspects = 0  # of the next so many records, one at least can't be stored
        self._alone = 0  # so many records are stored one by one
        self._begun: set[int] = set()
        self._place: tuple[int, Position] | None = None  # part and position of the range that it works on
        self.unproven = False  # a range was begun and nothing of it was stored yet
        self.verdict: Verdict | None = None
        self.promised: Position | None = None  # there is said to be more after it
        self.collapsed: frozenset[bytes] = frozenset()  # events of the next batch that were collapsed earlier

    @property
    def width(self) -> int:
        """Most records of the next batch."""
        if self.verdict is not None or self._alone:
            return 1
        most = min(self.records_max, self._most)
        return min(most, (self._suspects + 1) // 2) if self._suspects else most

    @property
    def troubled(self) -> bool:
        return self.verdict is not None or self._alone > 0 or self._suspects > 0

    def turned(self, range: Range | None) -> Range | None:
        """The range, which the next batch is of. What was found out about the record at another place says nothing
        about the one here: another router moved on with that, or this loop turned to another range meanwhile."""
        if range is not None and self._place != (range.part, range.at):
            self._place = (range.part, range.at)
            self.verdict = None
        return range

    def begins(self, part: int) -> bool:
        """True when this loop has not worked on the range before: its start is to be counted."""
        return part not in self._begun

    def began(self, part: int, starts: int) -> None:
        """The store counted ``starts`` loops at the range's position, this one included."""
        self._begun.add(part)
        self.unproven = True
        if starts >= DEADLY_STARTS:
            self.verdict = Verdict(starts, f"{starts - 1} processes ended while they handled this record")
        elif starts >= CAREFUL_STARTS:
            self._alone = self.records_max

    def refused(self, count: int, why: str) -> None:
        """The store refused a batch of ``count`` records."""
        if count == 1:
            self.verdict = Verdict(1, why)
        self._suspects = count

    def overdue(self) -> None:
        """A batch wasn't stored in time."""
        self._most = max(1, min(self._most, self.records_max) // 2)

    def stored(self, count: int) -> None:
        self._most = min(self.records_max, self._most + max(1, self.records_max // GROWTH))
        self.unproven = False
        self.verdict = None
        self.collapsed = frozenset()
        self._suspects = max(0, self._suspects - count)
        self._alone = max(0, self._alone - count)

    def survived(self) -> None:
        """An attempt failed and we are still here, so no record that ends processes was in it."""
        self.unproven = False
        self.verdict = None
        self._suspects = self._alone = 0
