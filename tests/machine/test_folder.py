"""The data folder: made once, refused when it is newer or not ours, owned by one process."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from seawall.journal.filesystem import LocalFilesystem
from seawall.kernel.error import Misconfigured
from seawall.machine.claim import await_leaving, bound
from seawall.machine.folder import Busy, Folder, Lock, replace_private, start_time

HOLDER = """
import sys
from pathlib import Path
from seawall.machine.folder import Lock
lock = Lock(Path(sys.argv[1]))
lock.acquire()
print("held", flush=True)
sys.stdin.read()
"""


def made(path: Path) -> Folder:
    folder = Folder(path, LocalFilesystem())
    folder.prepare()
    return folder


def holder(path: Path) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None and process.stdout.readline() == "held\n"
    return process


def let_go(process: subprocess.Popen[str]) -> None:
    process.communicate("")


def test_key_and_token_are_private_and_stay_the_same(tmp_path: Path) -> None:
    first = made(tmp_path / "d")
    key, token = first.key(), first.token()
    assert len(key) == 32 and len(token) > 30
    for file in (first.key_file, first.token_file, first.path / "FORMAT"):
        assert file.stat().st_mode & 0o777 == 0o600
    again = made(tmp_path / "d")
    assert (again.key(), again.token()) == (key, token)
    assert not [p.name for p in first.path.iterdir() if p.name.startswith(".")], "no drafts are left"


def test_no_parents_mode_is_touched(tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    made(tmp_path / "a" / "b")
    assert tmp_path.stat().st_mode & 0o777 == 0o700


def test_a_newer_format_is_refused_and_nothing_is_changed(tmp_path: Path) -> None:
    (tmp_path / "FORMAT").write_text("seawall 99\n")
    with pytest.raises(Misconfigured, match="has format 99"):
        made(tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["FORMAT"]


@pytest.mark.parametrize("text", ["", "other 1", "seawall x", "seawall 1 2", "\xff"])
def test_a_format_file_that_is_not_ours_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "FORMAT").write_text(text, "latin-1")
    with pytest.raises(Misconfigured, match="is not a Seawall format file"):
        made(tmp_path)


def test_data_without_a_format_is_refused(tmp_path: Path) -> None:
    (tmp_path / "journal").mkdir()
    with pytest.raises(Misconfigured, match="no FORMAT file"):
        made(tmp_path)


def test_a_file_where_the_folder_should_be_is_a_clear_error(tmp_path: Path) -> None:
    (tmp_path / "d").write_text("")
    with pytest.raises(Misconfigured, match="--data"):
        made(tmp_path / "d")


def test_a_key_that_others_may_read_is_refused_with_the_cure(tmp_path: Path) -> None:
    folder = made(tmp_path)
    folder.key_file.chmod(0o644)
    with pytest.raises(Misconfigured, match="chmod 600"):
        folder.key()


@pytest.mark.parametrize("text", ["", "\n", "ab" * 31, "ab" * 33, "zz" * 32, "ä" * 64])
def test_a_damaged_key_is_refused_at_start_with_the_cure(tmp_path: Path, text: str) -> None:
    folder = made(tmp_path)
    folder.key_file.write_text(text, "latin-1")
    with pytest.raises(Misconfigured, match=r"restore it from a backup|can't be read"):
        made(tmp_path)


@pytest.mark.parametrize("left", ["snapshot", "postgres.where", "postgres/data", "journal/c1", "spool/c1"])
def test_a_lost_key_is_not_replaced_beside_data_that_it_sealed(tmp_path: Path, left: str) -> None:
    folder = made(tmp_path)
    (tmp_path / left).mkdir(parents=True)
    folder.key_file.unlink()
    with pytest.raises(Misconfigured, match=r"is gone.*restore it from a backup"):
        made(tmp_path)
    assert not folder.key_file.exists()


def test_a_start_that_was_killed_before_it_had_a_key_is_begun_again(tmp_path: Path) -> None:
    made(tmp_path).key_file.unlink()
    assert len(made(tmp_path).key()) == 32


def test_an_empty_token_would_let_everybody_in_and_is_refused(tmp_path: Path) -> None:
    made(tmp_path).token_file.write_text("\n")
    with pytest.raises(Misconfigured, match="remove it"):
        made(tmp_path)


def test_a_lock_has_one_owner_who_is_named(tmp_path: Path) -> None:
    process = holder(tmp_path / "lock")
    lock = Lock(tmp_path / "lock")
    with pytest.raises(Busy, match=f"in use by process {process.pid}"):
        lock.acquire()
    assert lock.holder_pid() == process.pid
    let_go(process)
    lock.acquire(timeout_s=5.0)
    assert Lock(tmp_path / "lock").held()
    lock.release()
    lock.release()
    assert not lock.held()


UNWRITABLE = """
import json, resource, signal, sys
from pathlib import Path
from seawall.machine.folder import Lock, replace_private
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
folder = Path(sys.argv[1])
lock = Lock(folder / "lock")
lock.acquire()
replace_private(folder / "same", "as before")
try:
    replace_private(folder / "same", "another")
except OSError as error:
    assert error.filename.endswith("same")
    print("held", flush=True)
