"""The words of alerts about forwarding: what is wrong, what isn't affected, and what to do."""

from __future__ import annotations

from collections.abc import Sequence

from seawall.guard.spell import Spells
from seawall.kernel.seam.journal import Damage


def is_another(spells: Spells, journal: str) -> None:
    spells.saw(
        "spool-sent-again", f"spool {journal} isn't what its checkpoint says: all is sent again",
        unaffected="accepting events; copies collapse", cure="look for a second copy of this folder", journal=journal,
    )  # fmt: skip


def is_damaged(spells: Spells, journal: str, damaged: Sequence[Damage]) -> None:
    for damage in damaged:
        spells.saw(
            "journal-damaged", f"spool {journal} is damaged: {damage.reason}; what is readable goes on",
            unaffected="accepting events, and all that is readable", cure="seawall journal verify", journal=journal,
        )  # fmt: skip


def stands(spells: Spells, journal: str) -> None:
    spells.saw(
        "forwarding-stands", f"spool {journal}: Kafka refuses a record for its own sake, and there is no room to park "
        "it; those behind it wait",
        unaffected="fresh events, while Kafka takes them", cure="make room on the disk of DIR", journal=journal,
    )  # fmt: skip
