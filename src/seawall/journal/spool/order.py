"""Keeps the order of sources that are marked ``ordered``, across outages of Kafka too.

Their records stand before the journal in a line of their own. The next ones are handed on when Kafka has answered all
before them, so that none can overtake one whose fate isn't known; until then they wait, in groups: what came while one
group was on its way is the next. Once a record went to the local log instead, all later ones go there too, behind it,
until the forwarder has brought it to Kafka. One that Kafka has no room for goes there when none is on its way: any of
those might have to go there yet, and would stand behind it.

What is left: two records of one group, which the client library gets within about a millisecond, of which it forgets
the first and still sends the second. Other sources pay one look into a set, which is empty where no source is ordered.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from functools import partial
from typing import Protocol

from seawall.journal.cluster import Settings
from seawall.kernel.clock import Clock
from seawall.kernel.error import Overloaded, SeawallError
from seawall.kernel.event import source_id_of
from seawall.kernel.metric import Metrics
from seawall.kernel.seam.journal import Done, Journal, Outcome, Position

GROUP_MAX = 64
"""Records of one source that are on their way at once."""

WAIT_SHARE = 0.25
"""Of the ack deadline: who has waited longer for the group before goes to the local log, so that its sender isn't kept
for two deadlines."""

FROM_BEFORE = Position(b"", 0, 0)
"""Stands for what an earlier process spooled."""


class Spooling(Journal, Protocol):
    """What stands behind: ``Spool``."""

    def offer(self, payload: bytes, done: Done) -> bool:
        """As ``submit``, but never to the local log: False, and nothing was done with it, where ``submit`` would."""

    def keep(self, payload: bytes, done: Done) -> None:
        """As ``submit``, but past Kafka, and also while stopping."""


@dataclass(slots=True)
class _Line:
    """One source."""

    flight: int = 0  # handed on, not answered
    spooling: int = 0  # of the local log, which keeps its order by itself
    last: Position | None = None  # the newest in the local log; None: none of this process
    busy: bool = False  # more of it are just being handed on
    queue: deque[tuple[bytes, Done, float]] = field(default_factory=deque)


class Order:
    """Implements ``Journal``.

    Args:
        sources: Ids of those whose order matters, as of now.
        spooled: Whether a position is one of the local log.
        behind: Whether what was spooled before it still waits to be forwarded.
    """

    def __init__(
        self, spool: Spooling, sources: Callable[[], Collection[bytes]], *, spooled: Callable[[Position], bool],
        behind: Callable[[Position], bool], settings: Settings, clock: Clock, metrics: Metrics,
    ) -> None:  # fmt: skip
        self._spool = spool
        self._sources = sources
        self._spooled = spooled
        self._behind = behind
        self._settings = settings
        self._wait_s = WAIT_SHARE * settings.ack_timeout_s
        self._clock = clock
        self._lines: dict[bytes, _Line] = {}
        self._queued = self._queued_bytes = 0
        gauge = metrics.gauge(
            "seawall_journal_ordered_waiting", "Events of ordered sources that wait for earlier ones."
        )
        gauge.read = lambda: self._queued

    @property
    def refusal(self) -> SeawallError | None:
        return self._spool.refusal

    def submit(self, payload: bytes, done: Done) -> None:
        ordered = self._sources()
        if not ordered and not self._lines:
            self._spool.submit(payload, done)
            return
        source_id = source_id_of(payload)
        line = self._lines.get(source_id)
        if line is None and source_id not in ordered:
            self._spool.submit(payload, done)
            return
        if (refusal := self._spool.refusal) is not None:
            raise refusal
        if line is None:
            line = self._lines[source_id] = _Line()
        if line.flight or line.busy:
            self._queue(line, payload, done)
        else:
            self._hand_on(source_id, line, payload, done, local=self._is_behind(line))

    def stop(self) -> None:
        """Send what waits to the local log; after the spool was stopped, which has sent there what was before it."""
        for source_id, line in list(self._lines.items()):
            self._advance(source_id, line, local=True)

    def _queue(self, line: _Line, payload: bytes, done: Done) -> None:
        settings = self._settings
        full = self._queued_bytes + len(payload) > settings.pending_bytes_max and self._queued
        if full or self._queued >= settings.pending_records_max:
            raise Overloaded("too many events wait for earlier ones of their sources")
        self._queued += 1
        self._queued_bytes += len(payload)
        line.queue.append((payload, done, self._clock.monotonic()))

    def _hand_on(self, source_id: bytes, line: _Line, payload: bytes, done: Done, *, local: bool) -> bool:
        """To Kafka, or to the local log where that doesn't take it. False, and nothing was done with it: others of the
        line are on their way to Kafka, and may have to go to the local log before it.

        Raises what the journal behind raises; then nothing was kept.
        """
        if not local:
            line.flight += 1
            try:
                if self._spool.offer(payload, partial(self._heard, source_id, line, done, kafka=True)):
                    return True
            except SeawallError:
                line.flight -= 1
                self._settle(source_id, line)
                raise
            line.flight -= 1
            if line.flight:
                return False
        line.spooling += 1
        try:
            self._spool.keep(payload, partial(self._heard, source_id, line, done, kafka=False))
        except SeawallError:
            line.spooling -= 1
            self._settle(source_id, line)
            raise
        return True

    def _heard(self, source_id: bytes, line: _Line, done: Done, outcome: Outcome, *, kafka: bool) -> None:
        line.flight -= kafka
        line.spooling -= not kafka
        if isinstance(outcome, Position) and self._spooled(outcome):
            line.last = outcome
        # First: whoever is answered may submit the next one at once, which must not overtake those that wait.
        self._settle(source_id, line)
        done(outcome)

    def _settle(self, source_id: bytes, line: _Line) -> None:
        if line.flight or line.busy:
            return
        if line.queue:
            self._advance(source_id, line)
        elif not line.spooling and not self._is_behind(line):
            self._lines.pop(source_id, None)

    def _advance(self, source_id: bytes, line: _Line, *, local: bool = False) -> None:
        """Hand the next group on. Of those that nobody takes, each is told."""
        line.busy = True
        while line.queue and (local or line.flight < GROUP_MAX):
            if not line.flight and not local:
                local = self._is_behind(line) or self._clock.monotonic() - line.queue[0][2] > self._wait_s
            payload, done, _ = first = line.queue.popleft()
            try:
                if not self._hand_on(source_id, line, payload, done, local=local):
                    line.queue.appendleft(first)
                    break
            except SeawallError as error:
                self._let_go(payload)
                done(error)
                continue
            self._let_go(payload)
            local = local or line.spooling > 0
        line.busy = False
        self._settle(source_id, line)

    def _let_go(self, payload: bytes) -> None:
        """It doesn't wait here any more."""
        self._queued -= 1
        self._queued_bytes -= len(payload)

    def _is_behind(self, line: _Line) -> bool:
        return bool(line.spooling) or self._behind(line.last if line.last is not None else FROM_BEFORE)
