"""A name server that never answers takes nobody else's threads."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator, Sequence

import pytest

from seawall.step import StepUnavailable
from seawall.step.resolver import DOMAIN_THREADS_MAX, THREADS_MAX, WAITING_MAX, Desk, Resolver


class Names:
    """Answers at once, or for names of ``hung`` domains when it is let go."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.go = threading.Event()

    def __call__(self, host: str) -> Sequence[str]:
        self.asked.append(host)
        if "hung" in host:
            self.go.wait(30)
        if host == "none.example":
            raise OSError("no such name")
        return ["192.0.2.1"]


@pytest.fixture
def names() -> Iterator[Names]:
    made = Names()
    yield made
    made.go.set()


async def test_a_hung_domain_has_few_threads_and_others_are_answered(names: Names) -> None:
    resolver = Resolver(names)
    stuck = [asyncio.create_task(resolver.resolve(f"h{n}.hung.example", 443)) for n in range(THREADS_MAX * 2)]
    async with asyncio.timeout(10):
        assert await resolver.resolve("a.fine.test", 443) == ["192.0.2.1"]
        assert len([name for name in names.asked if "hung" in name]) <= DOMAIN_THREADS_MAX
        for task in stuck[:THREADS_MAX]:
            task.cancel()  # whoever gives up frees no thread, and must not let the next one in
        assert await resolver.resolve("b.fine.test", 443) == ["192.0.2.1"]
        assert len([name for name in names.asked if "hung" in name]) <= DOMAIN_THREADS_MAX
        names.go.set()
        done = await asyncio.gather(*stuck, return_exceptions=True)
    assert done[-1] == ["192.0.2.1"]
    resolver.close()


async def test_those_who_ask_for_one_name_share_one_look_up_and_the_next_asks_anew(names: Names) -> None:
    resolver = Resolver(names)
    asks = [asyncio.create_task(resolver.resolve("a.hung.example", port)) for port in range(1, 50)]
    await asyncio.sleep(0)
    asks[0].cancel()
    names.go.set()
    async with asyncio.timeout(10):
        done = await asyncio.gather(*asks, return_exceptions=True)
        assert names.asked == ["a.hung.example"] and done[1:] == [["192.0.2.1"]] * 48
        await resolver.resolve("a.hung.example", 1)
    assert len(names.asked) == 2, "no answer is remembered"
    resolver.close()


async def test_a_name_that_is_none_is_told_to_each_who_asked(names: Names) -> None:
    resolver = Resolver(names)
    for _ in range(2):
        with pytest.raises(StepUnavailable, match="can't be resolved"):
            await resolver.resolve("none.example", 443)
    resolver.close()


async def test_calls_that_wait_for_a_thread_are_bounded() -> None:
    go, desk = threading.Event(), Desk(1, "t")
    begun = [desk.begin(lambda: go.wait(30)) for _ in range(1 + WAITING_MAX)]
    with pytest.raises(StepUnavailable):
        desk.begin(lambda: None)
    go.set()
    async with asyncio.timeout(10):
        await asyncio.gather(*begun)
        assert await desk.begin(lambda: 7) == 7
    desk.close()
