"""The incidents as they happened, in the words and figures of those who told of them; "not stated" where they don't.

They stand in ``original.toml``.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from functools import cache
from pathlib import Path

import msgspec

NOT_STATED = "not stated"
TIMES = ("detect", "mitigate", "recover")


class Original(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One incident of somebody else's."""

    who: str
    name: str  # what it is called here
    story: list[str]  # three lines
    source: str
    detect: str = NOT_STATED
    mitigate: str = NOT_STATED
    recover: str = NOT_STATED
    lost: str = NOT_STATED


def told(incident: str, said: Mapping[str, str]) -> Original | None:
    """An incident as its experiment's file tells it, its times as they are known here where the file states none; None
    when nobody tells of one."""
    known = originals().get(incident)
    stated = {key: said[key] for key in TIMES if said.get(key, NOT_STATED) != NOT_STATED}
    if known is None and not said.get("source"):
        return None
    base = known or Original(who="", name="", story=[], source=said["source"])
    story, source = said.get("story", "").splitlines(), said.get("source", base.source)
    return msgspec.structs.replace(base, story=story or base.story, source=source, **stated)


@cache
def originals() -> Mapping[str, Original]:
    """By the incident's id."""
    text = (Path(__file__).parent / "original.toml").read_text("utf-8")
    return msgspec.convert(tomllib.loads(text), dict[str, Original])
