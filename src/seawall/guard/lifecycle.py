"""A process's way from start to end: signals, the socket to its parent, and one event that says "stop now".

A child of ``seawall up`` holds one end of a socket pair. Lines go over it: ``ready {json}``, ``beat`` and
``misconfigured`` up, ``stop``, ``hurry`` and ``reload`` down. When it closes, the parent is gone (also by kill -9) and
the child leaves as if it had been told to. A child ignores Ctrl-C: the terminal sends it to everybody, but the order of
stopping is the parent's to decide.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import signal
import socket
from collections.abc import Callable, Iterator
from types import TracebackType

from seawall.guard import fork
from seawall.guard.stack import stack_of, stacks_of_threads
from seawall.kernel.error import Misconfigured
from seawall.kernel.log import fields, logger

log = logger("guard")

BEAT_S = 1.0
PARENT = "parent"
LINE_BYTES_MAX = 64 * 1024
PROBLEMS_MAX = 5
PROBLEM_CHARS_MAX = 1000
"""Of what is wrong with a child that can't start, in its line: all of it is on its standard error."""

MISCONFIGURED = "misconfigured"


@contextlib.contextmanager
def confessing(parent: socket.socket | None) -> Iterator[None]:
    """Around a child's whole life: tell the parent when it ends as misconfigured. The exit status alone is no proof:
    user code may end a process with any status, and must not stop the platform by that."""
    if parent is None:
        yield
        return
    with parent.dup() as ours:  # the lifecycle closes the other one
        fork.keep(ours.fileno())
        try:
            yield
        except Misconfigured as error:
            problems = [problem[:PROBLEM_CHARS_MAX] for problem in error.problems[:PROBLEMS_MAX]]
            with contextlib.suppress(OSError):
                ours.sendall(f"{MISCONFIGURED} {json.dumps({'problems': problems})}\n".encode())
            raise
        finally:
            fork.let(ours.fileno())


class Lifecycle:
    """Signals and the parent's socket of one process. ``await life.stopping.wait()`` is a role's main line.

    Args:
        role: For log lines.
        parent: Our end of the parent's socket pair, or None when the process stands alone.
        reload: Called on SIGHUP, and when the parent says so; must not raise.
    """

    def __init__(
        self, role: str, *, parent: socket.socket | None = None, reload: Callable[[], None] | None = None
    ) -> None:
        self.role = role
        self.stopping = asyncio.Event()
        self.hurry = asyncio.Event()
        self.why = ""  # it stops
        self._parent = parent
        self._reload = reload
        self._writer: asyncio.StreamWriter | None = None
        self._descriptor = -1  # of the parent's socket; once that has closed, its transport no longer knows
        self._tasks: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> Lifecycle:
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGTERM, self._asked, "SIGTERM")
        if self._parent is None:
            loop.add_signal_handler(signal.SIGINT, self._asked, "SIGINT")
        else:
            signal.signal(signal.SIGINT, signal.SIG_IGN)
            self._descriptor = self._parent.fileno()
            fork.keep(self._descriptor)
            reader, self._writer = await asyncio.open_connection(sock=self._parent, limit=LINE_BYTES_MAX)
            self._tasks.append(asyncio.create_task(self._obey(reader), name="lifecycle.parent"))
        loop.add_signal_handler(signal.SIGUSR1, self._dump)
        if self._reload is not None:
            loop.add_signal_handler(signal.SIGHUP, self._reload)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=1.0)
        if self._writer is not None:
            fork.let(self._descriptor)
            self._writer.close()

    def stop(self, why: str) -> None:
        """Begin to stop; a second call hurries."""
        if self.stopping.is_set():
            self.hurry.set()
            return
        # The parent says itself that all stop, and why.
        log.log(logging.DEBUG if why == PARENT else logging.INFO, "stopping", extra=fields(why=why))
        self.why = why
        self.stopping.set()

    def tell(self, word: str, **values: object) -> None:
        """Send one line to the parent; nothing when there is none. Never waits: the parent reads, or is gone."""
        if self._writer is not None and not self._writer.is_closing():
            with contextlib.suppress(ConnectionError):
                self._writer.write(f"{word} {json.dumps(values)}\n".encode())

    async def beat(self) -> None:
        """Tell the parent once a second that this event loop ticks, until cancelled. The owner supervises it."""
        while True:
            self.tell("beat")
            await asyncio.sleep(BEAT_S)

    def _asked(self, name: str) -> None:
        self.stop(name)

    async def _obey(self, reader: asyncio.StreamReader) -> None:
        with contextlib.suppress(ConnectionError):
            while line := await reader.readline():
                if line.strip() == b"hurry":
                    self.stop(PARENT)
                    self.hurry.set()
                elif line.strip() == b"stop" and not self.stopping.is_set():
                    self.stop(PARENT)
                elif line.strip() == b"reload" and self._reload is not None:
                    self._reload()
        if not self.stopping.is_set():
            self.stop("the parent process is gone")

    def _dump(self) -> None:
        """SIGUSR1: every task and every thread's stack, on standard error."""
        for task in asyncio.all_tasks():
            log.info("task", extra=fields(task=task.get_name(), stack=stack_of(task)))
        for name, stack in stacks_of_threads():
            log.info("thread", extra=fields(thread=name, stack=stack))
