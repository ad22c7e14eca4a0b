"""How a process ends when something in it doesn't."""

from __future__ import annotations

import subprocess
import sys
import time

HANGS = """
import asyncio, time
from seawall.guard import loop

async def main():
    asyncio.get_running_loop().run_in_executor(None, time.sleep, 60)  # as a write on a disk that hangs
    loop.leave_within(0.2, 7)

asyncio.run(main())
"""


def test_a_thread_that_hangs_on_a_disk_does_not_keep_a_process_from_ending() -> None:
    began = time.monotonic()
    done = subprocess.run([sys.executable, "-c", HANGS], capture_output=True, text=True, timeout=50, check=False)
    assert done.returncode == 7
    assert time.monotonic() - began < 30
    assert "go on after everything ended" in done.stderr
