"""The shed list: work that a process can do without, ranked, and switched off under load or by hand.

An overloaded database was drained back into a second outage, since everything went on as if there were room (incident
I5). So each piece of optional work is declared with what happens without it. While a signal (the event loop's lag, the
store's pool, memory) stays high, the least important piece that eases it goes off, then the next; when the signals have
been low for long enough, they come back one by one, the last to go first.

It can't flap. A signal has two thresholds, and between them nothing changes; it must stay high for ``PATIENCE_S``; two
changes are ``STEP_S`` apart; what was off stays off for ``calm_s`` of calm at the least; and where coming back soon
brought the load back, the calm that is asked for doubles. A hand is above all that: what it holds, no signal moves.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from seawall.kernel.alert import Alerts
from seawall.kernel.clock import Clock
from seawall.kernel.error import Misconfigured, Rejected
from seawall.kernel.log import fields, logger
from seawall.kernel.metric import Metrics

log = logger("guard")

PATIENCE_S: Final = 3.0
STEP_S: Final = 5.0
CALM_S: Final = 30.0
CALM_MAX_S: Final = 300.0
RELAPSE_S: Final = 60.0
"""Load that returns so soon after something came back was brought by it."""

ALERT: Final = "work-shed"
HAND, SIGNAL = "hand", "signal"
HANDS: Final = {"on": True, "off": False, "auto": None}
"""What may be said of a piece of work by hand; auto: the signals decide."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Signal:
    """Something that says how loaded this process is. ``high`` and ``low`` differ, so that it has to really ease."""

    name: str
    read: Callable[[], float]
    high: float  # at or over it: shed
    low: float  # at or below it: calm


@dataclass(frozen=True, slots=True, kw_only=True)
class Shift:
    """One piece of work went off or came back, for the audit."""

    name: str
    on: bool
    why: str  # "by hand", or the signal with its value


class Work:
    """One piece of optional work, as whoever does it holds it. Ask ``wanted`` each time, and answer the default when it
    isn't."""

    __slots__ = ("_skipped", "eases", "hand", "name", "rank", "restored_at", "shed_why", "without")

    def __init__(self, name: str, rank: int, without: str, eases: frozenset[str], metrics: Metrics) -> None:
        self.name = name
        self.rank = rank
        self.without = without
        self.eases = eases
        self.hand: bool | None = None
        self.shed_why: str | None = None  # None: no signal has it off
        self.restored_at = float("-inf")
        self._skipped = metrics.counter("seawall_shed_skipped_total", "Times work was left out.", work=name)
        metrics.gauge("seawall_shed_off_count", "1: this work is off.", work=name).read = lambda: float(not self.on)

    @property
    def on(self) -> bool:
        """Whether it is to be done now."""
        return self.shed_why is None if self.hand is None else self.hand

    def wanted(self) -> bool:
        """The same, for whoever is about to do it: what is left out is counted."""
        if self.on:
            return True
        self._skipped.value += 1
        return False


Wanted = Callable[[], bool]
"""``Work.wanted`` of something that a process without a shed list always does."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One piece of work as it stands."""

    name: str
    rank: int  # the lowest goes first
    on: bool
    why: str  # "", "by hand", or the signal that has it off
    without: str  # what happens while it is off
    eases: Sequence[str]  # signals


