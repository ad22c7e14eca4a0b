"""How a process is told to stop, and how it notices that its parent is gone."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
from collections.abc import Callable

import pytest

from seawall.guard import Lifecycle


async def test_a_signal_stops_and_a_second_one_hurries() -> None:
    async with Lifecycle("worker") as life:
        os.kill(os.getpid(), signal.SIGTERM)
        await asyncio.wait_for(life.stopping.wait(), 20)
        assert not life.hurry.is_set()
        os.kill(os.getpid(), signal.SIGINT)
        await asyncio.wait_for(life.hurry.wait(), 20)


async def test_a_child_ignores_the_terminals_interrupt_and_obeys_its_parent() -> None:
    ours, theirs = socket.socketpair()
    before = signal.getsignal(signal.SIGINT)
    try:
        async with Lifecycle("worker", parent=theirs) as life:
            os.kill(os.getpid(), signal.SIGINT)
            await asyncio.sleep(0)
            assert not life.stopping.is_set()
            ours.send(b"stop\n")
            await asyncio.wait_for(life.stopping.wait(), 20)
            ours.send(b"hurry\n")
            await asyncio.wait_for(life.hurry.wait(), 20)
    finally:
        signal.signal(signal.SIGINT, before)
        ours.close()


async def test_a_child_reloads_when_its_parent_says_so() -> None:
    ours, theirs = socket.socketpair()
    before = signal.getsignal(signal.SIGINT)
    reloaded = asyncio.Event()
    try:
        async with Lifecycle("worker", parent=theirs, reload=reloaded.set) as life:
            ours.send(b"reload\n")
            await asyncio.wait_for(reloaded.wait(), 20)
            assert not life.stopping.is_set()
    finally:
        signal.signal(signal.SIGINT, before)
        ours.close()


async def test_a_child_leaves_when_its_parent_is_gone() -> None:
    ours, theirs = socket.socketpair()
    before = signal.getsignal(signal.SIGINT)
    try:
        async with Lifecycle("worker", parent=theirs) as life:
            ours.close()
            await asyncio.wait_for(life.stopping.wait(), 20)
    finally:
        signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize("loop", [asyncio.new_event_loop, pytest.importorskip("uvloop").new_event_loop])
def test_a_child_whose_parent_was_killed_leaves_in_order(loop: Callable[[], asyncio.AbstractEventLoop]) -> None:
    """Its end of the socket is closed by then, and uvloop's transport doesn't know it any more."""
    left = []

    async def life() -> None:
        ours, theirs = socket.socketpair()
        async with Lifecycle("worker", parent=theirs) as life:
            ours.close()
            await asyncio.wait_for(life.stopping.wait(), 20)
            for _ in range(100):
                life.tell("beat")  # fails, and closes our end
                await asyncio.sleep(0)
        left.append("in order")

    before = signal.getsignal(signal.SIGINT)
    try:
        with asyncio.Runner(loop_factory=loop) as runner:
            runner.run(life())
    finally:
        signal.signal(signal.SIGINT, before)
    assert left == ["in order"]


async def test_a_child_tells_its_parent() -> None:
    ours, theirs = socket.socketpair()
    before = signal.getsignal(signal.SIGINT)
    try:
        async with Lifecycle("collector", parent=theirs) as life:
            life.tell("ready", port=8080)
            reader, writer = await asyncio.open_connection(sock=ours)
            word, _, values = (await asyncio.wait_for(reader.readline(), 20)).decode().partition(" ")
            assert (word, json.loads(values)) == ("ready", {"port": 8080})
            writer.close()
            await writer.wait_closed()
    finally:
        signal.signal(signal.SIGINT, before)
