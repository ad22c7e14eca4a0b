"""What experiments do to the rig of this process: actions for Chaos Toolkit files.

Each arms what undoes it before it acts, so that it ends also when we don't live to end it; whoever holds that looks,
after the action, whether what is to be dead is dead and all else alive. ``back`` undoes all that was done to a target.
Each says in a line what it did.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

from seawall.kernel.error import Rejected, Unavailable
from seawall.lab.part.fault import Fault, Way
from seawall.lab.part.part import Part
from seawall.lab.part.process import identity
from seawall.lab.part.redis import MAIN, Redis
from seawall.lab.rig import Rig, current
from seawall.lab.rig.supply import Line
from seawall.lab.tree import ROLES
from seawall.lab.weak import mortal

MAX_S = 120.0
LAND_S = 5.0
PROMOTE_S = 20.0
REPLACE_S = 30.0
MORTAL = frozenset({"mortal-listener", "unwatched-listener"})
LOG_BYTES_MAX = 4 << 20
SHARE = 0.8
"""A line that is slow by less than this part of what was asked isn't."""


# ── Lines ──────────────────────────────────────────────────────────────────────────────────────────────────────────
def hole(target: str, way: Way = "both", max_s: float = MAX_S) -> str:
    """A black hole: nothing gets through and nobody is told, no RST, no FIN. Connections that are there hang."""
    return _cut(target, Fault(kind="hole", way=way), "a black hole", max_s)


def reset(target: str, max_s: float = MAX_S) -> str:
    """Every connection gets a RST, new ones at once."""
    return _cut(target, Fault(kind="reset"), "resets every connection", max_s)


def refuse(target: str, max_s: float = MAX_S) -> str:
    """New connections are refused, and those that are there reset: as when its process has ended."""
    rig = current()
    lines = rig.lines_of(target)
    _arm_lines(rig, lines, "refuses connections", target, max_s)
    for line in lines:
        rig.proxy.set(line.name, Fault(kind="reset"))
        rig.proxy.set(line.name, Fault(kind="refuse"))
    return f"{target} refuses connections"


def slow(target: str, ms: float, jitter_ms: float = 0.0, max_s: float = MAX_S) -> str:
    """Everything comes through, so much later."""
    rig = current()
    lines, said = rig.lines_of(target), f"{ms:g} ms slow"
    _arm_lines(rig, lines, said, target, max_s, kind="latency")
    for line in lines:
        rig.proxy.set(line.name, Fault(kind="latency", way="up", ms=ms, jitter_ms=jitter_ms))
    for line in lines:
        took_s = rig.round_trip(line.name, LAND_S + ms / 1000)
        if took_s < (ms - jitter_ms) / 1000 * SHARE:
            raise Unavailable(line.name, f"a round trip takes {took_s:.3f} s: it isn't slow")
    return f"{target} is {said}"


def narrow(target: str, bytes_s: int, max_s: float = MAX_S) -> str:
    """So many bytes a second at most, for each connection and way."""
    rig = current()
    lines, said = rig.lines_of(target), f"narrowed to {bytes_s} bytes/s"
    _arm_lines(rig, lines, said, target, max_s, kind="bandwidth")
    for line in lines:
        rig.proxy.set(line.name, Fault(kind="bandwidth", bytes_s=bytes_s))
    _there(rig, lines, "bandwidth")
    return f"{target} is {said}"


def credit(target: str, bucket: int, base_s: int, burst_s: int, max_s: float = MAX_S) -> str:
    """From now on the server lives on burst credits (incident I5): a bucket of bytes, which gets ``base_s`` a second
    back; while there are some, ``burst_s`` a second get to it, and then no more than the base. Nobody is told.
    """
    rig = current()
    lines, said = rig.lines_of(target), f"burst credits of {bucket} bytes, {base_s} a second"
    _arm_lines(rig, lines, said, target, max_s, kind="credit")
    for line in lines:
        rig.proxy.set(line.name, Fault(kind="credit", bytes=bucket, bytes_s=base_s, burst_s=burst_s))
    _there(rig, lines, "credit")
    return f"{target} lives on {said}"


def _there(rig: Rig, lines: Sequence[Line], kind: str) -> None:
    """What one question is too short to feel is on each line, as the proxy itself says."""
    for line in lines:
        if why := _gone(rig, line.name, kind):
            raise Unavailable(line.name, why)


def _gone(rig: Rig, line: str, kind: str) -> str:
    """Why a line hasn't this fault; "" when it has."""
    faults = rig.proxy.links()[line]["faults"]
    return "" if f"'{kind}'" in str(faults) else f"the line {line} has no {kind}: {faults}"


