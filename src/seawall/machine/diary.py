"""What was changed on this machine, on disk before anything else, and in the store's timeline as soon as it answers.

``DIR/changes/NAME``, one for each process that notes, begins with the line ``seawall-changes 1 VERSION`` (of the one
that wrote it last), then a line ``CRC32 JSON`` for each change that the store doesn't have yet. It is replaced by
rename, with each note and when the store has taken all of it: notes are few, and so there is never a file in between. A
crash keeps each change at least once, and the store keeps it once, by its key.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import zlib
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from itertools import islice
from pathlib import Path
from types import TracebackType

import msgspec

from seawall.guard import Heart
from seawall.guard.loop import heed
from seawall.kernel.clock import Clock
from seawall.kernel.error import SeawallError
from seawall.kernel.log import fields, logger
from seawall.kernel.metric import Metrics
from seawall.kernel.seam.change import NOBODY, Change, Kind, tidy
from seawall.kernel.seam.filesystem import Filesystem

log = logger("machine")

HEAD = b"seawall-changes 1 "
PENDING_MAX = 10_000
"""Changes that wait for the store; what comes beyond is told to the log alone, and counted. Of restarts there are few
each minute (machine/teller.py), so days pass until then."""

FILE_BYTES_MAX = PENDING_MAX * 16 * 1024
"""A change has five texts of at most 500 characters, each of which JSON may write as six bytes."""

DIARIES_MAX = 64
MERGE_MAX = 100
MERGE_S = 1.5
WRITE_S = 2.0
EVERY_S = 1.0

Merge = Callable[[Sequence[Change]], Awaitable[None]]
"""Brings changes into the store (store.change.merge); raises SeawallError."""


class Diary:
    """One process' notes. ``async with`` reads what an earlier life left; ``run`` is its loop, for a supervisor.

    Args:
        folder: DIR/changes.
        version: Of this program; another one than the file's is a change itself.
    """

    def __init__(
        self, folder: Path, role: str, *, version: str, filesystem: Filesystem, clock: Clock, metrics: Metrics
    ) -> None:
        self.file = folder / role
        self._version = version
        self._filesystem = filesystem
        self._clock = clock
        self._merge: Merge | None = None
        self._pending: deque[Change] = deque()
        self._news = asyncio.Event()
        self._earlier: str | None = None  # version of whoever wrote the file last; None: nobody did
        self._dirty = False  # the file isn't what ``_pending`` says
        self._turn = asyncio.Lock()
        self._writing: asyncio.Task[None] | None = None  # the write that was begun last; a hung disk has it still
        metrics.gauge("seawall_changes_pending_count", "Changes that the store doesn't have yet.").read = lambda: len(
            self._pending
        )
        self._dropped = metrics.counter("seawall_changes_dropped_total", "Changes that only the log tells.")

    def merge_with(self, merge: Merge) -> None:
        """From now on there is a store."""
        self._merge = merge
        self._news.set()

    async def __aenter__(self) -> Diary:
        self._earlier = await asyncio.to_thread(self._read)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Write what is only in memory still."""
        if self._dirty:
            await self._save()

    def change(
        self, kind: Kind, what: str, *, by: str = NOBODY, before: str | None = None, after: str | None = None,
        why: str = "",
    ) -> Change:  # fmt: skip
        """A change that is made now."""
        return Change(
            key=os.urandom(16), at_us=self._clock.wall_us(), kind=kind, what=what, by=by, before=before, after=after,
            why=why,
        )  # fmt: skip

    async def started(self, what: str, *, by: str) -> None:
        """Note a start, and whether it is one of another version than the last."""
        if self._earlier != self._version:
            self.jot(self.change(Kind.VERSION, what, by=by, before=self._earlier, after=self._version))
            self._earlier = self._version
        await self.note(self.change(Kind.START, what, by=by, after=self._version))

    async def note(self, change: Change) -> None:
        """As the seam says. What the disk doesn't take stays in memory, and goes to the store from there."""
        self.jot(change)
        await self._save()

    def jot(self, change: Change) -> None:
        """Note a change soon, for whoever can't wait: from a signal, or from a loop that must go on."""
        change = tidy(change)
        if len(self._pending) >= PENDING_MAX:
            self._dropped.value += 1
            log.error("a change can't be kept: too many wait for the store", extra=fields(**_said(change)))
            return
        self._pending.append(change)
        self._dirty = True
        self._news.set()

    async def pending(self) -> Sequence[Change]:
        """What the store doesn't have yet, oldest first."""
        return list(self._pending)

    async def run(self, heart: Heart) -> None:
        """Bring what was noted to disk and into the store, until cancelled."""
        while True:
            self._news.clear()
            try:
                if self._dirty:
                    await self._save()
                    heart.touch()
                while self._pending and self._merge is not None:
                    await self._merge_some(self._merge)
                    heart.touch()
                await heart.beat()
            except (SeawallError, TimeoutError) as error:
                heart.unready(f"changes wait for the store: {str(error) or 'no answer in time'}")
            await self._pause()

    async def _merge_some(self, merge: Merge) -> None:
        """Hand over the oldest ones. They leave the memory when they are in the store, and the disk when all are."""
        batch = list(islice(self._pending, MERGE_MAX))
        async with asyncio.timeout(MERGE_S):
            await merge(batch)
        for _ in batch:
            self._pending.popleft()
        if not self._pending:
            await self._save()

    async def _pause(self) -> None:
        """Wait for news; while the store is away, for its next chance."""
        if self._pending and not self._dirty:
            await asyncio.sleep(EVERY_S)
            return
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(EVERY_S):
                await self._news.wait()

    async def _save(self) -> None:
        """Write the file. What fails is tried again by the loop, and with the next note; a disk that hangs has one
        thread that waits for it, however often it is tried."""
        try:
            async with asyncio.timeout(WRITE_S), self._turn:
                if self._writing is not None:
                    await asyncio.wait([self._writing])
                self._dirty = False
                self._writing = asyncio.create_task(asyncio.to_thread(self._replace, list(self._pending)))
                self._writing.add_done_callback(heed)
                await asyncio.shield(self._writing)
        except OSError as error:  # TimeoutError is one
            self._dirty = True
            cause = str(error) or "the disk took too long"
            log.error("changes aren't on disk yet", extra=fields(file=str(self.file), cause=cause))

    # ── The file, on a thread ──────────────────────────────────────────────────────────────────────────────────────
    def _read(self) -> str | None:
        """Take over what an earlier life left; the version that it says, None: it says none."""
        try:
            version, changes = read_diary(self.file, self._filesystem)
        except FileNotFoundError:
            return None
        except OSError as error:
            log.error("the diary can't be read", extra=fields(file=str(self.file), cause=str(error)))
            return None
        self._pending.extend(changes[:PENDING_MAX])
        return version

    def _replace(self, changes: Sequence[Change]) -> None:
        folder, new = self.file.parent, self.file.with_name(f".{self.file.name}.new")
        data = HEAD + self._version.encode("ascii", "replace") + b"\n" + b"".join(map(_line, changes))
        self._filesystem.make_folder(folder)
        if new.name in self._filesystem.names(folder):
            self._filesystem.remove(new)
        file = self._filesystem.create(new)
        try:
            file.write_at(0, data)
            file.sync_data()
        finally:
            file.close()
        self._filesystem.rename(new, self.file)
        self._filesystem.sync_folder(folder)
        self._filesystem.sync_folder(folder.parent)


