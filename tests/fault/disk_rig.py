"""Runs ``journal_writer.py`` and compares what it said with what can be read afterwards."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from journal_writer import payload

from seawall.journal import LogReader

HERE = Path(__file__).parent

needs_root = [
    pytest.mark.root,
    pytest.mark.skipif(
        os.geteuid() != 0 or sys.platform != "linux", reason="needs root on Linux (mount, loop devices)"
    ),
]


@dataclass
class Said:
    """Numbers by answer."""

    kept: set[int] = field(default_factory=set)
    unsure: set[int] = field(default_factory=set)
    refused: set[int] = field(default_factory=set)

    def add(self, lines: bytes) -> None:
        """Whole lines of a writer's output; a last one without its end was never said."""
        for line in lines.split(b"\n")[:-1]:
            sign, _, number = line.rpartition(b" ")
            {b"": self.kept, b"?": self.unsure, b"!": self.refused}[sign].add(int(number))


class WriterProcess:
    """One running writer."""

    def __init__(self, folder: Path, *, first: int = 0, **environment: str) -> None:
        self.said = Said()
        self._lines = b""
        self.process = subprocess.Popen(
            [sys.executable, str(HERE / "journal_writer.py"), str(folder)],
            stdout=subprocess.PIPE,
            env={**os.environ, "FIRST": str(first), **environment},
        )

    def __enter__(self) -> WriterProcess:
        return self

    def __exit__(self, *error: object) -> None:
        """Whatever a test found, no writer outlives it."""
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait(10)
        if self.process.stdout is not None:
            self.process.stdout.close()

    def read_until(self, answers: int, *, refusals: int = 0) -> None:
        """Read its output until it gave that many answers of each kind, or ended."""
        assert self.process.stdout is not None
        while len(self.said.kept) < answers or len(self.said.refused) < refusals:
            part = os.read(self.process.stdout.fileno(), 1 << 16)
            self._take(part)
            if not part:
                return

    def read_now(self) -> None:
        """Read what it has said so far, without waiting."""
        assert self.process.stdout is not None
        fd = self.process.stdout.fileno()
        os.set_blocking(fd, False)
        with suppress(BlockingIOError):
            while part := os.read(fd, 1 << 16):
                self._take(part)
        os.set_blocking(fd, True)

    def kill(self) -> None:
        self.process.kill()
        self.drain()

    def drain(self) -> int:
        """Read what is left, after its death; returns the exit status."""
        assert self.process.stdout is not None
        self._take(self.process.stdout.read())
        self.process.stdout.close()
        return self.process.wait(10)

    def _take(self, part: bytes) -> None:
        whole, _, rest = (self._lines + part).rpartition(b"\n")
        self._lines = rest
        self.said.add(whole + b"\n" if whole else b"")


def read(folder: Path) -> dict[int, bytes]:
    """Records in a log that nobody writes, by number; none of them damaged, none of them twice."""

    async def everything() -> list[bytes]:
        async with LogReader(folder, Path("/nonexistent")) as reader:
            chunk = reader.read(reader.start(), records_max=1 << 30, bytes_max=1 << 40)
            return [frame.payload for frame in chunk.frames]

    payloads = asyncio.run(everything())
    found = {int(payload.partition(b":")[0]): payload for payload in payloads}
    assert len(found) == len(payloads)
    return found


def compare(said: Said, found: dict[int, bytes]) -> None:
    """Nothing acknowledged is lost, nothing refused is there, and every byte is right."""
    assert not said.kept - set(found), "lost"
    assert not said.refused & set(found), "refused, yet kept"
    assert all(content == payload(number) for number, content in found.items()), "corrupted"


def call(*command: str | Path) -> None:
    subprocess.run([str(part) for part in command], check=True, capture_output=True, timeout=30)


def program(name: str) -> str:
    """Its path; skips the test by name when this machine hasn't got it."""
    path = shutil.which(name)
    if path is None:
        pytest.skip(f"needs {name}")
    return path


@contextmanager
def mounted(folder: Path, *command: str | Path) -> Iterator[Path]:
    """Mount something on ``folder``/disk for as long as it is needed."""
    point = folder / "disk"
    point.mkdir(exist_ok=True)
    try:
        call(program("mount"), *command, point)
    except subprocess.CalledProcessError as error:
        pytest.skip(f"can't mount here: {error.stderr.decode().strip()}")
    try:
        yield point
    finally:
        try:
            call(program("umount"), point)
        except subprocess.CalledProcessError:
            call(program("umount"), "-l", point)  # a failed test may have left somebody in it
