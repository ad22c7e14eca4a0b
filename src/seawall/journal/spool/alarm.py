"""The words of alerts about forwarding: what is wrong with a spool, what isn't affected, and what to do."""

from __future__ import annotations

from collections.abc import Sequence

from seawall.guard.spell import Spells
from seawall.kernel.seam.journal import Damage

TROUBLE_S = 30.0
"""What lasts says so at least every few seconds; its alert ends when it hasn't for so long."""


def is_another(spells: Spells, journal: str) -> None:
    """The log isn't what its checkpoint says."""
    spells.saw(
        "spool-sent-again", f"spool {journal} isn't what its checkpoint says: all is sent again",
        unaffected="accepting events; copies collapse", cure="look for a second copy of this folder", journal=journal,
    )  # fmt: skip


def is_damaged(spells: Spells, journal: str, damaged: Sequence[Damage]) -> None:
    """Bytes are missing, or disagree with their checksums."""
    for damage in damaged:
        spells.saw(
            "journal-damaged", f"spool {journal} is damaged: {damage.reason}; what is readable goes on",
            unaffected="accepting events, and all that is readable",
            cure="seawall journal verify; damaged bytes are kept beside the log", journal=journal,
        )  # fmt: skip


def is_unreadable(spells: Spells, journal: str, why: str) -> None:
    """The disk doesn't give what it has."""
    spells.saw(
        "forwarding-stands", f"spool {journal} can't be read: {why}; what it holds isn't forwarded", quiet_s=TROUBLE_S,
        unaffected="fresh events, while Kafka takes them", cure="look at the disk of DIR", journal=journal,
    )  # fmt: skip


def stands(spells: Spells, journal: str) -> None:
    """A record can go nowhere."""
    spells.saw(
        "forwarding-stands", f"spool {journal}: Kafka refuses a record for its own sake, and there is no room to park "
        "it; those behind it wait",
        unaffected="fresh events, while Kafka takes them", cure="make room on the disk of DIR", journal=journal,
    )  # fmt: skip
