"""What `seawall up` is made of gets the settings that are said for it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from seawall import app
from seawall.guard.outlet import Outlet
from seawall.journal import LocalFilesystem
from seawall.machine.folder import Folder
from seawall.migrate import runner
from seawall.settings import read


async def test_a_migration_is_given_the_time_that_is_set_for_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[Any] = []

    async def apply(store: Any, *, settings: Any, by: str) -> None:
        given.append((store.dsn, settings))

    monkeypatch.setattr(runner, "apply", apply)
    file = tmp_path / "seawall.toml"
    file.write_text("[migrate]\nwait_s = 7\nversion_timeout_s = 8000\n")
    settings = read({}, config=file, environment={})
    folder = Folder(tmp_path / "data", LocalFilesystem())
    parts = app._parts(folder, settings, lambda: settings, Outlet(2), app.Making(), watch_app=False)
    await parts.migrate("postgresql:///here")
    assert given == [("postgresql:///here", runner.Settings(wait_s=7, version_timeout_s=8000))]
