"""The hint seam: whoever stored a reply or an end says so, and whoever holds a request for it looks at once.

A hint says "look" and nothing else: what there is to see is a row in the store. Hints may be lost, come twice or come
for nobody. So a channel keeps nothing, repeats nothing, and promises only that trouble is told: ``publish`` raises, a
subscription that broke says so. One that is half open can say nothing; that is what an echo is for, a payload which the
listener sends itself through the real channel.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Final, Protocol

PAYLOAD_BYTES_MAX: Final = 7_500
"""PostgreSQL takes less than 8,000; 200 event ids are 6,599."""

PAYLOADS_MAX: Final = 16
"""In one call of ``publish``."""

ECHO: Final = "echo:"
"""How the payload of an echo begins; what follows names its sender. Every listener hears all of them."""

Heard = Callable[[str], None]
"""Called on the event loop's thread with each payload. Must not raise: anybody who may publish decides what it says."""


class HintChannel(Protocol):
    """One way for hints. The connections for publishing and for a subscription are never the same."""

    @property
    def name(self) -> str:
        """One word: in metrics, alerts and the names of loops."""

    async def publish(self, payloads: Sequence[str], *, timeout_s: float) -> None:
        """Give payloads to whoever is subscribed now.

        Args:
            payloads: At most ``PAYLOADS_MAX``, each ASCII and at most ``PAYLOAD_BYTES_MAX`` long; usually event ids (32
                hex digits), by comma. None at all: ask whether publishing works.

        Raises:
            Unavailable: They may have arrived or not. Saying the same through another channel does no harm.

        Cancelled: as Unavailable.
        """

    def subscribed(self, heard: Heard) -> AbstractAsyncContextManager[asyncio.Future[str]]:
        """While inside, each payload that is published is heard, in the order of its publisher.

        Entering takes a bounded time, and raises Unavailable without the channel. It gives a future, which is done
        (with why) when this subscription is known to hear nothing any more: leave, and enter again.
        """
