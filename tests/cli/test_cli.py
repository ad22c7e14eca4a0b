"""The command line itself: quick, teaching, with the exit codes that docs/cli.md promises."""

from __future__ import annotations

import json
import os
import re
import resource
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread

import click
import pytest

from seawall.cli import COMMANDS, changes, sender
from seawall.cli import seawall as program
from seawall.cli.client import find
from seawall.cli.request import given, merged, parse
from seawall.cli.say import Failed
from seawall.cli.source import settings_of
from seawall.kernel.seam.change import Kind

ROOT = Path(__file__).resolve().parents[2]


def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("SEAWALL_")}
    return subprocess.run(
        [sys.executable, "-m", "seawall", *arguments],
        capture_output=True, text=True, timeout=60, check=False, env={**kept, **environment},
    )  # fmt: skip


@contextmanager
def answering(
    status: int, headers: dict[str, str], body: bytes = b"{}", asked: list[bytes] | None = None
) -> Iterator[str]:
    """Somebody who answers every request so; its address."""

    class Answering(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.do_POST()

        def do_POST(self) -> None:
            got = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            if asked is not None:
                asked.append(got)
            self.send_response(status)
            for name, value in {**headers, "Content-Length": str(len(body))}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Answering) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


def leaves(command: click.Command, name: str) -> list[tuple[str, click.Command]]:
    if not isinstance(command, click.Group):
        return [(name, command)]
    context = click.Context(command)
    found: list[tuple[str, click.Command]] = []
    for child in command.list_commands(context):
        made = command.get_command(context, child)
        assert made is not None
        found += leaves(made, f"{name} {child}".strip())
    return found


def test_help_imports_no_platform_and_is_quick() -> None:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    said = run("--help")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert said.returncode == 0 and all(name in said.stdout for name in COMMANDS)
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 0.5, "a loose bound: see make bench"
    heavy = ("asyncio", "asyncpg", "uvicorn", "httptools")
    code = f"import sys, seawall.cli\nprint([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_every_command_says_what_it_does_and_gives_an_example() -> None:
    for name, command in leaves(program, ""):
        assert command.help, name
        assert "xample" in (command.epilog or "") or "seawall " in (command.help or ""), name
        options = [p for p in command.params if isinstance(p, click.Option) and not p.hidden]
        assert not [p.name for p in options if not p.help], name


def test_changes_can_be_asked_for_by_every_kind_there_is() -> None:
    assert set(changes.KINDS) == {kind.value for kind in Kind}


def test_every_command_is_on_its_page_and_no_other() -> None:
    page = (ROOT / "docs" / "cli.md").read_text("utf-8")
    table = page[page.index("## Commands") : page.index("## Exit codes")]
    named: set[str] = set()
    for cell in re.findall(r"^\| (`.*?) \|", table, re.MULTILINE):
        group: list[str] = []
        for words in (re.sub(r" (-|[A-Z]).*", "", name).split() for name in re.findall(r"`([^`]+)`", cell)):
            named.add(" ".join([*group, *words] if len(words) == 1 else words))  # `queues list`, `top`
            group = words[:-1] if len(words) > 1 else group
    known = {name for name, _ in leaves(program, "")} | {"settings"}  # which is a command, and a group of one
    assert named == known


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["nonsense"], 2, "No such command"),
        (["up", "--nonsense"], 2, "No such option"),
        (["events", "list", "--data", "{here}"], 4, "nothing is running in"),
        (["down", "--data", "{here}"], 3, "nothing is running in"),
        (["events", "list", "--url", "http://127.0.0.1:1"], 2, "SEAWALL_TOKEN_FILE"),
        (["send", "unknown", "--body", "x", "--data", "{here}"], 3, "isn't remembered"),
        (["send", "http://127.0.0.1:1/in/x", "--body", "x"], 4, "doesn't answer"),
        (["send", "http://127.0.0.1:1/in/x"], 2, "give the body"),
        (["send", "http://127.0.0.1:1/in/x", "--body", "x", "--kind", "github"], 2, "--secret-file"),
        (["send", "http://127.0.0.1:1/in/x", "--body", "x", "--header", "X: \u20ac"], 2, "no request can carry"),
        (["send", "http://127.0.0.1:1/in/x\u20ac", "--body", "x"], 2, "no request can carry"),
        (["send", "http://127.0.0.1:99999/in/x", "--body", "x"], 2, "out of range"),
        (["settings", "--config", "{here}/none"], 2, "can't be read"),
        (["run", "router", "--data", "{here}"], 2, "needs a PostgreSQL"),
        (["run", "worker", "--data", "{here}", "--check"], 2, "--app"),
        (["run", "router", "--data", "{here}", "--health", "x"], 2, "--health"),
        (["lab", "traffic", "--rate", "nan", "--seconds", "1", "--ledger", "{here}/l"], 2, "not a number in the range"),
        (["lab", "verify", "--timeout", "nan", "--ledger", "{here}/l"], 2, "not a number in the range"),
        (["backup", "{here}/to", "--data", "{here}"], 3, "is no data folder"),
    ],
)
def test_what_the_world_does_is_an_exit_code_and_a_line(
    tmp_path: Path, arguments: list[str], code: int, said: str
) -> None:
    done = run(*[argument.replace("{here}", str(tmp_path)) for argument in arguments])
    assert done.returncode == code, done.stderr
    assert said in done.stderr and "Traceback" not in done.stderr


