"""A process that asks for too much gets a MemoryError, and user code goes before what guards events."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from seawall.machine import memory

SCORE = Path("/proc/self/oom_score_adj")


def _said(program: str) -> str:
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=30, check=True)
    return done.stdout.strip()


def test_beyond_the_cap_comes_a_memory_error_and_below_it_none() -> None:
    program = """
from seawall.machine import memory
memory.cap(256)
kept = bytearray(100 << 20)
try:
    bytearray(300 << 20)
except MemoryError:
    print("bounded")
"""
    assert _said(program) == "bounded"


@pytest.mark.skipif(
    not SCORE.exists() or int(SCORE.read_text()) != 0, reason="no score here, or one from outside that can't be lowered"
)
def test_workers_go_before_routers_and_collectors_last() -> None:
    def score(role: str, *, solo: bool = False) -> int:
        call = f"memory.yield_to_others({role!r}, solo={solo})"
        program = f"from seawall.machine import memory; {call}; print(open('/proc/self/oom_score_adj').read())"
        return int(_said(program))

    order = [score("collector"), score("router"), score("console"), score("worker"), score("worker", solo=True)]
    assert order == sorted(order) and len(set(order)) == len(order)
    assert order[-1] == memory.SOLO_SCORE
