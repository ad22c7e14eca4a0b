"""How a role's process ends."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

HANGS = """
import asyncio, os, signal, sys, time
from contextlib import asynccontextmanager
from pathlib import Path
from seawall.journal.filesystem import LocalFilesystem
from seawall.machine.folder import Folder
from seawall.machine.role import Opened, Start, run
from seawall.settings import read

@asynccontextmanager
async def role(site):
    async def until():
        # As a question to a Kafka that is a black hole: the driver answers when its own time is over.
        asyncio.get_running_loop().run_in_executor(None, time.sleep, 60)
    yield Opened(until=until, report=lambda: {"accepted": 3})

folder = Folder(Path(sys.argv[1]), LocalFilesystem())
folder.prepare()
settings = read({}, config=None, environment={})
sys.exit(run(Start(role="collector", folder=folder, settings=settings, reread=lambda: settings), role))
"""


def test_a_thread_that_waits_for_a_dead_dependency_does_not_keep_a_role_from_ending(tmp_path: Path) -> None:
    """Until it has ended nobody takes its place, and senders wait."""
    began = time.monotonic()
    command = [sys.executable, "-c", HANGS, str(tmp_path / "data")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=50, check=False)
    assert done.returncode == 0, done.stderr
    assert time.monotonic() - began < 30
    assert '"exit report"' in done.stderr and "go on after everything ended" in done.stderr
