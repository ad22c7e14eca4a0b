"""Processes for suspects: runs that were in a process that died run one at a time, each alone in a process of its own.

So a run that kills whatever executes it (``os._exit``, a blocked event loop, memory) takes nobody with it, and only its
own deaths are counted against it.

One that doesn't end must not keep the others waiting for ever. After its turn it goes behind them, and is begun again
when they are through; turns double while the lane doesn't empty, so that each suspect gets one in finite time, and each
run that ends at all gets one that is long enough. Back among the innocent it would be no better: there is no time after
which a run is proven harmless.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import subprocess
import time
from collections.abc import Callable, Sequence
from uuid import UUID, uuid5

from seawall.guard import Heart, fork
from seawall.guard.lifecycle import LINE_BYTES_MAX
from seawall.guard.patience import patiently
from seawall.guard.spell import Spells
from seawall.kernel.error import Unavailable, Uncertain
from seawall.kernel.log import fields, logger
from seawall.kernel.metric import Metrics
from seawall.store.driver import DEPENDENCY
from seawall.store.pool import Store
from seawall.store.run import lonely
from seawall.worker.settings import Settings

log = logger("worker")

LOOK_S = 0.8
START_S = 20.0
"""Until the first beat of a process: imports on a loaded machine."""

PAUSE_MIN_S = 0.1
PAUSE_MAX_S = 2.0
TURN_MAX_S = 86_400.0
DRAIN_S = 1.0
"""How long the step in hand of such a process may take at its stop. Less than ``KILL_S`` by what it takes to write and
to give the lease back: killed before that, it would count as one more death of a run that did nothing wrong."""

KILL_S = 4.0


class Solos:
    """Starts a process for each queue that has suspects, and watches it.

    Args:
        command: Completed with ``--solo QUEUE --owner HEX --turn SECONDS --parent FD``. The process beats on its end of
            the socket pair (guard/lifecycle.py has the lines), leases the queue's suspects, and ends when there are
            none.
        owner: Of this worker; a solo's name is made from it, so that the next one takes over at once from the last,
            which is certainly dead by then.
    """

    def __init__(
        self,
        store: Store,
        settings: Settings,
        metrics: Metrics,
        *,
        command: Sequence[str],
        owner: UUID,
        queue_ids: Callable[[], Sequence[int]],
        workflow_ids: Callable[[], Sequence[int]],
        spells: Spells,
    ) -> None:
        self._store = store
        self.settings = settings
        self._command = tuple(command)
        self._owner = owner
        self._queue_ids = queue_ids
        self._workflow_ids = workflow_ids
        self._spells = spells
        self._children: dict[int, asyncio.Task[int]] = {}
        self._not_before: dict[int, float] = {}
        self._pause_s: dict[int, float] = {}
        self._turn_s: dict[int, float] = {}  # of queues whose suspects had to give way
        self._wake = asyncio.Event()
        self._parked = False
        self._started = metrics.counter("seawall_solos_started_total", "Processes started for suspects.")
        self._died = metrics.counter("seawall_solos_died_total", "Processes for suspects that died.")

    def hint(self) -> None:
        """There may be suspects."""
        self._wake.set()

    async def run(self, heart: Heart) -> None:
        """The supervised loop."""
        while True:
            self._bury()
            try:
                if len(self._children) < self.settings.solo_max and not self._parked:
                    await patiently(heart, self._look(), what=DEPENDENCY)
                await heart.beat()
            except (Unavailable, Uncertain) as error:
                heart.unready(str(error))
            self._wake.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(LOOK_S):
                    await self._wake.wait()
            heart.touch()

    def park(self) -> None:
        """Tell all processes to end, and start none any more. Harmless when called twice."""
        self._parked = True
        for child in self._children.values():
            if not child.cancelling():  # a second time would cut short the while that it has to end by itself
                child.cancel()

    async def close(self) -> None:
        """End all processes, within a bound. Harmless when called twice."""
        self.park()
        children = list(self._children.values())
        if children:
            await asyncio.wait(children, timeout=KILL_S + 1)
        self._children.clear()

    async def _look(self) -> None:
        now = time.monotonic()
        idle = {id: self._name(id) for id in self._queue_ids() if id not in self._children}
        waiting = await lonely(self._store, idle, known=self._workflow_ids())
        for queue_id in self._turn_s.keys() & (idle.keys() - {id for id, _ in waiting}):
            del self._turn_s[queue_id]  # the lane is empty
        for queue_id, queue in waiting:
            full = len(self._children) >= self.settings.solo_max
            if full or now < self._not_before.get(queue_id, 0.0):
                continue
            task = asyncio.create_task(self._live(queue_id, queue), name=f"solo.{queue}")
            task.add_done_callback(lambda _: self._wake.set())
            self._children[queue_id] = task
            self._started.value += 1

    def _bury(self) -> None:
        """Take note of processes that ended; one that dies at once again and again is started ever more slowly."""
        for queue_id, task in [(q, t) for q, t in self._children.items() if t.done()]:
            del self._children[queue_id]
            error = None if task.cancelled() else task.exception()
            status = None if task.cancelled() or error is not None else task.result()
            if status == 0:
                self._pause_s.pop(queue_id, None)
                self._turn_s[queue_id] = min(TURN_MAX_S, 2 * self._turn(queue_id))  # taken back if none is left
                continue
            self._died.value += 1
            pause_s = self._pause_s.get(queue_id, PAUSE_MIN_S)
            self._spells.saw(
                "suspect-died", "a process with one suspect died: after some of these its run ends as dead",
                unaffected="other runs", cure="seawall runs list",
            )  # fmt: skip
            log.warning(
                "a process with one suspect died",
                extra=fields(queue_id=queue_id, status=status, again_in_s=pause_s),
                exc_info=error,
            )
            self._not_before[queue_id] = time.monotonic() + pause_s
            self._pause_s[queue_id] = min(PAUSE_MAX_S, pause_s * 2)

    def _turn(self, queue_id: int) -> float:
        return max(self.settings.solo_turn_s, self._turn_s.get(queue_id, 0.0))

    def _name(self, queue_id: int) -> UUID:
        """In whose name the suspects of a queue are leased, whichever process runs them."""
        return uuid5(self._owner, str(queue_id))

    async def _live(self, queue_id: int, queue: str) -> int:
        """One process from start to end; returns its exit status."""
        ours, theirs = socket.socketpair()
        name = self._name(queue_id)
        command = [*self._command, "--solo", queue, "--owner", name.hex, "--turn", str(self._turn(queue_id))]
        command += ["--parent", str(theirs.fileno())]
        with theirs:
            process = subprocess.Popen(  # noqa: ASYNC220 - a few ms, and rarely
                command, stdin=subprocess.DEVNULL, process_group=0, pass_fds=(theirs.fileno(),)
            )
        writer: asyncio.StreamWriter | None = None
        try:
            reader, writer = await asyncio.open_connection(sock=ours, limit=LINE_BYTES_MAX)
            await self._hear(reader, queue)
        finally:
            # The socket is closed or silent: whatever the process is doing, it ends now.
            if writer is not None:
                writer.close()
            try:
                status = await _ended(process)
            finally:
                fork.end_group(process.pid)
        return status

    async def _hear(self, reader: asyncio.StreamReader, queue: str) -> None:
        """Until its socket closes, or it has been silent for too long."""
        timeout_s = START_S
        with contextlib.suppress(ConnectionError, ValueError):
            while True:
                try:
                    async with asyncio.timeout(timeout_s):
                        line = await reader.readline()
                except TimeoutError:
                    log.error("a process with one suspect is silent", extra=fields(queue=queue, silent_s=timeout_s))
                    return
                if not line:
                    return
                timeout_s = self.settings.solo_silent_s


async def _ended(process: subprocess.Popen[bytes]) -> int:
    """Its exit status: a short while to end by itself, then it is killed."""
    try:
        async with asyncio.timeout(KILL_S):
            return await _poll(process)
    except TimeoutError:
        process.kill()
        return await _poll(process)
    except asyncio.CancelledError:
        process.kill()
        process.wait(timeout=KILL_S)
        raise


async def _poll(process: subprocess.Popen[bytes]) -> int:
    while (status := process.poll()) is None:  # noqa: ASYNC110 - portable: a pidfd is Linux only, SIGCHLD is one for all
        await asyncio.sleep(0.02)
    return status
