"""``free-drain``: the drain of incident I5, which goes as fast as it may at most from the first moment on, whatever the
store says, and is a second outage."""

from __future__ import annotations

import asyncio

from seawall.app import Making
from seawall.guard import Heart
from seawall.guard.governor import Act
from seawall.guard.patience import patiently, rest
from seawall.kernel.error import Unavailable, Uncertain
from seawall.router import governor
from seawall.router.governor import LEAD_S, DrainGovernor
from seawall.router.range import STORE
from seawall.store import drain as rows


class FreeGovernor(DrainGovernor):
    """Gives each drain its goal, and measures nothing."""

    async def run(self, heart: Heart) -> None:
        while True:
            try:
                await patiently(heart, self._free(), what=STORE)
            except (Unavailable, Uncertain) as error:
                await rest(heart, governor.EVERY_S, reason=str(error))
                continue
            await heart.beat()
            await asyncio.sleep(governor.EVERY_S)

    async def _free(self) -> None:
        leads, _ = await rows.lead(self._store, self._owner, ttl_s=LEAD_S)
        if not leads:
            return
        await self._keep_own()
        rates = [(drain, drain.goal) for drain in await rows.drains(self._store) if drain.governed]
        await rows.steer(
            self._store, self._owner, rates, act=Act.RAISE, share=None, said="nobody looks", reserve=None
        )  # fmt: skip


class FreeDrains(Making):
    """Puts it in place."""

    def governor(self) -> type[DrainGovernor]:
        return FreeGovernor
