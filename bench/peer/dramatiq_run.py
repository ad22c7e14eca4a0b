"""Dramatiq on Redis. A process for each core and eight threads in each, as its guide has it; no results."""

import subprocess
import sys
from pathlib import Path

from dramatiq_app import noop, tally
from talk import tallied

PROCESSES, THREADS = 2, 8
COMMAND = [sys.executable, "-m", "dramatiq", "dramatiq_app", "-p", str(PROCESSES), "-t", str(THREADS), "--skip-logging"]

with subprocess.Popen(
    COMMAND, cwd=Path(__file__).parent, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
) as workers:
    try:
        noop.send({"t": 0.0})
        tally.wait(1)
        tallied(f"{PROCESSES} processes of {THREADS} threads, prefetch 2 a thread, no results", tally, noop.send)
    finally:
        workers.terminate()
