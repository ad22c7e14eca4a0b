"""A collector's journal in a process of its own, fed by itself, for tests that kill it.

Arguments: a folder, the brokers, the first number, and what a look at the topic finds as JSON ("" for real brokers).
Each answer is a line on standard output when it is given: the number and how it was kept. It stops on SIGTERM.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import sys
from collections.abc import Callable
from pathlib import Path

from seawall.guard.panel import Panel
from seawall.guard.supervisor import Supervisor
from seawall.journal import LocalFilesystem, Settings, cluster
from seawall.journal.kafka import Topic
from seawall.journal.kafka.client import client_of
from seawall.journal.kafka.topic import Admin
from seawall.journal.spool.joint import Joint, Means
from seawall.kernel.alert import Alerts
from seawall.kernel.clock import SystemClock
from seawall.kernel.error import SeawallError
from seawall.kernel.event import EventIds, Record, encode
from seawall.kernel.metric import Metrics
from seawall.kernel.seam.journal import Outcome, Position

PAUSE_S = 0.01
SOURCES = 16


def fail(why: str) -> None:
    sys.exit(why)


async def main(folder: Path, bootstrap: str, number: int, facts: str) -> None:
    clock, metrics = SystemClock(), Metrics()
    settings = cluster.Settings(bootstrap=bootstrap)
    client = client_of(settings, "c1")

    async def told() -> Topic:
        return Topic(**{**json.loads(facts), "id": b"\x01" * 16, "retention_s": 1e9})

    means = Means(
        client=client, look=told if facts else Admin(client, settings).look, settings=settings,
        local=Settings(reserve_bytes=0, fill_bytes=4096, segment_bytes=64 * 1024), folder=folder / "spool" / "c1",
        on_failure=fail, filesystem=LocalFilesystem(), clock=clock, metrics=metrics, alerts=Alerts(metrics, clock),
        panel=Panel(), rng=random.Random(),
    )  # fmt: skip
    stopping = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopping.set)
    ids = EventIds(clock)
    async with Joint(means) as joint:
        supervisor = Supervisor(metrics)
        joint.register(supervisor)
        async with supervisor:
            while not stopping.is_set():
                record = Record(
                    id=ids.next(), source_id=bytes([number % SOURCES]) * 16, kind="none", tenant="acme",
                    source="shop", received_us=clock.wall_us(), body=b"%d" % number,
                )  # fmt: skip
                joint.submit(encode(record), answer(number))
                number += 1
                await asyncio.sleep(PAUSE_S)
    os.write(1, f"report {json.dumps(joint.report())}\n".encode())


def answer(number: int) -> Callable[[Outcome], None]:
    def said(outcome: Outcome) -> None:
        if isinstance(outcome, Position):
            os.write(1, b"%d %b\n" % (number, b"replicated" if outcome.replicated else b"fsync"))
        else:
            assert isinstance(outcome, SeawallError)
            os.write(1, f"{number} {type(outcome).__name__}\n".encode())

    return said


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), sys.argv[4]))
