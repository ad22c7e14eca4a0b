"""What begins and what is over, found by comparing what all roles of this machine say was wrong a moment ago and now.

So an alert needs nothing but the process in which it is raised, and is told all the same: to the webhook at once, to
the store as soon as that answers. Of a role that can't be asked nothing is known: its alerts stay as they were.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Iterable
from datetime import UTC, datetime
from typing import Final

import msgspec

from seawall.kernel.clock import Clock
from seawall.kernel.error import Unstorable
from seawall.kernel.log import fields, logger
from seawall.kernel.metric import Metrics
from seawall.kernel.seam.panel import AlertLine
from seawall.store.pool import Store, text_array
from seawall.store.watch import AlertRow, keep, key_of, open_alerts

log = logger("watch")

UNWRITTEN_MAX: Final = 1000
WRITE_S: Final = 2.0

Key = tuple[str, str, str]


class History:
    """Alerts of this machine.

    Args:
        machine: Its name, the same after a restart.
        tell: Called with each that begins or is over.
    """

    def __init__(
        self, store: Store, *, machine: str, clock: Clock, metrics: Metrics, tell: Callable[[AlertRow], None]
    ) -> None:
        self._store = store
        self._machine = machine
        self._clock = clock
        self._tell = tell
        self._open: dict[Key, AlertRow] = {}
        self._unwritten: deque[AlertRow] = deque()
        self.loaded = False  # it is known what a former life has told
        self._dropped = metrics.counter(
            "seawall_alerts_unwritten_total", "Beginnings and ends of alerts that only log and webhook know."
        )

    def saw(self, lines: Iterable[AlertLine], unasked: Collection[str]) -> None:
        """What is wrong now.

        Args:
            unasked: Roles that couldn't be asked.
        """
        now = datetime.fromtimestamp(self._clock.wall_us() / 1e6, UTC)
        seen = {key_of(row): row for row in map(self._row, lines)}
        for key, row in seen.items():
            if key not in self._open:
                self._open[key] = row
                self._note(row)
        for key in [key for key in self._open if key not in seen and key[0] not in unasked]:
            row = self._open.pop(key)
            self._note(msgspec.structs.replace(row, cleared_at=max(now, row.raised_at)))

    async def load(self) -> None:
        """What a former life of ours has told: it isn't told again. Once; before that the store may be away for long.

        Raises:
            Unavailable: The store is away.
        """
        if self.loaded:
            return
        for row in await open_alerts(self._store, self._machine, timeout_s=WRITE_S):
            self._open.setdefault(key_of(row), row)
        self.loaded = True

    async def write(self) -> None:
        """Bring into the store what it doesn't have yet, in order.

        Raises:
            Unavailable, Uncertain: The rest waits, at most ``UNWRITTEN_MAX``.
        """
        while self._unwritten:
            row = self._unwritten[0]
            try:
                await keep(self._store, row, timeout_s=WRITE_S)
            except Unstorable as error:
                log.error("an alert can't be stored", extra=fields(alert=row.name, cause=error.detail))
                self._dropped.value += 1
            if self._unwritten and self._unwritten[0] is row:
                self._unwritten.popleft()

    def _note(self, row: AlertRow) -> None:
        self._tell(row)
        if len(self._unwritten) >= UNWRITTEN_MAX:
            self._unwritten.popleft()
            self._dropped.value += 1
        self._unwritten.append(row)

    def _row(self, line: AlertLine) -> AlertRow:
        """Texts as a store and JSON can have them: summaries may quote what senders sent."""
        role, name, summary, unaffected, cure = text_array(
            [line.role, line.name, line.summary, line.unaffected, line.cure]
        )
        labels = {text_array([key])[0]: text_array([value])[0] for key, value in line.labels.items()}
        return AlertRow(
            machine=self._machine, role=role, name=name, labels=labels, summary=summary, unaffected=unaffected,
            cure=cure, raised_at=line.since, cleared_at=None,
        )  # fmt: skip
