"""What a worker's process lends to steps."""

from __future__ import annotations

from pathlib import Path

from seawall.app import own_ports
from seawall.journal.filesystem import LocalFilesystem
from seawall.machine.folder import Folder
from seawall.settings import read


def test_our_own_ports_are_those_of_the_settings_and_those_that_were_bound(tmp_path: Path) -> None:
    folder = Folder(tmp_path / "data", LocalFilesystem())
    folder.prepare()
    settings = read({"listen": "0.0.0.0:8080", "admin": "127.0.0.1:0"}, config=None, environment={})
    assert own_ports(folder, settings) == {8080}
    folder.write_admin({"address": "http://127.0.0.1:40001", "listen": "https://[::1]:40002"})
    assert own_ports(folder, settings) == {8080, 40001, 40002}
    folder.admin_file.write_text("{")
    assert own_ports(folder, settings) == {8080}
