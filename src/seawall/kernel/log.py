"""Log lines: JSON for machines, text on a terminal. Fields go in by name, so nothing has to parse a sentence.

log = logger("router")
log.warning("position moved under us", extra=fields(log_id=…, segment=…))
"""

from __future__ import annotations

import json
import logging
import sys
from datetime import UTC, datetime
from typing import Any, TextIO

_CONTROL = {c: f"\\x{c:02x}" for c in (*range(0x20), 0x7F, *range(0x80, 0xA0))}


def logger(room: str) -> logging.Logger:
    """The logger of one room."""
    return logging.getLogger(f"seawall.{room}")


def fields(**values: object) -> dict[str, object]:
    """For ``extra=``: named values of a log line. Never pass a secret or a body."""
    return {"seawall": values}


def printable(text: str) -> str:
    """Text whose control characters are spelt out, so that an event can't forge a log line or move a cursor."""
    return text.translate(_CONTROL)


class JsonFormatter(logging.Formatter):
    """One JSON object a line."""

    def __init__(self, role: str) -> None:
        super().__init__()
        self._role = role

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
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

    def __init__(self, role: str) -> None:
        super().__init__()
        self._role = role

    def format(self, record: logging.LogRecord) -> str:
        at = datetime.fromtimestamp(record.created, UTC).astimezone().strftime("%H:%M:%S.%f")[:-3]
        extra = " ".join(f"{k}={v}" for k, v in getattr(record, "seawall", {}).items())
        line = printable(f"{at} {record.levelname[:4].lower()} {self._role:9} {record.getMessage()} {extra}".rstrip())
        return f"{line}\n{self.formatException(record.exc_info)}" if record.exc_info else line


def configure(role: str, *, level: str = "info", stream: TextIO | None = None) -> None:
    """Send all of Seawall's log lines to ``stream`` (standard error): text when it is a terminal, else JSON."""
    out = stream if stream is not None else sys.stderr
    handler = logging.StreamHandler(out)
    handler.setFormatter(TextFormatter(role) if out.isatty() else JsonFormatter(role))
    root = logging.getLogger("seawall")
    root.handlers[:] = [handler]
    root.propagate = False
    root.setLevel(level.upper())
