"""Parts for tests, ours and those of users: honest small implementations of the seams, which pass the same conformance
suites as the real ones. There is no fake store: embedded PostgreSQL is fast enough.
"""

from seawall.testing.clock import ManualClock
from seawall.testing.journal import MemoryJournal, MemoryReader

__all__ = ["ManualClock", "MemoryJournal", "MemoryReader"]
