"""One process' flags: what it knows of their settings, what of their needs is ready, and the switches that rooms ask.

No I/O: ``machine/flag.py`` tells it what the store says.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

from seawall.guard.flag import (
    EVERYBODY,
    Flag,
    Loop,
    Need,
    Part,
    Registry,
    Release,
    Schema,
    Setting,
    Subject,
    Verdict,
    evaluate,
    release,
)
from seawall.kernel.clock import Clock
from seawall.kernel.error import Misconfigured
from seawall.kernel.seam import flag as seam
from seawall.kernel.seam.flag import FlagLine, RuleLine, Switch

NOTHING = "nothing is known of its setting: neither the store nor a copy on disk says it"


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """What the store said last, as one answer."""

    settings: Mapping[str, Setting] = field(default_factory=dict)  # of flags that were ever set
    schema: int = 0  # its version


class Switchboard:
    """Implements what rooms ask.

    Args:
        release: Version of this program.
        loop_ready: Whether a supervised loop of this process, by name, is ready; False for one that there isn't.
    """

    def __init__(
        self, registry: Registry, *, role: str, release: str, clock: Clock, loop_ready: Callable[[str], bool]
    ) -> None:
        self._registry = registry
        self._role = role
        self._release = release
        self._clock = clock
        self._loop_ready = loop_ready
        self._parts: dict[str, seam.Part] = {}
        self._known: Known | None = None
        self._origin = "nobody"
        self._confirmed_at: float | None = None
        self._kept: Known | None = None

    @property
    def known(self) -> Known | None:
        """What is in force; None: nothing is known."""
        return self._known

    def age_s(self) -> float | None:
        """Seconds since the store last confirmed it; None: not in this process' life."""
        return None if self._confirmed_at is None else self._clock.monotonic() - self._confirmed_at

    def provide(self, part: str, ready: seam.Part) -> None:
        """Say when something that flags may need is there. What nobody provides never is."""
        self._parts[part] = ready

    def restored(self, known: Known) -> None:
        """What a copy on disk says, until the store is heard."""
        assert self._origin == "nobody", "the store knows better"
        self._known = self._kept = known
        self._origin = "copy"

    def confirmed(self, known: Known, *, asked_at: float) -> bool:
        """What the store says; True: it is something new.

        Args:
            asked_at: Monotonic time when it was asked: its answer is at least as young.
        """
        new = known != self._known
        self._known, self._origin, self._confirmed_at = known, "store", asked_at
        return new

    def kept(self, known: Known) -> None:
        """A copy of it is on disk."""
        self._kept = known

    def switch(self, name: str) -> Switch:
        """What a room asks.

        Raises:
            Misconfigured: The flag isn't declared, or not for this role.
        """
        flag = self._registry[name]
        if self._role not in flag.roles:
            raise Misconfigured([f"flag {name}: isn't declared for role {self._role}"])

        def ask(*, tenant: str = "", source: str = "") -> bool:
            return self.verdict(flag, Subject(tenant, source)).value

        return ask

    def verdict(self, flag: Flag, subject: Subject = EVERYBODY) -> Verdict:
        """One flag as it evaluates now."""
        known = self._known
        if known is None:
            return Verdict(flag.safe, flag.default, "" if flag.safe == flag.default else NOTHING)
        return evaluate(self._registry, known.settings, self._unready, flag, subject)

    def lines(self) -> Sequence[FlagLine]:
        """Each flag of this role."""
        return [self._line(flag) for flag in self._registry.of(self._role)]

    def _line(self, flag: Flag) -> FlagLine:
        verdict, settings = self.verdict(flag), self._known.settings if self._known is not None else {}
        setting = settings.get(flag.name, Setting(flag=flag.name))
        kept = self._kept.settings.get(flag.name, Setting(flag=flag.name)) if self._kept is not None else None
        age_s = self.age_s()
        return FlagLine(
            name=flag.name, role=self._role, value=verdict.value, wanted=verdict.wanted, held=verdict.held,
            unready=self._unready(flag) if self._known is not None else NOTHING,
            version=setting.version, kept=kept == setting, origin=self._origin,
            age_s=None if age_s is None else round(age_s, 3), setting=setting.value,
            rules=tuple(RuleLine(by=rule.by, name=rule.name, value=rule.value) for rule in setting.rules),
            changed_at=datetime.fromtimestamp(setting.at_us / 1_000_000, UTC) if setting.version else None,
            changed_by=setting.by, why=setting.why,
        )  # fmt: skip

    def _unready(self, flag: Flag) -> str:
        return "; ".join(said for need in flag.requires if (said := self._lack(need)))

    def _lack(self, need: Need) -> str:
        match need:
            case Loop(name=name):
                ready = self._loop_ready(name)
            case Part(name=name):
                ready = name in self._parts and self._parts[name]()
            case Schema(version=version):
                ready = self._known is not None and self._known.schema >= version
            case Release(version=version):
                ready = (release(self._release) or ()) >= (release(version) or ())
            case _:
                return ""  # another flag: evaluated with its own setting
        return "" if ready else f"{need} isn't ready"
