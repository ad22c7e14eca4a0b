"""Every misconfiguration that the doctor knows is shown to it, and found; a sound machine is left in peace."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import pytest

from seawall.journal import cluster
from seawall.journal.topic import Topic
from seawall.machine.doctor import Finding, Severity, certificate, host, kafka, postgres, redis
from seawall.machine.doctor.certificate import DAY_S, Certificate
from seawall.machine.doctor.examine import span_s
from seawall.machine.doctor.host import Room, Supervision

NOW = 1_800_000_000.0
STAGES = {"collector": 8.0, "router": 8.0, "worker": 10.0, "console": 3.0, "postgres": 20.0}
EPHEMERAL = (32768, 60999)
SOUND = {
    "fsync": "on", "full_page_writes": "on", "synchronous_commit": "on", "autovacuum": "on",
    "server_version_num": "150018", "max_connections": "100", "superuser_reserved_connections": "3",
}  # fmt: skip


CALM = {
    "maxmemory": "100000000", "maxmemory_policy": "noeviction", "slowlog-log-slower-than": "10000", "sampled": "32",
    "foreign": "0",
}  # fmt: skip


def room(**values: Any) -> Room:
    given = {
        "what": "the data folder", "path": "/srv", "kind": "ext4", "bytes_free": 50 << 30, "bytes_all": 100 << 30,
        "inodes_free": 10**6,
    }  # fmt: skip
    return Room(**{**given, **values})


def topic(**values: Any) -> list[Finding]:
    given = {
        "cluster_id": "c", "name": "seawall", "id": b"", "partitions": 6, "replicas": 3, "in_sync_min": 2,
        "record_bytes_max": 16 << 20, "retention_s": math.inf,
    }  # fmt: skip
    found = Topic(**{**given, **values})
    return [*kafka.fitness(found.name, found.defects(cluster.Settings()))]


def shown(**values: Any) -> list[Finding]:
    """A certificate, looked at ten days after it was made."""
    begins, ends = NOW - 10 * DAY_S, NOW + 80 * DAY_S
    given = {"what": "collector.tls_certificate", "path": "/c.pem", "begins_s": begins, "ends_s": ends}
    return [*certificate.certificate(Certificate(**{**given, **values}), now_s=NOW, renewal="put a new one there")]


def client(**properties: str) -> list[Finding]:
    return [*kafka.security({name.replace("_", "."): value for name, value in properties.items()})]


def store(**values: str) -> list[Finding]:
    said = {**SOUND, **values}
    return [*postgres.durability(said), *postgres.fitness(said, connections_needed=40, recovering=False)]


C, W = Severity.CRITICAL, Severity.WARNING
SEEDED: list[tuple[str, Iterable[Finding], Severity, str]] = [
    ("ports", host.ports({"--listen": [40000]}, EPHEMERAL, []), W, "port 40000 of --listen"),
    ("ports", host.ports({"Kafka": [9092, 40001]}, EPHEMERAL, []), W, "port 40001 of Kafka"),
    ("stop-budget", host.stop_budget(STAGES, Supervision(kind="kubernetes", kill_after_s=30)), C, "kills after 30 s"),
    ("stop-budget", host.stop_budget(STAGES, Supervision(kill_after_s=51)), C, "its supervisor kills after 51 s"),
    ("stop-budget", host.stop_budget(STAGES, Supervision(kind="container")), W, "its default is 10 s"),
    ("disk", host.disk([room(kind="tmpfs")]), C, "is on tmpfs"),
    ("disk", host.disk([room(kind="nfs4")]), C, "network file system"),
    ("disk", host.disk([room(bytes_free=1 << 20)]), C, "has 1 MiB of"),
    ("disk", host.disk([room(bytes_free=5 << 30)]), W, "has 5120 MiB of"),
    ("disk", host.disk([room(inodes_free=12)]), W, "12 inodes"),
    ("clock", host.store_clock(-5.0), W, "differ by 5.0 s"),
    ("clock", host.store_clock(90.0), C, "differ by 90.0 s"),
    ("clock", host.clock(now_s=1.8e9, newest_file_ahead_s=500), W, "500 s in the future"),
    ("clock", host.clock(now_s=1e9, newest_file_ahead_s=0), C, "2001-09-09"),
    ("open-files", host.open_files(1024), W, "only 1024"),
    ("secret-files", host.secrets({"/srv/key": 0o640}), C, "/srv/key has mode 0640"),
    ("store-durability", store(fsync="off"), C, "fsync = off"),
    ("store-durability", store(full_page_writes="off"), C, "full_page_writes = off"),
    ("store-durability", store(synchronous_commit="off"), C, "synchronous_commit = off"),
    (
        "store-durability",
        store(**{"synchronous_commit of seawall_worker": "false"}),
        C,
        "synchronous_commit = off for seawall_worker",
    ),
    ("store-durability", store(autovacuum="off"), W, "autovacuum = off"),
    ("store-version", store(server_version_num="140012"), C, "of version 14"),
    ("store-connections", store(max_connections="20"), W, "takes 17 connections"),
    ("redis", [redis.unreachable("Redis h:6379/0 is unavailable: refused")], W, "h:6379"),
    ("redis-eviction", redis.fitness({**CALM, "maxmemory_policy": "allkeys-lru"}), W, "allkeys-lru"),
    ("redis-eviction", redis.fitness({**CALM, "maxmemory_policy": "volatile-ttl", "maxmemory": "0"}), W, "no limit"),
    ("redis-shared", redis.fitness({**CALM, "foreign": "5"}), W, "5 of 32 keys"),
    ("redis-slowlog", redis.fitness({**CALM, "slowlog-log-slower-than": "-1"}), W, "slow log is off"),
    ("redis-slowlog", redis.fitness({**CALM, "slowlog-log-slower-than": "500000"}), W, "longer than 500 ms"),
    ("redis-eviction", redis.fitness({**CALM, "maxmemory_policy": "noevictio", "maxmemory": "4gb"}), W, "noevictio"),
    ("kafka", [kafka.unreachable("Kafka is unavailable: h:9092: refused")], C, "h:9092"),
    ("kafka-topic", [kafka.missing("seawall")], C, "no topic seawall"),
    ("kafka-client", [kafka.without_client()], C, "client is missing"),
    ("kafka-replication", topic(replicas=1, in_sync_min=1), W, "replicas 1, min.insync.replicas 1"),
    ("kafka-replication", topic(replicas=4, in_sync_min=1), W, "replicas 4, min.insync.replicas 1"),
    ("kafka-replication", topic(unclean=True), W, "unclean election true"),
    ("kafka-replication", topic(in_sync_min=3), W, "min.insync.replicas is 3 of 3"),
    ("kafka-compaction", topic(compacted=True), C, "cleanup.policy has compact"),
    ("kafka-retention", topic(retention_s=3600.0), C, "retention.ms is 3600000"),
    ("kafka-retention", topic(retention_bytes=1 << 30), C, "retention.bytes is 1073741824"),
    ("kafka-size", topic(record_bytes_max=1 << 20), W, "max.message.bytes is 1048576"),
    ("kafka-partitions", topic(partitions=500), W, "500 partitions"),
    ("kafka-security", kafka.unusable(["kafka.client_file = '/f': can't be read"]), C, "can't be read"),
    ("kafka-security", client(sasl_password="hunter2"), W, "sasl.… is given"),
    ("kafka-security", client(ssl_ca_location="/ca"), W, "ssl.… is given"),
    (
        "kafka-security",
        client(security_protocol="SASL_PLAINTEXT", sasl_mechanisms="PLAIN"),
        W,
        "SASL PLAIN without TLS",
    ),
    (
        "kafka-security",
        client(security_protocol="ssl", enable_ssl_certificate_verification="false"),
        W,
        "verification is false",
    ),
    ("certificate", shown(ends_s=NOW + 29 * DAY_S), W, "expires in 29.0 days"),
    ("certificate", shown(ends_s=NOW + 6 * DAY_S), C, "expires in 6.0 days"),
    ("certificate", shown(ends_s=NOW - 2 * DAY_S), C, "expired 2.0 days ago"),
    ("certificate", shown(begins_s=NOW + DAY_S), C, "isn't valid for another 1.0 days"),
    ("certificate", shown(trouble="no such file"), C, "can't be used: no such file"),
    ("kafka-remembered", kafka.remembered("seawall", math.inf, 30), W, "for ever, the store events for 30 days"),
    ("kafka-remembered", kafka.remembered("seawall", 7.0 * DAY_S, 6), W, "for 7 days, the store events for 6 days"),
    ("journal-kept", postgres.kept(30.0, 30), W, "for 30 s"),
    ("journal-kept", postgres.kept(4.0 * DAY_S, 3), W, "for 4 days, the store events for 3"),
    ("store-standby", postgres.fitness(SOUND, connections_needed=40, recovering=True), C, "standby"),
]


@pytest.mark.parametrize(("check", "found", "severity", "said"), SEEDED, ids=[s[3] for s in SEEDED])
def test_each_seeded_misconfiguration_is_found(
    check: str, found: Iterable[Finding], severity: Severity, said: str
) -> None:
    [finding] = found
    assert (finding.check, finding.severity) == (check, severity)
    assert said in finding.what and finding.why and finding.cure
    assert "\n" not in finding.line()


def test_a_sound_machine_is_left_in_peace() -> None:
    assert not [*host.ports({"--listen": [8080], "none": []}, EPHEMERAL, [])]
    assert not [*host.ports({"--listen": [40000]}, EPHEMERAL, [(39999, 40001)])]
    assert not [*host.stop_budget(STAGES, Supervision(kind="systemd"))]
    assert not [*host.stop_budget(STAGES, Supervision(kind="kubernetes", kill_after_s=60))]
    assert not [*host.stop_budget(STAGES, Supervision())]
    assert not [*redis.fitness({**CALM, "slowlog-log-slower-than": "10ms", "maxmemory": "4gb"})]
    assert not [*redis.fitness(CALM), *redis.fitness({"sampled": "0", "foreign": "0"})]
    assert not [*host.disk([room(), room(inodes_free=None)])]
    assert not [*host.clock(now_s=1.8e9, newest_file_ahead_s=-3), *host.store_clock(0.2)]
    assert not [*host.open_files(None), *host.open_files(65536), *host.secrets({"/srv/key": 0o600})]
    assert not store() and not store(**{"synchronous_commit of seawall_worker": "local"})
    assert not topic() and not shown() and not [*postgres.kept(3600.0, 30)]
    assert not [*kafka.remembered("seawall", 7.0 * DAY_S, 7)]
    assert not client() and not client(security_protocol="SASL_SSL", sasl_mechanisms="PLAIN", ssl_ca_location="/ca")


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("1min 30s\n", 90.0), ("10s", 10.0), ("2h", 7200.0), ("500ms", 0.5), ("infinity", None), ("", None)],
)
def test_systemds_time_spans_are_read(text: str, seconds: float | None) -> None:
    assert span_s(text) == seconds
