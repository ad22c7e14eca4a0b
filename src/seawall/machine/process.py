"""One child process, kept alive in the open.

The parent holds one end of a socket pair (guard/lifecycle.py has the lines). A child that dies is started again,
after a pause that grows while it keeps dying and is never longer than ``BACKOFF_MAX_S``; one that doesn't beat for
``SILENT_S`` is killed and started again. Both are said in the log with the cause.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from seawall.guard import fork
from seawall.guard.lifecycle import LINE_BYTES_MAX, MISCONFIGURED
from seawall.guard.supervisor import Heart
from seawall.kernel.log import fields, logger

log = logger("machine")

BACKOFF_MIN_S = 0.1
BACKOFF_MAX_S = 5.0
SILENT_S = 10.0
"""A child's event loop that hasn't ticked for so long isn't coming back: its own guards would have ended it."""

START_S = 30.0
"""Until its first line: imports on a cold, loaded machine."""

WELL_S = 10.0
"""A child that lived so long begins again with the shortest pause."""

REFUSED_MIN_S = 1.0
REFUSED_MAX_S = 30.0
"""Between two tries of a child that can't start as it is configured: what mends that is a person, or a dependency."""

KILL_S = 5.0
"""How long the kernel may take to end a killed process (it may be in a disk wait) before another of its role begins."""

HURRY_SHARE = 0.3
"""Of a stage of stopping: what is left when the child is told to hurry. By then it has set down by itself what was in
hand (role.FLUSH_SHARE), unless it never heard that it should stop."""

GONE_SHARE = 0.25
GONE_S = 0.5
"""Of a stage of stopping, and at most: what is left when the child is killed, for the kernel to end it and for us to
see that. All within the stage: those after it, and whoever kills us in the end, count on it."""

HURRIED_S = 5.0
"""How long a child may take that hurries because a person does: to close its journal, whose fsync may hang."""

