"""Where a platform is and what it can do, as others are told: by file, by systemd, by alert."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from seawall.guard import Supervisor
from seawall.journal.filesystem import LocalFilesystem
from seawall.kernel.alert import Alerts
from seawall.kernel.clock import SystemClock
from seawall.kernel.metric import Metrics
from seawall.machine.announce import Announcement
from seawall.machine.claim import Claim
from seawall.machine.folder import Folder
from seawall.machine.process import Child, Spec
from seawall.machine.systemd import Notifier
from seawall.settings import read


@dataclass
class Told:
    """A platform whose roles are ready when a test says so, and what it tells."""

    folder: Folder
    children: dict[str, Child]
    alerts: Alerts
    supervisor: Supervisor
    ear: socket.socket
    examined: int = 0

    async def heard(self) -> list[str]:
        """The next of systemd's datagrams, by lines."""
        async with asyncio.timeout(10):
            return (await asyncio.get_running_loop().sock_recv(self.ear, 4096)).decode().split("\n")


@contextlib.asynccontextmanager
async def announced(path: Path) -> AsyncIterator[Told]:
    folder = Folder(path / "data", LocalFilesystem())
    settings = read({"listen": "127.0.0.1:0", "admin": "127.0.0.1:0"}, config=None, environment={})
    claim, metrics = Claim(folder, settings.program), Metrics()
    claim.take()
    ear = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
    ear.bind(str(path / "notify"))
    roles = ("collector", "router", "worker")
    children = {role: Child(Spec(role=role, command=[], stop_s=1.0), refused=pytest.fail) for role in roles}
    told = Told(folder, children, Alerts(metrics, SystemClock()), Supervisor(metrics), ear)

    async def examine() -> None:
        told.examined += 1

    notifier = Notifier({"NOTIFY_SOCKET": str(path / "notify")}.get)
    made = Announcement(folder, settings, claim, notifier, told.alerts, children, examine)
    told.supervisor.add("announce", made.run)
    try:
        async with told.supervisor:
            yield told
        made.stopping()
        assert not folder.admin_file.exists()
    finally:
        ear.close()
        claim.release()


async def test_systemd_hears_ready_once_events_are_accepted_and_what_else_is_missing(tmp_path: Path) -> None:
    async with announced(tmp_path) as told:
        extend, status = await told.heard()
        assert extend.startswith("EXTEND_TIMEOUT_USEC=") and status.startswith("STATUS=not accepting events")
        told.children["collector"].ready.set()
        assert await told.heard() == ["READY=1", "STATUS=accepting events; not ready: router, worker"]
        told.children["router"].ready.set()
        told.children["worker"].problem = "app.py: line 5: no"
        assert await told.heard() == ["STATUS=accepting events; not ready: worker (app.py: line 5: no)"]
        assert told.examined == 0
        told.children["worker"].problem = ""
        told.children["worker"].ready.set()
        while (words := await told.heard()) != ["STATUS=ready"]:
            assert words == ["STATUS=accepting events; not ready: worker"]
        told.children["collector"].ready.clear()
        assert await told.heard() == ["STATUS=not accepting events; not ready: collector"]
        assert told.examined == 1


async def test_a_role_that_can_not_start_is_an_alert_until_it_has(tmp_path: Path) -> None:
    async with announced(tmp_path) as told:
        told.children["worker"].problem = "app.py: line 5: no"
        told.children["collector"].ready.set()
        while "READY=1" not in await told.heard():
            pass
        [alert] = told.alerts.active()
        assert (alert.name, dict(alert.labels)) == ("role-refused", {"child": "worker"})
        assert "line 5: no" in alert.summary and alert.unaffected
        told.children["worker"].problem = ""
        while "worker (" in (await told.heard())[-1]:
            pass
        assert told.alerts.active() == []


async def test_a_file_that_can_not_be_written_keeps_nobody_from_starting_and_comes_later(tmp_path: Path) -> None:
    in_the_way = tmp_path / "data" / "run" / f".admin.json.{os.getpid()}"  # its draft
    in_the_way.mkdir(parents=True)
    async with announced(tmp_path) as told:
        told.children["collector"].ready.set()
        while "READY=1" not in await told.heard():
            pass
        [health] = told.supervisor.health()
        assert not health.ready and "admin.json" in health.reason and not told.folder.admin_file.exists()
        in_the_way.rmdir()
        async with asyncio.timeout(10):
            while not told.supervisor.health()[0].ready:
                await asyncio.sleep(0.01)
        assert json.loads(told.folder.admin_file.read_text())["pid"] == os.getpid()
