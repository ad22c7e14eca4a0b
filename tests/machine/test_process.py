"""A child's life: started again after death or silence, stopped in time, never two at once."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from seawall.guard import Supervisor
from seawall.journal.filesystem import LocalFilesystem
from seawall.kernel.metric import Metrics
from seawall.machine import process
from seawall.machine.folder import Folder, start_time
from seawall.machine.process import Child, Spec, cause_of
from stall import Stopwatch

BODY = """
import socket, sys, time, signal
parent = socket.socket(fileno=int(sys.argv[sys.argv.index("--parent") + 1]))
parent.sendall(b"ready {}\\n")
def beat():
    parent.sendall(b"beat {}\\n")
"""
OBEDIENT = (
    BODY
    + """
parent.settimeout(0.2)
while True:
    beat()
    try:
        if parent.recv(99) in (b"stop\\n", b""):
            sys.exit()
    except TimeoutError:
        pass
"""
)
DEAF = BODY + "while True:\n    beat(); time.sleep(0.2)\n"
SILENT = BODY + "time.sleep(60)\n"
REFUSING = BODY.replace("ready", "misconfigured") + "sys.exit(2)\n"
USER_CODE = BODY.replace('b"ready {}', 'b"beat {}') + "sys.exit(2)\n"
DYING = BODY + "sys.exit(3)\n"


@contextlib.asynccontextmanager
async def child(tmp_path: Path, code: str, *, stop_s: float = 5.0) -> AsyncIterator[tuple[Child, list[str]]]:
    file = tmp_path / "child.py"
    file.write_text(code)
    refused: list[str] = []
    made = Child(Spec(role="r", command=[sys.executable, str(file)], stop_s=stop_s), refused=refused.append)
    supervisor = Supervisor(Metrics())
    supervisor.add("role.r", made.keep)
    async with supervisor:
        yield made, refused
        await made.stop(hurry=asyncio.Event())


async def until(true: Callable[[], object], timeout_s: float = 10.0) -> None:
    async with asyncio.timeout(timeout_s):
        while not true():
            await asyncio.sleep(0.01)


async def test_a_killed_child_is_started_again(tmp_path: Path) -> None:
    async with child(tmp_path, OBEDIENT) as (made, _):
        await until(made.ready.is_set)
        old = made.pid
        made.signal(signal.SIGKILL)
        await until(lambda: made.pid not in (old, None) and made.ready.is_set())
        assert made.restarts == 1


async def test_a_child_hears_of_new_settings_also_when_it_was_only_starting(tmp_path: Path) -> None:
    heard = tmp_path / "heard"
    gate = tmp_path / "gate"
    starting = f"import os, time\nwhile not os.path.exists({str(gate)!r}):\n    time.sleep(0.01)\n"
    listening = BODY + f"line = parent.recv(99)\nopen({str(heard)!r}, 'wb').write(line)\ntime.sleep(60)\n"
    async with child(tmp_path, starting + listening, stop_s=0.1) as (made, _):
        await until(lambda: made.pid is not None)
        assert not made.ready.is_set()
        made.reload()
        gate.touch()
        await until(lambda: heard.exists() and heard.read_bytes() == b"reload\n")


def hold_connections(monkeypatch: pytest.MonkeyPatch) -> asyncio.Event:
    """A child's lines aren't connected before this is set: its process is there by then."""
    real, held = asyncio.open_connection, asyncio.Event()

    async def late(**given: Any) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        await held.wait()
        return await real(**given)

    monkeypatch.setattr(asyncio, "open_connection", late)
    return held


async def test_a_child_that_is_just_being_started_hears_that_it_should_stop(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    held, heard = hold_connections(monkeypatch), tmp_path / "heard"
    listening = BODY + f"open({str(heard)!r}, 'wb').write(parent.recv(99))\n"
    async with child(tmp_path, listening) as (made, _):
        await until(lambda: made.pid is not None)
        stopping = asyncio.create_task(made.stop(hurry=asyncio.Event()))
        await asyncio.sleep(0)
        held.set()
        await stopping
        assert heard.read_bytes() == b"stop\n", "at once, and not as late as it is told to hurry"


async def test_a_child_whose_loop_is_ended_as_it_is_started_is_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hold_connections(monkeypatch)
    file = tmp_path / "child.py"
    file.write_text(SILENT)
    made = Child(Spec(role="r", command=[sys.executable, str(file)], stop_s=5.0), refused=len)
    supervisor = Supervisor(Metrics())
    supervisor.add("role.r", made.keep)
    async with supervisor:
        await until(lambda: made.pid is not None)
    assert made.pid is None, "the next loop begins another one"


async def test_a_silent_child_is_killed_and_started_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "SILENT_S", 0.5)
    async with child(tmp_path, SILENT, stop_s=0.1) as (made, _):
        await until(lambda: made.restarts >= 1)


async def test_a_killed_child_that_a_disk_holds_is_told_of_now_and_then_and_is_not_ready(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(process, "SILENT_S", 0.5)
    killed: list[int] = []
    with monkeypatch.context() as held:
        held.setattr(subprocess.Popen, "kill", lambda self: killed.append(self.pid))  # as in a disk wait
        async with child(tmp_path, SILENT, stop_s=0.1) as (made, _):
            await until(lambda: len(killed) >= 2)
            assert not made.ready.is_set() and made.restarts == 0
            told = [line for line in caplog.messages if "silent" in line]
            held.undo()
            await until(lambda: made.restarts >= 1)
    assert len(told) == 2, "not at each look, of which there were ten"


async def test_a_child_that_keeps_dying_is_started_ever_more_slowly(tmp_path: Path) -> None:
    async with child(tmp_path, DYING) as (made, refused):
        await until(lambda: made.restarts >= 3)
        assert refused == []


async def test_a_child_that_is_misconfigured_at_its_first_start_is_reported(tmp_path: Path) -> None:
    async with child(tmp_path, REFUSING) as (made, refused):
        await until(lambda: refused == ["r"])
        assert not made.ready.is_set()


async def test_a_child_that_was_refused_says_why_and_is_tried_again_when_its_file_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process, "REFUSED_MIN_S", 60.0)
    file, watched = tmp_path / "child.py", tmp_path / "app.py"
    file.write_text(REFUSING.replace("{}", '{\\"problems\\": [\\"line 5: no\\"]}'))
    watched.write_text("broken")
    made = Child(Spec(role="r", command=[sys.executable, str(file)], stop_s=5.0, inputs=[watched]), refused=len)
    supervisor = Supervisor(Metrics())
    supervisor.add("role.r", made.keep)
    async with supervisor:
        await until(lambda: supervisor.health()[0].reason == "r can't start: line 5: no", 20.0)
        assert made.problem == "line 5: no"
        file.write_text(OBEDIENT)
        watched.write_text("mended now")
        await until(made.ready.is_set)
        assert made.problem == "" and made.restarts == 1
        await made.stop(hurry=asyncio.Event())


async def test_a_role_without_a_store_says_that_it_is_misconfigured(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "seawall", "run", "router", "--data", str(tmp_path / "data")]
    (tmp_path / "data").mkdir()
    Folder(tmp_path / "data", LocalFilesystem()).prepare()
    refused: list[str] = []
    made = Child(Spec(role="router", command=command, stop_s=5.0), refused=refused.append)
    supervisor = Supervisor(Metrics())
    supervisor.add("role.router", made.keep)
    async with supervisor:
        await until(lambda: refused == ["router"], 20.0)
        await made.stop(hurry=asyncio.Event())


async def test_an_exit_status_that_user_code_chose_is_not_taken_for_misconfigured(tmp_path: Path) -> None:
    """A workflow's ``os._exit(2)`` before the worker was ready would stop all of `up`, intake too."""
    async with child(tmp_path, USER_CODE) as (made, refused):
        await until(lambda: made.restarts >= 2)
        assert refused == []


