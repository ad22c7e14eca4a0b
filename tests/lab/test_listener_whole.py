"""The listener for replies ends inside a whole platform's collector (I1): what does it, and what becomes of it."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest

from seawall.kernel.error import Rejected
from seawall.lab import act, probe
from seawall.lab.rig import Rig, open_rig

from .test_rig_whole import ARMED, order

pytestmark = pytest.mark.slow

TRAFFIC = ({"kind": "held", "rate": 10, "wait_s": 2},)


def until(met: Callable[[], bool], within_s: float = 30.0) -> None:
    latest = time.monotonic() + within_s
    while not met():
        assert time.monotonic() < latest, "not in time"
        time.sleep(0.1)


def opened(folder: Path, **more: object):  # type: ignore[no-untyped-def]
    return open_rig(order(folder, traffic=TRAFFIC, **more), arm=ARMED, say=lambda text: None)


def test_one_that_is_watched_is_started_again_and_answers_go_on(tmp_path: Path) -> None:
    with opened(tmp_path, options={"parts": ["mortal-listener"]}) as rig:
        pid = rig.tree.pid("collector")
        assert str(pid) in act.end_listeners("notify")
        assert ("killed", "the listeners: ended from inside") in rig.moments()
        until(lambda: rig.sample().get("listener.restarts_total", 0.0) >= 1)
        until(lambda: 0 <= probe.listener_age_s("notify") < 2 and probe.own_share(1.0) == 1.0)
        assert rig.tree.pid("collector") == pid
        assert rig.finish(60.0)["own"] > 0


def test_one_that_nobody_watches_stays_away_and_all_looks_well(tmp_path: Path) -> None:
    with opened(tmp_path, weak=("unwatched-listener",), options={}) as rig:
        act.end_listeners("notify")
        until(lambda: _only_tickets(rig))
        assert rig.ready() and "listener.restarts_total" not in rig.sample()


def _only_tickets(rig: Rig) -> bool:
    window = rig.flow.recent["held"].window(1.0)
    return window.count("ticket") > 0 and window.count("own") == 0


def test_there_is_no_way_into_the_product(tmp_path: Path) -> None:
    with opened(tmp_path, options={}) as rig, pytest.raises(Rejected, match="no way in"):
        act.end_listeners("notify")
    assert ("killed", "the listeners: ended from inside") not in rig.moments()
