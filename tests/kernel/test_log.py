"""Log lines against what senders write into events: one line stays one line, and shows all that is in it."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator

import pytest

from seawall.kernel.log import JsonFormatter, TextFormatter, configure, fields, logger, printable

HOSTILE = {
    "line end": "a\nERRO collector forged", "carriage return": "a\rforged", "escape": "\x1b[2J\x1b]0;title\x07",
    "C1 escape": "\x9b2J", "delete": "a\x7fb", "NUL": "a\0b", "backspace": "secret\b\b\b\b\b\b", "next line": "a\x85b",
    "line separator": "a\u2028b\u2029c", "right to left": "\u202egpj.exe", "isolate": "\u2066x\u2069",
    "no width": "a\u200bb",
    "byte-order mark": "\ufeffa", "tag": "a\U000e0041b", "surrogate": "a\ud800b", "soft hyphen": "a\xadb",
}  # fmt: skip


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
def test_what_is_not_seen_is_spelt_out(text: str) -> None:
    said = printable(text)
    assert said.isprintable() and said.isascii() and len(said) > len(text)


@pytest.mark.parametrize("text", ["plain", "Grüße, мир, 世界 🙂", "a\xa0b c", ""])
def test_what_is_seen_stays(text: str) -> None:
    assert printable(text) == text


def record(text: str, *, error: Exception | None = None) -> logging.LogRecord:
    info = (type(error), error, None) if error is not None else None
    made = logging.LogRecord("seawall.router", logging.WARNING, "f", 1, "event %s", (text,), info)
    made.__dict__.update(fields(type=text))
    return made


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
def test_no_event_forges_a_line_of_text(text: str) -> None:
    line = TextFormatter("router").format(record(text))
    assert "\n" not in line and line.isprintable()


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
def test_no_exception_forges_a_line_of_text(text: str) -> None:
    first, *trace = TextFormatter("router").format(record("x", error=ValueError(text))).split("\n")
    assert first.isprintable() and trace
    assert all(line.startswith("    ") and line.isprintable() for line in trace)


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
def test_no_event_forges_a_json_line(text: str) -> None:
    line = JsonFormatter("router").format(record(text, error=ValueError(text)))
    assert line.isascii() and line.isprintable()
    read = json.loads(line)
    assert (read["role"], read["level"], read["type"]) == ("router", "warning", text)


@pytest.fixture
def quiet() -> Iterator[None]:
    """The logger as it was."""
    root = logging.getLogger("seawall")
    was = (root.handlers[:], root.propagate, root.level)
    yield
    root.handlers[:], root.propagate = was[0], was[1]
    root.setLevel(was[2])


def test_percent_signs_of_an_event_are_no_format(quiet: None) -> None:
    out = io.StringIO()
    configure("router", stream=out)
    logger("router").warning("type is %s", "%s %d %n {0}")
    assert json.loads(out.getvalue())["message"] == "type is %s %d %n {0}"
