"""Finds runs of this process's shards that are to end, cancelled mostly: those in hand are told, the others end."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from seawall.kernel.cause import status_of
from seawall.kernel.clock import Clock
from seawall.kernel.log import fields, logger
from seawall.kernel.status import RunStatus
from seawall.store.cancel import end_ours, ours
from seawall.store.end import Ended
from seawall.store.pool import Session
from seawall.worker.bench import Bench
from seawall.worker.shard import Held

log = logger("worker")

LOOK_S = 1.0
RUNS_MAX = 1000
"""Looked at in one round; those that are in hand stay among them until they have ended."""


class Cancels:
    """Called by the refill between two statements of its own, so that no run is on its way into hand meanwhile.

    Args:
        ended: Called for each run that was ended here.
    """

    def __init__(self, bench: Bench, *, clock: Clock, ended: Callable[[Ended], None]) -> None:
        self._bench = bench
        self._clock = clock
        self._ended = ended
        self._look_at = 0.0

    async def look(self, session: Session, shards: Iterable[Held]) -> None:
        """Once a second.

        Raises:
            Unavailable, Uncertain: Safe to repeat.
        """
        now = self._clock.monotonic()
        held = [shard for shard in shards if not shard.lost]
        if now < self._look_at or not held:
            return
        self._look_at = now + LOOK_S
        marked = await ours(session, [shard.lease for shard in held], runs_max=RUNS_MAX)
        if not marked:
            return
        loose = set(marked)
        for shard in held:
            for run_id in marked.keys() & shard.inflight.keys():
                loose.discard(run_id)
                shard.inflight[run_id].cancel(marked[run_id])
        if loose:
            for one in await end_ours(session, [shard.lease for shard in held], sorted(loose)):
                status = RunStatus(status_of(marked[one.id].ends_as))
                log.info("a run was ended while nobody had it in hand", extra=fields(run=one.id, status=status.word))
                self._bench.counted(status)
                self._ended(one)
