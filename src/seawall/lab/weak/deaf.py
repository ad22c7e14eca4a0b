"""``deaf-listener``: the responder of incident I1. One listener subscribes to one channel when it starts, and believes
ever after that it hears. Its loop goes on, so nothing is seen of it: "the server is running but nothing is working"."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from seawall.app import Making
from seawall.guard import Heart
from seawall.kernel.error import Unavailable
from seawall.kernel.seam.hint import HintChannel
from seawall.responder import Responder, Settings
from seawall.responder.listener import Listener
from seawall.store import pool
from seawall.store.hint import NotifyHints

BEAT_S = 0.5
NEVER_MS = 24 * 3600 * 1000


class DeafListening(Making):
    """Puts it in place."""

    def responder(self) -> type[Responder]:
        return DeafResponder


class DeafListener(Listener):
    """Subscribes once. Whatever becomes of the subscription then, it says that all is well."""

    async def run(self, heart: Heart) -> None:
        while True:
            try:
                async with self._channel.subscribed(self._heard):
                    await self._sit(heart)
            except Unavailable:
                # Only at the start: there is no store yet, and the platform has to come up.
                heart.unready("not subscribed yet")
                await asyncio.sleep(BEAT_S)

    async def _sit(self, heart: Heart) -> None:
        while True:
            self._proven_at = self._clock.monotonic()
            await heart.beat()
            await asyncio.sleep(BEAT_S)


class DeafResponder(Responder):
    """Answers a held request when a hint says so, and at no other time."""

    def __init__(
        self,
        store: pool.Settings,
        settings: Settings | None = None,
        *,
        channels: Sequence[HintChannel] = (),
        **given: Any,
    ) -> None:
        super().__init__(store, _unlooking(settings or Settings()), channels=channels, listener=DeafListener, **given)
        if channels:
            # What was chosen, and nothing beside it: workers publish by the second channel while the first is away.
            del self._listeners[NotifyHints.name]

    def reload(self, settings: Settings) -> None:
        super().reload(_unlooking(settings))


def _unlooking(settings: Settings) -> Settings:
    """Tickets are never re-read: also the last look, which is so long before a deadline, comes long after it."""
    return replace(settings, first_look_ms=NEVER_MS, look_ms_max=NEVER_MS, last_look_ms=-NEVER_MS)
