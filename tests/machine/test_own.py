"""A queue that reserves slots gets a worker of its own, as soon as the worker has said so, and keeps it."""

from __future__ import annotations

import asyncio
import re
from typing import Any, cast
from unittest.mock import AsyncMock, Mock

import pytest

from seawall.app import _used
from seawall.guard import Supervisor
from seawall.kernel.error import Misconfigured
from seawall.kernel.metric import Metrics
from seawall.machine.own import OWN, OwnQueues
from seawall.machine.process import Child
from seawall.machine.role import own_name
from seawall.workflow import App, Context, Event


async def nothing(event: Event, ctx: Context) -> None: ...


async def test_each_queue_that_the_worker_names_is_started_once_and_so_many_at_most() -> None:
    looks = list[Any]()

    class Worker:
        def __init__(self) -> None:
            self.words: dict[str, Any] = {}

        @property
        def said(self) -> dict[str, Any]:
            looks.append(self.words.get(OWN))
            return self.words

    worker, started = Worker(), list[str]()
    own = OwnQueues(cast("Child", worker), most=2, start=started.append)
    supervisor = Supervisor(Metrics())
    supervisor.add("own", own.run)
    async with supervisor, asyncio.timeout(15):
        worker.words = {OWN: ["a", 7, "a"]}
        while started != ["a"]:
            await asyncio.sleep(0.01)
        worker.words = {OWN: "nonsense"}
        while "nonsense" not in looks:
            await asyncio.sleep(0.01)
        worker.words = {OWN: ["b", "c", "a"]}
        while len(started) < 2:
            await asyncio.sleep(0.01)
        assert started == ["a", "b"]


async def test_none_is_started_any_more_when_all_are_being_stopped() -> None:
    worker, started, over = Mock(said={}), list[str](), asyncio.Event()
    own = OwnQueues(worker, most=2, start=started.append, over=over.is_set)
    heart = Mock(beat=AsyncMock())
    loop = asyncio.create_task(own.run(heart))
    over.set()
    worker.said = {OWN: ["a"]}
    async with asyncio.timeout(15):
        while heart.beat.await_count < 2:
            await asyncio.sleep(0.01)
    loop.cancel()
    assert not started


@pytest.mark.parametrize("queue", ["runbooks", "../../etc", "Ä/ö", "x" * 200, "a\x00b", "."])
def test_the_name_of_such_a_process_is_a_files_name_whatever_its_queue_is_called(queue: str) -> None:
    assert re.fullmatch(r"worker\.[a-z0-9-]{0,20}-[0-9a-f]{8}", own_name([queue]))
    assert own_name([queue]) != own_name([queue + "2"])


def test_a_queue_that_no_workflow_uses_is_refused_and_those_that_there_are_are_named() -> None:
    app = App()
    for name in ("bulk", "runbooks"):
        app.workflow(on="x", queue=name, name=name)(cast("Any", nothing))
    _used(("bulk",), app)
    with pytest.raises(Misconfigured, match="--queue runboks: no workflow uses it; there are bulk, runbooks"):
        _used(("runboks",), app)
