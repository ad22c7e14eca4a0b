"""A journal on a crashing disk, and what must be true of it whatever happens. The journal's code is the real one."""

from __future__ import annotations

import errno
import os
import random
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from seawall.journal.cursor import Cursor
from seawall.journal.frame import FRAME_BYTES, HEADER_BYTES, Codec
from seawall.journal.recovery import Recovered, recover
from seawall.journal.segment import segment_path
from seawall.journal.settings import Settings
from seawall.journal.writer import Writer
from seawall.kernel.error import Corrupt, Overloaded, Unavailable, Uncertain
from seawall.kernel.seam.journal import Chunk, Damage, Displaced, Position
from seawall.testing import CrashDisk, Crashed, ManualClock

FOLDER = Path("/data/journal/c1")
SETTINGS = Settings(
    segment_bytes=16 * 1024, fill_bytes=4096, batch_bytes_max=4096, reserve_bytes=4096, resume_bytes=16 * 1024
)
AMPLE_BYTES = 1 << 40
GUESSED_SALT = b"0123456789abcdef"


@dataclass(frozen=True)
class Kit:
    """The parts of a journal. A mutant has one of them replaced by a version with a known bug."""

    writer: type[Writer] = Writer
    cursor: type[Cursor] = Cursor
    recover: Callable[..., Recovered] = recover
    log_id: bytes | None = None  # None: random
    salt: bytes | None = None


