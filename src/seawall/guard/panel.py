"""What people may look at and lend a hand to in one process: its breakers, its optional work and its flags, by name.

It works over the process' own socket, so that a hand reaches it while the store, Redis and Kafka are away.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from seawall.guard import shed
from seawall.guard.breaker import Breaker, State
from seawall.kernel.error import Misconfigured, Rejected
from seawall.kernel.log import fields, logger
from seawall.kernel.seam.flag import FlagLine

log = logger("guard")

HANDS = {"open": State.FORCED_OPEN, "closed": State.FORCED_CLOSED, "auto": None}
"""What may be said of a breaker by hand."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One breaker as it stands."""

    name: str
    state: str
    retry_after_s: float  # until the next trial; 0.0 when calls pass
    without: str  # what happens while it is open


class Panel:
    """The breakers and flags of one process, and its shed list where it has one."""

    def __init__(self, shed_list: shed.ShedList | None = None) -> None:
        self._shed_list = shed_list
        self._breakers: dict[str, tuple[Breaker, str]] = {}
        self.flags: Callable[[], Sequence[FlagLine]] = tuple  # replaced by whoever keeps them

    def add(self, breaker: Breaker, *, without: str) -> None:
        """Show one more; its name must be new here.

        Raises:
            Misconfigured: It says nothing of what happens without the dependency.
        """
        if not without.strip():
            raise Misconfigured([f"breaker {breaker.name}: declares no default"])
        assert breaker.name not in self._breakers, breaker.name
        self._breakers[breaker.name] = (breaker, without)

    def remove(self, name: str) -> None:
        """Show one less: for breakers of services that come and go. Harmless when it isn't there."""
        self._breakers.pop(name, None)

    def lines(self) -> Sequence[Line]:
        return [
            Line(name=name, state=b.state.value, retry_after_s=round(b.retry_after_s(), 3), without=without)
            for name, (b, without) in sorted(self._breakers.items())
        ]

    def broken(self) -> Sequence[str]:
        """Names of those that let nothing pass, or only trials."""
        closed = (State.CLOSED, State.FORCED_CLOSED)
        return sorted(name for name, (breaker, _) in self._breakers.items() if breaker.state not in closed)

    def force(self, name: str, hand: str) -> None:
        """Put a breaker into a state by hand, or let it go again (auto).

        Raises:
            Rejected: 404, no such breaker here; 422, no such state.
        """
        if hand not in HANDS:
            raise Rejected(422, "No such state", f"state is one of {', '.join(HANDS)}")
        found = self._breakers.get(name)
        if found is None:
            raise Rejected(404, "No such breaker", f"known here: {', '.join(sorted(self._breakers)) or 'none'}")
        log.warning("a breaker is moved by hand", extra=fields(breaker=name, state=hand))
        found[0].force(HANDS[hand])

    def work(self) -> Sequence[shed.Line]:
        """Optional work, the first to go first."""
        return self._shed_list.lines() if self._shed_list is not None else ()

    def shed(self, name: str, hand: str) -> None:
        """Hold optional work on or off by hand, or let it go (auto).

        Raises:
            Rejected: 404, no such work here; 422, no such state.
        """
        if self._shed_list is None:
            raise Rejected(404, "No such work", "this process has none")
        self._shed_list.force(name, hand)
