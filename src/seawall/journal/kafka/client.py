"""How all our clients of Kafka are configured: where it is, who we are, and what nobody may change."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from confluent_kafka import KafkaException, Producer

from seawall.journal.cluster import Settings
from seawall.kernel.error import Misconfigured
from seawall.kernel.log import fields, logger

log = logger("journal")

SECURITY = ("security.protocol", "sasl.", "ssl.", "enable.ssl.certificate.verification", "https.")
"""What a file of properties may hold. Anything else decides about durability or bounds, which are ours."""

FILES = (
    "ssl.ca.location", "ssl.certificate.location", "ssl.key.location", "ssl.keystore.location", "ssl.crl.location",
    "sasl.kerberos.keytab",
)  # fmt: skip
"""Those of them that name a file."""

FILE_BYTES_MAX = 64 * 1024

Config = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Client:
    """The common part of each client's configuration."""

    common: Mapping[str, Any]

    def config(self, **own: Any) -> Config:
        """With a client's own properties on top; their names with ``_`` for ``.``, but for callbacks (``_cb``)."""
        named = {name if name.endswith("_cb") else name.replace("_", "."): value for name, value in own.items()}
        return {**self.common, **named}


def client_of(settings: Settings, name: str) -> Client:
    """What the settings say.

    Args:
        name: Of this process, as the brokers will see it.

    Raises:
        Misconfigured: There is no address, or the file of properties can't be used, or what it names. This refuses a
            start: it is a mistake on this machine, which no waiting mends. What Kafka says never does.
    """
    if not settings.bootstrap:
        raise Misconfigured(["kafka.bootstrap: profile cluster needs Kafka's brokers, HOST:PORT,HOST:PORT"])
    common: Config = {
        "bootstrap.servers": settings.bootstrap,
        "client.id": f"seawall-{name}",
        # The driver's own log would go to standard error, without our fields; errors come through the callback.
        "log_level": 0,
        "error_cb": _said,
        "socket.keepalive.enable": True,
        "socket.timeout.ms": round(settings.request_timeout_s * 1000),
        "reconnect.backoff.ms": 50,
        "reconnect.backoff.max.ms": 1000,
        "allow.auto.create.topics": False,
    }
    if settings.client_file:
        common.update(properties(settings))
        _try(common, settings)
    return Client(common)


def _said(error: object) -> None:
    """Trouble with a connection. The client mends it itself, and the breaker knows by its acks."""
    log.debug("Kafka's client says", extra=fields(cause=str(error)))


def _try(common: Config, settings: Settings) -> None:
    """Let the driver look at it all, certificates and keys too. It connects to nobody yet."""
    if problems := [*_absent(common)]:
        raise Misconfigured([f"kafka.client_file = {settings.client_file!r}: {problem}" for problem in problems])
    try:
        Producer(common)
    except KafkaException as error:
        # Its sentence names the property and the file, and no secret.
        why = error.args[0].str()
        raise Misconfigured([f"kafka.client_file = {settings.client_file!r}: {why}"]) from error


def _absent(common: Config) -> Iterator[str]:
    """Files that can't be read: the driver's sentence names neither the file nor the reason."""
    for name in FILES:
        path = common.get(name)
        if not path or "/" not in path:
            continue  # the driver has words for other things, like "probe"
        try:
            with Path(path).open("rb"):
                pass
        except OSError as error:
            yield f"{name} = {path}: {error.strerror}"


def properties(settings: Settings) -> dict[str, str]:
    """What ``client_file`` holds; {} without one.

    Raises:
        Misconfigured: It can't be read, or holds something else. No value of it is told.
    """
    if not settings.client_file:
        return {}
    path = Path(settings.client_file)
    try:
        text = path.read_bytes()[:FILE_BYTES_MAX].decode("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise Misconfigured([f"kafka.client_file = {str(path)!r}: can't be read: {error}"]) from error
    found: dict[str, str] = {}
    problems = []
    for number, line in enumerate(text.splitlines(), 1):
        name, equals, value = (part.strip() for part in line.partition("="))
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        if not equals or not name.startswith(SECURITY):
            # Not the line itself: it may hold a secret.
            problems.append(f"{path}:{number}: must be NAME=VALUE with a name of {', '.join(SECURITY)}")
            continue
        found[name] = value
    if problems:
        raise Misconfigured(problems)
    return found
