"""Puts weak parts where the real ones stand."""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Sequence
from typing import cast

from seawall.app import Making
from seawall.kernel.error import Misconfigured
from seawall.lab.platform import loopback
from seawall.lab.weak.catalog import PARTS, program
from seawall.lab.weak.marker import MARKER, marked, owns
from seawall.machine.folder import Folder
from seawall.settings import TOP, Settings, host_port

PLACES = ((TOP, "dsn"), (TOP, "worker_dsn"), ("cache", "url"), ("kafka", "bootstrap"))
"""What a file holds that another setting names (`dsn_file`) stands here too."""


class Weak(Making):
    """What platforms with weak parts have in common: each line of their log says so, and they run in the lab's own
    data folders alone, with the lab's own parts alone."""

    def admit(self, folder: Folder, settings: Settings | None) -> None:
        if not marked(folder.path):
            raise Misconfigured(
                [f"{folder.path}: the lab didn't make this data folder (it has no file {MARKER}): no weak parts in it"]
            )
        strange = [] if settings is None else [
            name for name, place in _places(settings) if place and not owns(folder.path, place)
        ]  # fmt: skip
        if strange:
            why = "weak parts lose what they are given, and run with the lab's own parts only"
            raise Misconfigured(
                [f"{name}: leads to what the lab didn't make for {folder.path}; {why}" for name in strange]
            )


def _places(settings: Settings) -> Iterator[tuple[str, str]]:
    """Settings that say where data is, or where it comes in; an address that only this machine reaches is none."""
    for section, name in PLACES:
        if (value := settings.values.get((section, name))) is not None:
            yield value.key, ",".join(value.value) if isinstance(value.value, tuple) else str(value.value)
    for name, place in (("listen", settings.program.listen), ("admin", settings.program.admin)):
        found = host_port(place)
        if found is None or not loopback(found[0]):
            yield name, place


def making_of(names: Sequence[str]) -> Making:
    """A platform with these weak parts.

    Raises:
        Misconfigured: One isn't known, none was named, or two of them replace the same part.
    """
    known = ", ".join(PARTS)
    if problems := [f"--parts {name}: no such weak part; there are {known}" for name in names if name not in PARTS]:
        raise Misconfigured(problems)
    if not names:
        raise Misconfigured([f"--parts: names none; there are {known}"])
    kinds = {name: _loaded(PARTS[name].making) for name in dict.fromkeys(names)}
    taken: dict[str, str] = {}
    for name, kind in kinds.items():
        for replaced in sorted(each for each in vars(kind) if each in vars(Making) and not each.startswith("_")):
            if replaced in taken:
                raise Misconfigured([f"--parts: {taken[replaced]} and {name} replace the same part, {replaced}"])
            taken[replaced] = name
    given = {"mark": f"WEAK {','.join(kinds)}", "program": program(list(kinds))}
    made = type("WeakPlatform", (*kinds.values(), Weak), given)
    return cast(type[Making], made)()


def _loaded(place: str) -> type[Making]:
    module, _, name = place.partition(":")
    return cast(type[Making], getattr(importlib.import_module(module), name))
