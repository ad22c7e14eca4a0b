"""What a process measures of its own load, and that load alone switches optional work off."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

from seawall.guard import Supervisor
from seawall.guard.pressure import LAG_HIGH_S, LOOP_LAG, Pressure, used_memory
from seawall.guard.shed import PATIENCE_S, ShedList
from seawall.kernel.alert import Alerts
from seawall.kernel.clock import SystemClock
from seawall.kernel.metric import Metrics
from seawall.testing import ManualClock

MEMINFO = "MemTotal:       8000000 kB\nMemFree:         100000 kB\nMemAvailable:   2000000 kB\n"


def test_memory_is_that_of_the_control_group_where_it_has_a_limit_else_the_machines(tmp_path: Path) -> None:
    memory = tmp_path / "meminfo"
    memory.write_text(MEMINFO)
    assert used_memory(memory, tmp_path) == 0.75
    (tmp_path / "memory.max").write_text("max\n")
    assert used_memory(memory, tmp_path) == 0.75
    (tmp_path / "memory.max").write_text("1000\n")
    (tmp_path / "memory.current").write_text("900\n")
    (tmp_path / "memory.stat").write_text("anon 400\ninactive_file 400\n")
    assert used_memory(memory, tmp_path) == 0.5


def test_where_nobody_tells_of_memory_there_is_no_pressure(tmp_path: Path) -> None:
    assert used_memory(tmp_path / "nothing", tmp_path) == 0.0
    (tmp_path / "strange").write_text("MemTotal: lots\n")
    assert used_memory(tmp_path / "strange", tmp_path) == 0.0


async def test_an_event_loop_that_is_late_for_long_enough_sheds_work_by_itself(tmp_path: Path) -> None:
    metrics, clock = Metrics(), SystemClock()
    alerts = Alerts(metrics, clock)
    shed = ShedList(clock=clock, metrics=metrics, alerts=alerts)
    work = shed.add("countries", rank=1, without="none", eases=(LOOP_LAG,))
    supervisor = Supervisor(metrics)
    Pressure(shed, clock=clock, metrics=metrics, memory=tmp_path / "none", limits=tmp_path).register(supervisor)
    async with supervisor:
        began = clock.monotonic()
        while work.on:
            assert clock.monotonic() - began < 30
            time.sleep(2 * LAG_HIGH_S)  # the fault itself: something keeps the loop to itself
            await asyncio.sleep(0)
    assert clock.monotonic() - began >= PATIENCE_S
    [alert] = alerts.active()
    assert "loop-lag" in alert.summary


def test_a_manual_clock_sees_no_lag_that_is_not_there() -> None:
    metrics, clock = Metrics(), ManualClock()
    shed = ShedList(clock=clock, metrics=metrics, alerts=Alerts(metrics, clock))
    Pressure(shed, clock=clock, metrics=metrics)
    shed.add("countries", rank=1, without="none", eases=(LOOP_LAG,))
    for _ in range(100):
        clock.advance(0.5)
        shed.look()
    assert [line.on for line in shed.lines()] == [True]