def _cut(target: str, fault: Fault, said: str, max_s: float) -> str:
    rig = current()
    lines = rig.lines_of(target)
    _arm_lines(rig, lines, said, target, max_s)
    for line in lines:
        rig.proxy.set(line.name, fault)
    return f"{target}: {said}"


def _arm_lines(rig: Rig, lines: Sequence[Line], said: str, target: str, max_s: float, *, kind: str = "") -> None:
    """Arm one for each line: dead while it lasts; or, of a ``kind`` of the proxy's that leaves it alive, still there
    when it is undone."""
    for line in lines:
        revert = {"do": "proxy.clear", "folder": str(rig.proxy.folder), "link": line.name}
        id = rig.arm.arm(
            revert, max_s=max_s, fault=said, target=target, dead=[] if kind else [line.name]
        )  # fmt: skip
        undo = partial(rig.proxy.clear, line.name)
        if kind:
            rig.did(line.name, id, undo, partial(_gone, rig, line.name, kind))
        else:
            rig.did(line.name, id, undo)


# ── Nodes ──────────────────────────────────────────────────────────────────────────────────────────────────────────
def kill(target: str, max_s: float = MAX_S) -> str:
    """``kill -9`` of a part's nodes that clients speak with; their ports refuse."""
    rig = current()
    lines = rig.lines_of(target)
    _kill(rig, lines, "killed", target, max_s)
    return f"{target} was killed"


def stop(target: str, max_s: float = MAX_S) -> str:
    """SIGSTOP: connections open, and nobody answers."""
    rig = current()
    lines = rig.lines_of(target)
    for line in lines:
        part = rig.parts[line.kind]
        id = rig.arm.arm(
            _revert_of_stop(part, line.node), max_s=max_s, fault="stopped", target=target, dead=[line.name]
        )  # fmt: skip
        rig.did(line.name, id, partial(_cont, part, line.node))
        part.stop(line.node)
    return f"{target} is stopped"


def forget(target: str = "redis", max_s: float = MAX_S) -> str:
    """Kill it, and start it again empty."""
    rig = current()
    lines = rig.lines_of(target)
    _kill(rig, lines, "killed, its data lost", target, max_s)
    for line in lines:
        _redis(rig).forget(line.node)
    return f"{target} was killed, and has lost its data"


def fail_over(target: str = "redis", max_s: float = MAX_S) -> str:
    """Kill the primary; returns when the sentinels have agreed on another one."""
    rig, redis = current(), _redis(current(), replica=True)
    first = redis.primary()
    _kill(rig, rig.lines_of(f"{target}.{first}"), "its primary killed", f"{target}.{first}", max_s)
    _until(lambda: _primary(redis) not in ("", first), "sentinels agree on another primary", PROMOTE_S)
    return f"{target} failed over from {first} to {redis.primary()}"


def upgrade(target: str = "redis", max_s: float = MAX_S) -> str:
    """An upgrade that goes wrong (incident I1): the network falls silent, the replica is promoted meanwhile, and the
    old version is stopped. Nobody's connection gets a RST. ``reachable`` opens the way to the new primary; whoever
    still holds a connection to the old one goes on hearing nothing.
    """
    rig, redis = current(), _redis(current(), replica=True)
    first = redis.primary()
    old, others = f"{target}.{first}", [line for line in rig.lines_of(target) if line.node != first]
    for line in (*rig.lines_of(old), *others):
        said = "the old version, stopped in silence" if line.name == old else "the new primary, out of reach"
        _arm_lines(rig, [line], said, line.name, max_s)
        rig.proxy.set(line.name, Fault(kind="hole"))
    redis.ask(next(iter(redis.sentinels)), "SENTINEL", "FAILOVER", MAIN)
    _until(lambda: _primary(redis) not in ("", first), "sentinels promote the replica", PROMOTE_S)
    _arm_part(rig, redis, "the old version, stopped in silence", old, max_s)
    redis.kill(first, signal.SIGTERM)
    return f"{redis.primary()} was promoted, and {first}, the old version, stopped; nobody was told"


def reachable(target: str = "redis") -> str:
    """After ``upgrade``: the new primary can be reached. The old one stays silent, as an address that nobody has."""
    rig, redis = current(), _redis(current(), replica=True)
    name = f"{target}.{redis.primary()}"
    rig.undo(name)
    took_s = rig.round_trip(name)
    return f"{name} can be reached, and answers in {took_s * 1000:.1f} ms"


def kick_subscribers(target: str = "redis") -> str:
    """CLIENT KILL TYPE pubsub on the primary."""
    redis = _redis(current())
    count = redis.ask(redis.primary(), "CLIENT", "KILL", "TYPE", "pubsub")
    if count == 0:
        raise Unavailable(target, "nobody was subscribed there")
    current().note("act", f"{target}: {count} subscribers were cut off")
    return f"{count} subscribers were cut off"