FORKING = (
    """
import os, sys, time
pid = os.fork()
if not pid:
    time.sleep(60)
open(sys.argv[0] + ".forked", "w").write(str(pid))
"""
    + OBEDIENT
)


async def test_what_a_child_forked_is_ended_with_it(tmp_path: Path) -> None:
    async with child(tmp_path, FORKING) as (made, _):
        await until(made.ready.is_set)
        forked = int((tmp_path / "child.py.forked").read_text())
        assert start_time(forked)
        made.signal(signal.SIGKILL)
        await until(lambda: not start_time(forked) or " Z " in Path(f"/proc/{forked}/stat").read_text())


async def test_an_obedient_child_ends_at_once_and_stays_away(tmp_path: Path) -> None:
    async with child(tmp_path, OBEDIENT) as (made, _):
        await until(made.ready.is_set)
        await made.stop(hurry=asyncio.Event())
        assert made.pid is None
        await asyncio.sleep(0.3)  # nothing to await: that nothing happens is the claim
        assert made.pid is None


@pytest.mark.parametrize("frozen", [False, True], ids=["deaf", "frozen"])
async def test_a_child_that_does_not_stop_is_killed_and_gone_within_its_budget(tmp_path: Path, frozen: bool) -> None:
    async with child(tmp_path, DEAF, stop_s=2.0) as (made, _):
        await until(made.ready.is_set)
        if frozen:
            made.signal(signal.SIGSTOP)
        watch = Stopwatch()
        await made.stop(hurry=asyncio.Event())
        assert made.pid is None
        assert watch.s < 2.0 + 0.5  # for a machine that is busy


async def test_a_killed_child_that_the_kernel_does_not_end_holds_up_nothing_after_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that waits for a disk dies when the disk answers. Here, it is our own killing that does nothing."""
    spared: list[subprocess.Popen[bytes]] = []
    monkeypatch.setattr(subprocess.Popen, "kill", lambda self: spared.append(self))
    async with child(tmp_path, DEAF, stop_s=0.6) as (made, _):
        await until(made.ready.is_set)
        pid, watch = made.pid, Stopwatch()
        await made.stop(hurry=asyncio.Event())
        assert made.pid == pid
    # Nor does the end of its loop wait for it.
    assert watch.s < 0.6 + 1.0
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    spared[0].wait(timeout=5.0)


async def test_hurry_ends_the_wait_for_a_child(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "HURRIED_S", 0.3)
    async with child(tmp_path, DEAF, stop_s=60.0) as (made, _):
        await until(made.ready.is_set)
        hurry = asyncio.Event()
        asyncio.get_running_loop().call_later(0.2, hurry.set)
        async with asyncio.timeout(5.0):
            await made.stop(hurry=hurry)


async def test_a_replaced_child_is_another_one_at_once(tmp_path: Path) -> None:
    async with child(tmp_path, OBEDIENT) as (made, _):
        await until(made.ready.is_set)
        old = made.pid
        await made.replace(why="test")
        await until(lambda: made.pid not in (old, None) and made.ready.is_set(), 5.0)


@pytest.mark.parametrize(
    ("status", "said"), [(-9, "killed by SIGKILL"), (3, "exit status 3"), (-250, "killed by signal 250")]
)
def test_causes_are_said_in_words(status: int, said: str) -> None:
    assert cause_of(status) == said
