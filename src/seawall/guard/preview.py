"""What would flip if a flag were set, for whom, and what wouldn't although it is set. Pure.

Looked at are the flag itself and all that need it, in each role that asks them, for everybody and for each tenant and
source that a rule names, before or after.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from seawall.guard.flag import EVERYBODY, Flag, Registry, Setting, Subject, evaluate

Readiness = Mapping[str, Mapping[str, str]]
"""By role, then by flag: what it needs and hasn't, but for other flags; "": nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Flip:
    """One flag, in one role, for one subject: what it evaluates to before and after."""

    flag: str
    role: str
    who: str
    before: bool
    after: bool
    held: str  # why it isn't what was set; "": it is


def flips(
    registry: Registry, settings: Mapping[str, Setting], after: Setting, ready: Readiness, tenants: Mapping[str, str]
) -> list[Flip]:
    """All that flips, and what would if it weren't held.

    Args:
        settings: Of all flags, as they are.
        after: Of the one that is to be set, as it would be.
        ready: Of the roles that could be asked; others are left out.
        tenants: Of sources, by name: a source follows its tenant's rules too.
    """
    later = {**settings, after.flag: after}
    found: list[Flip] = []
    flags = registry.leaning_on(after.flag)
    for subject in _subjects(flags, settings, later, tenants):
        for flag in flags:
            for role in flag.roles:
                if role in ready:
                    found += _flip(registry, settings, later, flag, role, subject, ready[role])
    return found


def _flip(
    registry: Registry, settings: Mapping[str, Setting], later: Mapping[str, Setting], flag: Flag, role: str,
    subject: Subject, ready: Mapping[str, str],
) -> Iterator[Flip]:  # fmt: skip
    def unready(flag: Flag) -> str:
        return ready.get(flag.name, "it isn't known there yet")

    now = evaluate(registry, settings, unready, flag, subject)
    then = evaluate(registry, later, unready, flag, subject)
    if now.value != then.value or now.wanted != then.wanted:
        yield Flip(
            flag=flag.name, role=role, who=str(subject), before=now.value, after=then.value, held=then.held
        )  # fmt: skip


def _subjects(
    flags: Sequence[Flag], settings: Mapping[str, Setting], later: Mapping[str, Setting], tenants: Mapping[str, str]
) -> list[Subject]:
    """Everybody, then all whom rules name, tenants first."""
    named = {
        (rule.by, rule.name)
        for state in (settings, later)
        for flag in flags
        if flag.name in state
        for rule in state[flag.name].rules
    }
    found = [EVERYBODY]
    found += [Subject(tenant=name) for by, name in sorted(named) if by == "tenant"]
    found += [Subject(tenants.get(name, ""), name) for by, name in sorted(named) if by == "source"]
    return found
