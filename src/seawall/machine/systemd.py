"""What systemd is told of a service of ``Type=notify``: ready, stopping, what it does, and that it still ticks.

The protocol is one datagram of lines to the socket that NOTIFY_SOCKET names (sd_notify(3)); with WATCHDOG_USEC set the
unit is killed and started again when nothing was heard for so long. Nothing happens without systemd.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Callable

from seawall.guard import Heart
from seawall.kernel.log import fields, logger

log = logger("machine")

IDLE_S = 1.0
EXTEND_USEC = 30_000_000


Variable = Callable[[str], str | None]
"""One variable of the environment, None when it is missing or empty (settings.environ)."""


class Notifier:
    """Tells systemd, or nobody.

    Args:
        variable: Looks up NOTIFY_SOCKET, WATCHDOG_USEC and WATCHDOG_PID.
    """

    def __init__(self, variable: Variable) -> None:
        name = variable("NOTIFY_SOCKET") or ""
        self._address = "\0" + name[1:] if name.startswith("@") else name
        ours = (variable("WATCHDOG_PID") or str(os.getpid())) == str(os.getpid())
        usec = variable("WATCHDOG_USEC") or ""
        self.watchdog_s = int(usec) / 1e6 if self._address and ours and usec.isdigit() and int(usec) > 0 else None

    def ready(self, status: str = "ready") -> None:
        """What the service is for is done from now on."""
        self.tell("READY=1", f"STATUS={status}")

    def starting(self, status: str) -> None:
        """It takes longer, with a reason: the unit's time to start is prolonged. To be said every few seconds."""
        self.tell(f"EXTEND_TIMEOUT_USEC={EXTEND_USEC}", f"STATUS={status}")

    def stopping(self) -> None:
        """An orderly stop has begun."""
        self.tell("STOPPING=1", "STATUS=stopping")

    def tell(self, *lines: str) -> None:
        """Send lines. Never waits and never raises: a deaf systemd must not stop an event."""
        if not self._address:
            return
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as out:
            try:
                out.sendto("\n".join(lines).encode(), self._address)
            except OSError as error:
                log.debug("systemd doesn't hear", extra=fields(cause=str(error)))

    async def run(self, heart: Heart) -> None:
        """The watchdog's supervised loop: while this event loop ticks, systemd hears so three times in its limit."""
        while True:
            if self.watchdog_s is not None:
                self.tell("WATCHDOG=1")
            await heart.beat()
            await asyncio.sleep(min(IDLE_S, self.watchdog_s / 3 if self.watchdog_s is not None else IDLE_S))
