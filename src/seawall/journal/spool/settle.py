"""When a forwarded record may be let go of here.

An ack that is called replicated is worth more than our disk. Any other may be one machine's memory, where our disk had
the record safe before: so it is kept for as long as a machine needs to write what it was given to its own disk, and
sent again when Kafka was in trouble meanwhile. Copies collapse under the event's id.
"""

from __future__ import annotations

from collections import deque

from seawall.journal.cursor import Cursor
from seawall.journal.spool.checkpoint import Checkpoint
from seawall.kernel.clock import Clock
from seawall.kernel.error import SeawallError
from seawall.kernel.log import fields, logger
from seawall.kernel.metric import Counter
from seawall.kernel.seam.journal import Position

log = logger("journal")

CHECKPOINT_S = 1.0

SETTLE_S = 60.0
"""Twice the 30 s after which Linux begins to write what a program has written (vm.dirty_expire_centisecs); Kafka leaves
that to it."""

BACKS_MAX = 3
"""How often the same records are sent again for trouble: a Kafka that stumbles every few seconds must not be given all
of it for ever."""

STEP_S = 1.0
"""How exactly it is remembered what becomes final when."""


class Settling:
    """Positions that were acknowledged, in order, and which of them are final. Pure.

    Args:
        at: Everything before it is final.
    """

    def __init__(self, at: Position, clock: Clock) -> None:
        self.settled = at
        """Before it nothing is needed here any more."""
        self._clock = clock
        self._later: deque[tuple[float, Position]] = deque()  # when each becomes final
        self._backs = 0

    @property
    def waits(self) -> bool:
        """Whether anything acknowledged isn't final yet."""
        return bool(self._later)

    def passed(self, end: Position, *, replicated: bool) -> None:
        """Everything up to ``end`` was acknowledged."""
        if replicated and not self._later:
            self.settled = end
            return
        due = self._clock.monotonic() + (0.0 if replicated else SETTLE_S)
        if self._later:
            due = max(due, self._later[-1][0])
            if len(self._later) > 1 and due - self._later[-2][0] < STEP_S:
                self._later.pop()
        self._later.append((due, end))

    def settle(self) -> None:
        """Time has passed."""
        now = self._clock.monotonic()
        while self._later and self._later[0][0] <= now:
            self.settled = self._later.popleft()[1]
            self._backs = 0

    def back(self) -> Position | None:
        """Kafka was in trouble: where to begin again, None when there is no need, or it was done often enough."""
        if not self._later or self._backs >= BACKS_MAX:
            return None
        self._backs += 1
        self._later.clear()
        return self.settled


class Holding:
    """What is held of one log while it is forwarded: up to where it is final, on disk too, and what was deleted.

    Args:
        at: Where the checkpoint is.
        forgotten: Counts segments.
    """

    def __init__(self, at: Position, cursor: Cursor, checkpoint: Checkpoint, clock: Clock, forgotten: Counter) -> None:
        self.settling = Settling(at, clock)
        self._kept = at
        self._kept_at = 0.0
        self._cursor = cursor
        self._checkpoint = checkpoint
        self._clock = clock
        self._forgotten = forgotten

    def begin_anew(self, at: Position) -> None:
        """The log isn't what its checkpoint says."""
        self.settling = Settling(at, self._clock)

    def due(self) -> bool:
        """Whether to ``keep`` now: at most once in ``CHECKPOINT_S``."""
        now = self._clock.monotonic()
        self.settling.settle()
        if self.settling.settled == self._kept or now - self._kept_at < CHECKPOINT_S:
            return False
        self._kept_at = now
        return True

    def keep(self) -> None:
        """Keep the checkpoint, and delete segments before it; blocking."""
        at = self.settling.settled
        if at == self._kept or not self._checkpoint.keep(at):
            return
        self._kept = at
        try:
            self._forgotten.value += self._cursor.forget(at)
        except (OSError, SeawallError) as error:
            log.warning("forwarded segments stay", extra=fields(cause=str(error)))
