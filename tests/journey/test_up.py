"""A platform as a user has it: started, used from the command line, stopped."""

from __future__ import annotations

import http.client
import json
import os
import pty
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from journey.program import READY_S, seawall
from seawall.lab.part.port import free
from seawall.lab.tree import Tree
from stall import Stopwatch

Start = Callable[..., Tree]


def add_source(tree: Tree, name: str, kind: str, *more: str) -> dict[str, str]:
    said = seawall("source", "add", name, "--kind", kind, "--data", str(tree.data), "--json", "--remember", *more)
    assert said.code == 0, said.err
    return said.json


def ended_with(process: subprocess.Popen[bytes], timeout_s: float = 30.0) -> int:
    return process.wait(timeout_s)


def test_a_signed_event_becomes_a_run_with_its_steps(shared: Tree, home: Path) -> None:
    tree = shared
    secret = home / "secret"
    secret.write_text("it's a secret\n")
    made = add_source(tree, "signed", "github", "--secret-file", str(secret))
    assert set(made) >= {"id", "name", "token", "url"} and "secret" not in made
    sent = seawall(
        "send", made["url"], "--kind", "github", "--secret-file", str(secret), "--event", "push", "--body", '{"a": 1}',
        "--explain", "--data", str(tree.data), "--json",
    )  # fmt: skip
    assert sent.code == 0, sent.err
    id = sent.json["body"]["id"]
    assert [s["stage"] for s in sent.json["way"]["stages"]] == [
        "received", "routed", "queued", "started", "step", "step", "finished",
    ]  # fmt: skip
    events = seawall("events", "list", "--source", "signed", "--data", str(tree.data), "--json").json["items"]
    assert [(e["id"], e["source"], e["type"], e["status"]) for e in events] == [(id, "signed", "github.push", "routed")]
    assert seawall("events", "raw", id, "--data", str(tree.data)).out == '{"a": 1}'
    runs = seawall("runs", "list", "--event", id, "--json", SEAWALL_DATA=str(tree.data)).json["items"]
    assert [(r["event"], r["workflow"], r["status"]) for r in runs] == [(id, "push", "succeeded")]
    shown = seawall("runs", "show", runs[0]["id"], "--data", str(tree.data), "--json").json
    assert [step["name"] for step in shown["steps"]] == ["measure", "double"] and shown["result"] == {"size": 16}


def test_a_wrong_signature_is_refused_and_a_removed_source_is_gone(shared: Tree, home: Path) -> None:
    tree = shared
    made = add_source(tree, "gone", "github")
    wrong = home / "wrong"
    wrong.write_text("wrong")
    sent = seawall("send", made["url"], "--kind", "github", "--secret-file", str(wrong), "--body", "{}", "--json")
    assert sent.code == 1 and sent.json["status"] == 401
    assert seawall("source", "remove", "gone", "--data", str(tree.data)).code == 0
    gone = seawall("send", made["url"], "--kind", "none", "--body", "{}", "--json")
    assert gone.json["status"] == 410
    assert seawall("source", "remove", "gone", "--data", str(tree.data)).code == 3


def test_rotation_takes_both_secrets_until_one_is_revoked(shared: Tree) -> None:
    tree = shared
    made = add_source(tree, "rotated", "github")
    data = ("--data", str(tree.data))
    old, url = made["secret"], made["url"]

    def status(secret: str) -> int:
        said = seawall("send", url, "--kind", "github", "--secret-file", "-", "--body", "{}", "--json", stdin=secret)
        return int(said.json["status"])

    rotated = seawall("source", "rotate", "rotated", "--kind", "github", "--json", *data)
    assert rotated.code == 0, rotated.err
    new = rotated.json["secret"]
    assert [status(old), status(new)] == [202, 202]
    assert seawall("source", "revoke", "rotated", "--key", "1", *data).code == 0
    assert [status(old), status(new)] == [401, 202]


