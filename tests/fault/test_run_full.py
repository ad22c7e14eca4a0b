"""A full DIR/run: what is written there is only for finding each other, so nothing that was accepted depends on it."""

from __future__ import annotations

import http.client
import subprocess
import sys
import time
from pathlib import Path

import pytest
from disk_rig import mounted, needs_root

from seawall.lab.platform import Platform, Source
from seawall.lab.tree import Tree
from seawall.machine.folder import Lock, replace_private
from seawall.store import place

pytestmark = needs_root
TINY = ("-t", "tmpfs", "-o", "size=64k", "none")
APP = Path(__file__).resolve().parents[2] / "examples" / "demo.py"
READY_S = 90.0


def _fill(disk: Path) -> Path:
    filler = disk / "filler"
    with filler.open("wb", buffering=0) as file, pytest.raises(OSError, match="No space left"):
        while True:
            file.write(bytes(4096))
    return filler


def _data(folder: Path, disk: Path) -> Path:
    data = folder / "data"
    data.mkdir(mode=0o711)
    (data / "run").symlink_to(disk)
    return data


def test_a_file_that_finds_no_room_is_named_and_the_old_one_stays(tmp_path: Path) -> None:
    with mounted(tmp_path, *TINY) as disk:
        replace_private(disk / "admin.json", "old")
        _fill(disk)
        with pytest.raises(OSError, match=r"No space left.*admin\.json"):
            replace_private(disk / "admin.json", "new")
        assert (disk / "admin.json").read_text() == "old"
        assert sorted(path.name for path in disk.iterdir()) == ["admin.json", "filler"]
        with pytest.raises(OSError, match=r"No space left.*role\.lock"):
            Lock(disk / "role.lock").acquire()


def test_a_start_without_room_says_which_file_and_keeps_the_data_folder_whole(tmp_path: Path) -> None:
    with mounted(tmp_path, *TINY) as disk:
        data = _data(tmp_path, disk)
        filler = _fill(disk)
        command = [sys.executable, "-m", "seawall", "up", "--data", str(data), "--listen", "127.0.0.1:0",
                   "--admin", "127.0.0.1:0", "--app", str(APP)]  # fmt: skip
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 1, done.stderr
        assert "No space left on device" in done.stderr and str(data / "run") in done.stderr
        assert "no file" not in done.stderr and "Traceback" not in done.stderr
        # With room, the same folder starts.
        filler.unlink()
        with Tree(data, app=APP, log=tmp_path / "up.log") as tree:
            tree.start()
            tree.wait_ready(READY_S)
        place.forget(data)


def _send(platform: Platform, source: Source) -> str:
    """One event; its id, once it was accepted."""
    until = time.monotonic() + 30
    while True:
        connection = http.client.HTTPConnection(*platform.listen(source), timeout=5)
        try:
            connection.request("POST", source.path, body=b'{"type":"full.run"}')
            answer = connection.getresponse()
            said = answer.read()
            if answer.status == 202:
                return str(answer.headers["Location"]).rpartition("/")[2]
        except OSError:
            said = b"no connection"
        finally:
            connection.close()
        assert time.monotonic() < until, said
        time.sleep(0.1)


def test_a_run_folder_that_fills_up_loses_nothing_and_what_died_meanwhile_comes_back(tmp_path: Path) -> None:
    with mounted(tmp_path, *TINY) as disk:
        data = _data(tmp_path, disk)
        with Tree(data, app=APP, log=tmp_path / "up.log") as tree:
            tree.start()
            tree.wait_ready(READY_S)
            with Platform(tree.place) as platform:
                source = platform.add_source("full", kind="none", secret="")
                sent = [_send(platform, source)]
                filler = _fill(disk)
                sent.append(_send(platform, source))
                for part in ("collector", "router", "worker"):
                    tree.kill(part)
                sent.append(_send(platform, source))  # the collector came back without room
                filler.unlink()
                tree.wait_ready(READY_S)
                sent.append(_send(platform, source))
                until = time.monotonic() + 30
                while missing := set(sent) - {str(item["id"]) for item in platform.items("/v1/events")}:
                    assert time.monotonic() < until, f"lost: {missing}\n{tree.log_tail(40)}"
                    time.sleep(0.1)
            log = (tmp_path / "up.log").read_text()
            assert "(no file)" not in log and "Traceback" not in log
        place.forget(data)
