"""A full disk at a start. DIR/run is only for finding each other, so nothing that was accepted depends on it; and with
DIR full, a start goes as far as it can, and the rest of the way when there is room."""

from __future__ import annotations

import contextlib
import http.client
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from disk_rig import mounted, needs_root

from seawall.lab.part.port import free
from seawall.lab.platform import Platform, Source
from seawall.lab.tree import Tree
from seawall.machine.folder import Busy, Lock, replace_private
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
        lock = Lock(disk / "role.lock")
        lock.acquire()  # it holds, though it can't say whose it is
        assert lock.holder() == {}
        with pytest.raises(OSError, match=r"No space left.*role\.lock"):
            lock.note()
        with pytest.raises(Busy):
            Lock(disk / "role.lock").acquire()
        lock.release()


def _until(true: Callable[[], object], what: str) -> None:
    until = time.monotonic() + READY_S
    while not true():
        assert time.monotonic() < until, what
        time.sleep(0.05)


def test_a_first_start_without_room_says_which_file_and_goes_on_when_there_is_some(tmp_path: Path) -> None:
    with mounted(tmp_path, *TINY) as disk:
        data = _data(tmp_path, disk)
        filler = _fill(disk)
        with Tree(data, app=APP, log=tmp_path / "up.log") as tree:
            tree.start()
            _until(lambda: str(data / "run" / "settings.json") in tree.log.read_text(), "it says what it can't write")
            filler.unlink()
            tree.wait_ready(READY_S)
            said = tree.log.read_text()
            assert "No space left on device" in said and "Traceback" not in said
        place.forget(data)


SMALL = ("-t", "tmpfs", "-o", "size=200m,mode=711", "none")


def _status(platform: Platform, source: Source) -> int:
    host, port = platform.listen(source)
    with contextlib.closing(http.client.HTTPConnection(host, port, timeout=10)) as connection:
        try:
            connection.request("POST", source.path, body=b'{"type":"full"}')
            answer = connection.getresponse()
            assert answer.status != 503 or int(answer.headers["Retry-After"]) > 0
            return answer.status
        except (OSError, http.client.HTTPException):
            return 0


@pytest.mark.parametrize("end", ["in order", "kill -9"])
def test_a_restart_on_a_full_disk_answers_503_and_is_whole_again_when_there_is_room(tmp_path: Path, end: str) -> None:
    with mounted(tmp_path, *SMALL) as disk:
        [port] = free(1)
        options = ("--listen", f"127.0.0.1:{port}")
        with Tree(disk / "data", app=APP, log=tmp_path / "up.log", options=options) as tree:
            tree.start()
            tree.wait_ready(READY_S)
            with Platform(tree.place) as platform:
                source = platform.add_source("full", kind="none", secret="")
                first = _send(platform, source)
                tree.stop() if end == "in order" else tree.kill("up")
                filler = _fill(disk)
                tree.start()
                _until(lambda: _status(platform, source) == 503, "intake answers")
                filler.unlink()
                tree.wait_ready(READY_S)
                _until(lambda: _status(platform, source) == 202, "it accepts again")
                _until(lambda: first in {str(item["id"]) for item in platform.items("/v1/events")}, "nothing is lost")
            assert "Traceback" not in tree.log.read_text()
        place.forget(disk / "data")


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
