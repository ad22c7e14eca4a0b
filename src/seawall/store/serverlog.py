"""What PostgreSQL says on standard error, as our own log lines.

It writes into a FIFO in its folder. A file would be a log file to rotate and to watch; a pipe to our process would be
lost when that is killed, while the server goes on. A FIFO that the server itself holds open for reading too never
breaks, the next owner reads on where the last one stopped, and since it doesn't block, a server whose log nobody reads
drops lines instead of waiting.
"""

from __future__ import annotations

import asyncio
import logging
import os
import re
import stat
from pathlib import Path

from seawall.kernel.log import fields, logger, printable

log = logger("postgres")

LINE_BYTES_MAX = 8192
READ_BYTES = 65536

PREFIX = "%p %e "
"""log_line_prefix that `_LINE` reads: process, SQLSTATE."""

_LINE = re.compile(r"^(\d+) (\w{5}) ([A-Z]+\d?):  (.*)$")
_EARLY = re.compile(r"^\S+ \S+ \S+ \[(\d+)\] ()([A-Z]+\d?):  (.*)$")
"""Before it has read its settings it uses its own prefix."""

_LEVELS = {"LOG": logging.DEBUG, "WARNING": logging.WARNING, "ERROR": logging.WARNING, "FATAL": logging.ERROR,
           "PANIC": logging.CRITICAL}  # fmt: skip

_MORE = {"DETAIL", "HINT", "CONTEXT", "STATEMENT", "QUERY", "LOCATION"}
"""Belong to the line before, and are as important."""

_TELLING = re.compile(r"was terminated by|was not properly shut down|could not|duration: ")
"""LOG says that it starts, listens and stops, which our own lines say too, and also this."""

_ORDINARY = ("57P01", "57P02", "57P03", "3D000", "28000")
"""A session ended since the server did, or came before the server, its database or its role were ready: FATAL for the
session, nothing for a person. It is our own loop that is told, and says so where it matters."""


class ServerLog:
    """The FIFO and its reader. ``writer`` is what the server gets as standard error."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._reader: int | None = None
        self._rest = b""
        self._level = logging.INFO  # of the last line

    def open(self) -> None:
        """Make the FIFO where it is missing, and read from now on in the running event loop.

        Raises:
            OSError: It can't be made.
        """
        if self._reader is not None:
            return
        try:
            usable = stat.S_ISFIFO(self._path.lstat().st_mode)
        except FileNotFoundError:
            usable = False
        if not usable:
            self._path.unlink(missing_ok=True)
            os.mkfifo(self._path, 0o600)
        self._reader = self.writer()
        asyncio.get_running_loop().add_reader(self._reader, self._readable)

    def writer(self) -> int:
        """A descriptor for the server; the caller closes it. Open for both ways, so that it has no end when the other
        side leaves."""
        return os.open(self._path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)

    def close(self) -> None:
        """Stop reading; what the server says from now on waits in the FIFO. Harmless when called twice."""
        if self._reader is not None:
            self._readable()
            asyncio.get_running_loop().remove_reader(self._reader)
            os.close(self._reader)
            self._reader = None

    def _readable(self) -> None:
        assert self._reader is not None
        try:
            data = os.read(self._reader, READ_BYTES)
        except BlockingIOError:
            return
        *lines, rest = (self._rest + data).split(b"\n")
        self._rest = rest[-LINE_BYTES_MAX:]
        for line in lines:
            self._level = say(line[:LINE_BYTES_MAX].decode("utf-8", "replace"), before=self._level)


def say(line: str, *, before: int = logging.INFO) -> int:
    """One line of the server's in our log, and the level that it got; ``before``: that of the line before it."""
    found = _LINE.match(line) or _EARLY.match(line)
    if found is None:
        if line.strip():
            log.info(printable(line.strip()))
        return before
    pid, state, severity, text = found.groups()
    level = before if severity in _MORE else _LEVELS.get(severity, logging.INFO)
    if severity == "FATAL" and state in _ORDINARY:
        level = logging.DEBUG
    elif severity == "LOG" and _TELLING.search(text):
        level = logging.INFO
    values = {"pid": int(pid)} if state in ("", "00000") else {"pid": int(pid), "sqlstate": state}
    log.log(level, printable(text), extra=fields(**values))
    return level
