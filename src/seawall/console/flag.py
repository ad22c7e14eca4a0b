"""Flags: what there is, what is set, what would flip; and setting one, which answers when every role works with it."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from seawall.console.answer import Answer, json
from seawall.console.ask import Ask
from seawall.console.shape import (
    FlagChange,
    FlagFlip,
    FlagList,
    FlagPreview,
    FlagRole,
    FlagRule,
    FlagState,
    FlagTry,
    FlagWish,
)
from seawall.guard.flag import Flag, Registry, Rule, Setting, Wish, changed, word
from seawall.guard.preview import flips
from seawall.kernel.clock import Clock, Deadline
from seawall.kernel.error import Rejected, SeawallError
from seawall.kernel.limit import NAME_CHARS_MAX
from seawall.kernel.seam.change import TEXT_MAX
from seawall.kernel.seam.flag import FlagLine, FlagPanels
from seawall.store import change
from seawall.store.flag import Flags

POLL_S: Final = 0.05
VALUES: Final[Mapping[str, bool | None]] = {"on": True, "off": False, "default": None}


@dataclass(frozen=True, slots=True)
class Asked:
    """What the roles say of their flags."""

    lines: Sequence[FlagLine]
    unasked: Sequence[str]

    def of(self, name: str) -> list[FlagLine]:
        return [line for line in self.lines if line.name == name]

    def silent(self, flag: Flag) -> list[str]:
        """Roles that ask it and didn't answer."""
        return [role for role in flag.roles if role in self.unasked]


class FlagDesk:
    """Handlers of the endpoints of flags. Each raises Rejected, Unavailable or Uncertain.

    Args:
        live_s: How long a change waits for the roles.
    """

    def __init__(
        self, registry: Registry, flags: Flags, panels: FlagPanels, *, clock: Clock, query_s: float, live_s: float
    ) -> None:
        self._registry = registry
        self._flags = flags
        self._panels = panels
        self._clock = clock
        self._query_s = query_s
        self._live_s = live_s

    async def all(self, ask: Ask) -> Answer:
        """All flags. Without the store, what is set is what the roles know of it."""
        asked, trouble = await self._asked(), ""
        try:
            settings = dict((await self._flags.load(timeout_s=self._query_s)).settings)
        except SeawallError as error:
            settings, trouble = _newest(asked.lines), str(error)
        items = [_state(flag, settings.get(flag.name), asked.of(flag.name)) for flag in self._registry]
        items.sort(key=lambda item: item.name)
        return json(FlagList(items=items, unasked=list(asked.unasked), trouble=trouble))

    async def preview(self, ask: Ask) -> Answer:
        flag = self._registry.asked(ask.path["name"])
        wish = _wish(flag, ask.parsed(FlagTry))
        await self._flags.known_to_exist(wish)
        settings = (await self._flags.load(timeout_s=self._query_s)).settings
        before = settings.get(flag.name, Setting(flag=flag.name))
        after = changed(flag, before, wish)
        asked = await self._asked()
        ready: dict[str, dict[str, str]] = {}
        for line in asked.lines:
            ready.setdefault(line.role, {})[line.name] = line.unready
        sources = {rule.name for rule in (*before.rules, *after.rules) if rule.by == "source"}
        tenants = await self._flags.tenants_of(sorted(sources)) if sources else {}
        found = [
            FlagFlip(
                flag=f.flag, role=f.role, who=f.who, before=word(f.before), after=word(f.after), held=f.held
            )
            for f in flips(self._registry, settings, after, ready, tenants)
        ]  # fmt: skip
        return json(
            FlagPreview(
                name=flag.name, version=before.version, before=str(before), after=str(after), flips=found,
                unasked=asked.silent(flag),
            )
        )  # fmt: skip

    async def set(self, ask: Ask) -> Answer:
        flag = self._registry.asked(ask.path["name"])
        given = ask.parsed(FlagWish)
        wish, why = _wish(flag, given), given.why.strip()
        if not why or len(why) > TEXT_MAX:
            raise Rejected(422, "Bad reason", f"why must say why, in 1 to {TEXT_MAX} characters")
        author = change.Author(ask.by, self._clock, why)
        before, after = await self._flags.put(flag, wish, version=given.version, author=author)
        missing = await self._live(flag, after)
        return json(
            FlagChange(
                name=flag.name, version=after.version, before=str(before), after=str(after), live=not missing,
                missing=missing,
            )
        )  # fmt: skip

    async def _live(self, flag: Flag, setting: Setting) -> list[str]:
        """Roles that don't work with a setting, or don't have it on disk, after at most ``live_s``."""
        deadline = Deadline.after(self._live_s, self._clock)
        while True:
            asked = await self._asked()
            lines = asked.of(flag.name)
            behind = [line.role for line in lines if line.version < setting.version or not line.kept]
            missing = [*behind, *(role for role in flag.roles if role not in {line.role for line in lines})]
            if not missing or deadline.left_s(self._clock) == 0.0:
                return missing
            await asyncio.sleep(POLL_S)

    async def _asked(self) -> Asked:
        return Asked(*await self._panels.flags())


