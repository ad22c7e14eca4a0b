"""What can be wrong with a line, as values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Literal, get_args

from seawall.kernel.error import Rejected

Kind = Literal["latency", "bandwidth", "hole", "cut", "reset", "refuse", "credit"]
Way = Literal["both", "up", "down"]

LATENCY_MS_MAX = 60_000.0
BANDWIDTH_MIN = 1
FAULTS_MAX = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """One thing that is wrong with a line; several may be at once.

    - ``latency``: each byte comes ``ms`` later, plus or minus up to ``jitter_ms``; order is kept.
    - ``bandwidth``: ``bytes_s`` at most, for each connection and way.
    - ``hole``: nothing gets through, and nobody is told: no RST, no FIN. What is sent meanwhile waits, as in the
      kernels of both ends when a cable is out, and comes when the hole is gone. New connections open (the kernel does
      that), and then hear nothing.
    - ``cut``: a connection ends after ``bytes`` of this way were handed on, in the middle of whatever that is.
    - ``reset``: every connection gets a RST, new ones at once.
    - ``refuse``: nobody listens; connections that are there stay.
    - ``credit``: the server behind lives on burst credits, as small volumes and machines of clouds do: a bucket of
      ``bytes``, which all connections share, gets ``bytes_s`` a second back. What goes to the server takes as much out
      of it, at ``burst_s`` bytes a second at most; with nothing left it gets through at ``bytes_s``. Nobody is told.

    One way only (``up`` to the server, ``down`` from it) is for latency, bandwidth, hole and cut.
    """

    kind: Kind
    way: Way = "both"
    ms: float = 0.0
    jitter_ms: float = 0.0
    bytes: int = 0
    bytes_s: int = 0
    burst_s: int = 0

    def __post_init__(self) -> None:
        wrong = next((why for why in _problems(self) if why), "")
        if wrong:
            raise Rejected(400, "not a fault", wrong)

    def on(self, way: str) -> bool:
        """Whether it is about this way."""
        return self.way in ("both", way)

    def said(self) -> dict[str, object]:
        """Its fields, without those that are as by default."""
        return {key: value for key, value in asdict(self).items() if value not in ("both", 0, 0.0)}


def _problems(fault: Fault) -> list[str]:
    kind, way = fault.kind, fault.way
    return [
        f"kind is {kind!r}; one of {', '.join(get_args(Kind))}" if kind not in get_args(Kind) else "",
        f"way is {way!r}; one of {', '.join(get_args(Way))}" if way not in get_args(Way) else "",
        f"{kind} is always both ways" if kind in ("reset", "refuse", "credit") and way != "both" else "",
        f"ms is {fault.ms}; latency needs 0 < ms <= {LATENCY_MS_MAX:g}"
        if kind == "latency" and not 0 < fault.ms <= LATENCY_MS_MAX else "",
        f"jitter_ms is {fault.jitter_ms}; it is from 0 to ms" if not 0 <= fault.jitter_ms <= fault.ms else "",
        f"bytes_s is {fault.bytes_s}; bandwidth needs {BANDWIDTH_MIN} or more"
        if kind == "bandwidth" and fault.bytes_s < BANDWIDTH_MIN else "",
        f"bytes_s is {fault.bytes_s}, burst_s {fault.burst_s}, bytes {fault.bytes}; "
        "credit needs 0 < bytes_s < burst_s, and a bucket of 1 byte or more"
        if kind == "credit" and not (0 < fault.bytes_s < fault.burst_s and fault.bytes > 0) else "",
        f"bytes is {fault.bytes}; it can't be below 0" if fault.bytes < 0 else "",
    ]  # fmt: skip


def parse(said: Mapping[str, object]) -> Fault:
    """A fault from its fields, as the control socket or a command line gives them.

    Raises:
        Rejected: An unknown field, or a value that isn't allowed.
    """
    known = {field.name: field.type for field in fields(Fault)}
    if unknown := sorted(said.keys() - known.keys()):
        raise Rejected(400, "not a fault", f"{', '.join(unknown)}: unknown; a fault has {', '.join(known)}")
    try:
        values = {key: _NUMBERS[key](str(value)) if key in _NUMBERS else value for key, value in said.items()}
    except ValueError as error:
        raise Rejected(400, "not a fault", str(error)) from error
    if "kind" not in values:
        raise Rejected(400, "not a fault", "it has no kind")
    return Fault(**values)  # type: ignore[arg-type]


_NUMBERS: Mapping[str, type[int] | type[float]] = {
    "ms": float, "jitter_ms": float, "bytes": int, "bytes_s": int, "burst_s": int,
}  # fmt: skip
