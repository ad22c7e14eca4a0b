"""Flags: what may be switched while the platform runs, and how one is evaluated. No I/O and no clock.

A flag is declared in code, with an owner, a safe value and what it needs. Until all of that is ready it evaluates to
its safe value, whatever anybody has configured: a configuration change once switched on code whose cache didn't exist
(incident I5). The same when nothing is known of what was configured: neither the store nor a copy on disk says it.

Whatever gives the safe value wins: a need that isn't ready over a setting, and of two rules that fit the one that is
safe. So no order of rules has to be remembered by whoever pulls a switch.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from seawall.kernel.error import Misconfigured, Rejected

NAME: Final = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")
BY: Final = ("tenant", "source")
"""What a rule may name."""

RULES_MAX: Final = 200
"""Of one flag."""


@dataclass(frozen=True, slots=True)
class Loop:
    """A supervised loop of the same process makes progress."""

    name: str

    def __str__(self) -> str:
        return f"loop {self.name}"


@dataclass(frozen=True, slots=True)
class Part:
    """Something of the same process says that it is there."""

    name: str

    def __str__(self) -> str:
        return self.name


@dataclass(frozen=True, slots=True)
class Schema:
    """The store has this version of the schema, or a later one."""

    version: int

    def __str__(self) -> str:
        return f"schema version {self.version}"


@dataclass(frozen=True, slots=True)
class Release:
    """The process runs this version of Seawall, or a later one."""

    version: str

    def __str__(self) -> str:
        return f"seawall {self.version}"


@dataclass(frozen=True, slots=True)
class On:
    """Another flag is on."""

    flag: str

    def __str__(self) -> str:
        return f"flag {self.flag}"


Need = Loop | Part | Schema | Release | On


@dataclass(frozen=True, slots=True, kw_only=True)
class Flag:
    """One flag, as it is declared."""

    name: str
    owner: str  # which room answers for it
    help: str  # what it does while it is on
    without: str  # what happens while it is off
    default: bool  # while nobody set it
    safe: bool  # while what it needs isn't ready, and while nothing is known
    requires: tuple[Need, ...]
    roles: tuple[str, ...]  # in which it is asked
    by: tuple[str, ...] = ()  # what it may be set by, of ``BY``


@dataclass(frozen=True, slots=True)
class Subject:
    """For whom a flag is asked; "": nobody in particular."""

    tenant: str = ""
    source: str = ""

    def is_named(self, rule: Rule) -> bool:
        return rule.name == (self.tenant if rule.by == "tenant" else self.source)

    def __str__(self) -> str:
        return f"source {self.source}" if self.source else f"tenant {self.tenant}" if self.tenant else "everybody else"


EVERYBODY: Final = Subject()


@dataclass(frozen=True, slots=True)
class Rule:
    """A flag's value for one tenant or one source."""

    by: str
    name: str
    value: bool

    def __str__(self) -> str:
        return f"{word(self.value)} for {self.by} {self.name}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """What people have set of one flag."""

    flag: str
    value: bool | None = None  # None: as declared
    rules: tuple[Rule, ...] = ()  # one for each name, sorted
    version: int = 0  # grows by one with each change; 0: never set
    at_us: int = 0
    by: str = ""
    why: str = ""

    def __str__(self) -> str:
        return ", ".join([word(self.value), *map(str, self.rules)])


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """What somebody wants of one flag: for all (then it is so for all, and every rule goes), or for one name."""

    value: bool | None  # None: as declared; for a name: as for all others
    by: str = ""
    name: str = ""


class Registry:
    """All flags there are.

    Raises:
        Misconfigured: One of them can't be right; all problems together.
    """

    def __init__(self, flags: Iterable[Flag]) -> None:
        self._flags: dict[str, Flag] = {}
        problems: list[str] = []
        for flag in flags:
            if flag.name in self._flags:
                problems.append(f"flag {flag.name}: declared twice")
            self._flags[flag.name] = flag
        for flag in self._flags.values():
            problems += [f"flag {flag.name}: {problem}" for problem in self._problems(flag)]
        if problems:
            raise Misconfigured(problems)

    def __getitem__(self, name: str) -> Flag:
        """A declared flag; anything else is a mistake in our own code.

        Raises:
            Misconfigured: It isn't declared.
        """
        if name not in self._flags:
            raise Misconfigured([f"flag {name}: not declared; there are {', '.join(sorted(self._flags))}"])
        return self._flags[name]

    def __iter__(self) -> Iterator[Flag]:
        return iter(self._flags.values())

    def asked(self, name: str) -> Flag:
        """A flag that somebody named.

        Raises:
            Rejected: 404, it isn't declared.
        """
        found = self._flags.get(name)
        if found is None:
            known = ", ".join(sorted(self._flags)) or "none"
            raise Rejected(404, "No such flag", f"{name[:64]!r} isn't declared; there are {known}")
        return found

    def of(self, role: str) -> Sequence[Flag]:
        """Those that a role asks."""
        return [flag for flag in self._flags.values() if role in flag.roles]

    def leaning_on(self, name: str) -> Sequence[Flag]:
        """Those that need a flag, by whichever way, and itself."""
        return [flag for flag in self._flags.values() if name in self._reaches(flag, frozenset())]

    def _reaches(self, flag: Flag, seen: frozenset[str]) -> frozenset[str]:
        if flag.name in seen:
            return seen
        seen |= {flag.name}
        for need in flag.requires:
            if isinstance(need, On) and need.flag in self._flags:
                seen |= self._reaches(self._flags[need.flag], seen)
        return seen

    def _problems(self, flag: Flag) -> list[str]:
        found = []
        if not NAME.fullmatch(flag.name):
            found.append("a name is words of a-z and 0-9, joined by -")
        for name in ("owner", "help", "without"):
            if not getattr(flag, name).strip():
                found.append(f"has no {name}")
        for name in ("default", "safe"):
            if not isinstance(getattr(flag, name), bool):
                found.append(f"its {name} value must be True or False")
        if not flag.roles:
            found.append("no role asks it")
        if unknown := set(flag.by) - set(BY):
            found.append(f"can't be set by {', '.join(sorted(unknown))}")
        for need in flag.requires:
            if isinstance(need, Release) and release(need.version) is None:
                found.append(f"requires {need}, which is no version")
            if not isinstance(need, On):
                continue
            other = self._flags.get(need.flag)
            if other is None:
                found.append(f"requires {need}, which isn't declared")
            elif not set(flag.roles) <= set(other.roles):
                found.append(f"requires {need}, which isn't asked in each of its roles")
            elif flag.name in self._reaches(other, frozenset()):
                found.append(f"requires {need}, which requires it")
        return found


def wanted(flag: Flag, setting: Setting | None, subject: Subject) -> bool:
    """What a flag would be if all that it needs were ready."""
    if setting is None:
        return flag.default
    fitting = [rule.value for rule in setting.rules if rule.by in flag.by and subject.is_named(rule)]
    if not fitting:
        return flag.default if setting.value is None else setting.value
    return flag.safe if flag.safe in fitting else not flag.safe


Unready = Callable[[Flag], str]
"""What a flag needs and hasn't, but for other flags, in words; "": nothing."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a flag evaluates to, and why."""

    value: bool
    wanted: bool
    held: str = ""  # why the value isn't the wanted one; "": it is