def test_a_held_request_gets_its_workflows_answer(shared: Tree) -> None:
    tree = shared
    add_source(tree, "ask", "standard", "--setting", "wait_ms_max=10000")
    body = json.dumps({"type": "asked", "question": "abc"})
    sent = seawall("send", "ask", "--body", body, "--wait", "10", "--data", str(tree.data), "--json")
    assert (sent.json["status"], sent.json["body"]) == (200, {"answer": "cba"})


def test_sigterm_answers_held_requests_with_where_to_look(start: Start) -> None:
    tree = start()
    made = add_source(tree, "ask", "none", "--setting", "wait_ms_max=20000")
    parts = urlsplit(made["url"])
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=30)
    connection.request("POST", parts.path, json.dumps({"type": "slow"}), {"Prefer": "wait=20"})
    until(lambda: seawall("runs", "list", "--data", str(tree.data), "--json").json["items"], "the run was stored")
    pid = tree.pid("up")
    assert pid is not None
    os.kill(pid, signal.SIGTERM)
    answer = connection.getresponse()
    answer.read()
    assert answer.status == 202
    assert (answer.getheader("Location") or "").startswith("/in/tickets/")
    assert tree._up is not None
    assert ended_with(tree._up) == 0
    assert not (tree.data / "run" / "admin.json").exists()
    assert all(tree.pid(part) is None for part in ("collector", "router", "worker", "console", "postgres"))


def test_ctrl_c_reaches_the_parent_alone_and_a_second_one_does_not_wait(start: Start, home: Path) -> None:
    tree = start()
    made = add_source(tree, "s", "none")
    assert seawall("send", made["url"], "--body", '{"type": "slow"}').code == 0
    until(lambda: running(tree), "the step runs")
    assert tree._up is not None
    watch = Stopwatch()
    os.killpg(tree._up.pid, signal.SIGINT)
    until(lambda: '"stopping"' in (home / "data.log").read_text(), "it has begun to stop")
    os.killpg(tree._up.pid, signal.SIGINT)
    assert ended_with(tree._up) == 0
    assert watch.s < 12
    log = [json.loads(line) for line in (home / "data.log").read_text().splitlines()]
    stopped = [line["child"] for line in log if line["message"] == "role stopped"]
    assert stopped == ["collector", "router", "worker", "console"]


def running(tree: Tree) -> bool:
    items = seawall("runs", "list", "--data", str(tree.data), "--json").json["items"]
    return any(r["status"] == "running" for r in items)


@pytest.mark.slow
def test_two_platforms_live_side_by_side_and_a_second_on_one_folder_is_refused(start: Start, home: Path) -> None:
    first, second = start("one"), start("two")
    for tree in (first, second):
        made = add_source(tree, "s", "none")
        assert seawall("send", made["url"], "--body", "x", "--explain", "--data", str(tree.data)).code == 0
    again = seawall("up", "--data", str(first.data), "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0")
    assert again.code == 2 and "in use by process" in again.err and "Traceback" not in again.err
    assert first.unready() == ""


