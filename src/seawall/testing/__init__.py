"""Parts for tests, ours and those of users: honest small implementations of the seams, which pass the same conformance
suites as the real ones. There is no fake store: embedded PostgreSQL is fast enough.

Users' own tests begin with ``rehearsal`` (docs/workflows.md): their workflows on the real engine, with time in the
test's hands.
"""

from seawall.testing.clock import ManualClock
from seawall.testing.disk import CrashDisk, Crashed
from seawall.testing.filesystem import FaultyFilesystem
from seawall.testing.journal import MemoryJournal, MemoryReader

__all__ = ["CrashDisk", "Crashed", "FaultyFilesystem", "ManualClock", "MemoryJournal", "MemoryReader"]
