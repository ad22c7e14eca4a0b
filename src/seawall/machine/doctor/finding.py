"""What a check says."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum


class Severity(IntEnum):
    """How bad it is; ordered."""

    NOTE = 1  # worth knowing
    WARNING = 2  # will cost latency, or a restart, in a bad hour
    CRITICAL = 3  # will cost events, or the platform


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing that is wrong."""

    check: str  # its name, which stays the same: ports, stop-budget, disk, clock, store-durability …
    severity: Severity
    what: str
    why: str  # what it leads to, and where it did
    cure: str

    def line(self) -> str:
        """All of it in one line, for a log."""
        return f"{self.what}: {self.why}; {self.cure}"
