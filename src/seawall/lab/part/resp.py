"""One question to a Redis, with a deadline and no retry: what the lab asks must show the server as it is."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from typing import BinaryIO

from seawall.lab.part.port import LOOPBACK

ITEMS_MAX = 10_000
BYTES_MAX = 16 * 1024 * 1024

Reply = str | int | None | list["Reply"]


class Refused(Exception):
    """The server answered with an error; its text begins with its kind: ``READONLY``, ``LOADING``, ``ERR``…"""


def ask(port: int, *words: str, timeout_s: float = 2.0) -> Reply:
    """Send one command to a server on loopback, and read its answer.

    Raises:
        Refused: The answer is an error.
        OSError: No connection, or no whole answer in ``timeout_s`` (per read).
    """
    with socket.create_connection((LOOPBACK, port), timeout_s) as line, line.makefile("rb") as answer:
        line.sendall(command(*words))
        return _read(answer, time.monotonic() + timeout_s)


def command(*words: str) -> bytes:
    """As it goes over the line."""
    parts = [word.encode() for word in words]
    return b"*%d\r\n" % len(parts) + b"".join(b"$%d\r\n%s\r\n" % (len(part), part) for part in parts)


def info(port: int, section: str, *, timeout_s: float = 2.0) -> dict[str, str]:
    """A section of INFO.

    Raises:
        Refused, OSError: As `ask`.
    """
    return dict(_pairs(str(ask(port, "INFO", section, timeout_s=timeout_s))))


def _pairs(text: str) -> Iterator[tuple[str, str]]:
    for line in text.splitlines():
        name, colon, value = line.partition(":")
        if colon:
            yield name, value


def _read(answer: BinaryIO, latest: float) -> Reply:
    if time.monotonic() > latest:
        raise TimeoutError("no whole answer in time")
    line = answer.readline(65_536)
    if not line.endswith(b"\r\n"):
        raise ConnectionError("the connection ended within an answer")
    kind, rest = line[:1], line[1:-2].decode("utf-8", "replace")
    if kind == b"-":
        raise Refused(rest)
    if kind == b"+":
        return rest
    if kind not in b":$*":
        raise ConnectionError(f"not an answer of Redis: {line[:40]!r}")
    count = int(rest)
    if kind == b":":
        return count
    if count < 0:
        return None
    if count > (ITEMS_MAX if kind == b"*" else BYTES_MAX):
        raise ConnectionError(f"an answer of {count} is more than the lab reads")
    if kind == b"*":
        return [_read(answer, latest) for _ in range(count)]
    return answer.read(count + 2)[:-2].decode("utf-8", "replace")