class World:
    """One log, its writer, one reader that remembers what it was given, and a ledger of every answer.

    Raises AssertionError as soon as a promise is broken.
    """

    def __init__(self, seed: int, kit: Kit | None = None) -> None:
        self.kit = kit or Kit()
        self.random = random.Random(seed)
        self.disk = CrashDisk(seed)
        self.count = 0
        self.numbers: dict[bytes, int] = {}  # of each payload ever tried
        self.refused: set[bytes] = set()  # answered: certainly not kept
        self.acked: dict[Position, bytes] = {}  # by end
        self.given: dict[Position, bytes] = {}  # what the reader got; it may have acted on it
        self.bookmarks: list[tuple[Position, bytes]] = []
        self.rotten: set[bytes] = set()  # a bit of it was flipped
        self.flipped = False
        self.torn = False  # recovery said so; the bytes are in a file of their own, or on a full disk in their place
        self.trouble = False  # a power loss or a failed write: torn bytes may lie about
        self.writer: Writer | None = None
        self.start()

    def entropy(self, count_bytes: int) -> bytes:
        """Random, but for a kit that knows better. A log's id is asked for before any salt."""
        if self.asking_log_id and self.kit.log_id is not None:
            return self.kit.log_id
        if not self.asking_log_id and self.kit.salt is not None:
            return self.kit.salt
        return self.random.randbytes(count_bytes)

    def start(self) -> None:
        """A process starts: recovery, then a writer; then all promises are checked."""
        self.asking_log_id = True
        found = self.kit.recover(FOLDER, filesystem=self.disk, entropy=self.entropy)
        self.asking_log_id = False
        self.damage = list(found.damage)
        self.torn = self.torn or found.torn_bytes > 0
        self.writer = self.kit.writer(
            FOLDER, found.end, SETTINGS, filesystem=self.disk, clock=ManualClock(), entropy=self.entropy
        )
        self.cursor = self.kit.cursor(FOLDER, found.end.log_id, self.disk)
        if not hasattr(self, "at"):
            self.at = self.cursor.start()
        self.check()

    def payload(self, size: int, *, forged: bool = False) -> bytes:
        """A payload that is like no other. A forged one carries a frame as a sender might guess it."""
        self.count += 1
        payload = b"%d:" % self.count + self.random.randbytes(8) * (size // 8)
        if forged:
            payload += Codec(GUESSED_SALT).encode([b"EVIL"], 777)[0] + b"end"
        self.numbers[payload] = self.count
        return payload

    def append(self, payloads: Sequence[bytes]) -> None:
        """One batch; its answer goes to the ledger."""
        try:
            segment_id, ends = self.writer.commit(payloads)
        except (Overloaded, Unavailable):
            self.refused.update(payloads)
        except Uncertain:
            self.trouble = True
        else:
            for end, payload in zip(ends, payloads, strict=True):
                self.acked[Position(self.writer.synced_end.log_id, segment_id, end)] = payload

    def read(self, records_max: int) -> None:
        """The reader goes on from where it was; what it gets, it may act on."""
        try:
            frames = self._read(self.at, records_max).frames
        except Displaced:
            self._begin_anew()
            return
        for frame in frames:
            assert frame.payload not in self.given.values(), "read twice"
            self.given[frame.end] = frame.payload
            self.at = frame.end

    def _begin_anew(self) -> None:
        """A tail that rotted after it was read is cut at the next start, so the position lies beyond its segment's end:
        that is told, and all is read again. Without rot there is no reason for it."""
        assert self.flipped, "a position was lost, and no bit was"
        self.at = self.cursor.start()
        self.given.clear()

    def crash(self, *, power: bool) -> None:
        """The process is killed, or the machine with it."""
        self.disk.plan = None
        limit = self.writer.synced_end
        proven = self.cursor.proven_end(self.cursor.start())
        next_top = Position(limit.log_id, limit.segment_id + 1, HEADER_BYTES)  # holds nothing, so proves nothing wrong
        assert proven <= limit or proven == next_top, "proven beyond what was synced"
        if power:
            self.trouble = True
            self.disk.power_loss()
        self.start()

    def crash_in(self, action: Callable[[], None], calls: int, *, power: bool) -> None:
        """Do it, and crash in the middle of its ``calls``-th call to the disk (or after it, when it needs fewer)."""
        last = self.disk.calls + calls
        self.disk.plan = lambda call, number: Crashed() if number >= last else None
        try:
            action()
        except Crashed:
            self.trouble = True
        self.crash(power=power)

    def fail_next(self, call: str, error: int) -> None:
        """The next call of that name fails, once."""

        def plan(name: str, number: int) -> OSError | None:
            if name != call:
                return None
            self.disk.plan = None
            return OSError(error, os.strerror(error))

        self.disk.plan = plan

    def fail_recovery(self, calls: int, error: int, *, power: bool) -> None:
        """A start meets a failing disk at its ``calls``-th call: it may refuse to start; the next one must do."""
        last = self.disk.calls + calls

        def plan(name: str, number: int) -> OSError | None:
            return OSError(error, os.strerror(error)) if number == last else None

        self.trouble = True
        self.disk.plan = plan
        with suppress(OSError):
            self.start()
        self.crash(power=power)

    def set_full(self, *, full: bool) -> None:
        self.disk.capacity_bytes = self.disk.used_bytes + 3000 if full else AMPLE_BYTES
        self.writer.probe()

    def flip(self, where: float, place: str, bit: int) -> None:
        """One bit of a kept frame rots: of its header, its payload, or of the first copy of a segment's header."""
        if not self.acked:
            return
        end = sorted(self.acked)[int(where * len(self.acked))]
        payload = self.acked[end]
        size = FRAME_BYTES + len(payload)
        offset = (
            end.offset_bytes - size + {"head": int(where * FRAME_BYTES), "length": 8, "body": size - 1}.get(place, 0)
        )
        if place == "segment":
            offset = int(where * 64)
        else:
            self.rotten.add(payload)
        self.flipped = True
        self.disk.flip(segment_path(FOLDER, end.segment_id), offset, bit)

    def forget(self) -> None:
        """Segments that the reader is done with go."""
        kept, before = self.at.segment_id, (self.acked, self.given)
        # First from the ledger: a crash in the middle may have deleted some of them.
        self.acked = {end: payload for end, payload in self.acked.items() if end.segment_id >= kept}
        self.given = {end: payload for end, payload in self.given.items() if end.segment_id >= kept}
        try:
            self.cursor.forget(self.at)
        except Displaced:
            self.acked, self.given = before
            self._begin_anew()

    def wipe(self) -> None:
        """The folder is gone, and a new log is made in its place. Somebody still holds positions of the old one."""
        self.bookmarks += [
            (Position(end.log_id, end.segment_id, end.offset_bytes - FRAME_BYTES - len(payload)), payload)
            for end, payload in list(self.acked.items())[:3]
        ]
        self.disk.plan = None
        self.disk.erase(FOLDER)
        self.acked.clear()
        self.given.clear()
        del self.at
        self.start()

    def check(self) -> None:
        """Nothing lost, nothing invented, nothing moved, nothing silent."""
        plan, self.disk.plan = self.disk.plan, None
        try:
            read = self._read(self.cursor.start(), 1 << 30)
            self._check_payloads(read)
            self._check_bookmarks()
        finally:
            self.disk.plan = plan

    def _read(self, at: Position, records_max: int) -> Chunk:
        return self.cursor.read(at, self.writer.synced_end, records_max=records_max, bytes_max=1 << 30)

    def _check_payloads(self, read: Chunk) -> None:
        found = {frame.end: frame.payload for frame in read.frames}
        for payload in found.values():
            assert payload in self.numbers, f"invented: {payload[:40]!r}"
            assert payload not in self.refused, f"answered as not kept, yet kept: {payload[:40]!r}"
        numbers = [self.numbers[payload] for payload in found.values()]
        assert numbers == sorted(set(numbers)), "out of order, or twice"
        for ledger in (self.acked, self.given):
            for end, payload in ledger.items():
                if found.get(end) != payload:
                    assert payload in self.rotten, f"lost: {payload[:40]!r} at {end.segment_id}:{end.offset_bytes}"
                    assert self._kept_aside(read.damage), f"lost in silence: {payload[:40]!r}"
        if not self.flipped and not self.trouble:
            assert not read.damage and not self.damage, f"a false alarm: {read.damage} {self.damage}"

    def _kept_aside(self, damage: Sequence[Damage]) -> bool:
        names = self.disk.names(FOLDER)
        return bool(damage) or self.torn or any(name.endswith((".torn", ".bad")) for name in names)

    def _check_bookmarks(self) -> None:
        for at, payload in self.bookmarks:
            try:
                read = self._read(at, 1)
            except Corrupt:
                continue
            assert not read.frames or read.frames[0].payload == payload, "a position came to mean another event"


__all__ = ["FOLDER", "GUESSED_SALT", "HEADER_BYTES", "SETTINGS", "Kit", "World", "errno"]
