"""Finds the logs of this data folder, and opens each of them for reading."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import AsyncExitStack
from pathlib import Path

from seawall.journal import LogReader, discover
from seawall.kernel.alert import Alerts
from seawall.kernel.error import Corrupt, Unavailable
from seawall.kernel.log import fields, logger
from seawall.kernel.seam.journal import JournalReader
from seawall.machine.folder import Folder

log = logger("logs")


class Logs:
    """Readers of all logs under one folder, each opened once and kept."""

    def __init__(self, folder: Folder, logs: Path, *, alerts: Alerts, prefix: str = "") -> None:
        self._folder = folder
        self._alerts = alerts
        self._logs = logs
        self._prefix = prefix
        self._readers: dict[str, JournalReader] = {}
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Logs:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    async def find(self) -> Mapping[str, JournalReader]:
        """Every log there is, by name. One that can't be opened is an alert, and tried again when asked next."""
        for path in await asyncio.to_thread(discover, self._logs):
            name = f"{self._prefix}{path.name}"
            if name in self._readers:
                continue
            reader = LogReader(path, self._folder.synced_socket(name))
            try:
                self._readers[name] = await self._stack.enter_async_context(reader)
            except (Unavailable, Corrupt) as error:
                log.debug("a journal can't be read", extra=fields(journal=str(path), cause=str(error)))
                self._alerts.raised(
                    "journal-unopened", f"log {name} can't be opened: {error}; none of its events is routed",
                    unaffected="accepting events, and all other logs", cure=f"look at {path} and its disk", log=name,
                )  # fmt: skip
            else:
                self._alerts.cleared("journal-unopened", log=name)
        return self._readers
