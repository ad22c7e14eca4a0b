"""One round trip with a dependency, over the very line that its clients take: whether that line is dead or alive."""

from __future__ import annotations

import socket
import struct
import time
from collections.abc import Callable, Mapping

from seawall.lab.part import resp
from seawall.lab.part.port import LOOPBACK

ANSWER_S = 2.0
QUESTIONS: Mapping[str, bytes] = {
    "redis": resp.command("PING"), "kafka": struct.pack(">ihhih", 10, 18, 0, 1, -1),
    "postgres": struct.pack(">ii", 8, 80877103),
}  # fmt: skip
"""The shortest that each answers to anybody."""


def redis(port: int, timeout_s: float) -> None:
    """PING. A server that refuses (-LOADING, -READONLY) has answered."""
    try:
        resp.ask(port, "PING", timeout_s=timeout_s)
    except resp.Refused:
        return


def kafka(port: int, timeout_s: float) -> None:
    """ApiVersions, version 0, which every broker answers to anybody."""
    _asked(port, QUESTIONS["kafka"], timeout_s)


def postgres(port: int, timeout_s: float) -> None:
    """SSLRequest: one letter, from a backend that the postmaster has forked for it."""
    _asked(port, QUESTIONS["postgres"], timeout_s)


TALK: Mapping[str, Callable[[int, float], None]] = {"redis": redis, "kafka": kafka, "postgres": postgres}


def round_trip(kind: str, port: int, timeout_s: float = ANSWER_S) -> float:
    """Its seconds.

    Raises:
        OSError: Nobody answered in time, or at all.
    """
    began = time.monotonic()
    TALK[kind](port, timeout_s)
    return time.monotonic() - began


def store(address: tuple[str, int], timeout_s: float) -> float:
    """As ``round_trip``, of a PostgreSQL anywhere."""
    began = time.monotonic()
    _asked(address[1], QUESTIONS["postgres"], timeout_s, host=address[0])
    return time.monotonic() - began


def _asked(port: int, question: bytes, timeout_s: float, *, host: str = LOOPBACK) -> None:
    with socket.create_connection((host, port), timeout_s) as line:
        line.settimeout(timeout_s)
        line.sendall(question)
        if not line.recv(1):
            raise ConnectionError("the connection was closed without an answer")
