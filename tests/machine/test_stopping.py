"""A stop tells its stages, and its last word on events; systemd hears of all of it."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from pathlib import Path

import pytest

from seawall.guard import Supervisor
from seawall.kernel.metric import Metrics
from seawall.machine.claim import ROLES
from seawall.machine.doctor import host
from seawall.machine.stopping import BESIDE_S, Stopping, stages
from seawall.machine.systemd import Notifier
from seawall.settings import Program
from seawall.testing import ManualClock


def told(record: logging.LogRecord) -> dict[str, object]:
    values: dict[str, object] = record.seawall  # type: ignore[attr-defined]
    return values


def test_stages_say_what_they_took_and_one_beyond_the_budget_is_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "seawall")
    clock = ManualClock()
    stopping = Stopping(5.0, clock=clock)
    with stopping.stage("drain"):
        clock.advance(3)
    with pytest.raises(OSError), stopping.stage("flush"):
        clock.advance(4)
        raise OSError("disk")
    assert [(r.levelname, told(r)["stage"], told(r)["took_s"], told(r)["left_s"]) for r in caplog.records] == [
        ("DEBUG", "drain", 3.0, 2.0), ("WARNING", "flush", 4.0, -2.0),
    ]  # fmt: skip


def test_a_stage_leaves_the_later_ones_their_share_however_late_it_begins() -> None:
    clock = ManualClock()
    stopping = Stopping(10.0, clock=clock)
    with stopping.stage("drain", keep_share=0.4) as budget:
        assert budget.left_s == pytest.approx(6.0)
        clock.advance(7)
        assert budget.spent
    with stopping.stage("flush") as budget:
        assert budget.left_s == pytest.approx(3.0)
        clock.advance(9)
    with stopping.stage("leave") as budget:
        assert budget.spent


@pytest.mark.parametrize(("lost", "level"), [(0, "INFO"), (1, "CRITICAL")])
def test_the_exit_report_is_critical_when_something_is_lost(
    caplog: pytest.LogCaptureFixture, lost: int, level: str
) -> None:
    caplog.set_level(logging.DEBUG, "seawall")
    Stopping(5.0, clock=ManualClock()).report({"accepted": 9, "durable": 9 - lost, "lost": lost})
    [record] = caplog.records
    assert (record.levelname, told(record)["lost"]) == (level, lost)


async def test_systemd_hears_ready_the_watchdog_and_the_stop(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as ear:
        ear.bind(str(tmp_path / "notify"))
        said = {"NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "300000", "WATCHDOG_PID": str(os.getpid())}
        notifier, loop = Notifier(said.get), asyncio.get_running_loop()
        notifier.ready()
        assert await loop.sock_recv(ear, 100) == b"READY=1\nSTATUS=ready"
        supervisor = Supervisor(Metrics())
        supervisor.add("systemd", notifier.run)
        async with supervisor, asyncio.timeout(5):
            for _ in range(3):
                assert await loop.sock_recv(ear, 100) == b"WATCHDOG=1"
        notifier.stopping()
        while (word := await loop.sock_recv(ear, 100)) == b"WATCHDOG=1":
            pass
        assert word == b"STOPPING=1\nSTATUS=stopping"


@pytest.mark.parametrize("name", ["", "/nowhere/notify"])
def test_without_systemd_nothing_happens(name: str) -> None:
    notifier = Notifier({"NOTIFY_SOCKET": name, "WATCHDOG_USEC": "x"}.get)
    notifier.ready()
    assert notifier.watchdog_s is None


def test_the_watchdog_of_another_process_is_not_ours() -> None:
    said = {"NOTIFY_SOCKET": "/nowhere", "WATCHDOG_USEC": "300000", "WATCHDOG_PID": "1"}
    assert Notifier(said.get).watchdog_s is None


def test_the_doctor_counts_what_stopping_may_take_and_not_a_second_less() -> None:
    program = Program(app="app.py", stop_router_s=1.0)
    each = stages(program, embedded=True)
    assert list(each) == [*ROLES, "postgres"] and each["router"] == 1.0
    assert list(stages(Program(), embedded=False)) == [role for role in ROLES if role != "worker"]
    most_s = sum(each.values()) + BESIDE_S
    assert not [*host.stop_budget(each, host.Supervision(kill_after_s=most_s))]
    assert [*host.stop_budget(each, host.Supervision(kill_after_s=most_s - 1))]
