"""A collector in a process of its own, whose memory a test can look at. Argument: its settings as JSON.

Says its port on standard output, and stops when standard input ends.
"""

from __future__ import annotations

import asyncio
import json
import sys
import tempfile
from pathlib import Path

import uvloop

from collector.rig import SourceTable, running
from seawall.collector import Settings


async def main() -> None:
    settings = Settings(**json.loads(sys.argv[1]))
    sources = SourceTable()
    sources.add("tok")
    with tempfile.TemporaryDirectory() as folder:
        async with running(Path(folder), settings=settings, sources=sources) as rig:
            print(rig.port, flush=True)
            await asyncio.to_thread(sys.stdin.read)


uvloop.run(main())