def end(role: str = "collector", how: str = "TERM", wait_s: float = REPLACE_S) -> str:
    """Signal a process of the platform (TERM: in order; KILL), and wait until another one has its place."""
    rig = current()
    if role not in ROLES:
        raise Rejected(404, "no such role", f"{role}; there are {', '.join(ROLES)}")
    pid = rig.tree.pid(role)
    if pid is None:
        raise Unavailable(role, "it isn't running")
    rig.note("killed", f"{role}: SIG{how}")
    os.kill(pid, signal.Signals[f"SIG{how}"])
    _until(lambda: rig.tree.pid(role) not in (None, pid), f"another {role} is there", wait_s)
    return f"{role} {pid} got SIG{how}; {rig.tree.pid(role)} has its place"


def end_listeners(channel: str = "redis", wait_s: float = LAND_S) -> str:
    """What listens for replies in the collector ends from inside, by an error that it doesn't know, while its process
    goes on (incident I1). There is no such way into the product: the platform must have one of ``MORTAL``."""
    rig = current()
    if not MORTAL & set(rig.weak):
        raise Rejected(409, "no way in", f"the listeners of this platform can't be ended; {', '.join(sorted(MORTAL))}")
    pid = rig.tree.pid("collector")
    if pid is None:
        raise Unavailable("collector", "it isn't running")
    before = rig.tree.log.stat().st_size
    os.kill(pid, mortal.SIGNAL)
    said = mortal.ended(channel).encode()
    _until(lambda: said in _since(rig.tree.log, before), f"the listener of {channel} says that it ends", wait_s)
    # Only now: what is heard between the signal and the end was heard by the one that ends.
    rig.note("killed", "the listeners: ended from inside")
    return f"the listeners of collector {pid} have ended, and it goes on"


# ── Undoing ────────────────────────────────────────────────────────────────────────────────────────────────────────
def back(target: str) -> str:
    """Undo all that was done to a target (``redis``: to each of its nodes too). Harmless when nothing was."""
    return f"{target}: {current().undo(target)} faults undone"


def all_back() -> str:
    """Undo everything. For rollbacks."""
    return f"{current().undo('')} faults undone"


# ── Inside ─────────────────────────────────────────────────────────────────────────────────────────────────────────
def _kill(rig: Rig, lines: Sequence[Line], said: str, target: str, max_s: float) -> None:
    _arm_lines(rig, lines, said, target, max_s)
    for kind in sorted({line.kind for line in lines}):
        _arm_part(rig, rig.parts[kind], said, target, max_s)
    for line in lines:
        rig.proxy.set(line.name, Fault(kind="refuse"))
        rig.parts[line.kind].kill(line.node)


def _arm_part(rig: Rig, part: Part, said: str, target: str, max_s: float) -> None:
    revert = {"do": "part.up", "folder": str(part.folder), "kind": part.kind, "fetched": str(part.fetched)}
    id = rig.arm.arm(revert, max_s=max_s, fault=said, target=target, dead=[])
    rig.did(target, id, part.up)


def _redis(rig: Rig, *, replica: bool = False) -> Redis:
    found = rig.parts.get("redis")
    if not isinstance(found, Redis) or (replica and not found.sentinels):
        wanted = "[sentinel]" if replica else "[redis] or [sentinel]"
        raise Rejected(404, "no such target", f"this rig has no such Redis; `needs: {wanted}`")
    return found


def _primary(redis: Redis) -> str:
    try:
        return redis.primary()
    except Unavailable:
        return ""


def _cont(part: Part, node: str) -> None:
    if part.pid(node) is not None:
        part.cont(node)


def _revert_of_stop(part: Part, node: str) -> Mapping[str, object]:
    """What lets a node go on. PostgreSQL has a process for each connection, and some come until it is stopped: which,
    is found out when they are to go on."""
    who = identity(part.pid(node) or 0)
    if who is None:
        raise Unavailable(node, "it isn't running")
    if not part.others(node):
        return {"do": "cont", "pid": who.pid, "start": who.started}
    command = [sys.executable, "-m", "seawall", "lab", "parts", "kill", part.kind, node, "--signal", "CONT"]
    return {"do": "command", "argv": [*command, "--folder", str(part.folder.parent)]}


def _since(log: Path, at: int) -> bytes:
    with log.open("rb") as file:
        file.seek(at)
        return file.read(LOG_BYTES_MAX)


def _until(true: Callable[[], bool], what: str, within_s: float) -> None:
    latest = time.monotonic() + within_s
    while not true():
        if time.monotonic() > latest:
            raise Unavailable("the fault", f"not within {within_s:g} s: {what}")
        time.sleep(0.05)
