"""Finding the logs of a data folder."""

from __future__ import annotations

from pathlib import Path

from seawall.journal import LocalFilesystem, Log, Settings
from seawall.kernel.alert import Alerts
from seawall.kernel.clock import SystemClock
from seawall.kernel.metric import Metrics
from seawall.machine.folder import Folder
from seawall.machine.logs import Logs


async def make(folder: Path) -> None:
    async with Log(folder, Settings(), metrics=Metrics(), on_failure=print, filesystem=LocalFilesystem()):
        pass


async def test_a_log_that_can_not_be_opened_is_an_alert_until_it_can(tmp_path: Path) -> None:
    """Its events are routed by nobody, and nothing else tells of them."""
    folder, alerts = Folder(tmp_path, LocalFilesystem()), Alerts(Metrics(), SystemClock())
    for name in ("c1", "c2"):
        await make(folder.journal(name))
    id_file = folder.journal("c2") / "log.id"
    said = id_file.read_bytes()
    id_file.write_bytes(b"not an id")
    async with Logs(folder, folder.journals, alerts=alerts) as logs:
        for _ in range(2):
            assert set(await logs.find()) == {"c1"}
            (alert,) = alerts.active()
            assert (alert.name, dict(alert.labels)) == ("journal-unopened", {"log": "c2"})
            assert "32 hexadecimal digits" in alert.summary
        id_file.write_bytes(said)
        assert set(await logs.find()) == {"c1", "c2"}
        assert not alerts.active()