def _wish(flag: Flag, given: FlagTry) -> Wish:
    """What is asked for, checked as far as that goes without the store."""
    if given.value not in VALUES:
        raise Rejected(422, "Bad value", f"flag {flag.name} is {', '.join(VALUES)}; not {given.value[:64]!r}")
    named = [(by, name) for by, name in (("tenant", given.tenant), ("source", given.source)) if name is not None]
    if len(named) > 1:
        raise Rejected(422, "Bad rule", "a rule names a tenant or a source, not both")
    wish = Wish(value=VALUES[given.value], **(dict(zip(("by", "name"), named[0], strict=True)) if named else {}))
    if wish.by and (not wish.name or len(wish.name) > NAME_CHARS_MAX or not wish.name.isprintable()):
        raise Rejected(422, "Bad rule", f"the name of a {wish.by} has 1 to {NAME_CHARS_MAX} characters")
    changed(flag, Setting(flag=flag.name), wish)  # raises when the flag isn't set by that
    return wish


def _newest(lines: Sequence[FlagLine]) -> dict[str, Setting]:
    """Of each flag, the newest setting that a role has."""
    found: dict[str, Setting] = {}
    for line in lines:
        if line.origin == "nobody" or (line.name in found and found[line.name].version >= line.version):
            continue
        rules = tuple(Rule(rule.by, rule.name, rule.value) for rule in line.rules)
        at_us = change.us_of(line.changed_at) if line.changed_at is not None else 0
        found[line.name] = Setting(
            flag=line.name, value=line.setting, rules=rules, version=line.version, at_us=at_us, by=line.changed_by,
            why=line.why,
        )  # fmt: skip
    return found


def _state(flag: Flag, setting: Setting | None, lines: Sequence[FlagLine]) -> FlagState:
    setting = setting or Setting(flag=flag.name)
    return FlagState(
        name=flag.name, owner=flag.owner, help=flag.help, without=flag.without, default=word(flag.default),
        safe=word(flag.safe), requires=[str(need) for need in flag.requires], by=list(flag.by),
        value=word(setting.value),
        rules=[FlagRule(by=rule.by, name=rule.name, value=word(rule.value)) for rule in setting.rules],
        version=setting.version, changed_at=change.time_of(setting.at_us) if setting.version else None,
        changed_by=setting.by, why=setting.why, roles=[_role(line) for line in lines],
    )  # fmt: skip


def _role(line: FlagLine) -> FlagRole:
    return FlagRole(
        role=line.role, value=word(line.value), wanted=word(line.wanted), held=line.held, version=line.version,
        origin=line.origin, age_s=line.age_s,
    )  # fmt: skip
