"""A worker process of the tests: DSN APP [--owner HEX] [--solo QUEUE] [--turn S] [--parent FD].

APP is a module with ``app``.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib
import socket
import sys
import uuid
from dataclasses import replace

from seawall.guard import Heart, Lifecycle, Supervisor, loop, watchdog
from seawall.guard.budget import Budget
from seawall.kernel import log
from seawall.kernel.clock import SystemClock
from seawall.kernel.metric import Metrics
from seawall.machine import memory
from seawall.store import pool
from seawall.worker import Worker
from worker.rig import QUICK

watchdog.BLOCKED_S = 4  # instead of 15: the tests wait for it


async def main() -> None:
    arguments = argparse.ArgumentParser()
    arguments.add_argument("dsn")
    arguments.add_argument("app")
    arguments.add_argument("--owner", type=uuid.UUID, default=None)
    arguments.add_argument("--solo", default=None)
    arguments.add_argument("--turn", type=float, default=None)
    arguments.add_argument("--parent", type=int, default=None)
    asked = arguments.parse_args()
    if asked.solo:
        memory.cap(QUICK.solo_memory_mb)
    log.configure("solo" if asked.solo else "worker", level="warning")
    metrics = Metrics()
    parent = socket.socket(fileno=asked.parent) if asked.parent is not None else None
    made = Worker(
        pool.Settings(dsn=asked.dsn),
        importlib.import_module(asked.app).app,
        replace(QUICK, solo_silent_s=2.0, drain_s=30.0 if asked.solo else QUICK.drain_s),
        clock=SystemClock(),
        metrics=metrics,
        owner=asked.owner or uuid.uuid4(),
        solo_queue=asked.solo,
        solo_turn_s=asked.turn,
        solo_command=[sys.executable, "-m", "worker.child", asked.dsn, asked.app],
    )
    async with Lifecycle("worker", parent=parent) as life, made:
        supervisor = Supervisor(metrics, watch_blocking=True)
        made.register(supervisor)
        supervisor.add("lifecycle.beat", lambda heart: beats(heart, life))
        async with supervisor:
            waits = [asyncio.create_task(life.stopping.wait())]
            if asked.solo:
                waits.append(asyncio.create_task(made.until_idle()))
            await loop.uncancelled(asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED))
            for wait in waits:
                wait.cancel()
            await made.stop(Budget(60.0, SystemClock()))


async def beats(heart: Heart, life: Lifecycle) -> None:
    while True:
        life.tell("beat")
        await heart.beat()
        await asyncio.sleep(0.3)


if __name__ == "__main__":
    loop.run(main())
