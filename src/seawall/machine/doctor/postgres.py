"""Checks of the store's PostgreSQL."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from seawall.machine.doctor.finding import Finding, Severity
from seawall.store.examine import COMMIT_OF

VERSION_MIN = 150_000
OFF = ("off", "false", "no", "0")
"""As a role's own setting may say it: PostgreSQL keeps the word that it was given."""

KEEP_LEAST_S = 300.0
"""A replica that lags by this much is behind by more than anybody means to lose."""

DURABLE = {
    "fsync": "a power cut leaves the database damaged beyond repair",
    "full_page_writes": "a power cut may leave half-written pages, which nothing notices",
}


def durability(settings: Mapping[str, str]) -> Iterator[Finding]:
    """What makes a commit last.

    Args:
        settings: As ``store.examine.examined`` tells them.
    """
    for name, why in DURABLE.items():
        if settings.get(name) == "off":
            yield Finding(
                check="store-durability", severity=Severity.CRITICAL, what=f"PostgreSQL runs with {name} = off",
                why=why,
                cure=f"set {name} = on in postgresql.conf, and reload",
            )  # fmt: skip
    ours = settings.get("synchronous_commit") in OFF
    off = [name for name, value in settings.items() if value in OFF]
    others = [name.removeprefix(COMMIT_OF) for name in off if name.startswith(COMMIT_OF)]
    if ours or others:
        yield Finding(
            check="store-durability", severity=Severity.CRITICAL,
            what="PostgreSQL commits with synchronous_commit = off" + ("" if ours else f" for {' and '.join(others)}"),
            why="a crash loses the last commits: steps that were reported done are done again",
            cure="set synchronous_commit = on for this database or role",
        )  # fmt: skip
    if settings.get("autovacuum") == "off":
        yield Finding(
            check="store-durability", severity=Severity.WARNING,
            what="PostgreSQL runs with autovacuum = off",
            why="tables of runs change all the time; they bloat until every refill is slow",
            cure="set autovacuum = on, and reload",
        )  # fmt: skip


def fitness(settings: Mapping[str, str], *, connections_needed: int, recovering: bool) -> Iterator[Finding]:
    """Whether it is one that we can use at all, and enough of it.

    Args:
        settings: From pg_settings.
        connections_needed: By all roles of one machine together.
        recovering: It is a standby.
    """
    version = int(settings.get("server_version_num", VERSION_MIN))
    if version < VERSION_MIN:
        yield Finding(
            check="store-version", severity=Severity.CRITICAL,
            what=f"PostgreSQL is of version {version // 10_000}",
            why="it lacks what Seawall's statements use", cure="upgrade it to 15 or newer",
        )  # fmt: skip
    if recovering:
        yield Finding(
            check="store-standby", severity=Severity.CRITICAL,
            what="the DSN leads to a standby, which takes no writes",
            why="events pile up in the journal, and nothing runs",
            cure="name all hosts in the DSN, with target_session_attrs=read-write",
        )  # fmt: skip
    most = int(settings.get("max_connections", 0)) - int(settings.get("superuser_reserved_connections", 0))
    if 0 < most < connections_needed:
        yield Finding(
            check="store-connections", severity=Severity.WARNING,
            what=f"PostgreSQL takes {most} connections, and one machine of this platform may need {connections_needed}",
            why="whoever comes last gets none, and that is a role after a restart, in the middle of an outage",
            cure="raise max_connections, or lower store.connections_max",
        )  # fmt: skip


def kept(keep_s: float, kept_days: int) -> Iterator[Finding]:
    """Whether the journal still has what a fail-over may take from the store, and the store what the journal has.

    Args:
        keep_s: How long routed segments are kept. The embedded PostgreSQL's files may be put back from a copy, too.
        kept_days: How long the store keeps events.
    """
    if keep_s > kept_days * 86_400:
        yield Finding(
            check="journal-kept", severity=Severity.WARNING,
            what=f"the journal keeps what is routed for {keep_s / 86_400:g} days, the store events for {kept_days}",
            why="a log whose folder was put back from a copy is read again: what the store let go of runs once more",
            cure="lower router.journal_keep_s, or raise housekeeping.retention_days",
        )  # fmt: skip
    if keep_s < KEEP_LEAST_S:
        yield Finding(
            check="journal-kept", severity=Severity.WARNING,
            what=f"the journal keeps what is routed for {keep_s:g} s",
            why="a fail-over to a replica that lags by more loses events, though they were accepted",
            cure=f"raise router.journal_keep_s to {KEEP_LEAST_S:g} or more",
        )  # fmt: skip