def test_a_port_in_use_is_refused_with_the_cure(home: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        said = seawall("up", "--data", str(home / "d"), "--listen", address, "--admin", "127.0.0.1:0")
    assert said.code == 2 and address in said.err and "--listen" in said.err and "Traceback" not in said.err
    assert not (home / "d" / "run" / "admin.json").exists()


def test_an_app_that_cannot_be_imported_is_refused_with_the_line(home: Path) -> None:
    bad = home / "bad.py"
    bad.write_text("import json\n\nraise RuntimeError('no such thing')\n")
    said = seawall(
        "up", "--data", str(home / "d"), "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--app", str(bad)
    )
    assert said.code == 2
    assert "bad.py: can't be imported: line 3: RuntimeError: no such thing" in said.err
    assert "Traceback" not in said.err


def test_bad_settings_are_all_said_at_once(home: Path) -> None:
    data = home / "d"
    data.mkdir()
    (data / "seawall.toml").write_text('listen = "nowhere"\n[router]\nbatch_records = 0\nunheard_of = 1\n')
    said = seawall("up", "--data", str(data))
    assert said.code == 2 and "Traceback" not in said.err
    for part in ("seawall.toml:1: listen", "seawall.toml:3: router.batch_records = 0", "seawall.toml:4: router.unhea"):
        assert part in said.err
    assert not (data / "FORMAT").exists()


def test_up_again_works_after_kill_9_of_up_itself(start: Start, home: Path) -> None:
    tree = start()
    made = add_source(tree, "s", "none")
    assert seawall("send", made["url"], "--body", "before").code == 0
    postgres = tree.pid("postgres")
    tree.kill("up")
    tree.start()
    tree.wait_ready(READY_S)
    assert tree.pid("postgres") == postgres, "it is adopted, not started again"
    until(lambda: len(events(tree)) == 1, "what was accepted before is there")
    assert seawall("down", "--data", str(tree.data)).code == 0
    assert seawall("down", "--data", str(tree.data)).code == 3


def test_postgres_is_started_again_and_nothing_else_is(shared: Tree) -> None:
    tree = shared
    made = add_source(tree, "outage", "none")
    before = {part: tree.pid(part) for part in ("collector", "router", "worker", "console")}
    old = tree.kill("postgres")
    assert seawall("send", made["url"], "--body", "while the store is away").code == 0
    tree.wait_replaced("postgres", old, READY_S)
    assert {part: tree.pid(part) for part in before} == before
    until(lambda: len(events(tree, "outage")) == 1, "it is routed")


def test_a_role_alone_serves_health_on_an_address(start: Start, home: Path) -> None:
    """`seawall run` beside nothing: the collector needs a store's address, and not the store itself."""
    data = home / "alone"
    [port] = free(1)
    environment = {**os.environ, "SEAWALL_DSN": "postgresql://nobody@127.0.0.1:1/none"}
    process = subprocess.Popen(
        [sys.executable, "-m", "seawall", "run", "collector", "--data", str(data), "--listen", "127.0.0.1:0",
         "--health", f"127.0.0.1:{port}"],
        env=environment, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        until(lambda: status_of(f"http://127.0.0.1:{port}/readyz") == 200, "it is ready without the store")
        process.send_signal(signal.SIGINT)
        assert ended_with(process) == 0
    finally:
        process.kill()


def test_watch_reloads_a_good_app_and_keeps_the_old_beside_a_bad_one(start: Start, home: Path) -> None:
    tree = start(options=("--watch",))
    file = home / "data.py"
    old = tree.pid("worker")
    file.write_text("this is not python\n")
    until(lambda: "can't be imported; the old one runs on" in tree.log.read_text(), "the bad file is said")
    assert tree.pid("worker") == old
    file.write_text("from seawall import App\napp = App()\n@app.workflow(on='x')\nasync def fresh(event, ctx): ...\n")
    until(lambda: "fresh@1" in tree.log.read_text(), "the new workflow is registered")
    assert tree.pid("worker") != old


def test_sighup_takes_a_good_file_over_and_keeps_the_old_settings_beside_a_bad_one(shared: Tree, home: Path) -> None:
    tree = shared
    pid = tree.pid("up")
    assert pid is not None
    file = tree.data / "seawall.toml"
    file.write_text('log_level = "loud"\n')
    os.kill(pid, signal.SIGHUP)
    until(lambda: "settings not reloaded; the old ones stay" in tree.log.read_text(), "the bad file is said")
    made = add_source(tree, "limited", "none")
    assert seawall("send", made["url"], "--body", "x" * 50).code == 0
    before = {role: tree.pid(role) for role in ("collector", "router", "worker", "console")}
    file.write_text('log_level = "debug"\nstop_console_s = 4\n[collector]\nbody_bytes_max = 40\n')
    os.kill(pid, signal.SIGHUP)
    until(lambda: tree.log.read_text().count('"settings reloaded"') >= 5, "everybody has taken it over")
    assert "collector.body_bytes_max = 40" in tree.log.read_text()
    assert "some settings need a restart" in tree.log.read_text(), "how long it may stop was fixed at the start"
    refused = seawall("send", made["url"], "--body", "x" * 50, "--json")
    assert refused.json["status"] == 413, "the new limit holds at once"
    assert seawall("send", made["url"], "--body", "x" * 40).code == 0
    assert {role: tree.pid(role) for role in before} == before, "nobody was started again for it"
    collector = tree.pid("collector")
    assert collector is not None
    os.kill(collector, signal.SIGKILL)
    until(lambda: tree.pid("collector") not in (None, collector) and tree.unready() == "", "it lives again")
    assert seawall("send", made["url"], "--body", "x" * 50, "--json").json["status"] == 413, "and knows the new limit"
    file.unlink()
    os.kill(pid, signal.SIGHUP)
    until(lambda: seawall("send", made["url"], "--body", "x" * 50).code == 0, "the default is back")
    assert tree.unready() == ""


def test_on_a_terminal_a_start_is_a_handful_of_calm_lines_and_says_what_to_do_next(home: Path) -> None:
    (home / "app.py").write_text(
        "from seawall import App\napp = App()\n@app.workflow(on='x')\nasync def w(e, c): ...\n"
    )
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "seawall", "up", "--data", str(home / "new"), "--app", str(home / "app.py"),
               "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"]  # fmt: skip
    process = subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True)
    os.close(theirs)
    said = b""
    try:
        while b"next, in another terminal: seawall source add" not in said:
            assert select.select([ours], [], [], READY_S)[0], said.decode()
            said += os.read(ours, 4096)
    finally:
        process.send_signal(signal.SIGTERM)
        assert ended_with(process) == 0
        os.close(ours)
    lines = said.decode().splitlines()
    assert len(lines) <= 8, said.decode()
    # This machine may deserve a warning (a volatile disk); a start as such has no errors to show.
    assert {line.split()[1] for line in lines} <= {"info", "warn"}, said.decode()


