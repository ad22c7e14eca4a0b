"""Checks of Kafka as the journal of a cluster: whether it is there, what its topic is like, how we come to it."""

from __future__ import annotations

import math
import stat
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from seawall.journal.topic import Defect
from seawall.machine.doctor.finding import Finding, Severity

SECRET_FILES = ("ssl.key.location", "ssl.keystore.location", "sasl.kerberos.keytab")
DAY_S = 86_400
SPOOLED = "events are accepted and synced to our own disk; none of them is routed, and the disk fills"


def unreachable(why: str) -> Finding:
    """It was named, and doesn't answer."""
    return Finding(
        check="kafka", severity=Severity.CRITICAL, what=why, why=SPOOLED,
        cure="start it, or correct kafka.bootstrap and kafka.client_file",
    )  # fmt: skip


def missing(topic: str) -> Finding:
    """It answers, and has no such topic."""
    return Finding(
        check="kafka-topic", severity=Severity.CRITICAL, what=f"Kafka has no topic {topic}", why=SPOOLED,
        cure="make it as docs/cluster.md says, or correct kafka.topic: Seawall never makes one",
    )  # fmt: skip


def without_client() -> Finding:
    """Profile cluster, and the extra isn't installed."""
    return Finding(
        check="kafka-client", severity=Severity.CRITICAL, what="profile is cluster, and Kafka's client is missing",
        why="collector and router refuse to start", cure="pip install 'seawall[kafka]'",
    )  # fmt: skip


def fitness(topic: str, defects: Sequence[Defect]) -> Iterator[Finding]:
    """What is wrong with a topic (``journal.topic.Topic.defects``)."""
    for defect in defects:
        yield Finding(
            check=defect.check, severity=Severity.CRITICAL if defect.critical else Severity.WARNING,
            what=f"topic {topic}: {defect.what}", why=defect.why, cure=defect.cure,
        )  # fmt: skip


def remembered(topic: str, retention_s: float, kept_days: int) -> Iterator[Finding]:
    """Whether the store knows of each record of the topic whether it ran.

    Args:
        kept_days: How long the store keeps events.
    """
    if retention_s > kept_days * DAY_S:
        kept = "for ever" if math.isinf(retention_s) else f"for {retention_s / DAY_S:g} days"
        yield Finding(
            check="kafka-remembered", severity=Severity.WARNING,
            what=f"topic {topic} keeps records {kept}, the store events for {kept_days} days",
            why="when a partition lost its newest records, all that it keeps is read again: what the store has let go "
            "of runs once more",
            cure="lower retention.ms, or raise housekeeping.retention_days",
        )  # fmt: skip


def unusable(problems: Sequence[str]) -> Iterator[Finding]:
    """What the client's file is refused for."""
    for problem in problems:
        yield Finding(
            check="kafka-security", severity=Severity.CRITICAL, what=problem,
            why="collector and router refuse to start with it", cure="correct it (docs/cluster.md has an example)",
        )  # fmt: skip


def security(said: Mapping[str, str]) -> Iterator[Finding]:
    """What the client's file says, against what it is meant to do.

    Args:
        said: Its properties. No value of a secret is told.
    """
    protocol = said.get("security.protocol", "plaintext").lower()
    cure = "set security.protocol=SASL_SSL"
    if any(name.startswith("sasl.") for name in said) and not protocol.startswith("sasl"):
        yield _weak(f"sasl.… is given, and security.protocol is {protocol}", "nobody is asked for a password", cure)
    if any(name.startswith("ssl.") for name in said) and not protocol.endswith("ssl"):
        yield _weak(f"ssl.… is given, and security.protocol is {protocol}", "events cross the network readable", cure)
    mechanism = said.get("sasl.mechanisms", said.get("sasl.mechanism", "")).upper()
    if protocol == "sasl_plaintext" and mechanism in ("PLAIN", "OAUTHBEARER"):
        yield _weak(f"SASL {mechanism} without TLS", "whoever sees the connection has the password", cure)
    if said.get("enable.ssl.certificate.verification", "true").lower() == "false":
        yield _weak(
            "enable.ssl.certificate.verification is false",
            "anybody on the way can take events, and acknowledge what is nowhere",
            "remove it, and name the authority in ssl.ca.location",
        )


def secret_modes(client_file: str, said: Mapping[str, str]) -> dict[str, int]:
    """Modes of the client's file and of secrets that it names. Reads."""
    paths = [Path(path) for path in (client_file, *(said.get(name, "") for name in SECRET_FILES)) if path]
    return {str(path): stat.S_IMODE(path.stat().st_mode) for path in paths if path.is_file()}


def _weak(what: str, why: str, cure: str) -> Finding:
    return Finding(check="kafka-security", severity=Severity.WARNING, what=what, why=why, cure=cure)
