"""Worker processes of a queue's own: one beside the worker for each queue whose app reserves slots.

Slots that are kept free hold against another queue's flood. They don't hold against its code, which may block the event
loop that all of them share, or eat its memory; only another process does.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from seawall.guard import Heart
from seawall.machine.process import Child

OWN = "own"
"""What a worker names such queues by when it says that it is ready."""

LOOK_S = 0.5


class OwnQueues:
    """Starts them as soon as the worker has said which there are. One that was started stays: that its queue reserves
    nothing any more is known after the next start of all.

    Args:
        most: So many at most, the first ones that the app declares.
        start: Starts the process of a queue, and keeps it running.
        over: All are being stopped. One that began behind the others of its role wouldn't be told, but killed at the
            end of all, and its runs would be suspects.
    """

    def __init__(
        self, worker: Child, *, most: int, start: Callable[[str], None], over: Callable[[], bool] = lambda: False
    ) -> None:  # fmt: skip
        self._worker = worker
        self._most = most
        self._start = start
        self._over = over
        self._started: set[str] = set()

    async def run(self, heart: Heart) -> None:
        """The supervised loop."""
        while True:
            said = None if self._over() else self._worker.said.get(OWN)
            for queue in said if isinstance(said, list) else ():
                if isinstance(queue, str) and queue not in self._started and len(self._started) < self._most:
                    self._started.add(queue)
                    self._start(queue)
            await heart.beat()
            await asyncio.sleep(LOOK_S)
