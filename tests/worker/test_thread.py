"""Threads of plain steps: places, waiting for one, and threads that never come back."""

from __future__ import annotations

import asyncio
import threading

import pytest

from seawall.kernel.metric import Metrics
from seawall.worker.thread import Threads


def made(most: int) -> tuple[Threads, list[int]]:
    hung: list[int] = []
    return Threads(most, metrics=Metrics(), hang=hung.append), hung


async def test_places_are_given_in_order_of_coming_and_never_more_than_there_are() -> None:
    threads, hung = made(2)
    under_way, most, order = 0, 0, list[int]()
    lock = threading.Lock()

    def work(number: int) -> int:
        nonlocal under_way, most
        with lock:
            under_way += 1
            most = max(most, under_way)
            order.append(number)
        with lock:
            under_way -= 1
        return number

    async def one(number: int) -> object:
        await threads.take()
        return await threads.call(work, (number,), {})

    assert await asyncio.gather(*(one(n) for n in range(200))) == list(range(200))
    assert most <= 2 and sorted(order) == list(range(200)) and not hung
    threads.close()


@pytest.mark.parametrize("granted", [False, True])
async def test_who_is_cancelled_while_waiting_keeps_no_place(granted: bool) -> None:
    threads, _ = made(1)
    await threads.take()
    waiting = asyncio.create_task(threads.take())
    await asyncio.sleep(0)
    if granted:
        threads.give()
    waiting.cancel()
    await asyncio.wait([waiting])
    assert waiting.cancelled()
    if not granted:
        threads.give()
    async with asyncio.timeout(5):
        await threads.take()
    threads.close()


class Held:
    """What a thread does until it is let go."""

    def __init__(self) -> None:
        self.begun = threading.Semaphore(0)
        self.release = threading.Event()

    def wait(self) -> None:
        self.begun.release()
        self.release.wait(10)

    async def begins(self) -> None:
        """A thread is in it."""
        assert await asyncio.to_thread(self.begun.acquire, timeout=5)


async def test_a_thread_that_was_given_up_has_its_place_until_it_returns() -> None:
    threads, hung = made(2)
    held = Held()
    await threads.take()
    task = asyncio.create_task(threads.call(held.wait, (), {}))
    await held.begins()
    task.cancel()
    await asyncio.wait([task])
    await threads.take()
    assert not hung
    late = asyncio.create_task(threads.take())
    await asyncio.sleep(0.02)
    assert not late.done()
    held.release.set()
    async with asyncio.timeout(5):
        await late
    threads.close()


async def test_when_no_thread_will_come_back_that_is_said() -> None:
    threads, hung = made(2)
    held = Held()
    for _ in range(2):
        await threads.take()
        task = asyncio.create_task(threads.call(held.wait, (), {}))
        await held.begins()
        task.cancel()
        await asyncio.wait([task])
    assert hung == [2]
    held.release.set()
    threads.close()
