"""Settings of Kafka as the journal; apart from its driver, which is an extra and isn't there in every installation."""

from __future__ import annotations

from dataclasses import dataclass

from seawall.kernel.error import Misconfigured
from seawall.kernel.setting import setting

MIB = 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """How Kafka is used, in the profile ``cluster``.

    Raises:
        Misconfigured: Two settings contradict each other. (Ranges are checked where settings are read.)
    """

    bootstrap: str = setting("", help="Kafka's brokers, HOST:PORT,HOST:PORT; needed in profile cluster.")
    topic: str = setting("seawall", help="The topic that accepted events go to; it must be there.")
    client_file: str = setting(
        "", help="A file of librdkafka properties, NAME=VALUE a line, for TLS and SASL; so no secret stands here."
    )
    ack_timeout_s: float = setting(
        1.0, min=0.2, max=10.0, help="How long a sender waits for Kafka, before its event goes to the local log."
    )
    linger_ms: int = setting(2, min=0, max=100, help="How long the producer waits for a batch to fill.")
    pending_records_max: int = setting(
        20_000, min=1, max=1_000_000, help="Records waiting for Kafka, beyond which more go to the local log."
    )
    pending_bytes_max: int = setting(
        64 * MIB, min=MIB, max=1024 * MIB, help="Bytes waiting for Kafka, beyond which more go to the local log."
    )
    confirm_s: float = setting(
        10.0,
        min=3.0,
        max=300.0,
        help="How long a look at the topic's replicas counts, before an ack isn't called replicated any more.",
    )
    forward_rate: int = setting(
        4000, min=10, max=1_000_000, help="Spooled records a second that are forwarded beside fresh ones."
    )
    forward_batch: int = setting(
        100, min=1, max=5000, help="Spooled records on their way at once: fresh ones queue behind them."
    )
    retention_min_s: int = setting(
        86_400, min=60, max=366 * 86_400, help="The topic must keep records for so long; less raises an alert."
    )
    fetch_bytes: int = setting(
        8 * MIB, min=64 * 1024, max=256 * MIB, help="Bytes of one partition that a router reads ahead."
    )
    request_timeout_s: float = setting(5.0, min=0.5, max=60.0, help="How long a question about the topic may take.")

    def __post_init__(self) -> None:
        if self.forward_batch > self.forward_rate:
            raise Misconfigured(
                [f"kafka.forward_batch is {self.forward_batch}; at most forward_rate, {self.forward_rate}"]
            )