sys.stdin.read()
"""


def test_a_disk_that_takes_nothing_keeps_nobody_from_a_lock_nor_from_what_is_written_already(tmp_path: Path) -> None:
    replace_private(tmp_path / "same", "as before")
    process = subprocess.Popen(
        [sys.executable, "-c", UNWRITABLE, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout is not None and process.stdout.readline() == "held\n"
    lock = Lock(tmp_path / "lock")
    with pytest.raises(Busy):
        lock.acquire()
    _, said = process.communicate("")
    assert "a lock can't say whose it is" in said
    assert (tmp_path / "same").read_text() == "as before"


def test_a_holders_note_is_whole_whatever_stood_there(tmp_path: Path) -> None:
    (tmp_path / "lock").write_text("x" * 500)
    lock = Lock(tmp_path / "lock")
    lock.acquire()
    assert lock.holder() == {"pid": os.getpid(), "start": start_time(os.getpid())}
    lock.release()


def test_a_lock_goes_with_a_killed_process(tmp_path: Path) -> None:
    process = holder(tmp_path / "lock")
    process.kill()
    process.communicate()
    lock = Lock(tmp_path / "lock")
    assert lock.holder_pid() is None, "what the file still says proves nothing"
    lock.acquire()
    lock.release()


def test_a_reused_number_is_not_taken_for_the_holder(tmp_path: Path) -> None:
    process = holder(tmp_path / "lock")
    replace = {"pid": os.getpid(), "start": "1"}
    (tmp_path / "lock").write_text(str(replace).replace("'", '"'))
    assert Lock(tmp_path / "lock").holder_pid() is None
    let_go(process)


def test_a_role_that_does_not_leave_is_ended_when_it_is_proven_ours(tmp_path: Path) -> None:
    folder = made(tmp_path)
    process = holder(folder.run / "worker.lock")
    await_leaving(folder, ["collector", "worker"], timeout_s=0.2)
    process.communicate()
    assert process.returncode == -9


def test_a_holder_that_is_not_proven_is_left_alone(tmp_path: Path) -> None:
    folder = made(tmp_path)
    process = holder(folder.run / "worker.lock")
    (folder.run / "worker.lock").write_text("{}")
    with pytest.raises(Busy, match=r"worker\.lock"):
        await_leaving(folder, ["worker"], timeout_s=0.1)
    assert process.poll() is None
    let_go(process)


FORKING = HOLDER.replace(
    "print(",
    """import multiprocessing
import time
def nap():
    time.sleep(60)
child = multiprocessing.get_context("fork").Process(target=nap)
child.start()
print(child.pid, flush=True)
print(""",
)


def forking(path: Path, code: str = FORKING) -> tuple[subprocess.Popen[str], int]:
    """A holder, and the process that it forked."""
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    child = int(process.stdout.readline())
    assert process.stdout.readline() == "held\n"
    return process, child


def killed(process: subprocess.Popen[str]) -> None:
    process.kill()
    process.wait()
    for pipe in (process.stdin, process.stdout):  # not communicate(): the forked one has them too
        assert pipe is not None
        pipe.close()


def test_a_forked_process_does_not_inherit_the_lock(tmp_path: Path) -> None:
    """After a kill -9 no worker, and no `up`, could begin again while a process of its pool lived."""
    process, child = forking(tmp_path / "lock")
    try:
        killed(process)
        lock = Lock(tmp_path / "lock")
        lock.acquire(timeout_s=1.0)
        lock.release()
    finally:
        os.kill(child, signal.SIGKILL)


UNNOTICED = FORKING.replace("import time", "import time\nfrom seawall.guard import fork; fork._kept.clear()")
"""As a library does that forks without Python's knowledge."""


def test_a_lock_that_was_inherited_all_the_same_is_named_and_its_holder_ended(tmp_path: Path) -> None:
    folder = made(tmp_path)
    process, child = forking(folder.run / "worker.lock", UNNOTICED)
    killed(process)
    lock = Lock(folder.run / "worker.lock")
    assert lock.held() and lock.holder_pid() is None and lock.heirs() == [child]
    with pytest.raises(Busy, match=f"in use by process {child}"):
        lock.acquire()
    await_leaving(folder, ["worker"], timeout_s=0.1)
    assert not lock.held()


def test_what_the_main_thread_forked_ends_with_its_process(tmp_path: Path) -> None:
    code = FORKING.replace("import time", "import time\nfrom seawall.guard import fork; fork.end_orphans()")
    process, child = forking(tmp_path / "lock", code)
    killed(process)
    latest = time.monotonic() + 5
    while start_time(child) and time.monotonic() < latest:
        time.sleep(0.01)
    assert not start_time(child) or " Z " in Path(f"/proc/{child}/stat").read_text()


def test_a_private_file_is_replaced_whole(tmp_path: Path) -> None:
    replace_private(tmp_path / "f", "one")
    replace_private(tmp_path / "f", "two")
    assert (tmp_path / "f").read_text() == "two" and (tmp_path / "f").stat().st_mode & 0o777 == 0o600
    assert [p.name for p in tmp_path.iterdir()] == ["f"]


@pytest.mark.parametrize("address", ["192.0.2.1:0", "no.such.host.invalid:0"])
def test_an_address_that_is_not_ours_is_refused_with_the_cure(address: str) -> None:
    with pytest.raises(Misconfigured, match="choose another --listen"):
        bound("listen", address)
