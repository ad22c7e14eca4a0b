"""Hints through PostgreSQL's own channel, LISTEN and NOTIFY (kernel/seam/hint.py)."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace

from seawall.kernel.error import Unavailable, Uncertain
from seawall.kernel.seam.hint import PAYLOAD_BYTES_MAX, PAYLOADS_MAX, Heard
from seawall.kernel.status import CHANNEL_REPLY
from seawall.store.driver import DEPENDENCY
from seawall.store.pool import Listener, Store
from seawall.store.statement import statements

CONNECT_S = 0.8
"""For the subscription's connection, and again for LISTEN. Short: a try that hangs in what was a hole in the network
hears nothing of its end, and the next one must come soon after it."""

_SQL = statements("hint")


class NotifyHints:
    """Implements ``HintChannel``.

    Args:
        store: Its pool publishes; a subscription has a connection of its own, to the same place.
        role: What PostgreSQL calls the subscription's connection.
    """

    name = "notify"

    def __init__(self, store: Store, *, role: str = "listener") -> None:
        self._store = store
        self._role = role

    async def publish(self, payloads: Sequence[str], *, timeout_s: float) -> None:
        assert len(payloads) <= PAYLOADS_MAX and all(len(one) <= PAYLOAD_BYTES_MAX for one in payloads)
        try:
            await self._store.execute(_SQL["notify"], CHANNEL_REPLY, payloads, timeout_s=timeout_s)
        except Uncertain as error:
            raise Unavailable(DEPENDENCY, f"nobody knows whether hints were sent: {error}") from error

    @contextlib.asynccontextmanager
    async def subscribed(self, heard: Heard) -> AsyncIterator[asyncio.Future[str]]:
        lost: asyncio.Future[str] = asyncio.get_running_loop().create_future()

        def broke() -> None:
            if not lost.done():
                lost.set_result("PostgreSQL closed the connection that listens")

        settings = replace(self._store.settings, connect_timeout_s=CONNECT_S)
        listener = Listener(
            settings, [CHANNEL_REPLY], lambda _, payload: heard(payload), role=self._role, broke=broke
        )  # fmt: skip
        async with listener.subscribed():
            yield lost
