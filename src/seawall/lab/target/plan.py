"""Makes of an experiment one for a target: its actions are the target's commands, and nothing else is done.

Pure. What an experiment breaks and the target's file doesn't name is refused, with the tables that are missing. What it
expects and nobody can see from outside is left out, and said: it is neither held nor missed.
"""

from __future__ import annotations

import copy
import importlib
import inspect
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from seawall.kernel.error import Misconfigured
from seawall.lab.experiment import EXPECT, At, Claim, Condition, Experiment, Extension, Seconds
from seawall.lab.rig.flow import TYPES
from seawall.lab.rig.sight import FIGURES
from seawall.lab.target.file import Command, Fault, Target

RIG = "seawall.lab.target"
ACT = "seawall.lab.target.act"
PROBE = "seawall.lab.probe"
OUR_ACTS = ("seawall.lab.act", "seawall.lab.load")
KEPT = ("back", "all_back", "top")
"""Functions of ours that break nothing: they undo what is armed, or look."""

PLACES = ("target", "role", "queue", "tenant", "room", "name")
"""The argument that says what an action is done to: the first of these that it has."""

LOOKS_INSIDE = ("alive", "primary", "settled", "wrong_count", "own_share")
"""Probes that ask the lab's own parts; the last two ask held requests, which a target may have."""

OF_HELD = ("wrong_count", "own_share")
MEASURED: Mapping[str, Sequence[str]] = {
    "intake": ("ok_rate", "refused_rate", "failed_rate", "none_rate", "bare_count", "ok_ratio", "p50_ms", "p99_ms",
               "open_count", "unsent_count", "ready_ratio"),
    "held": ("ok_rate", "refused_rate", "failed_rate", "none_rate", "own_rate", "ticket_rate", "wrong_rate",
             "bare_count", "ok_ratio", "p50_ms", "p99_ms"),
    "api": ("ok_ratio", "answer_ms"), "store": ("ok_ratio", "answer_ms"), "alerts": ("unread_count",),
    "traffic": ("late_s",),
    "lab": ("faults_count", "steady", "disk_free_mb", "memory_mb", "unread_count"),
}  # fmt: skip
"""Names of samples by room, beside ``FIGURES``."""
VALUE = re.compile(r"(?:[A-Za-z0-9_./@+=%:,][A-Za-z0-9_./@+=%:,-]*|-[0-9.]+|)")
"""What a command may be filled with: nothing that a shell, or a program's options, would take for something else."""
SEEN_KINDS = ("alert", "cleared", "act", "top", "step")
VERDICT_UNSEEN = ("effects", "repeated", "synthetic", "synthetic_runs")
VERDICT_HELD = ("held", "own", "late", "ticket", "silent", "wrong")


def fit(experiment: Experiment, target: Target, *, file: str) -> Experiment:
    """The same experiment, against a target.

    Args:
        file: As the user has named it.

    Raises:
        Misconfigured: It can't be run there; each reason is a line, and says what to add.
    """
    made = _Plan(experiment, target)
    document = made.document()
    ours = made.extension()
    if made.problems:
        raise Misconfigured([f"{experiment.name} on {target.name}: {each}" for each in dict.fromkeys(made.problems)])
    at = At(
        name=target.name, file=file, hosts=target.hosts, here=target.here, unseen=tuple(made.unseen),
        faults=tuple(_told(key, target.said.fault[key], values) for key, values in made.used.items()),
    )  # fmt: skip
    return Experiment(name=experiment.name, path=experiment.path, document=document, ours=ours, at=at)


def _told(key: str, fault: Fault, values: Mapping[str, str]) -> str:
    command = fault.command("apply")
    assert command is not None
    return f"{key}: {fault.says or ' '.join(command.filled(values).argv)}"


