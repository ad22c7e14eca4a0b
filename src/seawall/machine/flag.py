"""Keeps a process' flags as the store says, within a second while it answers, and on disk for when it doesn't.

A switch is asked in memory and never waits for this. NOTIFY makes a change quick; the read each second finds what a
notification didn't say. While the store is away the last known settings stay in force: what was switched off by hand
must not come on by itself.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from dataclasses import replace
from types import TracebackType

from seawall.guard import Heart, Supervisor
from seawall.guard.flag import EVERYBODY, Registry
from seawall.guard.switchboard import Known, Switchboard
from seawall.kernel.alert import Alerts
from seawall.kernel.clock import Clock, Deadline
from seawall.kernel.error import SeawallError
from seawall.kernel.log import fields, logger
from seawall.kernel.metric import Metrics
from seawall.kernel.status import CHANNEL_FLAG
from seawall.machine.known import KnownFlags
from seawall.store import pool
from seawall.store.flag import Flags
from seawall.store.pool import Store

log = logger("machine")

EVERY_S = 1.0
FIRST_S = 0.1
"""As long as nothing is known: flags are at their safe values then."""

READ_S = 1.0
COPY_S = 2.0
HINT_S = 1.0
"""Connecting, LISTEN and each check take so long at most; two of them stay below the supervisor's stall limit."""


class FlagWatch:
    """The loops of one process' flags. ``async with`` reads the copies on disk; ``register`` adds the loops.

    Args:
        store: How to reach it; bounds are replaced by our own.
    """

    def __init__(
        self, board: Switchboard, registry: Registry, copies: KnownFlags, store: pool.Settings, *, role: str,
        clock: Clock, metrics: Metrics, alerts: Alerts,
    ) -> None:  # fmt: skip
        self._board = board
        self._watched = registry.of(role)
        self._copies = copies
        self._clock = clock
        self._alerts = alerts
        bounded = replace(store, connections_max=1, connect_timeout_s=HINT_S, statement_timeout_s=READ_S)
        self._store = Store(bounded, role="flags")
        self._flags = Flags(self._store)
        self._listener = pool.Listener(bounded, [CHANNEL_FLAG], lambda _, __: self._wake.set(), role="flags")
        self._wake = asyncio.Event()
        self._unkept: Known | None = None
        self._writing: tuple[Known, asyncio.Task[None]] | None = None
        self._values: dict[str, bool] = {}
        metrics.gauge(
            "seawall_flags_age_seconds", "Since the store last confirmed the flags; -1: not in this process' life."
        ).read = lambda: -1.0 if (age_s := board.age_s()) is None else age_s
        for flag in self._watched:
            on = metrics.gauge("seawall_flag_on_count", "1: the flag is on for whoever no rule names.", flag=flag.name)
            on.read = lambda flag=flag: float(board.verdict(flag).value)
            held = metrics.gauge(
                "seawall_flag_held_count", "1: the flag is held at its safe value, whatever is set.", flag=flag.name
            )
            held.read = lambda flag=flag: float(bool(board.verdict(flag).held))

    async def __aenter__(self) -> FlagWatch:
        known = await asyncio.to_thread(self._copies.read)
        if known is not None:
            self._board.restored(known)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._writing is not None:
            self._writing[1].cancel()  # what its thread has begun, it may still end
        await self._store.close()

    def register(self, supervisor: Supervisor) -> None:
        """Add the loops. Neither is essential: without them flags stay as they are."""
        supervisor.add("flags", self._run, essential=False)
        supervisor.add("flags.hint", self._listen, essential=False)

    async def refresh(self, *, progress: Callable[[], None] = lambda: None) -> None:
        """Take over what the store says.

        Args:
            progress: Called between the read and the copy, each of which has its own deadline.

        Raises:
            Unavailable, Overloaded: It says nothing of use; what is known stays.
        """
        asked_at = self._clock.monotonic()
        known = await self._flags.load(timeout_s=READ_S)
        progress()
        if self._board.confirmed(known, asked_at=asked_at) or self._unkept is not None:
            await self._keep(known)
        self._alerts.cleared("flags-unknown")

    async def _run(self, heart: Heart) -> None:
        while True:
            self._wake.clear()
            try:
                await self.refresh(progress=heart.touch)
                self._tell()
                await heart.beat()
            except SeawallError as error:
                self._tell()
                heart.unready(self._reason(error))
            await self._pause(heart)

    def _reason(self, error: SeawallError) -> str:
        if self._board.known is None:
            self._alerts.raised(
                "flags-unknown", "no flag's setting is known: optional work is off",
                unaffected="accepting events and running them", cure="bring the store back: seawall doctor",
            )  # fmt: skip
            return f"nothing is known of the flags: they have their safe values ({error})"
        return f"the last known settings are in force: {error}"

    async def _keep(self, known: Known) -> None:
        """Replace the copy. A disk that doesn't take it is asked again with the next read; one that hangs has one
        thread that waits for it, however often the store is read meanwhile."""
        self._unkept = known
        if self._writing is None:
            work = asyncio.to_thread(self._copies.write, known)
            self._writing = known, asyncio.create_task(work, name="flags.copy")
        written, task = self._writing
        cause = "the disk took too long"
        if (await asyncio.wait([task], timeout=COPY_S))[0]:
            self._writing = None
            try:
                task.result()
            except OSError as error:
                cause = str(error)
            else:
                self._board.kept(written)
                if written == known:
                    self._unkept = None
                return
        log.error("the flags' copy can't be written", extra=fields(file=str(self._copies.file), cause=cause))

    def _tell(self) -> None:
        """Say in the log what has changed for whoever no rule names."""
        for flag in self._watched:
            verdict = self._board.verdict(flag, EVERYBODY)
            before = self._values.get(flag.name)
            if before is None and verdict.held:
                continue  # what it needs is still starting
            self._values[flag.name] = verdict.value
            if before is not None and before != verdict.value:
                said = fields(flag=flag.name, value=verdict.value, held=verdict.held)
                log.warning("a flag flips", extra=said)

    async def _pause(self, heart: Heart) -> None:
        every_s = EVERY_S if self._board.known is not None else FIRST_S
        deadline = Deadline.after(every_s, self._clock)
        while (left_s := deadline.left_s(self._clock)) and not self._wake.is_set():
            heart.touch()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(left_s):
                    await self._wake.wait()

    async def _listen(self, heart: Heart) -> None:
        """Hold the subscription and prove it alive each second; each new one means that a hint may have been missed."""
        while True:
            try:
                async with self._listener.subscribed() as check:
                    self._wake.set()
                    while True:
                        await heart.beat()
                        await asyncio.sleep(HINT_S)
                        await check(HINT_S)
            except SeawallError as error:
                heart.unready(str(error))
                await asyncio.sleep(HINT_S)
