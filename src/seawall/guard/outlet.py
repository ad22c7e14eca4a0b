"""Standard output and error of a process that must not wait for whoever reads them.

A paused reader (Ctrl-S in a terminal, ``| less``, a log driver that hangs) fills the pipe, and the next write blocks
whoever does it: the event loop, with every sender behind it. So everything goes through a bounded queue to a thread
that may block for ever. What finds the queue full is dropped and counted, and a line says how many there were when the
reader is back. O_NONBLOCK isn't the way: it is a property of the open file, which other processes share with us.
"""

from __future__ import annotations

import atexit
import contextlib
import io
import logging
import os
import select
import stat
import sys
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Iterator
from typing import TextIO

from seawall.kernel.log import configure, fields
from seawall.kernel.metric import Counter, Metrics

LINES_MAX = 10_000
QUEUE_BYTES_MAX = 2 * 1024 * 1024
"""Waiting at most; a line beyond either is dropped, and so is what follows until half of the queue was written."""

WRITE_BYTES = 4096
"""Of short lines in one write: up to PIPE_BUF a pipe takes them in one piece, beside lines of other processes."""

FLUSH_S = 1.0
"""How long an end waits for its last lines."""

CRITICAL_FLUSH_S = 0.2
"""How long a critical line is waited for, since the process often ends right after it (os._exit); not at all while
nobody reads."""

POLL_MS = 1000


class Outlet:
    """One descriptor, written by a thread of its own in the order of ``put``. The descriptor stays its owner's.

    A process that is forked from this one has no such thread: there, ``put`` writes by itself, and may block. What was
    queued before the fork is written once, by the parent.

    Args:
        notice: The line that says how many were dropped.
    """

    def __init__(
        self, descriptor: int, *, notice: Callable[[int], bytes] | None = None, lines_max: int = LINES_MAX,
        bytes_max: int = QUEUE_BYTES_MAX,
    ) -> None:  # fmt: skip
        self.descriptor = descriptor
        self.notice = notice or _notice
        self.dropped = Counter()
        self._lines_max = lines_max
        self._bytes_max = bytes_max
        self._direct = False
        self._begin()
        _outlets.add(self)

    def _begin(self) -> None:
        # Its lock is reentrant: a destructor that logs may run in the midst of ``put``, on the same thread.
        self._changed = threading.Condition()
        self._lines: deque[bytes] = deque()
        self._bytes = 0
        self._lost = 0  # dropped since the last notice
        self._writing_since: float | None = None
        self._torn = False  # the last write broke off inside a line
        self._thread: threading.Thread | None = None

    @property
    def stuck(self) -> bool:
        """Whether nobody has read for a while."""
        since = self._writing_since
        return since is not None and time.monotonic() - since > CRITICAL_FLUSH_S

    def count(self, metrics: Metrics) -> Metrics:
        """Count in ``metrics`` what is dropped, and what was so far; the same ``metrics``."""
        with self._changed:
            counter = metrics.counter("seawall_log_dropped_total", "Log lines that nobody read in time.")
            counter.value += self.dropped.value
            self.dropped = counter
        return metrics

    def put(self, line: bytes) -> None:
        """Have a line written soon, or drop it. Never waits, except in a forked process. Any thread may call it."""
        if self._direct:
            self._write(line)
            return
        with self._changed:
            if self._full(len(line)):
                self._lost += 1
                self.dropped.value += 1
                return
            if self._lost:
                self._add(self._told())
            self._add(line)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name=f"outlet.{self.descriptor}", daemon=True)
                self._thread.start()
            self._changed.notify_all()

    def flush(self, timeout_s: float = FLUSH_S) -> bool:
        """Wait until all is written; False when it wasn't in time. Blocks the thread: only for an end."""
        with self._changed:
            return self._changed.wait_for(self._idle, timeout_s)

    def forked(self) -> None:
        """We are in the child of a fork: the thread, and whoever held the lock, are not."""
        self._begin()
        self._direct = True

    def _idle(self) -> bool:
        return not self._lines and self._writing_since is None

    def _full(self, size: int) -> bool:
        # Once something was dropped, half must be free again: else a slow reader would get a notice every other line.
        share = 2 if self._lost else 1
        return len(self._lines) >= self._lines_max // share or self._bytes + size > self._bytes_max // share

    def _add(self, line: bytes) -> None:
        self._lines.append(line)
        self._bytes += len(line)

    def _told(self) -> bytes:
        lost, self._lost = self._lost, 0
        return self.notice(lost)

    def _run(self) -> None:
        while True:
            with self._changed:
                self._writing_since = None
                if not self._lines:
                    if self._lost:
                        self._add(self._told())
                    self._changed.notify_all()
                    self._changed.wait_for(lambda: self._lines)
                batch = self._take()
                self._writing_since = time.monotonic()
            self._write(batch)

    def _take(self) -> bytes:
        """The next lines: as many as go out in one piece, and at least one."""
        batch = [self._lines.popleft()]
        size = len(batch[0])
        while self._lines and size + len(self._lines[0]) <= WRITE_BYTES:
            batch.append(self._lines.popleft())
            size += len(batch[-1])
        self._bytes -= size
        return b"".join(batch)

    def _write(self, data: bytes) -> None:
        """All of it. A reader that is gone, or a full disk under a file, costs these lines and no more."""
        rest = memoryview(b"\n" + data if self._torn else data)
        self._torn = False
        while rest:
            try:
                rest = rest[os.write(self.descriptor, rest) :]
            except BlockingIOError:  # somebody else made the open file non-blocking
                _await_room(self.descriptor)
            except OSError:
                self._torn = len(rest) < len(data)
                with self._changed:
                    self.dropped.value += bytes(rest).count(b"\n")
                return


