"""A platform whose surroundings fail while it starts or runs: events are taken in all the same."""

from __future__ import annotations

import contextlib
import fcntl
import http.client
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from journey.program import APP, READY_S, seawall
from seawall.lab.tree import Tree

FAILING = (
    APP
    + """

@app.workflow(on="bad")
async def bad(event: Event, ctx: Context) -> None:
    print("y" * 2000)
    raise ValueError("x" * 2000)
"""
)


def until(true: Callable[[], bool], what: str, timeout_s: float = 60.0) -> None:
    latest = time.monotonic() + timeout_s
    while not true():
        assert time.monotonic() < latest, f"not in time: {what}"
        time.sleep(0.05)


@contextlib.contextmanager
def begun(home: Path, *, app: str = APP, output: int | None = None, options: tuple[str, ...] = ()) -> Iterator[Tree]:
    """`seawall up` in ``home``, its output going to ``output``, else to ``home/log``; not waited for."""
    (home / "app.py").write_text(app)
    tree = Tree(home / "data", app=home / "app.py", log=home / "log", options=options)
    if output is None:
        tree.start()
        try:
            yield tree
        finally:
            tree.stop()
        return
    command = [sys.executable, "-m", "seawall", "up", "--data", str(home / "data"), "--app", str(home / "app.py"),
               "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"]  # fmt: skip
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True)
    try:
        yield tree
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            assert process.wait(60.0) == 0
        finally:
            process.kill()


def add_source(tree: Tree) -> str:
    """The path of its URL: the port is another after a restart."""
    said = seawall("source", "add", "s", "--kind", "none", "--data", str(tree.data), "--json")
    assert said.code == 0, said.err
    return urlsplit(said.json["url"]).path


def send(url: str, body: str = '{"type": "x"}') -> int:
    """The status of the answer; 0 when there was none."""
    parts = urlsplit(url)
    with contextlib.closing(http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=5)) as connection:
        try:
            connection.request("POST", parts.path, body)
            return connection.getresponse().status
        except (OSError, http.client.HTTPException):
            return 0


def test_nobody_reading_the_log_stops_nothing(home: Path) -> None:
    """Ctrl-S in the terminal, a paused pager, a log driver that hangs: the pipe is full before the first line."""
    reader, writer = os.pipe()
    fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, 4096)
    os.write(writer, b"." * 4096)
    with begun(home, app=FAILING, output=writer) as tree:
        os.close(writer)
        until(lambda: tree.unready() == "", "it is up", READY_S)
        url = tree.place().listen + add_source(tree)
        for _ in range(30):  # more than the pipe holds, from the worker: it goes on to run others
            assert send(url, '{"type": "bad"}') == 202
        assert send(url, '{"type": "github.push"}') == 202
        data = ("--data", str(tree.data), "--json")
        until(lambda: any(r["status"] == "succeeded" for r in seawall("runs", "list", *data).json["items"]), "it ran")
        old = tree.kill("collector")
        tree.wait_replaced("collector", old, 30.0)
        assert send(url) == 202
        assert not fcntl.fcntl(reader, fcntl.F_GETFL) & os.O_NONBLOCK
        said = b""
        while len(said) < 8192:
            said += os.read(reader, 4096)  # the reader is back for a moment
        assert said.lstrip(b".").startswith(b'{"at"')
    os.close(reader)  # it has stopped in order, though its last words found nobody


NEEDY = """
import os, socket
from seawall import App, Context, Event

app = App()
if os.path.exists({outage!r}):
    socket.create_connection(("127.0.0.1", 9), timeout=1)  # a client that connects when it is made


@app.workflow(on="*")
async def any(event: Event, ctx: Context) -> int:
    return 1
"""


def runs(tree: Tree) -> list[str]:
    said = seawall("runs", "list", "--data", str(tree.data), "--json")
    return [run["status"] for run in said.json["items"]] if said.code == 0 else []


def summaries(tree: Tree, name: str) -> list[str]:
    """What the active alerts of this name say."""
    said = seawall("alerts", "list", "--data", str(tree.data), "--json")
    return [alert["summary"] for alert in said.json["items"] if alert["name"] == name] if said.code == 0 else []


@pytest.mark.slow
def test_an_app_that_can_not_be_imported_at_a_restart_costs_no_event(home: Path) -> None:
    """What the app needs at import is away just then. The worker is tried again; senders don't notice."""
    outage = home / "outage"
    app = NEEDY.format(outage=str(outage))
    outage.write_text("")
    with begun(home, app=app) as tree:
        assert tree._up is not None and tree._up.wait(READY_S) == 2, "nobody has sent to it yet: its maker is told"
        assert "can't be imported: line 7: ConnectionRefusedError" in tree.log.read_text()
    outage.unlink()
    with begun(home, app=app) as tree:
        tree.wait_ready(READY_S)
        path = add_source(tree)
    outage.write_text("")
    with begun(home, app=app) as tree:
        until(lambda: (tree.data / "run" / "admin.json").exists(), "it says where it is")
        url = tree.place().listen + path
        until(lambda: send(url) == 202, "events are accepted")
        until(lambda: "role.worker: worker can't start: --app" in tree.unready(), "readiness names it")
        until(lambda: any("line 7" in summary for summary in summaries(tree, "role-refused")), "an alert says where")
        until(lambda: runs(tree) == ["queued"], "it was routed")
        outage.unlink()
        (home / "app.py").touch()
        tree.wait_ready(READY_S)
        until(lambda: runs(tree) == ["succeeded"], "it ran")
