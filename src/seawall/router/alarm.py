"""The words of the router's alerts: what is wrong with a log, what isn't affected, and what to do."""

from __future__ import annotations

from seawall.guard.spell import Spells
from seawall.kernel.alert import Alerts

TROUBLE_S, FULL_S = 30.0, 15.0
"""What lasts says so at least every few seconds; its alert ends when it hasn't for so long."""


def unreadable(spells: Spells, log_name: str, why: str) -> None:
    """A range can't be read on."""
    spells.saw(
        "journal-unreadable", f"log {log_name} can't be read at one place: {why}", quiet_s=TROUBLE_S,
        unaffected="accepting events, and what lies elsewhere in the log", cure="look at the disk; nothing is skipped",
        log=log_name,
    )  # fmt: skip


def unread(alerts: Alerts, first: str, most: int) -> None:
    """There are more workflows than are read; ``first`` "": there aren't, any more."""
    if not first:
        alerts.cleared("workflows-unread")
        return
    alerts.raised(
        "workflows-unread",
        f"more than {most} workflows are active: events begin no runs of those registered last, from {first} on",
        unaffected=f"accepting and keeping events, and the {most} workflows before it; runs under way go on",
        cure="register fewer: one with a pattern (*) in place of many, and leave out of apps what nobody needs; then "
        "seawall replay --where 'type=…, since=…' --workflow NAME",
    )


def full(spells: Spells, queue: str, most: int | None) -> None:
    """A queue has as many runs as it may."""
    spells.saw(
        "queue-full", f"queue {queue} has as many runs as it may ({'no bound any more' if most is None else most}): "
        "events for it are held, and go on by themselves", quiet_s=FULL_S,
        unaffected="accepting events, and other queues; nothing is dropped",
        cure=f"seawall queues top; or seawall queues set {queue} --depth-max N", queue=queue,
    )  # fmt: skip


def stands(spells: Spells, log_name: str, why: str) -> None:
    """Not even a dead letter can be stored."""
    spells.saw(
        "routing-stands", f"the store refuses even dead letters of log {log_name}: {why}", quiet_s=TROUBLE_S,
        unaffected="accepting events", cure="look for constraints or triggers that were added to the schema",
        log=log_name,
    )  # fmt: skip


def unheard(spells: Spells, why: str) -> None:
    """Nobody is told of what is stored."""
    spells.saw(
        "hints-refused", f"PostgreSQL takes no notifications ({why}): runs and replies are found later, by looking",
        quiet_s=TROUBLE_S, unaffected="accepting and routing events",
        cure="end the session that listens and doesn't take what it is sent: pg_stat_activity, the oldest xact_start, "
        "or a client that hangs",
    )  # fmt: skip


def dead_letter(spells: Spells, log_name: str, why: str) -> None:
    """One record can't be stored."""
    spells.saw(
        "dead-letter", f"a record of log {log_name} can't be stored as it is: {why}",
        unaffected="all other events", cure="seawall events list --status dead", log=log_name,
    )  # fmt: skip


def read_anew(spells: Spells, log_name: str) -> None:
    """A log isn't what its position says."""
    spells.saw(
        "log-read-anew", f"log {log_name} was put back from a copy, or has a second one: all of it is read again",
        unaffected="accepting events; what was stored before collapses",
        cure="look for a second collector on a copy of this folder", log=log_name,
    )  # fmt: skip


def replaced(spells: Spells, log_name: str, why: str) -> None:
    """Another log has its name now."""
    spells.saw(
        "log-read-anew", f"log {log_name} is a new one under an old name ({why}): it is read from its start",
        unaffected="accepting events; what was stored before stays",
        cure="what wasn't read of the old log is lost with it, unless somebody can bring its records into the new one",
        log=log_name,
    )  # fmt: skip


def went_back(spells: Spells, log_name: str, why: str) -> None:
    """Kafka lost records that it had handed out, and maybe others with them."""
    spells.saw(
        "kafka-log-went-back", f"{log_name} lost its newest records ({why}): all that it keeps is read again",
        unaffected="accepting events; what was stored before collapses, fresh events go first",
        cure="look for an unclean election, or a broker on an older disk; events that only Kafka had, and that weren't "
        "routed yet, are lost with it",
        log=log_name,
    )  # fmt: skip


def damaged(spells: Spells, log_name: str, what: str) -> None:
    """Bytes are missing, or disagree with their checksums."""
    spells.saw(
        "journal-damaged", f"log {log_name}: {what}; what is readable after it goes on",
        unaffected="accepting events, and all that is readable",
        cure="seawall journal verify; damaged bytes are kept beside the log", log=log_name,
    )  # fmt: skip
