"""The whole platform's health: every role is asked over its socket at the moment of the question, and the store too.

The whole is ready when events can be accepted *and* run: every role that this takes is ready, and the store answers. A
role that is absent is not ready, and is named.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final, TypeVar

import msgspec

from seawall.kernel.error import Rejected, SeawallError
from seawall.kernel.seam.flag import FlagLine
from seawall.kernel.seam.panel import AlertLine, BreakerLine, WorkLine
from seawall.store import report
from seawall.store.pool import Store
from seawall.watch.exposition import CONTENT_TYPE, merged
from seawall.watch.health import (
    JSON,
    TEXT,
    Page,
    RoleHealth,
    Vitals,
    post,
    read_health,
    read_metrics,
    read_rows,
    status_text,
)

R = TypeVar("R")

ASK_S: Final = 1.0
OWN: Final = "console"
PARENT: Final = "up"
"""The role that asks the others; it moves its own without a socket."""

REQUIRED: Final = ("collector", "router", "worker")


class Fleet:
    """Answers for all roles together: /livez, /readyz, /metrics and /statusz.

    Args:
        own: The process that answers; it is not asked over its own socket.
        roles: Sockets of all other roles, by name, in the order of the flow; also PARENT's, where one started them.
        store: Where the store's answer is tested.
        required: Roles without which the whole isn't ready.
        more: Processes that come and go, asked as long as their sockets are there.
    """

    def __init__(
        self, own: Vitals, roles: Mapping[str, Path], store: Store, *, required: Sequence[str] = REQUIRED,
        more: Callable[[], Mapping[str, Path]] = dict,
    ) -> None:  # fmt: skip
        self._own = own
        self._always = dict(roles)
        self._more = more
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

    async def healths(self) -> list[RoleHealth]:
        """Of each role that there should be, but the one that asks."""
        roles = self._expected()
        return list(await asyncio.gather(*(read_health(path, ASK_S, role=role) for role, path in roles.items())))

    async def alerts(self) -> tuple[list[AlertLine], list[str]]:
        """Alerts of all roles, the oldest first, and the roles that couldn't be asked."""
        found, unasked = await self._rows("/alerts", AlertLine)
        return sorted(found, key=lambda alert: alert.since), unasked

    async def breakers(self) -> tuple[list[BreakerLine], list[str]]:
        """Breakers of all roles, and the roles that couldn't be asked."""
        return await self._rows("/breakers", BreakerLine)

    async def flags(self) -> tuple[list[FlagLine], list[str]]:
        """Flags as each role evaluates them, and the roles that couldn't be asked."""
        return await self._rows("/flags", FlagLine)

    async def force(self, name: str, hand: str) -> tuple[list[str], list[str]]:
        """Move a breaker by hand in every role that has it: (roles that did, roles that couldn't be asked).

        Raises:
            Rejected: 404, no role has it; 422, no such state.
        """
        return await self._move(f"/breakers/{name}/{hand}", f"no role has a breaker {name!r}")

    async def work(self) -> tuple[list[WorkLine], list[str]]:
        """Optional work of all roles, and the roles that couldn't be asked."""
        return await self._rows("/shed", WorkLine)

    async def shed(self, name: str, hand: str) -> tuple[list[str], list[str]]:
        """Hold optional work on or off in every role that has it, or let it go; as ``force``.

        Raises:
            Rejected: 404, no role has it; 422, no such state.
        """
        return await self._move(f"/shed/{name}/{hand}", f"no role has work {name!r}")

    @property
    def _roles(self) -> dict[str, Path]:
        return {**self._always, **self._more()}

    def _expected(self) -> Mapping[str, Path]:
        """Roles whose silence says something: where nothing needs a role and none has begun, nobody is missing."""
        return {role: path for role, path in self._roles.items() if role in self._required or path.exists()}

    async def _move(self, path: str, nobody: str) -> tuple[list[str], list[str]]:
        roles = self._expected()
        pages = await asyncio.gather(*(post(socket, path, ASK_S) for socket in roles.values()), return_exceptions=True)
        done, unasked = [], []
        own = self._own.act(path) or Page(404, TEXT, b"")
        for role, page in zip((*roles, OWN), (*pages, own), strict=True):
            if isinstance(page, (OSError, ValueError)):
                unasked.append(role)
            elif isinstance(page, BaseException):
                raise page
            elif page.status == 200:
                done.append(role)
            elif page.status != 404:
                raise Rejected(page.status, "Refused", page.body.decode("utf-8", "replace").strip())
        if not done and not unasked:
            raise Rejected(404, "Not found", nobody)
        return done, unasked

    async def _rows(self, path: str, row: type[R]) -> tuple[list[R], list[str]]:
        roles = self._expected()
        answers = await asyncio.gather(*(read_rows(socket, path, row, ASK_S) for socket in roles.values()))
        own = self._own.answer(path)
        assert own is not None, "every process has these pages"
        found = msgspec.json.decode(own.body, type=list[row])  # type: ignore[valid-type]
        unasked = []
        for role, answer in zip(roles, answers, strict=True):
            if answer is None:
                unasked.append(role)
            else:
                found.extend(answer)
        return found, unasked

    async def _ready(self) -> Page:
        healths, trouble = await self._ask()
        by_name = {health.role: health for health in healths}
        reasons = [f"store: {trouble}"] if trouble else []
        for role in self._required:
            health = by_name.get(role)
            if health is None or not health.ready:
                reasons.append(f"{role}: {health.reason if health is not None else 'unknown here'}")
        parent = by_name.get(PARENT)
        if reasons and parent is not None and not parent.ready:
            reasons.append(f"{PARENT}: {parent.reason}")  # why a role that isn't running isn't
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
