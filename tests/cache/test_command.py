"""Only what costs the same on any server is sent to it, and no secret is ever said."""

from __future__ import annotations

import gc
import re
from pathlib import Path

import pytest

from seawall import cache
from seawall.cache.command import GCRA, GCRA_SHA, KEYS_MAX, NotAllowedError, packed
from seawall.cache.setting import Settings, target
from seawall.kernel.error import Misconfigured
from seawall.kernel.seam.hint import PAYLOAD_BYTES_MAX

from .conftest import Running
from .server import Server
from .test_limiter import until


@pytest.mark.parametrize(
    "words",
    [
        ("KEYS", "*"), ("SCAN", 0), ("FLUSHALL",), ("FLUSHDB",), ("SMEMBERS", "k"), ("HGETALL", "k"), ("DEL", "k"),
        ("LRANGE", "k", 0, -1), ("SORT", "k"), ("MONITOR",), ("DEBUG", "SLEEP", 1), ("SAVE",), ("SUBSCRIBE", "c"),
        ("SUBSCRIBE", "seawall:hint:reply:0", "c"), ("PSUBSCRIBE", "seawall:hint:*"), ("PUBLISH", "c", "x"),
        ("PUBLISH", "seawall:hint:reply:0", b"x" * (PAYLOAD_BYTES_MAX + 1)), ("PUBLISH", "seawall:hint:reply:0"),
        ("EVAL", "return 1", 0), ("EVALSHA", "0" * 40, 0), ("EVALSHA", GCRA_SHA, KEYS_MAX + 1),
        ("EVALSHA", GCRA_SHA, -1), ("EVALSHA", GCRA_SHA, "x"), ("SCRIPT", "LOAD", b"return 1"), ("SCRIPT", "FLUSH"),
        ("SLOWLOG", "GET", -1),
        ("SLOWLOG", "GET", 129), ("SLOWLOG", "RESET"), ("INFO",), ("INFO", "everything"), ("CONFIG", "GET", "*"),
        ("CONFIG", "SET", "maxmemory", 1), ("CLIENT", "LIST"), ("HELLO", 3), ("get", "k"), (),
    ],
)  # fmt: skip
def test_a_command_that_is_not_in_the_list_is_never_sent(words: tuple[str | int | bytes, ...]) -> None:
    with pytest.raises(NotAllowedError):
        packed(*words)


@pytest.mark.parametrize(
    "words",
    [
        ("PING",), ("HELLO", 2, "AUTH", "u", "p", "SETNAME", "n"), ("SELECT", 3), ("SCRIPT", "LOAD", GCRA),
        ("EVALSHA", GCRA_SHA, 1, "k"), ("SLOWLOG", "GET", 128), ("INFO", "memory"),
        ("CONFIG", "GET", "maxmemory-policy"), ("SUBSCRIBE", "seawall:hint:reply:0"),
        ("PUBLISH", "seawall:hint:reply:0", b"x" * PAYLOAD_BYTES_MAX),
    ],
)  # fmt: skip
def test_the_list_has_what_we_need(words: tuple[str | int | bytes, ...]) -> None:
    assert packed(*words).startswith(b"*%d\r\n" % len(words))


def test_nothing_else_of_ours_sends_to_redis() -> None:
    # Link.send takes bytes: they must come from ``packed``, or the list means nothing.
    texts = {path.name: path.read_text() for path in Path(cache.__path__[0]).glob("*.py")}
    assert {name for name, text in texts.items() if re.search(r"\blink\.send\(", text)} == {"client.py"}
    assert {name for name, text in texts.items() if "import hiredis" in text} == {"link.py"}


@pytest.mark.parametrize(
    ("url", "hosts"),
    [
        ("redis://h", [("h", 6379)]),
        ("redis://:p%40ss@a:1,b:2/5", [("a", 1), ("b", 2)]),
        ("rediss://user:p@[::1]:7,10.0.0.1", [("::1", 7), ("10.0.0.1", 6379)]),
    ],
)
def test_urls_are_understood(url: str, hosts: list[tuple[str, int]]) -> None:
    found = target(url)
    assert found.hosts == hosts
    assert found.password in ("", "p@ss", "p") and found.tls == url.startswith("rediss")
    assert "p@ss" not in found.shown and "user" not in found.shown


@pytest.mark.parametrize(
    "url",
    [
        "http://secret@h",
        "redis://",
        "redis://secret@h:99999",
        "redis://h/secret",
        "redis://h,,secret",
        "redis://h?secret",
    ],
)
def test_a_url_that_can_not_be_meant_is_refused_without_saying_it(url: str) -> None:
    with pytest.raises(Misconfigured) as refused:
        Settings(url=url)
    assert "secret" not in str(refused.value)


async def test_a_password_is_used_and_never_said(
    running: Running, server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    server.say("CONFIG", "SET", "requirepass", "hunter2")
    caplog.set_level("DEBUG")
    async with running(loops=True, password="hunter2") as right, running(loops=True, password="hunter3") as wrong:
        await until(lambda: wrong.state == "open" and right.count("seawall_dependency_calls_total"))
        assert right.state == "closed"
        assert wrong.count("seawall_dependency_fallbacks_total", cause="error")
        said = caplog.text + str(wrong.alerts.active()) + str(wrong.panel.lines())
        assert "hunter" not in said
    gc.collect()
    # Two more commands went with the greeting, and were refused in the same breath.
    assert "never retrieved" not in caplog.text
