"""Celery on Redis."""

import subprocess
import sys
from pathlib import Path

from celery_app import noop, tally
from talk import tallied

COMMAND = [
    sys.executable, "-m", "celery", "-A", "celery_app", "worker", "-P", "prefork", "-c", "2", "-l", "ERROR",
    "--without-gossip", "--without-mingle", "--without-heartbeat",
]  # fmt: skip

with subprocess.Popen(
    COMMAND, cwd=Path(__file__).parent, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
) as workers:
    try:
        noop.delay({"t": 0.0})
        tally.wait(1)
        tallied("prefork of 2, acks late, prefetch 64, no results, no events, gossip or mingling", tally, noop.delay)
    finally:
        workers.terminate()
