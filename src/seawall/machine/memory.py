"""Whose memory goes first when there is none left: that of user code, never that of an event's way to the disk."""

from __future__ import annotations

import contextlib
import resource
from pathlib import Path

SCORES = {"worker": 500, "console": 300, "router": 100}
"""What the kernel adds when it looks for somebody to kill, of 1000. Collector, PostgreSQL and `up` stay at 0."""

SOLO_SCORE = 900


def yield_to_others(role: str, *, solo: bool) -> None:
    """Let the kernel kill this process before those on which it would be worse. Linux only; nothing where it isn't."""
    score = SOLO_SCORE if solo else SCORES.get(role, 0)
    if score:
        with contextlib.suppress(OSError):
            Path("/proc/self/oom_score_adj").write_text(str(score))


def cap(memory_mb: int) -> None:
    """Bound what this process may allocate, in MiB: beyond it comes MemoryError: one run ends, not the machine.

    Anonymous memory (RLIMIT_DATA) and not address space: threads and libraries reserve much more of that than they use.
    """
    wanted = memory_mb << 20
    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    if hard != resource.RLIM_INFINITY:
        wanted = min(wanted, hard)
    with contextlib.suppress(ValueError, OSError):  # macOS knows the name and refuses the value
        resource.setrlimit(resource.RLIMIT_DATA, (wanted, hard))