LAST_WORDS_S = 0.5
"""What a dead child wrote is there already; its socket may stay open in a process that it forked."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Spec:
    """What to start.

    ``command`` is completed with ``--parent FD``: its end of the socket pair.
    """

    role: str
    command: Sequence[str]
    stop_s: float  # how long it may take to stop when told to
    descriptors: Sequence[int] = field(default=())  # inherited, under the same numbers
    inputs: Sequence[Path] = field(default=())  # files that, changed, are worth another try at once


class Child:
    """One role's process. ``keep`` is its supervised loop; ``stop`` ends it for good."""

    def __init__(
        self, spec: Spec, *, refused: Callable[[str], None],
        told: Callable[[str, str], None] = lambda role, cause: None,
    ) -> None:  # fmt: skip
        """Args:
        refused: Called with the role when the child says, before it was ever ready, that it is misconfigured.
            It is tried again all the same, until told to stop.
        told: Called with the role and the cause each time that its process ends and is started again.
        """
        self.spec = spec
        self._told = told
        self.ready = asyncio.Event()  # set while the child says so
        self.problem = ""  # why it can't start as it is configured, as it said last
        self.said: dict[str, object] = {}  # the values of its last `ready`
        self.restarts = 0
        self._refused = refused
        self._process: subprocess.Popen[bytes] | None = None
        self._writer: asyncio.StreamWriter | None = None
        self._heard_at = 0.0
        self._stopping = False
        self._ended = asyncio.Event()
        self._ended.set()
        self._was_ready = False
        self._misconfigured = False
        self._replacing = False
        self._due: list[str] = []  # what this life of it couldn't be told yet

    @property
    def pid(self) -> int | None:
        """Of the process that runs now."""
        return self._process.pid if self._process is not None and not self._ended.is_set() else None

    async def keep(self, heart: Heart) -> None:
        """Start it, and start it again whenever it ends, until told to stop. Beats each second."""
        backoff_s = BACKOFF_MIN_S
        while not self._told_to_stop():
            began = time.monotonic()
            await self._live(heart)
            if self._told_to_stop():
                break
            lived_s = time.monotonic() - began
            if self._replacing or lived_s > WELL_S:
                backoff_s = BACKOFF_MIN_S
            if self._misconfigured:
                backoff_s = max(REFUSED_MIN_S, backoff_s)
            if not self._replacing:
                await self._pause(heart, backoff_s)
                backoff_s = min(REFUSED_MAX_S if self._misconfigured else BACKOFF_MAX_S, backoff_s * 2)
            self._replacing = False
            self.restarts += 1
        while True:  # told to stop: stay until the owner of the loops takes us down
            heart.unready("stopping")
            await asyncio.sleep(0.5)

    async def _pause(self, heart: Heart, seconds: float) -> None:
        """Before the next start; shorter when one of the files changes that it is made from."""
        reason = f"{self.spec.role} ended; starting it again in {seconds:.1f} s"
        end, before = time.monotonic() + seconds, _stamps(self.spec.inputs)
        while (left := end - time.monotonic()) > 0 and not self._told_to_stop():
            heart.unready(f"{self.spec.role} can't start: {self.problem}" if self._misconfigured else reason)
            await asyncio.sleep(min(left, 0.5))
            if _stamps(self.spec.inputs) != before:
                return

    def _told_to_stop(self) -> bool:
        return self._stopping

    def reload(self) -> None:
        """Have it read its settings again. One that is starting hears it when it is up."""
        self._tell("reload")

    async def replace(self, *, why: str) -> None:
        """Stop the running process within its budget; ``keep`` starts the next one at once."""
        log.info("replacing a role", extra=fields(child=self.spec.role, why=why))
        self._told(self.spec.role, why)
        self._replacing = True
        await self._end(self.spec.stop_s)

    async def stop(self, *, hurry: asyncio.Event) -> None:
        """Tell it to stop, and kill it shortly before its budget ends, or ``HURRIED_S`` after ``hurry``. For good."""
        self._stopping = True
        await self._end(self.spec.stop_s, hurry)

    def signal(self, number: signal.Signals) -> None:
        """Pass a signal on; nothing when it isn't running."""
        if self.pid is not None and self._process is not None:
            self._process.send_signal(number)

    async def _live(self, heart: Heart) -> None:
        """One life of the process: from its start to its end, whichever way."""
        ours, theirs = socket.socketpair()
        self._due.clear()
        command = [*self.spec.command, "--parent", str(theirs.fileno())]
        with theirs:
            # Its own process group: Ctrl-C reaches only us, and we decide the order in which roles stop.
            self._process = process = subprocess.Popen(  # noqa: ASYNC220 - a few ms, and nobody else waits here
                command, stdin=subprocess.DEVNULL, process_group=0, pass_fds=(theirs.fileno(), *self.spec.descriptors)
            )
        self._ended = ended = asyncio.Event()  # of this life: whoever waits for it must not see the next one
        began, self._was_ready, self._misconfigured = time.monotonic(), False, False
        self._heard_at = began + START_S - SILENT_S
        writer: asyncio.StreamWriter | None = None
        listening: asyncio.Task[None] | None = None
        try:
            reader, writer = await asyncio.open_connection(sock=ours, limit=LINE_BYTES_MAX)
            self._writer = writer
            for word in self._due:  # reload: it may have read the old settings by then
                self._tell(word)
            listening = asyncio.create_task(self._listen(reader), name=f"{self.spec.role}.lines")
            status = await self._watch(process, heart)
            await asyncio.wait([listening], timeout=LAST_WORDS_S)
        finally:
            if listening is not None:
                listening.cancel()
                await asyncio.wait([listening])
            (writer or ours).close()
            self.ready.clear()
            if process.poll() is None:
                # This loop itself is being ended: two processes of one role must not live at once, so it goes first.
                # At the end of all, its stage has waited for that already, and nothing of its role begins any more.
                process.kill()
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(timeout=0.0 if self._stopping else KILL_S)
            fork.end_group(process.pid)
            ended.set()
        if not self._stopping and not self._replacing:
            lived_s = round(time.monotonic() - began, 1)
            log.error("role ended", extra=fields(child=self.spec.role, cause=cause_of(status), lived_s=lived_s))
            self._told(self.spec.role, cause_of(status))
            if self._misconfigured and not self._was_ready and self.restarts == 0:
                self._refused(self.spec.role)

    async def _watch(self, process: subprocess.Popen[bytes], heart: Heart) -> int:
        """Poll for its end, ten times a second; kill it when it has been silent for too long. Its exit status."""
        looked_at, killed = time.monotonic(), False
        while (status := process.poll()) is None:
            now = time.monotonic()
            if now - looked_at > 1.0:
                # We ourselves were stopped or starved: what the child said meanwhile has not been read yet.
                self._heard_at = max(self._heard_at, now - SILENT_S / 2)
            looked_at = now
            if now - self._heard_at > SILENT_S:
                log.error("role is silent; killing it", extra=fields(child=self.spec.role, pid=process.pid))
                process.kill()
                # In a disk wait it goes when the disk lets it: said again after as long, not at each look.
                killed, self._heard_at = True, now
                self.ready.clear()
            if self.ready.is_set():
                await heart.beat()
            else:
                heart.unready(f"{self.spec.role} {'was killed, and is not gone yet' if killed else 'is starting'}")
            await asyncio.sleep(0.1)
        return status

    async def _listen(self, reader: asyncio.StreamReader) -> None:
        with contextlib.suppress(ConnectionError, ValueError):
            while line := await reader.readline():
                self._heard_at = time.monotonic()
                word, _, values = line.decode("utf-8", "replace").strip().partition(" ")
                if word == MISCONFIGURED:
                    self._misconfigured = True
                    self.problem = "; ".join(json.loads(values or "{}").get("problems", ())) or "it is misconfigured"
                elif word == "ready":
                    self.said = json.loads(values or "{}")
                    self._was_ready = True
                    self.problem = ""
                    self.ready.set()
                    if self.restarts:
                        log.info("role is ready again", extra=fields(child=self.spec.role, restarts=self.restarts))

    async def _end(self, budget_s: float, hurry: asyncio.Event | None = None) -> None:
        """Within ``budget_s``, whatever the child does: asked to stop, then to hurry, then killed."""
        process, ended = self._process, self._ended
        if process is None or ended.is_set():
            return
        end = time.monotonic() + budget_s
        gone_s = min(GONE_S, GONE_SHARE * budget_s)
        self._tell("stop")
        if await _set(ended, (1 - HURRY_SHARE) * budget_s, hurry):
            return
        # Hurry skips waiting for work in hand, never an fsync that has begun: the child ends after it.
        self._tell("hurry")
        if await _set(ended, min(HURRIED_S, end - gone_s - time.monotonic()), None):
            return
        log.error("role didn't stop in its budget; killing it", extra=fields(child=self.spec.role))
        process.kill()
        if not await _set(ended, min(gone_s, end - time.monotonic()), None):
            log.error("a killed role isn't gone yet; going on", extra=fields(child=self.spec.role, pid=process.pid))

    def _tell(self, word: str) -> None:
        """Now, or as soon as a process that is just being started can be told."""
        if self._writer is not None and not self._writer.is_closing():
            with contextlib.suppress(ConnectionError):
                self._writer.write(f"{word}\n".encode())
        elif word not in self._due:
            self._due.append(word)


async def _set(ended: asyncio.Event, timeout_s: float, hurry: asyncio.Event | None) -> bool:
    """Whether a life ended within ``timeout_s``, or before ``hurry`` was set."""
    waits = [asyncio.create_task(event.wait()) for event in (ended, hurry) if event is not None]
    _, pending = await asyncio.wait(waits, timeout=max(0.0, timeout_s), return_when=asyncio.FIRST_COMPLETED)
    for task in pending:
        task.cancel()
    return ended.is_set()


def _stamps(files: Sequence[Path]) -> list[tuple[int, int] | None]:
    return [stamp(file) for file in files]


def stamp(path: Path) -> tuple[int, int] | None:
    """What changes when a file is saved; None while an editor has it away."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_mtime_ns, status.st_size


def cause_of(status: int) -> str:
    """How a process ended, in words."""
    if status < 0:
        with contextlib.suppress(ValueError):
            return f"killed by {signal.Signals(-status).name}"
        return f"killed by signal {-status}"
    return f"exit status {status}"
