"""An open log on real files whose disk a test can break."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from seawall.journal import LocalFilesystem, Log, LogReader, Settings
from seawall.kernel.metric import Metrics
from seawall.kernel.seam.journal import Outcome, Position
from seawall.testing import FaultyFilesystem

SMALL = Settings(segment_bytes=16 * 1024, fill_bytes=4096, reserve_bytes=0, resume_bytes=4096, answer_timeout_s=0.2)
NO_SOCKET = Path("/nonexistent/socket")


@dataclass
class Desk:
    """A log, its disk, and what it said."""

    log: Log
    disk: FaultyFilesystem
    metrics: Metrics
    failures: list[str] = field(default_factory=list)

    def submit(self, *payloads: bytes) -> list[Outcome]:
        """Submit; the list fills with the answers."""
        answers: list[Outcome] = []
        for payload in payloads:
            self.log.submit(payload, answers.append)
        return answers

    async def keep(self, *payloads: bytes) -> list[Position]:
        """Each as a batch of its own."""
        positions: list[Position] = []
        for payload in payloads:
            (outcome,) = await answered(self.submit(payload), 1)
            assert isinstance(outcome, Position), outcome
            positions.append(outcome)
        return positions

    def alerts(self) -> set[str]:
        """Names of those that are raised."""
        samples = (sample for sample in self.metrics.samples() if sample.name == "seawall_alerts_active_count")
        return {dict(sample.labels)["alert"] for sample in samples if sample.value}

    def count(self, name: str) -> float:
        return next(sample.value for sample in self.metrics.samples() if sample.name == name)


async def answered(answers: list[Outcome], count: int) -> list[Outcome]:
    """The answers, once there are ``count``."""
    await until(lambda: len(answers) >= count)
    return answers


async def until(holds: Callable[[], bool]) -> None:
    """Give way to the event loop until it does, for 30 s."""
    async with asyncio.timeout(30):
        while not holds():
            await asyncio.sleep(0.001)


@asynccontextmanager
async def opened(folder: Path, settings: Settings = SMALL) -> AsyncIterator[Desk]:
    disk, metrics = FaultyFilesystem(LocalFilesystem()), Metrics()
    failures: list[str] = []
    async with Log(folder, settings, metrics=metrics, on_failure=failures.append, filesystem=disk) as log:
        yield Desk(log, disk, metrics, failures)


async def payloads_in(folder: Path) -> list[bytes]:
    """Everything in a log that nobody writes, with no damage in it."""
    async with LogReader(folder, NO_SOCKET) as reader:
        chunk = reader.read(reader.start(), records_max=1_000_000, bytes_max=1 << 30)
        assert not chunk.damage
        return [frame.payload for frame in chunk.frames]


def segments(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.seg"))
