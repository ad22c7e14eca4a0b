"""``patient-client`` and ``unbroken-client``: the first two rungs of incident I4. A second was too long to wait for
Redis on an event's way; 750 ms were too long as well while each event waited them anew. What is missing is the breaker.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar

from seawall.app import Making
from seawall.cache.setting import Settings
from seawall.cache.shared import Bounds, Shared
from seawall.guard import Heart, Supervisor
from seawall.guard.breaker import Limits

if TYPE_CHECKING:
    from seawall.journal.spool.joint import Joint

PATIENT_S = 20.0
UNBROKEN_S = 0.75
PROBE_S = 0.15
NEVER = Limits(window_s=120.0, calls_min=10**9, in_a_row=10**9, failure_rate=1.0, slow_rate=1.0)
"""A breaker that can't open in anybody's lifetime."""


class PatientShared(Shared):
    """Waits for Redis, whatever happened before."""

    patience_s: ClassVar[float] = PATIENT_S

    def __init__(self, settings: Settings, **given: Any) -> None:
        waits_s = self.patience_s
        settings = replace(settings, timeout_s=waits_s, connect_s=waits_s)
        super().__init__(settings, bounds=Bounds(ask_s=waits_s, limits=NEVER), **given)

    def register(self, supervisor: Supervisor) -> None:
        """No probe but the first one, that the flag waits for: probes are how a breaker knows before an event does."""
        supervisor.add("cache.probe", self._probe_once, essential=False)

    async def _probe_once(self, heart: Heart) -> None:
        while True:
            if not self.limiter.heard:
                asking = asyncio.ensure_future(self.limiter.probe())
                try:
                    while not asking.done():
                        heart.touch()
                        await asyncio.wait([asking], timeout=PROBE_S)
                finally:
                    asking.cancel()
            await heart.beat()
            await asyncio.sleep(PROBE_S)


class UnbrokenShared(PatientShared):
    """Waits a moment for Redis, each time."""

    patience_s: ClassVar[float] = UNBROKEN_S


class PatientClients(Making):
    """Puts the first in place."""

    def shared(self) -> type[Shared]:
        return PatientShared

    def joint(self) -> type[Joint]:
        # Kafka's driver is an extra: an embedded platform of the lab's does without.
        from seawall.lab.weak.kafka import PatientJoint

        return PatientJoint


class UnbrokenClients(Making):
    """Puts the second in place."""

    def shared(self) -> type[Shared]:
        return UnbrokenShared

    def joint(self) -> type[Joint]:
        from seawall.lab.weak.kafka import UnbrokenJoint

        return UnbrokenJoint
