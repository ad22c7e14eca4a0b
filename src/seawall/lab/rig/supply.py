"""What an experiment needs: parts, their lines through the proxy, and the settings by which the platform finds them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from seawall.kernel.error import Misconfigured, Rejected
from seawall.lab.part import catalog
from seawall.lab.part.node import Say
from seawall.lab.part.part import Part
from seawall.lab.part.port import LOOPBACK
from seawall.lab.part.postgres import Postgres
from seawall.lab.part.proxy import FaultProxy
from seawall.lab.part.redis import Redis
from seawall.lab.weak.catalog import WHOLE

TOPIC = "seawall"
PARTITIONS = 3
KINDS = {
    "redis": "redis", "sentinel": "redis", "kafka": "kafka", "kafka3": "kafka", "postgres": "postgres",
}  # fmt: skip
"""What may be needed, and under which word its lines are known."""

PLACES = (("cache", "url"), ("cache", "url_file"), ("kafka", "bootstrap"))
"""Settings that say where parts are: an experiment's file never leads the platform to others."""

Tables = Mapping[str, Mapping[str, Any]]

ALWAYS: Tables = {
    "collector": {
        # So high that it never refuses: but each event asks the limiter, and that asks Redis where there is one.
        "tenant_rate_per_s": 100_000,
        # Tickets are looked up by the lab from one address.
        "look_up_rate_per_s": 0,
    },
    "pg": {"shared_buffers_mb": 32},
    "journal": {
        "segment_bytes": 1 << 20, "fill_bytes": 1 << 16, "reserve_bytes": 1 << 20, "resume_bytes": 3 << 20,
    },
}  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One line of clients to one node."""

    name: str  # redis.r1
    kind: str  # redis: how one speaks over it
    node: str
    port: int  # of the proxy


@dataclass(frozen=True, slots=True, kw_only=True)
class Supply:
    """One part, with its lines."""

    kind: str  # redis: also where the part is "sentinel"
    part: Part
    lines: Sequence[Line]


def supplies(
    folder: Path, needs: Sequence[str], proxy: FaultProxy, *, fetched: Path, options: Mapping[str, Any], say: Say
) -> list[Supply]:
    """Parts of what is needed, not started, with their lines made.

    Args:
        proxy: Runs.
        options: ``redis: wheel`` takes the wheel's server, which proves nothing about Redis.

    Raises:
        Rejected: Nobody has such a part, or one is named twice.
        Misconfigured: A library is missing.
    """
    kinds = [_kind(need) for need in needs if need != "proxy"]
    if len(kinds) != len(set(kinds)):
        raise Rejected(400, "needs", f"{', '.join(needs)}: one of each kind")
    return [_supply(folder, need, proxy, fetched, options, say) for need in needs if need != "proxy"]


def _kind(need: str) -> str:
    try:
        return KINDS[need]
    except KeyError:
        raise Rejected(400, "needs", f"{need!r}: unknown; there are proxy, {', '.join(KINDS)}") from None


def _supply(
    folder: Path, need: str, proxy: FaultProxy, fetched: Path, options: Mapping[str, Any], say: Say
) -> Supply:  # fmt: skip
    entry, kind = catalog.CATALOG[need], KINDS[need]
    if kind == "redis" and find_spec("hiredis") is None:
        raise Misconfigured(["hiredis is missing; cure: pip install 'seawall[redis]'"])
    more: dict[str, Any] = dict(entry.options)
    if kind == "redis" and options.get("redis") == "wheel":
        more["wheel"] = True
    if kind == "postgres":
        more["bouncer"] = False
    part = entry.make()(folder / need, fetched=fetched, say=say, **more)
    lines = []
    for node in nodes(part):
        port = proxy.link(f"{kind}.{node}", part.port(node))
        lines.append(Line(name=f"{kind}.{node}", kind=kind, node=node, port=port))
        if hasattr(part, "advertise"):
            part.advertise(node, port)
    return Supply(kind=kind, part=part, lines=lines)


def nodes(part: Part) -> Sequence[str]:
    """Those that clients speak with."""
    if isinstance(part, Redis):
        return part.servers
    if isinstance(part, Postgres):
        return ("a", "b")
    found: Sequence[str] = part.brokers if hasattr(part, "brokers") else part.nodes
    return found


def places(made: Sequence[Supply], *, host: str = LOOPBACK) -> dict[str, str]:
    """Where each part is, as a platform's settings say it, for a process that finds the parts' lines at ``host``; by
    kind."""
    found = {each.kind: ",".join(f"{host}:{line.port}" for line in each.lines) for each in made}
    return {**found, **({"redis": f"redis://{found['redis']}"} if "redis" in found else {})}


def settings(made: Sequence[Supply], options: Mapping[str, Any], *, host: str = LOOPBACK) -> str:
    """The platform's file of settings, for a process that finds the parts' lines at ``host``: the rig's, those of its
    parts, and then ``settings`` of the options.

    Raises:
        Rejected: ``settings`` aren't tables of plain values, or lead elsewhere than to the rig's own parts.
    """
    found = {name: dict(table) for name, table in ALWAYS.items()}
    for kind, place in places(made, host=host).items():
        if kind == "redis":
            found["cache"] = {"url": place, "hints": options.get("hints", "redis")}
        if kind == "kafka":
            found["kafka"] = {"bootstrap": place, "topic": TOPIC}
    more = options.get("settings", {})
    if not isinstance(more, Mapping) or not all(isinstance(table, Mapping) for table in more.values()):
        raise Rejected(400, "options", "settings: tables by room are needed, such as {worker: {inflight_max: 20}}")
    for name, key in PLACES:
        if key in more.get(name, {}):
            raise Rejected(
                400, "options", f"settings: {name}.{key} says where a part is; only what the rig makes is used"
            )
    for name, table in more.items():
        found.setdefault(name, {}).update(table)
    return "\n".join(_table(name, table) for name, table in found.items())


def _table(name: str, table: Mapping[str, Any]) -> str:
    for key, value in table.items():
        if not isinstance(value, (str, int, float, bool)):
            raise Rejected(
                400, "options", f"settings: {name}.{key} is {value!r}: text, a number or a boolean is needed"
            )
    # A JSON text, number or boolean is one of TOML too.
    return "\n".join([f"[{name}]", *(f"{key} = {json.dumps(value)}" for key, value in table.items()), ""])


def dsn(made: Sequence[Supply]) -> str:
    """Of the store, through its lines; "" when the platform is to have one of its own."""
    for supply in made:
        if supply.kind == "postgres":
            hosts = ",".join(f"127.0.0.1:{line.port}" for line in supply.lines)
            return f"postgresql://postgres@{hosts}/postgres?target_session_attrs=read-write"
    return ""


def parts(options: Mapping[str, Any]) -> tuple[str, ...]:
    """``parts`` of the options: of ``lab/weak``, for a platform with all protections.

    Raises:
        Rejected: One of them lacks something, or isn't known.
    """
    found = tuple(map(str, options.get("parts", ())))
    if strange := sorted(set(found) - WHOLE):
        raise Rejected(400, "options", f"parts: {', '.join(strange)}; what lacks nothing is {', '.join(sorted(WHOLE))}")
    return found


def ready(made: Supply) -> None:
    """What must be there before the platform is: topics. The part runs."""
    part = made.part
    if made.kind == "kafka" and hasattr(part, "make_topic"):
        in_sync = "2" if len(nodes(part)) > 1 else "1"
        limits = {"max.message.bytes": "12582912", "retention.bytes": "-1", "min.insync.replicas": in_sync}
        part.make_topic(TOPIC, partitions=PARTITIONS, settings=limits)
