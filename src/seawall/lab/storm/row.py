"""What a storm may break: a row of docs/lab/storm.md each, done by an action of `seawall.lab.act`.

``part`` is what can't be broken twice at once: undoing one of two faults of a part undoes both, and a second one would
hit a half-healed system, which may truly cost what was acknowledged (two of three replicas, say).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from seawall.kernel.error import Rejected
from seawall.lab.tree import ROLES

LINE_S = (3.0, 12.0)
"""How long a line's fault lasts: some end within our timeouts and breakers' pauses, some outlast them."""
NODE_S = (3.0, 10.0)
HEALED_S = 4.0
"""So long a part's line is left alone after it was mended: clients come back."""
SETTLED_S = 8.0
"""So long a node is left alone: sentinels agree, a broker takes its partitions, a replica catches up."""
REPLACED_S = 6.0
"""So long a role's place counts as broken: `up` starts another process, after a pause when it was killed lately."""
AGAIN_S = 25.0
"""So long a role is left alone: one that dies sooner waits longer each time before it is started."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One kind of fault."""

    name: str  # redis-hole
    about: str  # "Redis: a black hole"
    code: str  # what it comes to (docs/lab/storm.md)
    part: str  # redis, kafka, postgres, or a role
    target: str
    action: str  # of seawall.lab.act
    arguments: Mapping[str, Any] = field(default_factory=dict)
    lasts_s: tuple[float, float] = (0.0, 0.0)  # (0, 0): it ends by itself
    busy_s: float = 0.0  # so long one that ends by itself counts as broken
    node: bool = False  # its processes are hit, not its lines
    rest_s: float = HEALED_S
    needs: str  # part of the rig; "": only the platform


WORDS = {"redis": "Redis", "kafka": "Kafka", "postgres": "PostgreSQL"}
PART = {"redis": "redis", "kafka": "kafka3", "postgres": "postgres"}
"""What the rig has of each. Of one Kafka broker alone the platform rightly says that it is no safe place."""
CODES = {"redis": ("R1", "R2", "R3"), "kafka": ("K1", "K1", "K4"), "postgres": ("P1", "P5", "P5")}
SLOW_MS = {"redis": 400, "kafka": 600, "postgres": 250}
NARROW_BYTES_S = {"redis": 2000, "kafka": 20_000, "postgres": 40_000}


def _lines(part: str) -> list[Row]:
    """What can be wrong with the lines to a part."""
    gone, hung, late = CODES[part]
    kinds: list[tuple[str, str, str, dict[str, Any]]] = [
        ("hole", "a black hole", hung, {}),
        ("deaf", "hears us, and its answers don't come", "N1", {"way": "down"}),
        ("reset", "resets every connection", gone, {}),
        ("refuse", "refuses connections", gone, {}),
        ("slow", f"{SLOW_MS[part]} ms slow", late, {"ms": SLOW_MS[part], "jitter_ms": SLOW_MS[part] // 4}),
        ("narrow", f"narrowed to {NARROW_BYTES_S[part]} bytes/s", "N1", {"bytes_s": NARROW_BYTES_S[part]}),
    ]
    return [
        Row(name=f"{part}-{kind}", about=f"{WORDS[part]}: {said}", code=code, part=part, target=part, needs=PART[part],
            action="hole" if kind == "deaf" else kind, arguments=more, lasts_s=LINE_S)
        for kind, said, code, more in kinds
    ]  # fmt: skip


def _node(part: str, action: str, said: str, code: str, *, target: str = "", needs: str = "") -> Row:
    return Row(
        name=f"{part}-{action.replace('_', '-')}", about=f"{WORDS[part]}: {said}", code=code, part=part,
        target=target or part, action=action, lasts_s=NODE_S, node=True, rest_s=SETTLED_S,
        needs=needs or PART[part],
    )  # fmt: skip


def _role(role: str, how: str, code: str) -> Row:
    said = "killed" if how == "KILL" else "ended in order"
    return Row(
        name=f"{role}-{how.lower()}", about=f"the {role}: {said}", code=code, part=role, target=role, action="end",
        arguments={"how": how}, busy_s=REPLACED_S, rest_s=AGAIN_S, needs="",
    )  # fmt: skip


ROWS: Sequence[Row] = (
    *_lines("redis"), *_lines("kafka"), *_lines("postgres"),
    _node("redis", "kill", "killed", "R1"),
    _node("redis", "stop", "stopped (SIGSTOP)", "R2"),
    _node("redis", "forget", "killed, its data lost", "R5"),
    _node("redis", "fail_over", "its primary killed, the replica promoted", "R4", needs="sentinel"),
    _node("kafka", "stop", "all brokers stopped (SIGSTOP)", "K1"),
    _node("kafka", "kill", "one broker of three killed", "K2", target="kafka.broker2"),
    _node("postgres", "kill", "its primary killed", "P1", target="postgres.a"),
    _node("postgres", "stop", "its primary stopped (SIGSTOP)", "P5", target="postgres.a"),
    _role("collector", "KILL", "F1"), _role("collector", "TERM", "F3"),
    *(_role(role, how, "F2") for role in ROLES if role != "collector" for how in ("KILL", "TERM")),
)  # fmt: skip
NAMED: Mapping[str, Row] = {row.name: row for row in ROWS}
PARTS: Sequence[str] = tuple(dict.fromkeys(row.part for row in ROWS))


def chosen(words: Iterable[str]) -> list[Row]:
    """Rows by their names, or all of a part by its name; all when nothing is named. In the table's order.

    Raises:
        Rejected: A word is neither.
    """
    wanted = set(words)
    if unknown := sorted(wanted - NAMED.keys() - set(PARTS)):
        known = f"{', '.join(PARTS)}; {', '.join(NAMED)}"
        raise Rejected(404, "no such fault", f"{', '.join(unknown)}; there are {known}")
    return [row for row in ROWS if not wanted or row.name in wanted or row.part in wanted]


def needs(rows: Iterable[Row]) -> list[str]:
    """Parts of the rig that these need."""
    found = {row.needs for row in rows if row.needs}
    if "sentinel" in found:
        # The same lines, with a replica behind them.
        found.discard("redis")
    return sorted(found)
