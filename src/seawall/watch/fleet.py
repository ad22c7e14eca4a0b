"""The whole platform's health: every role is asked over its socket at the moment of the question, and the store too.

The whole is ready when events can be accepted *and* run: every role that this takes is ready, and the store answers. A
role that is absent is not ready, and is named.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

import msgspec

from seawall.kernel.error import SeawallError
from seawall.store import report
from seawall.store.pool import Store
from seawall.watch.exposition import CONTENT_TYPE, merged
from seawall.watch.health import JSON, TEXT, Page, RoleHealth, Vitals, read_health, read_metrics, status_text

ASK_S: Final = 1.0
REQUIRED: Final = ("collector", "router", "worker")


class Fleet:
    """Answers for all roles together: /livez, /readyz, /metrics and /statusz.

    Args:
        own: The process that answers; it is not asked over its own socket.
        roles: Sockets of all other roles, by name, in the order of the flow.
        store: Where the store's answer is tested.
        required: Roles without which the whole isn't ready.
    """

    def __init__(
        self, own: Vitals, roles: Mapping[str, Path], store: Store, *, required: Sequence[str] = REQUIRED
    ) -> None:
        self._own = own
        self._roles = dict(roles)
        self._store = store
        self._required = tuple(required)

    async def answer(self, path: str) -> Page | None:
        """The page of a path, or None when there is no such page. Within about a second, whoever hangs."""
        match path:
            case "/livez":
                return Page(200, TEXT, b"ok\n")
            case "/readyz":
                return await self._ready()
            case "/metrics":
                pages = await asyncio.gather(*(read_metrics(path, ASK_S) for path in self._roles.values()))
                own = self._own.answer("/metrics")
                assert own is not None, "every process has metrics"
                return Page(200, CONTENT_TYPE, merged([own.body, *(page for page in pages if page is not None)]))
            case "/statusz":
                healths, trouble = await self._ask()
                text = "".join(status_text(health) for health in (*healths, self._own.health()))
                return Page(200, TEXT, (text + f"store: {trouble or 'ready'}\n").encode("utf-8", "replace"))
            case _:
                return None

    async def _ready(self) -> Page:
        healths, trouble = await self._ask()
        by_name = {health.role: health for health in healths}
        reasons = [f"store: {trouble}"] if trouble else []
        for role in self._required:
            health = by_name.get(role)
            if health is None or not health.ready:
                reasons.append(f"{role}: {health.reason if health is not None else 'unknown here'}")
        said = {
            "ready": not reasons,
            "reason": "; ".join(reasons),
            "roles": [*healths, self._own.health()],
            "store": {"ready": not trouble, "reason": trouble},
        }
        return Page(503 if reasons else 200, JSON, msgspec.json.encode(said, enc_hook=str))

    async def _ask(self) -> tuple[list[RoleHealth], str]:
        """Everybody's health, and what is wrong with the store ("": nothing), all at once."""
        asked = asyncio.gather(*(read_health(path, ASK_S, role=role) for role, path in self._roles.items()))
        trouble, healths = await asyncio.gather(self._store_trouble(), asked)
        return healths, trouble

    async def _store_trouble(self) -> str:
        try:
            await report.ping(self._store, timeout_s=ASK_S)
        except SeawallError as error:
            return str(error)
        return ""