class Handler(logging.Handler):
    """Puts log lines into an outlet."""

    def __init__(self, outlet: Outlet) -> None:
        super().__init__()
        self._outlet = outlet

    def emit(self, record: logging.LogRecord) -> None:
        try:
            self._outlet.put(f"{self.format(record)}\n".encode("utf-8", "backslashreplace"))
            if record.levelno >= logging.CRITICAL and not self._outlet.stuck:
                self._outlet.flush(CRITICAL_FLUSH_S)
        except Exception:  # noqa: BLE001 - logging's own rule: a line that can't be built is shown, and raises nowhere
            self.handleError(record)

    def notice(self, dropped: int) -> bytes:
        """The line that says how many are missing."""
        record = logging.LogRecord(
            "seawall.guard", logging.WARNING, __file__, 0, "%d lines dropped: nobody read the log", (dropped,), None
        )
        record.__dict__.update(fields(dropped=dropped))
        return f"{self.format(record)}\n".encode()


class _Raw(io.RawIOBase):
    """What ``print`` and other libraries write on standard output or error, by way of an outlet."""

    def __init__(self, outlet: Outlet) -> None:
        self._outlet = outlet

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self._outlet.descriptor

    def isatty(self) -> bool:
        return os.isatty(self._outlet.descriptor)

    def write(self, data) -> int:  # type: ignore[no-untyped-def]
        line = bytes(data)
        self._outlet.put(line)
        return len(line)


@contextlib.contextmanager
def opened(role: str, *, level: str, mark: str = "") -> Iterator[Outlet]:
    """Within it, nothing in this process waits for who reads its output: log lines, ``print``, warnings. On leaving,
    the last lines are given ``FLUSH_S``. Gives the outlet of standard error, which has the log.

    Only for a process's main line: it replaces ``sys.stdout`` and ``sys.stderr``.

    Args:
        mark: As ``kernel.log.configure``.
    """
    error, output = Outlet(2), Outlet(1)
    before = sys.stdout, sys.stderr
    handler = Handler(error)
    configure(role, level=level, stream=sys.stderr, handler=handler, mark=mark)
    error.notice = handler.notice
    sys.stdout, sys.stderr = _text(output, before[0]), _text(error, before[1])
    try:
        yield error
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        flush()
        sys.stdout, sys.stderr = before


def flush(timeout_s: float = FLUSH_S) -> None:
    """Before ``os._exit``: give the last lines of every outlet a moment. A reader that is away doesn't hold us."""
    until = time.monotonic() + timeout_s
    for outlet in list(_outlets):
        outlet.flush(max(0.0, until - time.monotonic()))


def unblocked(descriptor: int = 2) -> int:
    """A descriptor of the same file to which a write never waits for a reader, for what writes outside of Python
    (faulthandler); ``descriptor`` itself where there is none. It stays open: it is for the rest of the process."""
    try:
        if stat.S_ISREG(os.fstat(descriptor).st_mode):
            # A file needs no reader. Opened anew it would have a place of its own to write at, and those who share the
            # old one (``2> log`` of a parent with its children) would next write over what was added at the end.
            return descriptor
        return os.open(f"/proc/self/fd/{descriptor}", os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    except OSError:  # a socket has no name to open, and other systems no /proc; or it is closed
        return descriptor


def _text(outlet: Outlet, like: TextIO) -> TextIO:
    encoding = getattr(like, "encoding", None) or "utf-8"
    return io.TextIOWrapper(
        io.BufferedWriter(_Raw(outlet)), encoding=encoding, errors="backslashreplace", line_buffering=True
    )


def _notice(dropped: int) -> bytes:
    return b"%d lines dropped: nobody read them\n" % dropped


def _await_room(descriptor: int) -> None:
    poll = select.poll()
    poll.register(descriptor, select.POLLOUT)
    poll.poll(POLL_MS)


def _after_in_child() -> None:
    for outlet in list(_outlets):
        outlet.forked()


_outlets: weakref.WeakSet[Outlet] = weakref.WeakSet()
os.register_at_fork(after_in_child=_after_in_child)
atexit.register(flush)
