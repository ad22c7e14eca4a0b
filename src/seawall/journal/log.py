"""One log, open for writing: group commit between an event loop and one writer thread.

The event loop's thread owns all state in here. The writer thread gets one job at a time (a batch, or a probe for
space), touches the disk through ``Writer``, and hands the outcome back in one call. A batch is all that was submitted
while the batch before it was being written: there is no timer, and no future per record.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from types import TracebackType

from seawall.guard.supervisor import Heart, Supervisor
from seawall.journal.filesystem import LocalFilesystem
from seawall.journal.lock import FolderLock
from seawall.journal.meter import Meter
from seawall.journal.opening import recover_in_thread, take_lock
from seawall.journal.pending import Batch, Pending
from seawall.journal.settings import Settings
from seawall.journal.thread import WriterThread
from seawall.journal.writer import Writer
from seawall.kernel.alert import Alerts
from seawall.kernel.clock import Clock, Deadline, SystemClock
from seawall.kernel.error import Overloaded, SeawallError, Unavailable, Uncertain
from seawall.kernel.log import fields, logger
from seawall.kernel.metric import Metrics
from seawall.kernel.seam.filesystem import Filesystem
from seawall.kernel.seam.journal import Done, Outcome, Position

log = logger("journal")

TICK_S = 0.25


# Size: all of it changes one state, on one thread; pieces of it would only pass that state around.
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
        alerts: Alerts | None = None,
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
        self._alerts = alerts or Alerts(metrics, self._clock)
        self._entropy = entropy
        self._pending = Pending(settings)
        self._flight: Batch | None = None
        self._busy = False  # a batch is in flight, or about to be
        self._idle = asyncio.Event()
        self._refusal: SeawallError | None = Overloaded("the journal isn't open")
        self._stopping = False
        self._late = False  # the batch in flight was given up: the disk hangs
        self._followers: list[Callable[[Position], None]] = []
        self._lock: FolderLock | None = None
        self._thread: WriterThread | None = None
        self._meter.watch(lambda: len(self._pending.batch.dones), lambda: self._pending.batch.size_bytes)

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

    async def room_bytes(self) -> int:
        """Bytes that the log may still take: what is free beyond its reserve. Raises Unavailable."""
        try:
            free_bytes = await asyncio.to_thread(self._filesystem.free_bytes, self.folder)
        except OSError as error:
            raise Unavailable("journal", f"{self.folder}: {error}") from error
        return max(0, free_bytes - self._settings.reserve_bytes)

    def follow(self, follower: Callable[[Position], None]) -> None:
        """Call ``follower`` with the new synced end after each batch, on the event loop's thread. It must be quick."""
        self._followers.append(follower)

    def submit(self, payload: bytes, done: Done) -> None:
        if self._refusal is not None:
            raise self._refusal.with_traceback(None)
        if not self._pending.add(payload, done):
            self._meter.refused.value += 1
            raise Overloaded("the journal's queue is full")
        if not self._busy:
            self._busy = True
            self._idle.clear()
            # Not at once: what else this round of the event loop brings joins the batch.
            self._loop.call_soon(self._begin)

    def register(self, supervisor: Supervisor) -> None:
        """Add the loop that notices a hung disk, finds room again after a full one, and tells readiness."""
        supervisor.add(f"journal.{self.name}", self._watch)

    def reload(self, settings: Settings) -> None:
        """Go on with other settings, from the next record and the next batch on. Only of an open log."""
        self._settings = self._pending.settings = self._writer.settings = settings

    async def __aenter__(self) -> Log:
        self._loop = asyncio.get_running_loop()
        self._lock = await take_lock(
            self.folder, self._filesystem, timeout_s=self._settings.lock_timeout_s, clock=self._clock
        )
        try:
            recovered = await recover_in_thread(self.folder, self._filesystem, self._entropy)
        except BaseException:
            self._lock.release()
            raise
        self._meter.recovered(recovered)
        if recovered.damage:
            self._alerts.raised(
                "journal-damaged", f"journal {self.name} was damaged in {len(recovered.damage)} places at its start",
                unaffected="accepting events, and all that is readable",
                cure="seawall journal verify; damaged bytes are kept beside the log", journal=self.name,
            )  # fmt: skip
        self._synced_end = recovered.end.position
        self._writer = Writer(
            self.folder, recovered.end, self._settings,
            filesystem=self._filesystem, clock=self._clock, entropy=self._entropy,
        )  # fmt: skip
        self._thread = WriterThread(
            f"journal.{self.name}", self._writer, landed=self._landed, sank=self._sank, probed=self._probed
        )
        self._idle.set()
        self._refusal = None
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
        thread, again = self._thread, self._stopping
        self._stopping = True
        if thread is None or again:
            return
        self._judge()
        deadline = Deadline.after(self._settings.stop_timeout_s, self._clock)
        try:
            await asyncio.wait_for(self._idle.wait(), self._settings.stop_timeout_s)
        except TimeoutError:
            log.error("stopping without the disk's answer", extra=fields(journal=self.name))
            self._give_up("the journal stopped before the disk answered")
        ended = await thread.end(max(0.1, deadline.left_s(self._clock)))
        if ended and self._lock is not None:
            # A thread that still hangs in the disk may yet write: its lock goes with the process, not before.
            self._lock.release()

    def _begin(self) -> None:
        """Hand the next batch to the writer's thread, or be idle."""
        thread = self._thread
        if not self._pending.batch.dones or thread is None:
            self._busy = False
            self._idle.set()
            return
        batch = self._pending.take()
        batch.started = self._clock.monotonic()
        self._flight = batch
        thread.write(batch.payloads)

    def _landed(self, segment_id: int, ends: Sequence[int]) -> None:
        """The batch in flight is durable."""
        batch = self._close_flight()
        log_id = self._synced_end.log_id
        # The writer's thread rests until this was reported, so its end is still that of this batch.
        salt = self._writer.synced_end.salt
        self._synced_end = Position(log_id, segment_id, ends[-1], salt)
        self._meter.landed(len(ends), batch.size_bytes, self._writer.sync_s)
        for follower in self._followers:
            follower(self._synced_end)
        # Not at once: answering comes first, and what the network brings meanwhile joins the next batch. Under load
        # that makes fewer and larger syncs, a twentieth off an event's CPU; with little load nothing is queued.
        self._loop.call_soon(self._begin)
        if not batch.answered:
            self._answer(
                (done, Position(log_id, segment_id, end, salt)) for done, end in zip(batch.dones, ends, strict=True)
            )

    def _sank(self, error: SeawallError) -> None:
        """The batch in flight was refused, or its fate is unknown."""
        batch = self._close_flight()
        if not batch.answered:
            self._answer((done, error) for done in batch.dones)
        if self._refusal is not None:
            # What is queued wasn't written, and won't be.
            self._refuse_queued(self._refusal)
        self._begin()
        if self._writer.failed:
            log.critical("the journal failed for good", extra=fields(journal=self.name, cause=self._writer.failed))
            self._alerts.raised(
                "journal-failed", f"a sync of journal {self.name} failed: {self._writer.failed}; this process must end",
                unaffected="what was acknowledged before", cure="look at the disk", journal=self.name,
            )  # fmt: skip
            self._on_failure(self._writer.failed)
        elif self._writer.full:
            self._alerts.raised(
                "journal-full", f"the disk of journal {self.name} is full: its events are refused",
                unaffected="what was accepted; routing and running it", cure="make room on its disk",
                journal=self.name,
            )  # fmt: skip

    def _probed(self) -> None:
        if not self._writer.full:
            self._alerts.cleared("journal-full", journal=self.name)
        self._judge()
        self._begin()

    def _close_flight(self) -> Batch:
        batch, self._flight = self._flight, None
        assert batch is not None
        if self._late:
            self._late = False
            self._alerts.cleared("journal-hangs", journal=self.name)
        if self._refusal is not None or self._writer.full or self._writer.failed:
            self._judge()
        return batch

    def _answer(self, answers: Iterable[tuple[Done, Outcome]]) -> None:
        """Call each ``done`` as the event loop itself would: one that raises is a bug of its room, is told to the
        loop's handler, and must not leave the others unanswered."""
        for done, outcome in answers:
            try:
                done(outcome)
            except Exception as error:  # noqa: BLE001
                # Any kind: it is another room's, one waiter must not cost the others theirs, and it is reported.
                self._loop.call_exception_handler({"message": "an answer's waiter broke", "exception": error})

    def _refuse_queued(self, error: SeawallError) -> None:
        """Nothing of what is queued was written."""
        queued = self._pending.take_all()
        self._meter.refused.value += len(queued.dones)
        self._answer((done, error) for done in queued.dones)

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
                self._alerts.raised(
                    "journal-hangs", f"the disk of journal {self.name} hasn't answered for "
                    f"{self._settings.answer_timeout_s:g} s: its events are refused",
                    unaffected="what was accepted", cure="look at the disk", journal=self.name,
                )  # fmt: skip
                self._late = True
                self._judge()
                self._give_up("the journal's disk doesn't answer")
        elif not self._busy and self._thread is not None and self._writer.full and not self._writer.failed:
            self._busy = True
            self._idle.clear()
            self._thread.probe()

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