def evaluate(
    registry: Registry, settings: Mapping[str, Setting], unready: Unready, flag: Flag, subject: Subject
) -> Verdict:
    """One flag, for one subject. Ends, since a registry has no circle."""
    wish = wanted(flag, settings.get(flag.name), subject)
    if wish == flag.safe:
        return Verdict(wish, wish)
    lacking = unready(flag)
    for need in flag.requires:
        if not lacking and isinstance(need, On):
            other = evaluate(registry, settings, unready, registry[need.flag], subject)
            lacking = "" if other.value else f"{need} is off"
    return Verdict(flag.safe, wish, lacking) if lacking else Verdict(wish, wish)


def changed(flag: Flag, setting: Setting, wish: Wish) -> Setting:
    """The setting after a wish. ``version`` and what tells of the change stay as they were.

    Raises:
        Rejected: 422, the flag isn't set by that, or has too many rules already.
    """
    if not wish.by:
        return replace(setting, value=wish.value, rules=())
    if wish.by not in flag.by:
        allowed = ", ".join(flag.by) or "nothing: it is on or off for all"
        raise Rejected(422, "Bad rule", f"flag {flag.name} can't be set by {wish.by}; it can by {allowed}")
    rules = {(rule.by, rule.name): rule for rule in setting.rules}
    rules.pop((wish.by, wish.name), None)
    if wish.value is not None:
        rules[wish.by, wish.name] = Rule(wish.by, wish.name, wish.value)
    if len(rules) > RULES_MAX:
        raise Rejected(422, "Too many rules", f"flag {flag.name} has {RULES_MAX} rules; remove some (value default)")
    return replace(setting, rules=tuple(rules[key] for key in sorted(rules)))


def release(text: str) -> tuple[int, ...] | None:
    """A version's numbers, to compare; None: it has none. What follows them (a1, .dev0, +local) doesn't count."""
    found = re.match(r"\d+(\.\d+)*", text)
    return tuple(int(part) for part in found[0].split(".")) if found else None


def word(value: bool | None) -> str:
    return "default" if value is None else "on" if value else "off"
