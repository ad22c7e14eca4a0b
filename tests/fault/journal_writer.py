"""A process that writes a log as fast as it can and says what was acknowledged: ``journal_writer.py FOLDER``.

Standard output: ``N`` once record N is durable, ``? N`` when nobody knows, ``! N`` when it certainly wasn't kept. It
exits with 70 when the journal failed for good, as a collector does.
"""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

from seawall.journal import Log, Settings
from seawall.kernel.error import SeawallError, Uncertain
from seawall.kernel.metric import Metrics
from seawall.kernel.seam.journal import Outcome, Position

SIDE_BY_SIDE = 32


def payload(number: int) -> bytes:
    """Record ``number``: its size and its bytes are a function of it."""
    return b"%d:" % number + bytes([number % 251]) * (number * 37 % 1500)


def say(number: int, outcome: Outcome) -> None:
    sign = "" if isinstance(outcome, Position) else "? " if isinstance(outcome, Uncertain) else "! "
    os.write(1, f"{sign}{number}\n".encode())


async def main(folder: Path) -> None:
    failed = asyncio.Event()
    settings = Settings(
        segment_bytes=256 * 1024, fill_bytes=16 * 1024, reserve_bytes=256 * 1024, resume_bytes=1024 * 1024
    )
    numbers = iter(range(int(os.environ.get("FIRST", "0")), 1 << 62))

    async with Log(folder, settings, metrics=Metrics(), on_failure=lambda why: failed.set()) as log:

        def submit() -> None:
            number = next(numbers)

            def done(outcome: Outcome) -> None:
                say(number, outcome)
                if not failed.is_set():
                    asyncio.get_running_loop().call_soon(submit)

            try:
                log.submit(payload(number), done)
            except SeawallError as error:
                say(number, error)
                asyncio.get_running_loop().call_later(0.05, submit)

        for _ in range(SIDE_BY_SIDE):
            submit()
        while not failed.is_set():
            log.tick()
            await asyncio.sleep(0.02)
    sys.exit(70)


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1])))
