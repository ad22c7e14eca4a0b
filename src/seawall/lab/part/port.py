"""Ports of loopback: chosen once for a part's folder, and kept."""

from __future__ import annotations

import json
import random
import socket
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from pathlib import Path

from seawall.kernel.error import Unavailable

LOOPBACK = "127.0.0.1"
LOWEST = 12_000
TRIES = 2_000

GIVEN_MAX = 2_000
"""Ports that this process remembers to have given."""

_given: dict[int, None] = {}  # the newest last


def highest() -> int:
    """Below the ports that the kernel gives to outgoing connections: there, one of those could hold a killed node's
    port when it is started again."""
    try:
        first = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    except (OSError, ValueError, IndexError):
        first = 32_768
    return first if first > LOWEST + TRIES else 65_536


def free(count: int) -> list[int]:
    """So many ports that nobody listens on at the moment, all different, and none that was given before: another part
    of the same rig may be about to listen there. (With some twenty ports to a rig, one in a hundred had two of a kind.)

    Raises:
        Unavailable: There are none.
    """
    top = highest()
    with ExitStack() as held:
        found: list[int] = []
        for _ in range(TRIES):
            if len(found) == count:
                _remember(found)
                return found
            port = random.randrange(LOWEST, top)
            one = held.enter_context(socket.socket())
            one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                one.bind((LOOPBACK, port))
            except OSError:
                continue
            if port not in _given:
                found.append(port)
    raise Unavailable("loopback", f"there are not {count} free ports from {LOWEST} to {top}")


def _remember(ports: Iterable[int]) -> None:
    for port in ports:
        _given.pop(port, None)
        _given[port] = None
    while len(_given) > GIVEN_MAX:
        del _given[next(iter(_given))]


def taken(port: int) -> bool:
    """Whether somebody holds it."""
    with socket.socket() as one:
        one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            one.bind((LOOPBACK, port))
        except OSError:
            return True
    return False


def answers(port: int, timeout_s: float = 1.0) -> bool:
    """Whether a connection is taken there."""
    try:
        with socket.create_connection((LOOPBACK, port), timeout_s):
            return True
    except OSError:
        return False


class Ports:
    """A part's ports by name, in ``ports.json`` of its folder."""

    def __init__(self, folder: Path, names: Sequence[str]) -> None:
        self._file = folder / "ports.json"
        self._names = names
        self._known: dict[str, int] = {}

    def __getitem__(self, name: str) -> int:
        if not self._known:
            self._known = self._read() or self._choose()
        return self._known[name]

    def __contains__(self, name: object) -> bool:
        return name in self._names

    def renew(self) -> bool:
        """Choose again if one of them is somebody else's by now; True when they changed. None of ours may run."""
        if not any(taken(self[name]) for name in self._names):
            return False
        self._known = self._choose()
        return True

    def _read(self) -> dict[str, int]:
        try:
            said = json.loads(self._file.read_text("ascii"))
            known = {name: int(said[name]) for name in self._names}
        except (OSError, ValueError, KeyError, TypeError):
            return {}
        _remember(known.values())
        return known

    def _choose(self) -> dict[str, int]:
        chosen = dict(zip(self._names, free(len(self._names)), strict=True))
        beside = self._file.with_suffix(".new")
        beside.write_text(json.dumps(chosen), "ascii")
        beside.replace(self._file)
        return chosen
