"""Every single fault: each call that a fixed piece of work makes to the disk fails once, in each way there is.

Complete where the random search is deep: whatever one call does, all promises hold (``World`` checks them), and the
work can be finished after a restart.
"""

from __future__ import annotations

import errno
import os
from contextlib import suppress

import pytest
from journal_world import World

from seawall.testing import Crashed

FAULTS = {
    "EIO": lambda: OSError(errno.EIO, os.strerror(errno.EIO)),
    "ENOSPC": lambda: OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)),
    "crash": Crashed,
}


def work(world: World) -> None:
    """Rolls over segments, restarts, reads and forgets: about 200 calls to the disk."""
    for size in (100, 3000, 6000, 6000, 50):
        world.append([world.payload(size), world.payload(10)])
    world.read(4)
    world.start()
    for size in (9000, 9000, 9000):
        world.append([world.payload(size)])
    world.read(100)
    world.forget()
    world.start()


def run(call: int, fault: str, *, power: bool) -> bool:
    """The work, with that fault at that call; False when it needs fewer calls."""
    world = World(call)
    first = world.disk.calls
    met = False

    def plan(name: str, number: int) -> BaseException | None:
        nonlocal met
        if met or number < first + call:
            return None
        met = True
        return FAULTS[fault]()

    world.disk.plan = plan
    with suppress(Crashed, OSError):
        work(world)
    world.trouble = True
    world.crash(power=power)
    world.append([world.payload(200)])
    assert sum(1 for payload in world.acked.values() if world.numbers[payload] == world.count) == 1, "not usable again"
    world.check()
    return met


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("power", [False, True], ids=["kill", "power"])
def test_no_single_fault_breaks_a_promise(fault: str, power: bool) -> None:
    calls = 0
    while run(calls + 1, fault, power=power):
        calls += 1
    assert calls > 100
    print(f"{calls} calls, each failed with {fault}")