def test_sigusr1_tells_what_a_role_is_doing(shared: Tree) -> None:
    tree = shared
    pid, before = tree.pid("router"), told_of(tree, "router.discover")
    assert pid is not None
    os.kill(pid, signal.SIGUSR1)
    until(lambda: told_of(tree, "router.discover") > before, "its loops are in the log")
    assert tree.pid("router") == pid


def told_of(tree: Tree, name: str) -> int:
    """How often the log has named it: also other tests of this platform may make it do so."""
    return tree.log.read_text().count(f'"{name}"')


def events(tree: Tree, source: str = "s") -> list[object]:
    said = seawall("events", "list", "--source", source, "--data", str(tree.data), "--json")
    return said.json["items"] if said.code == 0 else []


def status_of(url: str) -> int:
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=2)
    try:
        connection.request("GET", parts.path)
        return connection.getresponse().status
    except OSError:
        return 0
    finally:
        connection.close()


def until(true: Callable[[], object], what: str, timeout_s: float = 60.0) -> None:
    latest = time.monotonic() + timeout_s
    pause = threading.Event()
    while not true():
        assert time.monotonic() < latest, f"not in {timeout_s:g} s: {what}"
        pause.wait(0.05)


@pytest.mark.slow
@pytest.mark.slow
def test_a_backup_of_a_running_platform_restores_into_a_new_folder(start: Start, shared: Tree, home: Path) -> None:
    made = add_source(shared, "kept", "none")
    assert seawall("send", made["url"], "--body", "keep me", "--explain", "--data", str(shared.data)).code == 0
    said = seawall("backup", str(home / "backup"), "--data", str(shared.data))
    assert said.code == 0, said.err
    data = home / "again"
    said = seawall("restore", str(home / "backup"), "--data", str(data))
    assert said.code == 0, said.err
    tree = start("again")
    path = urlsplit(made["url"]).path
    assert seawall("send", tree.place().listen + path, "--body", "after").code == 0, "its token and key came along"
    until(lambda: len(events(tree, "kept")) == 2, "old and new events are there")
