"""Ends a run that must end: when a condition is met, somebody asks, or what holds its reverts is gone.

A thread, so that it acts while the main one waits in the middle of an action. Everything is reverted first; then the
main thread is told to leave the method.
"""

from __future__ import annotations

import contextlib
import queue
import signal
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from seawall.kernel.error import said as spelt
from seawall.lab.experiment import Condition
from seawall.lab.record import SAMPLE_S, Sample, Status

KICK_S = 0.5
STOP_S = 150.0
TAKEN_S = 1.0
KICK = signal.SIGUSR1


@dataclass(frozen=True, slots=True)
class Order:
    """Somebody wants the run to end."""

    status: Status
    why: str


class Sentry:
    """A thread from ``start`` to ``stop``.

    Args:
        look: Asked twice a second; why the run must be aborted, "" when it needn't.
        revert: Undoes everything that is armed, and keeps anything more from being armed.
        main: Ident of the thread that plays the method; told by KICK, again and again, while ``ordered``.
    """

    def __init__(self, *, look: Callable[[], str], revert: Callable[[str], None], main: int) -> None:
        self.orders: list[Order] = []
        self.playing = False  # the main thread plays, and is to be told to leave
        self._look, self._revert, self._main = look, revert, main
        # May be put to from a signal's handler, whatever the thread under it holds.
        self._queue: queue.SimpleQueue[Order | None] = queue.SimpleQueue()
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name="lab.sentry", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """On return it has reverted what it was about to, or ``STOP_S`` are over. Harmless when called twice, or before
        it began."""
        self._stopping = True
        self._queue.put(None)
        if self._thread.is_alive():
            self._thread.join(STOP_S)

    def end(self, why: str, status: Status = Status.ABORTED) -> None:
        """End the run. From any thread, and from a signal's handler; returns at once."""
        self._queue.put(Order(status, why))

    def settle(self) -> None:
        """Take what was ordered and isn't taken yet: on return ``orders`` has it. Nobody may have listened (before
        ``start``, or after ``stop``), or the thread is in the middle of a look that takes long."""
        latest = time.monotonic() + TAKEN_S
        while self._thread.is_alive() and not self._queue.empty() and time.monotonic() < latest:
            time.sleep(0.01)
        with contextlib.suppress(queue.Empty):
            while True:
                if (order := self._queue.get_nowait()) is not None:
                    self.orders.append(order)

    @property
    def ordered(self) -> bool:
        return bool(self.orders) or not self._queue.empty()

    def _run(self) -> None:
        due, kicked = time.monotonic(), float("-inf")
        while not self._stopping:
            order = self._next(due if not self.orders else min(due, time.monotonic() + KICK_S / 2))
            if order is not None:
                self._take(order)
            now = time.monotonic()
            if now >= due:
                due = now + SAMPLE_S
                if not self.orders and (why := self._ask()):
                    self._take(Order(Status.ABORTED, why))
            if self.orders and self.playing and now - kicked >= KICK_S:
                kicked = now
                signal.pthread_kill(self._main, KICK)

    def _next(self, due: float) -> Order | None:
        try:
            return self._queue.get(timeout=max(0.0, due - time.monotonic()))
        except queue.Empty:
            return None

    def _ask(self) -> str:
        try:
            return self._look()
        except Exception as error:  # noqa: BLE001 - a sentry that can't see ends the run
            return f"nobody can say whether it may go on: {spelt(error)}"

    def _take(self, order: Order) -> None:
        self.orders.append(order)
        if len(self.orders) == 1:
            self._revert(order.why)


class Conditions:
    """The file's own conditions, over samples."""

    def __init__(self, wanted: Sequence[Condition]) -> None:
        self._wanted = wanted
        self._since: dict[int, float] = {}

    def met(self, sample: Sample) -> str:
        """Which one is met, for as long as it must be; "" when none is."""
        for number, each in enumerate(self._wanted):
            value = sample.values.get(each.name)
            over = value is not None and (
                (each.above is not None and value > each.above) or (each.below is not None and value < each.below)
            )
            if not over:
                self._since.pop(number, None)
            elif sample.at_s - self._since.setdefault(number, sample.at_s) >= each.for_s:
                return f"{each.claim}: {each.name} is {value:g}"
        return ""
