"""How all our clients of Kafka are configured: where it is, who we are, and what nobody may change."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from seawall.journal.cluster import Settings
from seawall.kernel.error import Misconfigured
from seawall.kernel.log import fields, logger

log = logger("journal")

SECURITY = ("security.protocol", "sasl.", "ssl.", "enable.ssl.certificate.verification", "https.")
"""What a file of properties may hold. Anything else decides about durability or bounds, which are ours."""

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
        Misconfigured: There is no address, or the file of properties can't be used.
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
        common.update(_properties(Path(settings.client_file)))
    return Client(common)


def _said(error: object) -> None:
    """Trouble with a connection. The client mends it itself, and the breaker knows by its acks."""
    log.debug("Kafka's client says", extra=fields(cause=str(error)))


def _properties(path: Path) -> Config:
    try:
        text = path.read_bytes()[:FILE_BYTES_MAX].decode("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise Misconfigured([f"kafka.client_file = {str(path)!r}: can't be read: {error}"]) from error
    found: Config = {}
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
