"""What the console needs of watch: the health of the whole platform, and what its roles say of themselves."""

from __future__ import annotations

from typing import Protocol

from seawall.kernel.seam.flag import FlagPanels
from seawall.kernel.seam.panel import Panels


class HealthPage(Protocol):
    """One answer of health: what watch calls a page."""

    @property
    def status(self) -> int: ...

    @property
    def content_type(self) -> str: ...

    @property
    def body(self) -> bytes: ...


class Health(Panels, FlagPanels, Protocol):
    """Health of the whole platform (watch/fleet.py)."""

    async def answer(self, path: str) -> HealthPage | None:
        """The page of /livez, /readyz, /metrics or /statusz."""
