"""A whole platform against what senders write, and against whoever looks for its secrets afterwards."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import pty
import signal
import stat
import subprocess
import sys
import time
import unicodedata
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from journey.program import Said, seawall
from journey.test_up import add_source, until
from seawall.kernel import signature
from seawall.lab.tree import PARTS, Tree

Start = Callable[..., Tree]

HOSTILE = [
    "\x1b[2J\x1b]0;title\x07", "\x9b2J", "\u202egpj.exe", "a\u2028b", "x\0y", "a\nINFO router forged", "a\rb",
    "\u200bhidden", "\U000e0041tag", "a\x7f\b\b", "%s%n{0}", "<script>alert(1)</script>", "=cmd|' /C calc'!A0", "🙂",
]  # fmt: skip


def sent(url: str, body: bytes, headers: dict[str, str] | None = None, *, method: str = "POST") -> tuple[int, bytes]:
    """One request."""
    parts = urlsplit(url)
    with contextlib.closing(http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=10)) as connection:
        target = parts.path + (f"?{parts.query}" if parts.query else "")
        connection.request(method, target, body, headers or {})
        answer = connection.getresponse()
        return answer.status, answer.read()


def harmless(text: str) -> bool:
    """Whether a terminal would only show it."""
    return all(c == "\n" or c.isprintable() or unicodedata.category(c) == "Zs" for c in text)


def test_no_event_moves_the_cursor_of_who_looks_at_it(shared: Tree) -> None:
    tree = shared
    url = add_source(tree, "hostile", "none")["url"]
    for type in HOSTILE:
        body = json.dumps({"type": type}).encode()
        assert sent(url, body, {"User-Agent": "a\x9b2Jb", "X-\x7e": "\xe9\xad"})[0] == 202
    data = ("--data", str(tree.data))
    listed = lambda: seawall("events", "list", "--source", "hostile", "--json", *data).json["items"]  # noqa: E731
    until(lambda: len(listed()) == len(HOSTILE), "all are routed")
    said: list[Said] = [
        seawall("events", "list", "--source", "hostile", *data),
        seawall("events", "list", "--source", "hostile", "--json", *data),
        seawall("events", "list", "--source", "hostile", *data, PYTHONIOENCODING="ascii"),
        seawall("events", "list", "--source", "hostile", "--json", *data, PYTHONIOENCODING="ascii"),
        seawall("events", "list", "--type", "\x1b[2J", *data),
        seawall("events", "show", "\x1b[2J", *data),
        seawall("journal", "export", str(tree.data), "--limit", "50"),
    ]
    for event in listed()[-3:]:
        said += [seawall("events", word, event["id"], *data) for word in ("show", "way")]
    for one in said:
        assert harmless(one.out) and harmless(one.err), (one.out, one.err)
        assert "Traceback" not in one.err
    # JSON says the same as ever to who parses it.
    types = {event["type"] for event in listed()}
    assert {type.replace("\0", "\ufffd") for type in HOSTILE} == types
    assert {event["type"] for event in said[3].json["items"]} == types
    # Bytes are given as they came, except to a terminal.
    body = json.dumps({"type": "x\x1b[2J"}, ensure_ascii=False).replace("\\u001b", "\x1b").encode()
    id = json.loads(sent(url, body)[1])["id"]
    until(lambda: seawall("events", "raw", id, *data).code == 0, "it is routed")
    assert seawall("events", "raw", id, *data).out.encode() == body
    assert "x\\x1b[2J" in on_a_terminal("events", "raw", id, "--request", *data)


def on_a_terminal(*arguments: str) -> str:
    """What a terminal is told; it must be harmless."""
    screen, end = pty.openpty()
    with os.fdopen(screen, "rb", buffering=0) as told:
        process = subprocess.Popen([sys.executable, "-m", "seawall", *arguments], stdout=end, stderr=end)
        os.close(end)
        said = b""
        with contextlib.suppress(OSError):  # the terminal's way of saying that nobody writes to it any more
            while part := told.read(4096):
                said += part
        assert process.wait(30) == 0, said
    text = said.decode().replace("\r\n", "\n")
    assert harmless(text), text
    return text


CANARIES = {
    "source secret": "canary-secret-of-github-1", "second secret": "canary-secret-of-github-2",
    "credential": "canary-credential-3", "cookie": "canary-cookie-4", "redis password": "canary-redis-5",
    "guessed token": "canary-guess-6",
}  # fmt: skip

DUMP = '"message": "thread"'

SPY_APP = """
from seawall import App, Context, Event

app = App()


@app.workflow(on="github.push")
async def fails(event: Event, ctx: Context) -> None:
    raise ValueError("a fault of the user's own")
