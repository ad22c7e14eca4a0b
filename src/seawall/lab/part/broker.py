"""A Kafka node's configuration and its data folder, before it runs."""

from __future__ import annotations

import base64
import re
import secrets
import shutil
import subprocess
from pathlib import Path

from seawall.kernel.error import Misconfigured, Unavailable
from seawall.lab.part import fetch
from seawall.lab.part.port import LOOPBACK

CONTROLLER = "controller"
CONTROLLER_ID = 100
FORMAT_S = 120.0
JAVA_CURE = "java is missing; cure: apt-get install -y openjdk-17-jre-headless (17 or later)"

# Small: five of them must fit beside tests on two cores. One compiler tier and the serial collector start quickest.
JVM = ("-Xmx256m", "-Xms64m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-XX:MaxMetaspaceSize=128m", "-Xss512k",
       "-Djava.awt.headless=true")  # fmt: skip

LOG4J = """status=error
appender.f.type=RollingFile
appender.f.name=F
appender.f.fileName=${sys:seawall.log}
appender.f.filePattern=${sys:seawall.log}.%i
appender.f.layout.type=PatternLayout
appender.f.layout.pattern=%d{ISO8601} %p %c{1} %m%n
appender.f.policies.type=Policies
appender.f.policies.size.type=SizeBasedTriggeringPolicy
appender.f.policies.size.size=8MB
appender.f.strategy.type=DefaultRolloverStrategy
appender.f.strategy.max=1
rootLogger.level=warn
rootLogger.appenderRef.f.ref=F
"""


def java() -> str:
    """The program.

    Raises:
        Misconfigured: There is none.
    """
    found = shutil.which("java")
    if found is None:
        raise Misconfigured([JAVA_CURE])
    return found


def properties(
    node: str, *, folder: Path, single: bool, client: int, inner: int, controller: int, shown: tuple[str, int]
) -> dict[str, str]:
    """A node's server.properties.

    Args:
        single: One node is broker and controller.
        client, inner, controller: Its ports; those that aren't for this kind of node are left out.
        shown: The port that clients are told to come to.
    """
    controls = node == CONTROLLER
    quorum = f"CONTROLLER://{LOOPBACK}:{controller}"
    replicas, enough = (1, 1) if single else (3, 2)
    own = {
        "node.id": str(_node_id(node)),
        "process.roles": "broker,controller" if single else "controller" if controls else "broker",
        "controller.listener.names": "CONTROLLER",
        "controller.quorum.voters": f"{1 if single else CONTROLLER_ID}@{LOOPBACK}:{controller}",
        "listener.security.protocol.map": "CLIENT:PLAINTEXT,INNER:PLAINTEXT,CONTROLLER:PLAINTEXT",
        "log.dirs": str(folder),
    }
    if controls:
        own["listeners"] = quorum
    else:
        among = f"INNER://{LOOPBACK}:{inner}"
        own["listeners"] = f"CLIENT://{LOOPBACK}:{client},{among}" + (f",{quorum}" if single else "")
        own["advertised.listeners"] = f"CLIENT://{shown[0]}:{shown[1]},{among}"
        own["inter.broker.listener.name"] = "INNER"
    return own | _sized(replicas, enough)


def _sized(replicas: int, enough: int) -> dict[str, str]:
    """Few threads and small files; a lost broker is noticed after 6 s, as by default it would be after 9."""
    values: dict[str, object] = {
        "num.network.threads": 2, "num.io.threads": 4, "num.replica.fetchers": 1, "background.threads": 2,
        "log.cleaner.dedupe.buffer.size": 4_194_304, "log.segment.bytes": 67_108_864,
        "log.index.size.max.bytes": 1_048_576, "log.retention.bytes": 268_435_456, "num.partitions": 3,
        "default.replication.factor": replicas, "min.insync.replicas": enough,
        "offsets.topic.num.partitions": 3, "offsets.topic.replication.factor": replicas,
        "transaction.state.log.num.partitions": 3, "transaction.state.log.replication.factor": replicas,
        "transaction.state.log.min.isr": enough, "share.coordinator.state.topic.num.partitions": 1,
        "share.coordinator.state.topic.replication.factor": replicas,
        "share.coordinator.state.topic.min.isr": enough, "group.initial.rebalance.delay.ms": 0,
        "auto.create.topics.enable": "false", "broker.session.timeout.ms": 6000,
        "broker.heartbeat.interval.ms": 1000, "replica.lag.time.max.ms": 5000,
        "controller.quorum.election.timeout.ms": 600, "controller.quorum.fetch.timeout.ms": 1500,
        "controlled.shutdown.enable": "true", "unclean.leader.election.enable": "false",
    }  # fmt: skip
    return {key: str(value) for key, value in values.items()}


def template(fetched: Path, jars: Path) -> Path:
    """A formatted, empty data folder, made once: each format costs the start of a JVM.

    Raises:
        Unavailable: Kafka's own tool failed.
    """
    made = jars.with_name(f"{jars.name}.formatted")
    if made.exists():
        return made
    with fetch.locked(fetched):
        if not made.exists():
            draft, config = jars.with_name(f"{jars.name}.draft"), jars.with_name(f"{jars.name}.format.properties")
            shutil.rmtree(draft, ignore_errors=True)
            # Nobody listens there: only the shape of the folder comes from it.
            shown = (LOOPBACK, 1)
            said = properties("broker1", folder=draft, single=True, client=1, inner=2, controller=3, shown=shown)
            config.write_text(text(said))
            _format(jars, config)
            draft.replace(made)
    return made


def _format(jars: Path, config: Path) -> None:
    command = [java(), *JVM, "-cp", f"{jars}/*", "kafka.tools.StorageTool", "format", "-t", new_id(), "-c", str(config)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=FORMAT_S, check=False)
    except subprocess.TimeoutExpired as error:
        raise Unavailable("Kafka's format", str(error)) from error
    if done.returncode != 0:
        raise Unavailable("Kafka's format", (done.stdout + done.stderr).strip()[-2000:])


def new_data(node: str, template: Path, target: Path, cluster_id: str) -> None:
    """A node's empty data folder, as a copy of the formatted one with its own ids. It appears whole."""
    draft = target.with_name(f"{target.name}.new")
    shutil.rmtree(draft, ignore_errors=True)
    shutil.copytree(template, draft)
    mine = {"node.id": str(_node_id(node)), "directory.id": new_id(), "cluster.id": cluster_id}
    said = (draft / "meta.properties").read_text()
    for key, value in mine.items():
        said = re.sub(rf"(?m)^{re.escape(key)}=.*$", f"{key}={value}", said)
    (draft / "meta.properties").write_text(said)
    draft.replace(target)


def text(values: dict[str, str]) -> str:
    """As a file of properties."""
    return "".join(f"{key}={value}\n" for key, value in values.items())


def _node_id(node: str) -> int:
    return CONTROLLER_ID if node == CONTROLLER else int(node.removeprefix("broker"))


def new_id() -> str:
    """An id as Kafka writes it: 16 random bytes. It must not begin with a dash."""
    while (made := base64.urlsafe_b64encode(secrets.token_bytes(16)).decode().rstrip("=")).startswith("-"):
        pass
    return made
