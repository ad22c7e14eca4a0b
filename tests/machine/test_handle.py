"""Descriptors and ephemeral ports are counted before they run out."""

from __future__ import annotations

import asyncio
import os
import re
import socket
import threading
from pathlib import Path

import pytest

from seawall.guard import Supervisor, patience
from seawall.kernel.clock import SystemClock
from seawall.kernel.metric import Metrics
from seawall.machine.handle import Handles


def counted(metrics: Metrics, name: str, **labels: str) -> float:
    return metrics.gauge(name, "", **labels).now()


def test_descriptors_are_those_that_are_open() -> None:
    metrics = Metrics()
    handles = Handles(metrics, SystemClock())
    handles.read()
    before = counted(metrics, "seawall_descriptors_count")
    held = [os.open("/dev/null", os.O_RDONLY) for _ in range(20)]
    handles.read()
    assert counted(metrics, "seawall_descriptors_count") == before + 20
    for one in held:
        os.close(one)
    assert before < counted(metrics, "seawall_descriptors_max_count")


def test_ports_of_outgoing_connections_are_counted_and_listeners_are_not(tmp_path: Path) -> None:
    (tmp_path / "self" / "fd").mkdir(parents=True)
    (tmp_path / "sys/net/ipv4").mkdir(parents=True)
    (tmp_path / "net").mkdir()
    (tmp_path / "sys/net/ipv4/ip_local_port_range").write_text("32768\t60999\n")
    line = "   0: 0100007F:{port:04X} 0100007F:18EB {state} 00000000:00000000 00:00000000 00000000 0 0 1 1\n"
    rows = [(40000, "01"), (40000, "01"), (40001, "06"), (40002, "0A"), (6379, "01"), (50000, "08")]
    (tmp_path / "net" / "tcp").write_text(
        "  sl  local_address\n" + "".join(line.format(port=p, state=s) for p, s in rows)
    )
    metrics = Metrics()
    Handles(metrics, SystemClock()).read(tmp_path)
    assert counted(metrics, "seawall_ephemeral_ports_count", state="open") == 2
    assert counted(metrics, "seawall_ephemeral_ports_count", state="time_wait") == 1
    assert counted(metrics, "seawall_ephemeral_ports_max_count") == 28232


def test_a_real_connection_is_seen() -> None:
    metrics = Metrics()
    handles = Handles(metrics, SystemClock())
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()):
        handles.read()
        assert counted(metrics, "seawall_ephemeral_ports_count", state="open") >= 1


async def test_a_machine_that_has_no_time_to_be_counted_makes_no_loop_look_dead(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(patience, "SAY_EVERY_S", 0.05)
    monkeypatch.setattr(patience, "QUIET_S", 0.1)
    go_on, reads = threading.Event(), list[int]()
    handles = Handles(Metrics(), SystemClock())

    def slow() -> None:
        reads.append(len(reads))
        assert go_on.wait(30)

    monkeypatch.setattr(handles, "read", slow)
    supervisor = Supervisor(Metrics())
    supervisor.add("handles", handles._run, stall_s=0.6)
    try:
        async with supervisor, asyncio.timeout(20):
            while said_s(supervisor) < 1.2:
                await asyncio.sleep(0.02)
            assert supervisor.health()[0].restarts == 0 and len(reads) == 1
            go_on.set()
            while not supervisor.ready("handles"):
                await asyncio.sleep(0.02)
    finally:
        go_on.set()


def said_s(supervisor: Supervisor) -> float:
    """For how long it says that the loop waits."""
    found = re.search(r"/proc: no answer for ([\d.]+) s", supervisor.health()[0].reason)
    return float(found[1]) if found else 0.0
