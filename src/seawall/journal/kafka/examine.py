"""What the doctor wants to know of Kafka, asked in one visit."""

from __future__ import annotations

from dataclasses import replace

from confluent_kafka import KafkaError

from seawall.journal.cluster import Settings
from seawall.journal.kafka.client import Client
from seawall.journal.kafka.fault import KAFKA
from seawall.journal.kafka.topic import Admin, NoTopic
from seawall.journal.topic import Topic
from seawall.kernel.error import Unavailable


async def examined(settings: Settings, client: Client, *, timeout_s: float) -> Topic:
    """The topic as it is. Takes ``timeout_s`` for each of three questions at most.

    Args:
        client: As ``client_of`` makes it of the settings; that reads files, and may block.

    Raises:
        NoTopic: There is none of this name.
        Unavailable: No answer; the reason names no secret.
    """
    said: list[str] = []

    def note(error: KafkaError) -> None:
        said.append(error.str())

    asked = replace(settings, request_timeout_s=timeout_s)
    admin = Admin(Client({**client.common, "error_cb": note, "socket.timeout.ms": round(timeout_s * 1000)}), asked)
    try:
        return await admin.look()
    except NoTopic:
        raise
    except Unavailable as error:
        # The question's own failure only says that nobody answered; the connection's says why.
        raise Unavailable(KAFKA, f"{settings.bootstrap}: {said[0] if said else error.cause}") from error