class ShedList:
    """The optional work of one process. No I/O: ``look`` is called by a loop (guard/pressure.py).

    Args:
        hands: What a hand held when this process last ran: by name ``on`` or ``off``.
        keep: Called with the same after each change by hand, to be kept. Must not raise.
        audited: Called for each change of what is on. Must not raise.
    """

    def __init__(
        self, *, clock: Clock, metrics: Metrics, alerts: Alerts, hands: Mapping[str, str] | None = None,
        keep: Callable[[Mapping[str, str]], None] = lambda hands: None,
        audited: Callable[[Shift], None] = lambda shift: None,
    ) -> None:  # fmt: skip
        self._clock = clock
        self._metrics = metrics
        self._alerts = alerts
        self._hands = {name: hand for name, hand in (hands or {}).items() if hand in ("on", "off")}
        self._keep = keep
        self._audited = audited
        self._work: dict[str, Work] = {}  # by rank
        self._signals: dict[str, Signal] = {}
        self._high_since: dict[str, float] = {}
        self._off: list[Work] = []  # by signals, the last to go at the end
        self._calm_since: float | None = None  # of the one at the end
        self._changed_at = float("-inf")
        self.calm_s = CALM_S

    def add(self, name: str, *, rank: int, without: str, eases: Sequence[str]) -> Work:
        """Declare a piece of work.

        Args:
            rank: The lowest goes first.
            without: What happens instead, in words.
            eases: Signals that it makes lower by being off.

        Raises:
            Misconfigured: No default is declared, or the name or rank is taken.
        """
        problems = [] if without.strip() else [f"shed list: {name} declares no default"]
        if any(name == other.name or rank == other.rank for other in self._work.values()):
            problems.append(f"shed list: name or rank of {name} ({rank}) is taken")
        if problems:
            raise Misconfigured(problems)
        work = Work(name, rank, without, frozenset(eases), self._metrics)
        self._work[name] = work
        self._work = dict(sorted(self._work.items(), key=lambda pair: pair[1].rank))
        if name in self._hands:
            work.hand = HANDS[self._hands[name]]
            self._tell(work, True, "by hand, before a restart", by=HAND)
        return work

    def watch(self, signal: Signal) -> None:
        """Have one more signal looked at.

        Raises:
            Misconfigured: Its thresholds leave no room between them, or its name is taken.
        """
        if signal.name in self._signals or not signal.low < signal.high:
            raise Misconfigured([f"shed list: signal {signal.name} is there already, or its low isn't below its high"])
        self._signals[signal.name] = signal
        gauge = self._metrics.gauge("seawall_shed_signal_ratio", "A signal over its threshold.", signal=signal.name)
        gauge.read = lambda: signal.read() / signal.high

    def look(self) -> None:
        """Read the signals, and make one step at the most. Call it every half second or so."""
        now = self._clock.monotonic()
        values = {name: signal.read() for name, signal in self._signals.items()}
        for name, value in values.items():
            if value < self._signals[name].high:
                self._high_since.pop(name, None)
            else:
                self._high_since.setdefault(name, now)
        pressing = [name for name, since in self._high_since.items() if now - since >= PATIENCE_S]
        calm = bool(self._off) and all(
            values[name] <= self._signals[name].low for name in self._off[-1].eases if name in values
        )
        if not calm:
            self._calm_since = None
        elif self._calm_since is None:
            self._calm_since = now
        if now - self._changed_at < STEP_S:
            return
        if pressing:
            self._shed(now, pressing, values)
        elif self._calm_since is not None and now - self._calm_since >= self.calm_s:
            self._restore(now)

    def force(self, name: str, hand: str) -> None:
        """Hold a piece of work on or off by hand, or let it go (auto).

        Raises:
            Rejected: 404, no such work here; 422, no such state.
        """
        if hand not in HANDS:
            raise Rejected(422, "No such state", f"state is one of {', '.join(HANDS)}")
        work = self._work.get(name)
        if work is None:
            raise Rejected(404, "No such work", f"known here: {', '.join(self._work) or 'none'}")
        was, work.hand = work.on, HANDS[hand]
        self._tell(work, was, "by hand", by=HAND)
        self._hands.pop(name, None)
        if hand != "auto":
            self._hands[name] = hand
        self._keep(dict(self._hands))

    def lines(self) -> Sequence[Line]:
        """All work, the first to go first."""
        return [
            Line(
                name=work.name, rank=work.rank, on=work.on, without=work.without, eases=sorted(work.eases),
                why="by hand" if work.hand is not None else work.shed_why or "",
            )
            for work in self._work.values()
        ]  # fmt: skip

    def _shed(self, now: float, pressing: Sequence[str], values: Mapping[str, float]) -> None:
        for work in self._work.values():
            name = next((name for name in pressing if name in work.eases), None)
            if name is None or work.hand is not None or work.shed_why is not None:
                continue
            if now - work.restored_at < RELAPSE_S:
                self.calm_s = min(CALM_MAX_S, self.calm_s * 2)
            elif not self._off:
                self.calm_s = CALM_S
            why = f"{name} is {values[name]:.3g}, over {self._signals[name].high:g}"
            work.shed_why = why
            self._tell(work, True, why, by=SIGNAL)
            self._off.append(work)
            self._changed_at, self._calm_since = now, None
            return

    def _restore(self, now: float) -> None:
        work = self._off.pop()
        work.restored_at = now
        was, work.shed_why = work.on, None
        self._tell(work, was, f"calm for {self.calm_s:g} s", by=SIGNAL)
        self._changed_at, self._calm_since = now, None

    def _tell(self, work: Work, was: bool, why: str, *, by: str) -> None:
        """Tell a change that made a difference."""
        if work.on == was:
            return
        self._metrics.counter(
            "seawall_shed_changes_total", "Times work was switched off or on.", work=work.name, by=by
        ).value += 1
        log.warning(
            "optional work is off" if was else "optional work is on again", extra=fields(work=work.name, why=why)
        )
        if was:
            self._alerts.raised(
                ALERT, f"{work.name} is off ({why}): {work.without}",
                unaffected="accepting events and running them", cure="seawall shed list", work=work.name,
            )  # fmt: skip
        else:
            self._alerts.cleared(ALERT, work=work.name)
        self._audited(Shift(name=work.name, on=not was, why=why))


def declared(shed: ShedList | None, name: str, *, rank: int, without: str, eases: Sequence[str]) -> Wanted:
    """Declare optional work, for rooms that also do without a shed list: as ``ShedList.add``, or always wanted."""
    if shed is None:
        return lambda: True
    return shed.add(name, rank=rank, without=without, eases=eases).wanted
