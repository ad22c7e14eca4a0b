"""``mortal-listener`` and ``unwatched-listener``: the death itself of incident I1. One thread ended inside a server
that went on, without a log line, and nobody noticed.

SIGUSR2 ends each listener of a collector from inside, at its next beat, by an error that it doesn't know. The first
part is the real listener, so that what watches it is seen at work; the second one is watched by nobody.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
from types import TracebackType
from typing import Any
from weakref import WeakSet

from seawall.app import Making
from seawall.guard import Heart, Supervisor
from seawall.kernel.log import logger
from seawall.lab.weak.deaf import DeafResponder
from seawall.responder import Responder
from seawall.responder.listener import Listener

log = logger("lab")

SIGNAL = signal.SIGUSR2


def ended(channel: str) -> str:
    """What the log says when a channel's listener has ended: how whoever sent the signal knows that it was done."""
    return f"the lab has ended the listener of {channel} from inside"


class EndedError(Exception):
    """No error that a listener knows."""


class _Heart(Heart):
    """Hands on what a loop says, until it is told to end it.

    Args:
        inner: Whom the loop speaks to; None: nobody listens.
        channel: Whose listener it is.
    """

    __slots__ = ("__weakref__", "_channel", "_inner", "ended", "told")

    def __init__(self, inner: Heart | None, channel: str) -> None:
        self._inner = inner
        self._channel = channel
        self.told = False
        self.ended = False

    async def beat(self) -> None:
        if self.told:
            self.ended = True
            log.warning(ended(self._channel))
            raise EndedError(ended(self._channel))
        if self._inner is not None:
            await self._inner.beat()

    def touch(self) -> None:
        if self._inner is not None:
            self._inner.touch()

    def unready(self, reason: str) -> None:
        if self._inner is not None:
            self._inner.unready(reason)


_living: WeakSet[_Heart] = WeakSet()


def end() -> list[_Heart]:
    """Each listener of this process that lives now ends at its next beat."""
    told = [heart for heart in _living if not heart.ended]
    for heart in told:
        heart.told = True
    return told


def _mortal(inner: Heart | None, channel: str) -> _Heart:
    heart = _Heart(inner, channel)
    _living.add(heart)
    return heart


class MortalListener(Listener):
    """The real one."""

    async def run(self, heart: Heart) -> None:
        await super().run(_mortal(heart, self._channel.name))


class MortalResponder(Responder):
    """The real one, with it."""

    def __init__(self, *given: Any, **more: Any) -> None:
        super().__init__(*given, listener=MortalListener, **more)

    async def __aenter__(self) -> MortalResponder:
        asyncio.get_running_loop().add_signal_handler(SIGNAL, end)
        return self


class MortalListening(Making):
    """Puts it in place."""

    def responder(self) -> type[Responder]:
        return MortalResponder


class UnwatchedResponder(DeafResponder):
    """Runs listeners as tasks of their own. What becomes of one, nobody asks."""

    async def __aenter__(self) -> UnwatchedResponder:
        asyncio.get_running_loop().add_signal_handler(SIGNAL, end)
        self._alone: list[asyncio.Task[None]] = []
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        for task in self._alone:
            task.cancel()
        await asyncio.gather(*self._alone, return_exceptions=True)
        await super().__aexit__(kind, value, trace)

    def register(self, supervisor: Supervisor) -> None:
        listeners, self._listeners = self._listeners, {}
        super().register(supervisor)
        self._listeners = listeners
        self._alone = [asyncio.create_task(_run(*each)) for each in listeners.items()]


async def _run(channel: str, listener: Listener) -> None:
    with contextlib.suppress(EndedError):
        await listener.run(_mortal(None, channel))


class UnwatchedListening(Making):
    """Puts it in place."""

    def responder(self) -> type[Responder]:
        return UnwatchedResponder
