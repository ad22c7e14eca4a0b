"""Cells of the matrix (docs/lab/matrix.md) that need a whole platform: the resolver of names is slow, hung or gone, and
the store is while a replay goes on. All that the platform speaks with has a name, and stands behind the fault proxy.
"""

from __future__ import annotations

import contextlib
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from disk_rig import HERE, call, program

from seawall.kernel.error import Rejected, Unavailable
from seawall.lab.checker import ledger
from seawall.lab.checker.verify import verify
from seawall.lab.part.fault import Fault
from seawall.lab.part.postgres import Postgres
from seawall.lab.part.proxy import FaultProxy
from seawall.lab.part.redis import Redis
from seawall.lab.platform import Platform
from seawall.lab.rig.flow import Flow, streams
from seawall.lab.rig.rig import APPS
from seawall.lab.tree import Tree

pytestmark = [pytest.mark.slow, pytest.mark.skipif(sys.platform != "linux", reason="needs LD_PRELOAD")]

READY_S = 90.0
BROKEN_S = 5.0
WELL_S = 60.0
DRAIN_S = 120.0
ANSWER_S = 5.0
"""The API says so within this when it can't (its statements have 2 s, and a connection's making too)."""

HOST = "seawall.test"
SETTINGS = f"""
[collector]
tenant_rate_per_s = 100000

[cache]
url = "redis://redis.{HOST}:%d"
hints = "redis"
"""
WAYS = {"slow": Fault(kind="latency", way="up", ms=400), "hung": Fault(kind="hole"), "gone": Fault(kind="refuse")}


@dataclass
class World:
    tree: Tree
    proxy: FaultProxy
    word: Path  # what the resolver reads
    platform: Platform

    def cut(self) -> None:
        """Every connection ends: the next one needs the resolver."""
        for link in ("store", "redis"):
            self.proxy.set(link, Fault(kind="reset"))
            self.proxy.clear(link)

    def resolver(self, word: str) -> None:
        fresh = self.word.with_suffix(".new")
        fresh.write_text(word)
        fresh.replace(self.word)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    folder = tmp_path_factory.mktemp("matrix")
    library = folder / "resolver.so"
    call(program("gcc"), "-shared", "-fPIC", "-O1", "-o", library, HERE / "resolver.c", "-ldl")
    (folder / "word").touch()
    (folder / "app").mkdir()
    shutil.copyfile(APPS / "basic.py", folder / "app" / "app.py")
    with (
        Postgres(folder / "postgres", bouncer=False) as store,
        Redis(folder / "redis", wheel=True) as redis,
        FaultProxy(folder / "proxy") as proxy,
    ):
        stores, port = proxy.link("store", store.port("a")), proxy.link("redis", redis.port("r1"))
        (folder / "dsn").touch(0o600)
        (folder / "dsn").write_text(f"postgresql://postgres@store.{HOST}:{stores}/postgres")
        (folder / "seawall.toml").write_text(SETTINGS % port)
        options = ("--dsn-file", str(folder / "dsn"), "--config", str(folder / "seawall.toml"))
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("LD_PRELOAD", str(library))
            patch.setenv("RESOLVER", str(folder / "word"))
            tree = Tree(folder / "data", app=folder / "app" / "app.py", log=folder / "log", options=options)
            tree.start()
        with tree, Platform(tree.place, patience_s=30.0) as platform:
            tree.wait_ready(READY_S)
            yield World(tree, proxy, folder / "word", platform)


def _until(true: Callable[[], bool], what: str, world: World) -> None:
    latest = time.monotonic() + WELL_S
    while not true():
        assert time.monotonic() < latest, f"not within {WELL_S:g} s: {what}\n{world.tree.log_tail(30)}"
        time.sleep(0.1)


def _asked_s(world: World) -> float:
    """How long the API takes to answer, whatever it says."""
    began = time.monotonic()
    with (
        Platform(world.tree.place, patience_s=0.0, timeout_s=ANSWER_S * 2) as platform,
        contextlib.suppress(Unavailable, Rejected),
    ):
        platform.call("GET", "/v1/runs?limit=1")
    return time.monotonic() - began


def _well(flow: Flow) -> bool:
    events, held = flow.recent["events"].window(2.0), flow.recent["held"].window(2.0)
    return bool(held.all) and held.count("own") == held.all and events.count("ok") == events.all > 0


@pytest.mark.parametrize("how", WAYS)
def test_a_resolver_that_is_away_costs_nothing_that_was_accepted(world: World, how: str, tmp_path: Path) -> None:
    wanted = streams([{"kind": "events", "rate": 40}, {"kind": "held", "rate": 5, "wait_s": 3}])
    flow = Flow(world.platform, wanted, tmp_path / "ledger", seed=len(how))
    flow.start()
    _until(lambda: _well(flow), "all is well before", world)
    world.resolver(how)
    try:
        world.cut()
        time.sleep(BROKEN_S)
        assert _asked_s(world) < ANSWER_S
        meanwhile = flow.recent["events"].window(BROKEN_S)
    finally:
        world.resolver("")
    _until(lambda: _well(flow), "all is well again", world)
    flow.stop()
    assert meanwhile.all > 50 and meanwhile.count("ok") == meanwhile.all, meanwhile.words
    verdict = verify(world.platform, ledger.read(tmp_path / "ledger"), timeout_s=DRAIN_S, must_succeed=True)
    assert verdict.holds and not verdict.silent, f"{verdict.counts()} {verdict.examples}\n{world.tree.log_tail(30)}"


@pytest.mark.parametrize("what", ["store", "resolver"])
@pytest.mark.parametrize("how", WAYS)
def test_a_replay_goes_on_behind_an_outage_and_begins_each_run_once(
    world: World, how: str, what: str, tmp_path: Path
) -> None:
    flow = Flow(world.platform, streams([{"kind": "events", "rate": 40}]), tmp_path / "ledger", seed=3)
    flow.start()
    _until(lambda: flow.recent["events"].total["202"] >= 60, "there are events", world)
    flow.stop()
    (run,) = ledger.read(tmp_path / "ledger").runs
    _until(lambda: len(_runs(world, run.source_id)) == flow.sent, "each has its run", world)
    asked = {"where": f"source={run.about['source']}", "rate": 20, "ramp_s": 0, "why": "a test"}
    id = world.platform.call("POST", "/v1/replays", asked)["id"]
    _until(lambda: _line(world, id)["runs"] >= 5, "it has begun some", world)
    if what == "resolver":
        world.resolver(how)
        world.cut()
    else:
        world.proxy.set("store", Fault(kind="reset"))
        world.proxy.set("store", WAYS[how])
    time.sleep(BROKEN_S)
    world.resolver("")
    world.proxy.clear("store")
    _until(lambda: _line(world, id)["state"] == "done", "it is done", world)
    assert _line(world, id)["runs"] == flow.sent
    _until(lambda: {one["status"] for one in _runs(world, run.source_id)} == {"succeeded"}, "all succeed", world)
    assert len(_runs(world, run.source_id)) == 2 * flow.sent


def _line(world: World, id: str) -> dict[str, Any]:
    found: dict[str, Any] = world.platform.call("GET", f"/v1/replays/{id}")
    return found


def _runs(world: World, source_id: str) -> list[Any]:
    return list(world.platform.items("/v1/runs", source=source_id))
