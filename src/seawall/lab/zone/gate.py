"""Where hosts in zones find Kafka, Redis and the store: ``python -m seawall.lab.zone.gate FOLDER``.

It listens on the machine's inside address alone, on each line's own port, and hands bytes on to loopback or to the
store's socket. ``gate.json`` says which lines; ``holes.json``, looked at ten times a second, which of them are black
holes for which hosts: nothing gets through and nobody is told, as when a process alone has lost them.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from seawall.lab.part.node import whole

LINES, HOLES = "gate.json", "holes.json"
LOOK_S = 0.1
CHUNK = 64 * 1024
CONNECTIONS_MAX = 2000
CONNECT_S = 5.0
BACKLOG = 256


class Gate:
    """All lines of one folder. ``run`` until cancelled."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._open: set[asyncio.Task[None]] = set()
        self._holes: Mapping[str, list[str]] = {}
        self._changed = asyncio.Event()

    async def run(self) -> None:
        """Listen, and look for holes.

        Raises:
            OSError: A port is somebody else's.
        """
        said, servers = json.loads((self._folder / LINES).read_text("utf-8")), []
        try:
            for name, (port, to) in said["lines"].items():
                servers.append(await asyncio.start_server(
                    lambda reader, writer, name=name, to=to: self._take(name, to, reader, writer),  # type: ignore[misc]
                    said["host"], port, backlog=BACKLOG,
                ))  # fmt: skip
            while True:
                holes = read(self._folder / HOLES)
                if holes != self._holes:
                    self._holes = holes
                    self._changed.set()
                    self._changed = asyncio.Event()
                await asyncio.sleep(LOOK_S)
        finally:
            for server in servers:
                server.close()
            await ended(self._open)

    async def _take(self, name: str, to: object, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        if len(self._open) >= CONNECTIONS_MAX:
            writer.transport.abort()
            return
        self._open.add(task)
        try:
            await self._relay(name, to, reader, writer)
        except (OSError, TimeoutError, asyncio.CancelledError):
            pass  # whoever is there hears of it by the end of the connection
        finally:
            self._open.discard(task)
            writer.transport.abort()

    async def _relay(self, name: str, to: object, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        peer = str(writer.get_extra_info("peername")[0])
        await self._passage(peer, name)
        async with asyncio.timeout(CONNECT_S):
            if isinstance(to, list):
                other, answer = await asyncio.open_connection(str(to[0]), int(to[1]))
            else:
                # The store's socket has its place when the platform has started.
                other, answer = await asyncio.open_unix_connection((self._folder / str(to)).read_text("utf-8").strip())
        pumps = [
            asyncio.ensure_future(self._pump(peer, name, reader, answer)),
            asyncio.ensure_future(self._pump(peer, name, other, writer)),
        ]
        try:
            await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for pump in pumps:
                pump.cancel()
            answer.transport.abort()

    async def _pump(self, peer: str, name: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(CHUNK):
                await self._passage(peer, name)
                writer.write(data)
                await writer.drain()

    async def _passage(self, peer: str, name: str) -> None:
        """Until it isn't a hole."""
        while name.partition(".")[0] in self._holes.get(peer, ()):
            await self._changed.wait()


async def ended(tasks: set[asyncio.Task[None]]) -> None:
    """Cancel what serves connections, and give it a moment."""
    for task in tasks:
        task.cancel()
    if tasks:
        await asyncio.wait(tasks, timeout=1.0)


def read(path: Path) -> Mapping[str, list[str]]:
    """Lines that are holes, by a host's address."""
    try:
        found = json.loads(path.read_text("utf-8"))
        return {str(peer): [str(line) for line in lines] for peer, lines in found.items()}
    except (OSError, ValueError, AttributeError, TypeError):
        return {}


def hole(folder: Path, address: str, lines: Sequence[str]) -> None:
    """These lines are holes for the host of this address; none: they work again."""
    if (folder / LINES).is_file():
        whole(folder / HOLES, json.dumps({**read(folder / HOLES), address: list(lines)}))


def mend(folder: Path, address: str) -> str:
    """No line is a hole for it; says what was found. Harmless when none is, or the gate is gone."""
    if not (folder / LINES).is_file():
        return "the gate is gone, and its holes with it"
    hole(folder, address, ())
    return "its lines are whole"


async def _main(folder: Path) -> None:
    gate = asyncio.ensure_future(Gate(folder).run())
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, gate.cancel)
    with contextlib.suppress(asyncio.CancelledError):
        await gate


if __name__ == "__main__":
    asyncio.run(_main(Path(sys.argv[1])))