class _Plan:
    """One experiment on its way to one target.

    Attributes:
        used: The faults that it needs, with the values that their commands are filled with.
    """

    def __init__(self, experiment: Experiment, target: Target) -> None:
        self.problems: list[str] = []
        self.unseen: list[str] = []
        self.used: dict[str, Mapping[str, str]] = {}
        self._experiment, self._target = experiment, target
        self._held = target.held is not None

    # ── Chaos Toolkit's part ───────────────────────────────────────────────────────────────────────────────────────
    def document(self) -> Mapping[str, Any]:
        made = copy.deepcopy(dict(self._experiment.document))
        steady = made["steady-state-hypothesis"]
        steady["probes"] = self._probes(steady["probes"], "the steady state")
        if not steady["probes"]:
            self.problems.append("nothing of its steady state can be seen from outside: give it a probe that can")
        for word in ("method", "rollbacks"):
            actions = [each for each in made.get(word) or [] if each.get("type") == "action"]
            probes = self._probes([each for each in made.get(word) or [] if each.get("type") == "probe"], word)
            kept = {id(each): each for each in probes} | {id(each): self._action(each) for each in actions}
            made[word] = [kept[id(each)] for each in made.get(word) or [] if id(each) in kept]
        if not self.used and not self.problems:
            self.problems.append("it breaks nothing")
        return made

    def _probes(self, said: Sequence[Mapping[str, Any]], where: str) -> list[Mapping[str, Any]]:
        found = []
        for each in said:
            why = self._blind(each.get("provider") or {})
            if why:
                self.unseen.append(f"{where}: {each.get('name')}: {why}")
            else:
                found.append(each)
        return found

    def _blind(self, provider: Mapping[str, Any]) -> str:
        """Why a probe can't look there; "" when it can."""
        if provider.get("module") != PROBE:
            return ""
        func, arguments = str(provider.get("func")), provider.get("arguments") or {}
        if func in OF_HELD or arguments.get("kind") == "held":
            return self._no_held()
        if func in LOOKS_INSIDE:
            return "it asks a part of the lab's own"
        return self._no_name(str(arguments.get("name", ""))) if func == "figure" else ""

    def _action(self, said: Mapping[str, Any]) -> Mapping[str, Any]:
        provider = said.get("provider") or {}
        if provider.get("type") == "process" and Path(str(provider.get("path", ""))).name == "sleep":
            return said
        if provider.get("module") in OUR_ACTS and provider.get("func") in KEPT:
            return said
        key, arguments = _key(said, provider)
        values = {name: _text(value) for name, value in arguments.items()}
        fault = self._target.said.fault.get(key)
        if fault is None:
            self.problems.append(_missing(key, str(said.get("name")), values))
        else:
            self._use(key, fault, values)
        own = {"type": "python", "module": ACT, "func": "do", "arguments": {"fault": key, "values": values}}
        return {**said, "provider": own}

    def _use(self, key: str, fault: Fault, values: Mapping[str, str]) -> None:
        for word, command in fault.commands():
            try:
                command.filled(values)
            except KeyError as error:
                known = ", ".join(f"{{{name}}}" for name in values) or "none"
                self.problems.append(f'[fault."{key}"] {word}: {{{error.args[0]}}}: the action has {known}; '
                                     f"{{{{{error.args[0]}}}}} is the braces themselves")  # fmt: skip
                continue
            # Behind ssh there is a shell: what an experiment's file says may not be a command of its own there.
            self.problems += [f'[fault."{key}"] {word}: {{{name}}} is {values[name]!r}: only letters, digits and '
                              "_.,:/@%+=- may stand in a command" for name in sorted(command.names)
                              if not VALUE.fullmatch(values[name])]  # fmt: skip
        if fault.passing and fault.verify is None and key not in self.used:
            self.unseen.append(f"{key}: whether it was done: it has no verify, and its apply is believed")
        self.used.setdefault(key, values)

    # ── Ours ───────────────────────────────────────────────────────────────────────────────────────────────────────
    def extension(self) -> Extension:
        ours, limits = self._experiment.ours, self._target.said.limits
        if ours.seconds.min > limits.seconds:
            self.problems.append(
                f"its faults last {ours.seconds.min:g} s at least; limits.seconds is {limits.seconds:g}"
            )
        if ours.options.get("flags"):
            self.problems.append("it sets flags before it begins, and nobody would set them back")
        if ours.options.get("settings"):
            self.unseen.append("settings of its own: the target has what it has")
        traffic = self._traffic(ours.traffic)
        expect = self._claims(ours.expect.on)
        if not expect:
            self.problems.append("nothing of what it expects can be seen from outside")
        abort = self._aborts(ours.abort)
        seconds = msgspec.structs.replace(ours.seconds, max=min(ours.seconds.max, limits.seconds))
        return msgspec.structs.replace(
            ours, rig=RIG, needs=[], app="", traffic=traffic, without=[], seconds=_checked(seconds),
            expect=msgspec.structs.replace(ours.expect, on=expect, off=[]), effects=self._claims(ours.effects),
            abort=abort, options={
                "target": self._target, "used": dict(self.used),
                "api": bool(ours.options.get("api")) or any(each.name.startswith("api.") for each in abort),
            },
        )  # fmt: skip

    def _aborts(self, said: Sequence[Condition]) -> list[Condition]:
        """The experiment's and the target's. One of the experiment's that nobody can see is said; of the target's it is
        refused: whoever wrote it relies on it."""
        found = []
        for each in said:
            if why := self._no_name(each.name):
                self.unseen.append(f"it isn't aborted when {each.claim}: {why}")
            else:
                found.append(each)
        for each in self._target.said.abort:
            if why := self._no_name(each.name):
                self.problems.append(f"abort: {each.claim}: it would never be met: {why}")
        return [*found, *self._target.said.abort]

    def _traffic(self, said: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = []
        for each in said:
            kind = str(each.get("kind"))
            sender = self._target.held if kind == "held" else self._target.source
            if sender is None:
                self.unseen.append(f"held requests: {self._no_held()}")
                continue
            # As whose, and of which type, is the source's own affair.
            kept = {name: value for name, value in each.items() if name not in ("tenant", "tenants", "type")}
            found.append({**kept, "type": sender.type or str(each.get("type") or TYPES.get(kind, ""))})
        rate = sum(float(each.get("rate", 0)) for each in found)
        if rate > self._target.said.limits.rate:
            self.problems.append(f"it sends {rate:g} events a second; limits.rate is {self._target.said.limits.rate:g}")
        return found

    def _claims(self, said: Iterable[Claim]) -> list[Claim]:
        found = []
        for claim in map(self._verdict, said):
            if why := self._unseen(claim):
                self.unseen.append(f"{claim.claim}: {why}")
            else:
                found.append(claim)
        return found

    def _verdict(self, claim: Claim) -> Claim:
        """Without the words of a verdict that are about what the target hasn't: the others are still looked at."""
        if claim.func != "verdict" or claim.module != EXPECT:
            return claim
        blind = {word: self._blind_word(word) for word in claim.arguments}
        kept = {word: bound for word, bound in claim.arguments.items() if not blind[word]}
        if not kept or kept == claim.arguments:
            return claim
        self.unseen += [f"{claim.claim}: {word}: {why}" for word, why in blind.items() if why]
        return msgspec.structs.replace(claim, arguments=kept)

    def _blind_word(self, word: str) -> str:
        if word in VERDICT_UNSEEN:
            return "what steps do there, nobody writes down for the lab"
        return self._no_held() if word in VERDICT_HELD else ""

    def _unseen(self, claim: Claim) -> str:
        """Why nobody can say from outside whether a claim holds; "" when somebody can."""
        if claim.module != EXPECT:
            return ""
        if claim.func == "verdict":
            return next((why for word in claim.arguments if (why := self._blind_word(word))), "")
        if claim.func in ("told", "untold"):
            kind = claim.arguments.get("kind", "alert")
            return "" if kind in SEEN_KINDS else f"nobody there says when a {kind} changes"
        return self._no_name(str(claim.arguments.get("name", "")))

    def _no_name(self, name: str) -> str:
        room, _, rest = name.partition(".")
        if not name or name in FIGURES:
            return ""
        if room not in MEASURED:
            return f"{name} is measured on the lab's own rig only"
        if rest not in MEASURED[room]:
            return f"nobody measures {name}; there are {', '.join(f'{room}.{each}' for each in MEASURED[room])}"
        if room == "store":
            return "" if self._target.store is not None else f"{name} needs dsn_file"
        return self._no_held() if room == "held" else ""

    def _no_held(self) -> str:
        return "" if self._held else "the target names no source [held], whose workflow answers"


def _checked(seconds: Seconds) -> Seconds:
    return seconds if seconds.min <= seconds.max else msgspec.structs.replace(seconds, min=seconds.max)


def _key(said: Mapping[str, Any], provider: Mapping[str, Any]) -> tuple[str, Mapping[str, Any]]:
    """(name of the fault's table, arguments) of an action: ``redis.hole``. One that is no function of Python is known
    by its own name."""
    if provider.get("type") != "python":
        return str(said.get("name")), {}
    func, arguments = str(provider.get("func")), dict(provider.get("arguments") or {})
    arguments = {**_defaults(str(provider.get("module")), func), **arguments}
    arguments.pop("max_s", None)
    place = next((str(arguments[name]) for name in PLACES if arguments.get(name)), "")
    return (f"{place}.{func}" if place else func), arguments


def _defaults(module: str, func: str) -> dict[str, Any]:
    try:
        found: Callable[..., Any] = getattr(importlib.import_module(module), func)
        parameters = inspect.signature(found).parameters.values()
    except (ImportError, AttributeError, TypeError, ValueError):
        return {}
    return {each.name: each.default for each in parameters if each.default not in (inspect.Parameter.empty, None)}


def _text(value: Any) -> str:
    if isinstance(value, (list, tuple)):
        return ",".join(_text(each) for each in value)
    return f"{value:.15g}" if isinstance(value, float) else str(value)


def _missing(key: str, name: str, values: Mapping[str, str]) -> str:
    with_ = f" ({', '.join(f'{{{word}}} is {value}' for word, value in values.items())})" if values else ""
    return f'it would do “{name}”: add [fault."{key}"] with apply, verify and revert{with_}'


def commands(fault: Fault, values: Mapping[str, str]) -> dict[str, Command]:
    """All of a fault's commands, filled in."""
    return {word: command.filled(values) for word, command in fault.commands()}
