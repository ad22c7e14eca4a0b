"""Log lines: JSON for machines, text on a terminal. Fields go in by name, so nothing has to parse a sentence.

log = logger("router")
log.warning("position moved under us", extra=fields(log_id=…, segment=…))
"""

from __future__ import annotations

import json
import logging
import sys
import unicodedata
from datetime import UTC, datetime
from typing import Any, TextIO

_INDENT = "    "


def logger(room: str) -> logging.Logger:
    """The logger of one room."""
    return logging.getLogger(f"seawall.{room}")


def fields(**values: object) -> dict[str, object]:
    """For ``extra=``: named values of a log line. Never pass a secret or a body."""
    return {"seawall": values}


def printable(text: str) -> str:
    """Text of which every character is seen, so that an event can't forge a log line, move a cursor or hide.

    What is spelt out (``\\x1b``, ``\\u202e``): control characters, line separators, what turns the direction of writing
    or has no width, and surrogates, which no terminal's encoding takes.
    """
    if text.isprintable():
        return text
    return "".join(c if seen(c) else _spelt(c) for c in text)


def seen(character: str) -> bool:
    """Whether a character can be seen, or is a space."""
    return character.isprintable() or unicodedata.category(character) == "Zs"


def _spelt(character: str) -> str:
    code = ord(character)
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


class JsonFormatter(logging.Formatter):
    """One JSON object a line."""

    def __init__(self, role: str, *, mark: str = "") -> None:
        super().__init__()
        self._role = role
        self._mark = {"mark": mark} if mark else {}

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            **self._mark,
            "at": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "role": self._role,
            "room": record.name.removeprefix("seawall."),
            "message": record.getMessage(),
        }
        line.update(getattr(record, "seawall", {}))
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str)


class TextFormatter(logging.Formatter):
    """One line for people."""

    def __init__(self, role: str, *, mark: str = "") -> None:
        super().__init__()
        self._role = role
        self._mark = f"{mark} " if mark else ""

    def format(self, record: logging.LogRecord) -> str:
        at = datetime.fromtimestamp(record.created, UTC).astimezone().strftime("%H:%M:%S.%f")[:-3]
        extra = " ".join(f"{k}={v}" for k, v in getattr(record, "seawall", {}).items())
        said = f"{at} {record.levelname[:4].lower()} {self._role:9} {record.getMessage()} {extra}"
        line = printable(f"{self._mark}{said}".rstrip())
        if not record.exc_info:
            return line
        # Indented, since what an exception quotes may hold line ends: none of its lines must look like one of ours.
        trace = self.formatException(record.exc_info).splitlines()
        return "\n".join((line, *(_INDENT + printable(part) for part in trace)))


def configure(
    role: str, *, level: str = "info", stream: TextIO | None = None, handler: logging.Handler | None = None,
    mark: str = "",
) -> None:  # fmt: skip
    """Send all of Seawall's log lines to ``stream`` (standard error): text when it is a terminal, else JSON.

    Args:
        mark: Stands first in each line, of a platform that isn't what it looks like; "": nothing.
        handler: What writes them there instead of a plain stream, which makes whoever logs wait for the reader.
    """
    out = stream if stream is not None else sys.stderr
    handler = handler or logging.StreamHandler(out)
    handler.setFormatter(TextFormatter(role, mark=mark) if out.isatty() else JsonFormatter(role, mark=mark))
    root = logging.getLogger("seawall")
    root.handlers[:] = [handler]
    root.propagate = False
    root.setLevel(level.upper())
