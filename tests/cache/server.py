"""A real server of Redis' protocol for tests, and a network that can be spoilt."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
import subprocess
import time
from pathlib import Path

from seawall.lab.part.port import free
from seawall.lab.part.redis import Engine


def free_port() -> int:
    """Of those that no outgoing connection of anybody gets: it must still be free after the server was killed."""
    return free(1)[0]


class Server:
    """One server, on a port that stays the same over restarts."""

    def __init__(self, folder: Path, engine: Engine) -> None:
        self._engine = engine
        self.port = free_port()
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, *options: str) -> None:
        self._folder.mkdir(exist_ok=True)
        self._process = subprocess.Popen(
            [self._engine.program, "--port", str(self.port), "--bind", "127.0.0.1", "--dir", str(self._folder),
             "--save", "", "--appendonly", "no", "--enable-debug-command", "yes", *options],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=dict(self._engine.environment) or None,
        )  # fmt: skip
        latest = time.monotonic() + 10
        while True:
            with contextlib.suppress(OSError):
                self.say("ECHO", "there")
                return
            assert time.monotonic() < latest, "the server doesn't start"
            time.sleep(0.01)

    def say(self, *words: str, wait_s: float = 5.0) -> bytes:
        """A command of the test's own, past all of ours; the first piece of its reply, b"" when none comes in time."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=wait_s) as one:
            one.sendall(
                b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%b\r\n" % (len(w.encode()), w.encode()) for w in words)
            )
            with contextlib.suppress(TimeoutError):
                return one.recv(1 << 20)
            return b""

    def send(self, signal_: signal.Signals) -> None:
        assert self._process is not None
        self._process.send_signal(signal_)

    def forget(self) -> None:
        (self._folder / "dump.rdb").unlink(missing_ok=True)

    def kill(self) -> None:
        if self._process is not None:
            self.send(signal.SIGCONT)
            self._process.kill()
            self._process.wait(5)
            self._process = None


class Network:
    """A way to a port (or a unix socket) that can be made slow, or a hole that swallows everything and refuses nothing.

    A connection that was made in the hole stays dead after it, as in a network: what was sent then is gone.
    """

    def __init__(self, to: int | Path) -> None:
        self._to = to
        self.delay_s = 0.0
        self.hole = False
        self._tasks: set[asyncio.Task[None]] = set()
        self._joining: set[asyncio.Task[None]] = set()
        self._writers: list[asyncio.StreamWriter] = []

    async def __aenter__(self) -> Network:
        self._server = await asyncio.start_server(self._accepted, "127.0.0.1", 0)
        self.port = int(self._server.sockets[0].getsockname()[1])
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        if self._joining:  # not cancelled: a connection that is just being made would be left open
            await asyncio.wait(self._joining, timeout=5)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self.cut()
        await asyncio.sleep(0)

    def cut(self) -> None:
        """Close every connection, both ways."""
        for writer in self._writers:
            writer.transport.abort()

    def _accepted(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(self._joined(reader, writer))
        self._joining.add(task)
        task.add_done_callback(self._joining.discard)

    async def _joined(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.append(writer)
        try:
            out, into = await (
                asyncio.open_connection("127.0.0.1", self._to)
                if isinstance(self._to, int)
                else asyncio.open_unix_connection(self._to)
            )
        except OSError:
            writer.transport.abort()
            return
        self._writers.append(into)
        for a, b in ((reader, into), (out, writer)):
            task = asyncio.create_task(self._carry(a, b))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(65536):
                await asyncio.sleep(self.delay_s / 2)
                if not self.hole:
                    writer.write(data)
        writer.transport.abort()
