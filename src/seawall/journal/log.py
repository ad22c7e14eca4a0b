"""One log, open for writing: group commit between an event loop and one writer thread.

The event loop's thread owns all state in here. The writer thread gets one job at a time (a batch, or a probe for
space), touches the disk through ``Writer``, and hands the outcome back in one call. A batch is all that was submitted
while the batch before it was being written: there is no timer, and no future per record.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from queue import SimpleQueue
from types import TracebackType

from seawall.guard.supervisor import Heart, Supervisor
from seawall.journal.filesystem import LocalFilesystem
from seawall.journal.lock import FolderLock, holder, try_lock
from seawall.journal.meter import Meter
from seawall.journal.recovery import Recovered, recover
from seawall.journal.settings import Settings
from seawall.journal.writer import Writer
from seawall.kernel.clock import Clock, Deadline, SystemClock
from seawall.kernel.error import Misconfigured, Overloaded, SeawallError, Unavailable, Uncertain
from seawall.kernel.log import fields, logger
from seawall.kernel.metric import Metrics
from seawall.kernel.seam.filesystem import Filesystem
from seawall.kernel.seam.journal import Done, Outcome, Position

log = logger("journal")

OPEN_TIMEOUT_S = 60.0
"""Recovery reads one segment; a disk that needs longer than this for it is not there."""

LOCK_RETRY_S = 0.05
TICK_S = 0.25


@dataclass(slots=True)
class _Batch:
    """What the writer thread is busy with."""

    payloads: list[bytes]
    dones: list[Done]
    size_bytes: int
    started: float = 0.0
    answered: bool = False  # given up as Uncertain before its outcome was known


@dataclass(slots=True)
class _Queue:
    """What was submitted and not yet begun; two lists, as one is written and the other one answered."""

    payloads: list[bytes] = field(default_factory=list)
    dones: list[Done] = field(default_factory=list)
    size_bytes: int = 0


class Log:
    """Implements ``Journal``. ``async with`` locks and recovers the folder; leaving drains and closes.

    Args:
        folder: The log's own; its last part is the log's name. Made when missing.
        on_failure: Called once, on the event loop's thread, when a write or sync failed: the process must stop and be
            started again, as only a restart reads what the disk really has.

    Raises (on entering):
        Misconfigured: Another process holds the folder, named by its pid.
        Unavailable: The disk failed.
        Corrupt: The folder is no sound log.
    """

    def __init__(
        self,
        folder: Path,
        settings: Settings,
        *,
        metrics: Metrics,
        on_failure: Callable[[str], None],
        filesystem: Filesystem | None = None,
        clock: Clock | None = None,
        entropy: Callable[[int], bytes] = os.urandom,
    ) -> None:
        self.folder = folder
        self.name = folder.name
        self._settings = settings
        self._meter = Meter(metrics, self.name)
        self._on_failure = on_failure
        self._filesystem = filesystem or LocalFilesystem()
        self._clock = clock or SystemClock()
        self._entropy = entropy
        self._queue = _Queue()
        self._flight: _Batch | None = None
        self._busy = False  # a batch is in flight, or about to be
        self._jobs: SimpleQueue[list[bytes] | None] = SimpleQueue()
        self._idle = asyncio.Event()
        self._refusal: SeawallError | None = Overloaded("the journal isn't open")
        self._stopping = False
        self._late = False  # the batch in flight was given up: the disk hangs
        self._followers: list[Callable[[Position], None]] = []
        self._lock: FolderLock | None = None
        self._thread: threading.Thread | None = None
        self._meter.watch(lambda: len(self._queue.dones), lambda: self._queue.size_bytes)

    @property
    def log_id(self) -> bytes:
        return self._synced_end.log_id

    @property
    def synced_end(self) -> Position:
        """Every byte before it is on stable storage."""
        return self._synced_end

    @property
    def refusal(self) -> SeawallError | None:
        return self._refusal

    def follow(self, follower: Callable[[Position], None]) -> None:
        """Call ``follower`` with the new synced end after each batch, on the event loop's thread. It must be quick."""
        self._followers.append(follower)

    def submit(self, payload: bytes, done: Done) -> None:
        if self._refusal is not None:
            raise self._refusal.with_traceback(None)
        queue = self._queue
        settings = self._settings
        size = queue.size_bytes + len(payload)
        if size > settings.pending_bytes_max or len(queue.dones) >= settings.pending_records_max:
            self._meter.refused.value += 1
            raise Overloaded("the journal's queue is full")
        queue.payloads.append(payload)
        queue.dones.append(done)
        queue.size_bytes = size
        if not self._busy:
            self._busy = True
            self._idle.clear()
            # Not at once: what else this round of the event loop brings joins the batch.
            self._loop.call_soon(self._begin)

    def register(self, supervisor: Supervisor) -> None:
        """Add the loop that notices a hung disk, finds room again after a full one, and tells readiness."""
        supervisor.add(f"journal.{self.name}", self._watch)

    async def __aenter__(self) -> Log:
        self._loop = asyncio.get_running_loop()
        self._lock = await self._take_lock()
        try:
            recovered = await self._recover()
        except BaseException:
            self._lock.release()
            raise
        self._meter.recovered(recovered)
        self._synced_end = recovered.end.position
        self._writer = Writer(
            self.folder, recovered.end, self._settings,
            filesystem=self._filesystem, clock=self._clock, entropy=self._entropy,
        )  # fmt: skip
        self._idle.set()
        self._refusal = None
        # A daemon: a thread that hangs inside a dead disk's sync must not keep the process alive.
        self._thread = threading.Thread(target=self._work, name=f"journal.{self.name}", daemon=True)
        self._thread.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    async def stop(self) -> None:
        """Refuse what is new, write what was submitted, close. Takes at most ``stop_timeout_s``, then gives up on what
        isn't written: Uncertain for the batch in flight, Overloaded for the rest. Harmless when called twice.

        Cancelled: the log is closed all the same when the process ends; nothing acknowledged is lost.
        """
        self._stopping = True
        self._judge()
        thread, self._thread = self._thread, None
        if thread is None:
            return
        deadline = Deadline.after(self._settings.stop_timeout_s, self._clock)
        try:
            await asyncio.wait_for(self._idle.wait(), self._settings.stop_timeout_s)
        except TimeoutError:
            log.error("stopping without the disk's answer", extra=fields(journal=self.name))
            self._give_up("the journal stopped before the disk answered")
        self._jobs.put(None)
        await asyncio.to_thread(thread.join, max(0.1, deadline.left_s(self._clock)))
        if self._lock is not None and not thread.is_alive():
            # A thread that still hangs in the disk may yet write: its lock goes with the process, not before.
            self._lock.release()

    async def _take_lock(self) -> FolderLock:
        """The folder's lock; a reader may hold it for as long as it recovers a log without a writer."""
        deadline = Deadline.after(self._settings.lock_timeout_s, self._clock)
        try:
            self._filesystem.make_folder(self.folder)
            while (lock := try_lock(self.folder)) is None:
                if deadline.left_s(self._clock) == 0.0:
                    raise Misconfigured([f"journal folder {self.folder} is in use by process {holder(self.folder)}"])
                await asyncio.sleep(LOCK_RETRY_S)
        except OSError as error:
            raise Unavailable("journal", f"{self.folder}: {error}") from error
        return lock

    async def _recover(self) -> Recovered:
        def call() -> Recovered:
            return recover(self.folder, filesystem=self._filesystem, entropy=self._entropy)

        try:
            async with asyncio.timeout(OPEN_TIMEOUT_S):
                return await asyncio.to_thread(call)
        except TimeoutError as error:
            raise Unavailable("journal", f"{self.folder}: no answer from the disk in {OPEN_TIMEOUT_S:g} s") from error
        except OSError as error:
            raise Unavailable("journal", f"{self.folder}: {error}") from error

    # On the event loop's thread.

    def _begin(self) -> None:
        """Hand the next batch to the writer thread, or be idle."""
        queue = self._queue
        if not queue.dones:
            self._busy = False
            self._idle.set()
            return
        batch = self._take()
        batch.started = self._clock.monotonic()
        self._flight = batch
        self._jobs.put(batch.payloads)

    def _take(self) -> _Batch:
        """All that is queued, or as many records as a batch may hold."""
        queue = self._queue
        if queue.size_bytes <= self._settings.batch_bytes_max:
            self._queue = _Queue()
            return _Batch(queue.payloads, queue.dones, queue.size_bytes)
        count = 0
        size = 0
        for payload in queue.payloads:
            if count and size + len(payload) > self._settings.batch_bytes_max:
                break
            count += 1
            size += len(payload)
        self._queue = _Queue(queue.payloads[count:], queue.dones[count:], queue.size_bytes - size)
        return _Batch(queue.payloads[:count], queue.dones[:count], size)

    def _landed(self, segment_id: int, ends: Sequence[int]) -> None:
        """The batch in flight is durable."""
        batch = self._close_flight()
        log_id = self._synced_end.log_id
        self._synced_end = Position(log_id, segment_id, ends[-1])
        self._meter.landed(len(ends), batch.size_bytes, self._writer.sync_s)
        for follower in self._followers:
            follower(self._synced_end)
        self._begin()
        if not batch.answered:
            self._answer((done, Position(log_id, segment_id, end)) for done, end in zip(batch.dones, ends, strict=True))

    def _sank(self, error: SeawallError) -> None:
        """The batch in flight was refused, or its fate is unknown."""
        batch = self._close_flight()
        if not batch.answered:
            self._answer((done, error) for done in batch.dones)
        if self._writer.failed:
            log.critical("the journal failed for good", extra=fields(journal=self.name, cause=self._writer.failed))
            self._refuse_queued(Unavailable("journal", self._writer.failed))
            self._on_failure(self._writer.failed)
        elif self._writer.full:
            log.error("the journal's disk is full; events are refused", extra=fields(journal=self.name))
            self._refuse_queued(Overloaded(str(error), retry_after_s=self._settings.full_retry_after_s))
        self._begin()

    def _probed(self) -> None:
        if not self._writer.full:
            log.info("the journal's disk has room again", extra=fields(journal=self.name))
        self._judge()
        self._begin()

    def _close_flight(self) -> _Batch:
        batch, self._flight = self._flight, None
        assert batch is not None
        self._late = False
        if self._refusal is not None or self._writer.full or self._writer.failed:
            self._judge()
        return batch

    def _answer(self, answers: Iterator[tuple[Done, Outcome]]) -> None:
        """Call each ``done``. One that raises is a bug of its room; it must not leave the others unanswered."""
        try:
            for done, outcome in answers:
                done(outcome)
        except BaseException:
            self._loop.call_soon(self._answer, answers)
            raise

    def _refuse_queued(self, error: SeawallError) -> None:
        """Nothing of what is queued was written."""
        queue, self._queue = self._queue, _Queue()
        self._meter.refused.value += len(queue.dones)
        self._answer((done, error) for done in queue.dones)

    def _give_up(self, why: str) -> None:
        """The disk takes too long: answer everybody now. What is in flight may still land."""
        batch = self._flight
        if batch is not None and not batch.answered:
            batch.answered = True
            self._answer((done, Uncertain(why)) for done in batch.dones)
        self._refuse_queued(Overloaded(why))

    async def _watch(self, heart: Heart) -> None:
        while True:
            self.tick()
            if self._refusal is None:
                await heart.beat()
            else:
                heart.unready(str(self._refusal))
            await asyncio.sleep(TICK_S)

    def tick(self) -> None:
        """One round of the watching loop: give up on a batch that takes too long, look for room on a full disk."""
        batch = self._flight
        if batch is not None:
            if not self._late and self._clock.monotonic() - batch.started > self._settings.answer_timeout_s:
                log.error("the disk doesn't answer", extra=fields(journal=self.name))
                self._late = True
                self._judge()
                self._give_up("the journal's disk doesn't answer")
        elif not self._busy and self._thread is not None and self._writer.full and not self._writer.failed:
            self._busy = True
            self._idle.clear()
            self._jobs.put([])

    def _judge(self) -> None:
        """What ``submit`` raises from now on."""
        if self._stopping:
            self._refusal = Overloaded("the journal is stopping")
        elif self._writer.failed:
            self._refusal = Unavailable("journal", self._writer.failed)
        elif self._writer.full:
            self._refusal = Overloaded("the journal's disk is full", retry_after_s=self._settings.full_retry_after_s)
        elif self._late:
            self._refusal = Overloaded("the journal's disk doesn't answer")
        else:
            self._refusal = None

    # On the writer thread.

    def _work(self) -> None:
        """Write batch after batch until told to end. An empty batch asks for a probe."""
        try:
            while (payloads := self._jobs.get()) is not None:
                self._loop.call_soon_threadsafe(self._outcome(payloads))
        except RuntimeError:
            # The event loop is closed: nobody is left to answer.
            return
        finally:
            self._writer.close()

    def _outcome(self, payloads: list[bytes]) -> Callable[[], None]:
        """Do one job; returns what the event loop shall call."""
        try:
            if payloads:
                return partial(self._landed, *self._writer.commit(payloads))
            self._writer.probe()
            return self._probed
        except SeawallError as error:
            return partial(self._sank, error)
        except BaseException as error:
            # A bug. It must not be a thread that is silently gone: the log fails as if the disk had.
            log.exception("the journal's writer broke", extra=fields(journal=self.name))
            self._writer.failed = f"its writer broke: {error!r}"
            return partial(self._sank, Uncertain(self._writer.failed))