def test_a_platform_elsewhere_needs_its_token_from_a_file(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("t\n")
    done = run("runs", "list", "--url", "http://127.0.0.1:1", SEAWALL_TOKEN_FILE=str(tmp_path / "token"))
    assert done.returncode == 4 and "doesn't answer" in done.stderr


@pytest.mark.parametrize("url", ["http://127.0.0.1:99999", "http://[::1", "127.0.0.1:8081", "ftp://127.0.0.1"])
def test_what_is_no_address_of_a_platform_is_misused(url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "token").write_text("t\n")
    monkeypatch.setenv("SEAWALL_TOKEN_FILE", str(tmp_path / "token"))
    with pytest.raises(Failed) as caught:
        find(None, url)
    assert caught.value.code == 2


@pytest.mark.parametrize(
    ("status", "location", "said"),
    [
        (503, "", "not accepted: HTTP 503"),
        (429, "", "not accepted: HTTP 429"),
        (502, "/in/tickets/0193f6a0-7c1e-7d3a-9b42-5f0e8c6d1a2b", "accepted, and answered HTTP 502"),
        (504, "/in/tickets/0193f6a0-7c1e-7d3a-9b42-5f0e8c6d1a2b", "accepted, and answered HTTP 504"),
    ],
)
def test_an_event_that_was_taken_is_never_called_refused_for_what_its_workflow_answers(
    status: int, location: str, said: str
) -> None:
    with answering(status, {"Location": location} if location else {}) as url:
        done = run("send", f"{url}/in/x", "--body", "x", "--wait", "5")
    assert done.returncode == 1 and said in done.stderr


@pytest.mark.parametrize(("count", "told"), [(499, False), (500, True)])
def test_a_history_of_alerts_that_is_cut_says_so(count: int, tmp_path: Path, *, told: bool) -> None:
    (tmp_path / "token").write_text("t\n")
    body = json.dumps({"items": [{"name": "store-away", "raised_at": str(n)} for n in range(count)]}).encode()
    with answering(200, {}, body) as url:
        done = run("alerts", "list", "--since", "7d", "--url", url, SEAWALL_TOKEN_FILE=str(tmp_path / "token"))
    assert done.returncode == 0 and ("there may be older ones" in done.stderr) is told


@pytest.mark.parametrize("state", ["off", "on", "auto"])
def test_a_hand_on_optional_work_says_why(state: str, tmp_path: Path) -> None:
    (tmp_path / "token").write_text("t\n")
    asked: list[bytes] = []
    with answering(200, {}, b'{"roles": ["router"], "unasked": []}', asked) as url:
        done = run(
            "shed", state, "countries", "--why", "the file is wrong", "--url", url,
            SEAWALL_TOKEN_FILE=str(tmp_path / "token"),
        )  # fmt: skip
    assert done.returncode == 0 and [json.loads(body) for body in asked] == [
        {"state": state, "why": "the file is wrong"}
    ]


def test_settings_are_shown_as_they_are_written(tmp_path: Path) -> None:
    lines = [line.split() for line in run("settings", "--data", str(tmp_path)).stdout.splitlines()]
    shown = {line[0]: line for line in lines}
    assert shown["step.ports"][1] == "80,443,8080,8443"
    assert "1073741824" in shown["journal.segment_bytes"]


def test_where_alerts_are_sent_is_shown_to_nobody(tmp_path: Path) -> None:
    done = run(
        "settings", "--json", "--data", str(tmp_path), SEAWALL_WATCH_WEBHOOK_URL="https://chat.example/T0/hunter2"
    )
    assert "hunter2" not in done.stdout and "SEAWALL_WATCH_WEBHOOK_URL" in done.stdout


def test_settings_as_json_hide_secrets(tmp_path: Path) -> None:
    done = run("settings", "--json", "--data", str(tmp_path), SEAWALL_DSN="postgresql://u:hunter2@h/d")
    rows = {row["key"]: row for row in json.loads(done.stdout)}
    assert (
        rows["dsn"]["value"] == "(hidden)" and rows["dsn"]["origin"] == "SEAWALL_DSN" and "hunter2" not in done.stdout
    )


@pytest.mark.parametrize("end", [b"\n", b"\r\n"])
def test_a_saved_request_keeps_its_bodys_bytes(end: bytes) -> None:
    body = b'{"a": 1}\r\n\r\n\x00\xff'
    saved = end.join([b"POST /in/x HTTP/1.1", b"Host: elsewhere", b"X-One:  two ", b"Content-Length: 3", b"", body])
    found = parse(saved)
    assert found.body == body and found.headers == [("X-One", "two")]


def test_a_saved_request_is_signed_when_it_carries_what_proves_its_sender() -> None:
    assert parse(b"X-GitHub-Delivery: 1\nX-Hub-Signature-256: sha256=00\n\n{}").signed
    assert parse(b"authorization: Bearer t\n\n{}").signed
    assert not parse(b"X-GitHub-Delivery: 1\nX-GitHub-Event: push\n\n{}").signed


@pytest.mark.parametrize("saved", [b"", b"no empty line", b"not a header\n\nbody", b"POST / HTTP/1.1\nbad header\n\n"])
def test_what_is_no_saved_request_is_refused(saved: bytes) -> None:
    with pytest.raises(Failed):
        parse(saved)


def test_later_headers_win_whatever_their_case() -> None:
    assert merged([("content-type", "a"), ("X", "1")], given(("Content-Type: b",))) == {"Content-Type": "b", "X": "1"}


def test_settings_of_a_source_nest_and_take_json_or_text() -> None:
    found = settings_of(("wait_ms_max=100", "signature.header=x-sig", "signature.tolerance_s=60", "require_json=true"))
    assert found == {"wait_ms_max": 100, "signature": {"header": "x-sig", "tolerance_s": 60}, "require_json": True}
    with pytest.raises(Failed):
        settings_of(("a=1", "a.b=2"))


@pytest.mark.parametrize(
    ("text", "secret"), [(b"s\n", b"s"), (b"s\r\n", b"s"), (b"s\n\n", b"s\n"), (b"s", b"s"), (b" s ", b" s ")]
)
def test_one_final_newline_is_not_part_of_a_secret(tmp_path: Path, text: bytes, secret: bytes) -> None:
    file = tmp_path / "secret"
    file.write_bytes(text)
    assert sender.read_secret(str(file)) == secret


@pytest.mark.parametrize("text", [b"", b"\n", b"x" * 5000])
def test_an_empty_or_endless_secret_is_refused(tmp_path: Path, text: bytes) -> None:
    file = tmp_path / "secret"
    file.write_bytes(text)
    with pytest.raises(Failed):
        sender.read_secret(str(file))


@pytest.mark.parametrize(("option", "signs_with"), [("--data", "new"), ("--url", "old")])
def test_a_source_that_is_remembered_signs_with_its_new_secret_once_it_is_rotated(
    option: str, signs_with: str, tmp_path: Path
) -> None:
    """It went on with the old one, until a revoke refused all that was sent by name."""
    data, secret, token = tmp_path / "data", tmp_path / "secret", tmp_path / "token"
    (data / "run").mkdir(parents=True)
    secret.write_text("new\n")
    token.write_text("t\n")
    sender.remember("gh", sender.Sender("http://127.0.0.1:1/in/x", "github", b"old"), str(data))
    sender.remember("other", sender.Sender("http://127.0.0.1:1/in/y", "github", b"its"), str(data))
    body = b'{"name": "gh", "key_id": 2, "live": false, "missing": ["c2"]}'
    with answering(200, {}, body) as url:
        (data / "run" / "admin.json").write_text(json.dumps({"address": url, "token": "t"}))
        place = {"--data": ("--data", str(data)), "--url": ("--url", url)}[option]
        for name in ("gh", "unremembered"):
            done = run(
                "source", "rotate", name, "--secret-file", str(secret), *place,
                SEAWALL_TOKEN_FILE=str(token), **({"SEAWALL_DATA": str(data)} if option == "--url" else {}),
            )  # fmt: skip
            assert done.returncode == 1 and "not live yet: c2" in done.stderr, done.stderr
    assert sender.find("gh", str(data)).secret == signs_with.encode()
    assert sender.find("other", str(data)).secret == b"its"
    assert (data / "senders.json").stat().st_mode & 0o777 == 0o600
    with pytest.raises(Failed):
        sender.find("unremembered", str(data))


def test_a_secret_that_is_made_is_shown_also_where_it_cannot_be_remembered(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "senders.json").write_text("{")
    with answering(200, {}, b'{"name": "gh", "key_id": 2, "live": true, "missing": []}') as url:
        (tmp_path / "run" / "admin.json").write_text(json.dumps({"address": url, "token": "t"}))
        done = run("source", "rotate", "gh", "--data", str(tmp_path))
    assert "secret whsec_" in done.stdout
    assert done.returncode == 2 and "senders.json: can't be read" in done.stderr