def read_diary(path: Path, filesystem: Filesystem) -> tuple[str | None, list[Change]]:
    """(version that wrote it, its changes). A line that is damaged is left out, and told.

    Raises:
        OSError: It isn't there, or can't be read.
    """
    file = filesystem.open(path, writable=False)
    try:
        data = file.read_at(0, FILE_BYTES_MAX)
    finally:
        file.close()
    head, _, rest = data.partition(b"\n")
    lines = [line for line in rest.split(b"\n") if line]
    found = [_parsed(line) for line in lines]
    changes = [change for change in found if change is not None]
    sound = head.startswith(HEAD)
    if not sound or len(changes) != len(lines):
        said = fields(file=str(path), read=len(changes), damaged=len(lines) - len(changes))
        log.error("a diary of changes is damaged", extra=said)
    return head.removeprefix(HEAD).decode("ascii", "replace") if sound else None, changes


def noted_in(folder: Path, filesystem: Filesystem) -> list[Change]:
    """What all diaries of a data folder hold, oldest first. Blocking. One that can't be read is left out, and told."""
    found: list[Change] = []
    try:
        names = filesystem.names(folder)
    except OSError:
        return []  # nothing was ever noted here
    for name in [name for name in names if not name.startswith(".")][:DIARIES_MAX]:
        try:
            found += read_diary(folder / name, filesystem)[1]
        except OSError as error:
            log.error("a diary can't be read", extra=fields(file=name, cause=str(error)))
    return sorted(found, key=lambda change: change.at_us)


def _line(change: Change) -> bytes:
    body = msgspec.json.encode(change)
    return b"%08x %b\n" % (zlib.crc32(body), body)


def _parsed(line: bytes) -> Change | None:
    check, _, body = line.partition(b" ")
    if check != b"%08x" % zlib.crc32(body):
        return None
    try:
        return msgspec.json.decode(body, type=Change)
    except msgspec.DecodeError:
        return None  # of a newer Seawall: a kind that isn't known here


def _said(change: Change) -> dict[str, object]:
    return {
        "change": change.kind.value, "what": change.what, "by": change.by, "before": change.before,
        "after": change.after, "why": change.why,
    }  # fmt: skip
