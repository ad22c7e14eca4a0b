"""The one thread that touches the disk of an open log."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Sequence
from functools import partial
from queue import SimpleQueue

from seawall.journal.writer import Writer
from seawall.kernel.error import SeawallError, Uncertain
from seawall.kernel.log import fields, logger

log = logger("journal")


class WriterThread:
    """Does one job at a time and reports each in one call on the event loop's thread.

    Args:
        landed: Called with (segment id, end offsets) of a batch that is durable.
        sank: Called with the error of a batch that isn't, or of which nobody knows.
        probed: Called when the disk was asked for room.
    """

    def __init__(
        self,
        name: str,
        writer: Writer,
        *,
        landed: Callable[[int, Sequence[int]], None],
        sank: Callable[[SeawallError], None],
        probed: Callable[[], None],
    ) -> None:
        self._writer = writer
        self._landed = landed
        self._sank = sank
        self._probed = probed
        self._jobs: SimpleQueue[list[bytes] | None] = SimpleQueue()
        self._loop = asyncio.get_running_loop()
        # A daemon: a thread that hangs inside a dead disk's sync must not keep the process alive.
        self._thread = threading.Thread(target=self._work, name=name, daemon=True)
        self._thread.start()

    def write(self, payloads: list[bytes]) -> None:
        """Begin a batch of 1 or more. The job before must have been reported."""
        self._jobs.put(payloads)

    def probe(self) -> None:
        self._jobs.put([])

    async def end(self, timeout_s: float) -> bool:
        """End after the jobs in hand; False when they aren't done in time. The writer is closed at the end."""
        self._jobs.put(None)
        await asyncio.to_thread(self._thread.join, timeout_s)
        return not self._thread.is_alive()

    def _work(self) -> None:
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
            # This thread's outermost loop, and a bug: the thread must not be silently gone, so the log fails as if the
            # disk had, and the process is restarted.
            log.exception("the journal's writer broke", extra=fields(thread=self._thread.name))
            self._writer.failed = f"its writer broke: {error!r}"
            return partial(self._sank, Uncertain(self._writer.failed))