"""


@pytest.fixture
def spied(start: Start, home: Path) -> Iterator[tuple[Tree, dict[str, str]]]:
    """A platform that says all it can, and its secrets by name. Each has been used, refused, and met a failure."""
    redis = home / "redis"
    redis.write_text(f"redis://user:{CANARIES['redis password']}@127.0.0.1:1/0\n")
    settings = home / "settings.toml"
    settings.write_text(f'[cache]\nurl_file = "{redis}"\n')
    for file in (redis, settings):
        file.chmod(0o600)
    tree = start(app=SPY_APP, options=("--log-level", "debug", "--config", str(settings)))
    data = ("--data", str(tree.data))
    secret = home / "secret"
    secret.write_text(CANARIES["source secret"])
    url = add_source(tree, "gh", "github", "--secret-file", str(secret))["url"]
    secret.write_text(CANARIES["second secret"])
    assert seawall("source", "rotate", "gh", "--secret-file", str(secret), *data).code == 0
    for key in ("source secret", "second secret"):
        body = json.dumps({"key": key}).encode()
        headers = {
            **dict(signature.sign("github", CANARIES[key].encode(), body, time.time(), id=key.replace(" ", "-"))),
            "X-GitHub-Event": "push", "Authorization": f"Bearer {CANARIES['credential']}",
            "Cookie": f"sid={CANARIES['cookie']}",
        }  # fmt: skip
        assert sent(url, body, headers)[0] == 202
    assert sent(url, b"{}", {"X-Hub-Signature-256": CANARIES["guessed token"]})[0] == 401
    assert sent(url + CANARIES["guessed token"], b"{}")[0] == 404
    admin = tree.place().admin
    guess = {"Authorization": f"Bearer {CANARIES['guessed token']}"}
    assert sent(f"{admin}/v1/events", b"", guess, method="GET")[0] == 401
    token = {"Authorization": f"Bearer {tree.place().token}"}
    assert sent(f"{admin}/v1/sources", b'{"name": "gh', token)[0] == 400
    assert seawall("source", "revoke", "gh", "--key", "1", *data).code == 0
    for role in ("collector", "console"):
        pid = tree.pid(role)
        assert pid is not None
        dumps = tree.log.read_text().count(DUMP)
        os.kill(pid, signal.SIGUSR1)
        until(lambda was=dumps: tree.log.read_text().count(DUMP) > was, "it says what it is doing")  # type: ignore[misc]
        tree.kill(role)
        tree.wait_replaced(role, pid, 30.0)
    known = {**CANARIES, "admin token": tree.place().token, "key": (tree.data / "key").read_text().strip(),
             "source token": url.rpartition("/")[2]}  # fmt: skip
    yield tree, known


@pytest.mark.slow
def test_no_secret_is_told_in_logs_pages_arguments_or_environment(
    spied: tuple[Tree, dict[str, str]], home: Path
) -> None:
    tree, secrets = spied
    data = ("--data", str(tree.data))
    place, token = tree.place(), {"Authorization": f"Bearer {tree.place().token}"}
    told: dict[str, str] = {}
    for path in ("/livez", "/readyz", "/metrics", "/statusz", "/openapi.json", "/v1/sources", "/v1/events", "/v1/runs",
                 "/v1/alerts", "/v1/breakers", "/nowhere"):  # fmt: skip
        told[path] = sent(place.admin + path, b"", token, method="GET")[1].decode()
    for words in (["events", "list"], ["source", "list"], ["runs", "list"], ["alerts", "list"], ["breakers", "list"],
                  ["doctor"], ["settings", "--config", str(home / "settings.toml")]):  # fmt: skip
        for form in ([], ["--json"]):
            said = seawall(*words, *form, *data)
            told[" ".join(words + form)] = said.out + said.err
    event = seawall("events", "list", "--json", *data).json["items"][0]["id"]
    told["events show"] = seawall("events", "show", event, *data).out
    told["events raw --request"] = seawall("events", "raw", event, "--request", *data).out
    told["journal export"] = seawall("journal", "export", str(tree.data)).out
    for part in PARTS:
        pid = tree.pid(part)
        assert pid is not None, part
        told[f"arguments of {part}"] = Path(f"/proc/{pid}/cmdline").read_text("utf-8", "replace")
        told[f"environment of {part}"] = Path(f"/proc/{pid}/environ").read_text("utf-8", "replace")
        limits = Path(f"/proc/{pid}/limits").read_text().splitlines()
        [core] = [line.split()[4] for line in limits if line.startswith("Max core file size")]
        assert core == "0", part
    tree.stop()
    told["log"] = tree.log.read_text()
    assert "Traceback" not in told["log"]
    found = [(name, where) for where, text in told.items() for name, secret in secrets.items() if secret in text]
    assert found == []


@pytest.mark.slow
def test_no_secret_lies_open_in_a_file(spied: tuple[Tree, dict[str, str]], home: Path) -> None:
    tree, secrets = spied
    old = os.umask(0o000)
    try:
        backup = home / "backup"
        backup.mkdir(mode=0o755)
        assert seawall("backup", str(backup), "--data", str(tree.data)).code == 0
        tree.stop()
        restored = home / "restored"
        assert seawall("restore", str(backup), "--data", str(restored)).code == 0
    finally:
        os.umask(old)
    allowed = {"key": {"key"}, "admin token": {"admin.token"}, "redis password": {"settings.json", "worker.json"}}
    allowed |= {name: {"senders.json"} for name in ("source secret", "second secret", "source token")}  # --remember
    for folder in (tree.data, backup, restored):
        for path in folder.rglob("*"):
            mode = path.lstat().st_mode
            if stat.S_ISLNK(mode) or path.is_socket():
                continue
            assert not mode & (0o077 if path.is_file() else 0o066), f"{path} has mode {stat.S_IMODE(mode):o}"
            if path.is_file():
                content = path.read_bytes()
                found = [n for n, s in secrets.items() if s.encode() in content and path.name not in allowed.get(n, ())]
                assert found == [], path
