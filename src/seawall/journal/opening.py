"""Opens a log for writing: its lock, then its recovery, each with a deadline."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

from seawall.journal.lock import FolderLock, holder, try_lock
from seawall.journal.recovery import Recovered, recover
from seawall.kernel.clock import Clock, Deadline
from seawall.kernel.error import Misconfigured, Unavailable
from seawall.kernel.seam.filesystem import Filesystem

LOCK_RETRY_S = 0.05

OPEN_TIMEOUT_S = 60.0
"""Recovery reads one segment; a disk that needs longer than this for it is not there."""


async def take_lock(folder: Path, filesystem: Filesystem, *, timeout_s: float, clock: Clock) -> FolderLock:
    """The folder's lock; a reader may hold it for as long as it recovers a log without a writer.

    Raises:
        Misconfigured: Another process still holds it after ``timeout_s``.
        Unavailable: The disk failed.

    Cancelled: the lock isn't held.
    """
    deadline = Deadline.after(timeout_s, clock)
    try:
        filesystem.make_folder(folder)
        while (lock := try_lock(folder)) is None:
            if deadline.left_s(clock) == 0.0:
                raise Misconfigured([f"journal folder {folder} is in use by process {holder(folder)}"])
            await asyncio.sleep(LOCK_RETRY_S)
    except OSError as error:
        raise Unavailable("journal", f"{folder}: {error}") from error
    return lock


async def recover_in_thread(folder: Path, filesystem: Filesystem, entropy: Callable[[int], bytes]) -> Recovered:
    """``recover``, while the event loop goes on.

    Raises:
        Corrupt: See ``recover``.
        Unavailable: The disk failed, or didn't answer within ``OPEN_TIMEOUT_S``.

    Cancelled: recovery goes on in its thread; it can be repeated.
    """
    try:
        async with asyncio.timeout(OPEN_TIMEOUT_S):
            return await asyncio.to_thread(recover, folder, filesystem=filesystem, entropy=entropy)
    except TimeoutError as error:
        raise Unavailable("journal", f"{folder}: no answer from the disk in {OPEN_TIMEOUT_S:g} s") from error
    except OSError as error:
        raise Unavailable("journal", f"{folder}: {error}") from error
