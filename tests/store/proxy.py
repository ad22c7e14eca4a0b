"""A unix socket before PostgreSQL's, which cuts the line at a chosen moment."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

PORT_FILE = ".s.PGSQL.5432"
Cut = Callable[[bytes, str], str]
"""Given bytes and their direction ("up" to the server, "down" from it): "pass", "cut" (drop them and close both ends)
or "pass, cut" (hand them on, then close)."""


class Proxy:
    """Passes bytes to ``upstream`` until ``cut`` says otherwise. Connect to ``dsn_host``."""

    def __init__(self, upstream: Path, folder: Path) -> None:
        self._upstream = upstream
        self.host = folder
        self.cut: Cut = lambda _data, _way: "pass"
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Proxy:
        self._server = await asyncio.start_unix_server(self._serve, self.host / PORT_FILE)
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        up_reader, up_writer = await asyncio.open_unix_connection(self._upstream / PORT_FILE)
        both = (writer, up_writer)
        try:
            await asyncio.gather(self._pump(reader, up_writer, "up", both), self._pump(up_reader, writer, "down", both))
        except (asyncio.CancelledError, ConnectionError):
            pass
        finally:
            for end in both:
                end.transport.abort()

    async def _pump(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        way: str,
        both: tuple[asyncio.StreamWriter, ...],
    ) -> None:
        while data := await reader.read(65536):
            verdict = self.cut(data, way)
            if verdict != "cut":
                writer.write(data)
                await writer.drain()
            if verdict != "pass":
                # The server reads what it was given before it sees the end.
                for end in both:
                    end.close()
                return
        writer.close()
