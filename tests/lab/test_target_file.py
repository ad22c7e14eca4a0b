"""The file of a target: what isn't right is said, all of it, before anything is done."""

from __future__ import annotations

import os
import re
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import msgspec
import pytest

from seawall.kernel.error import Misconfigured
from seawall.lab.target import file as files
from seawall.lab.target.file import Command, Fault, TargetFile

from .made_target import fault, write

PAGE = Path(__file__).resolve().parents[2] / "docs" / "gameday.md"
HERE = "http://127.0.0.1:8081"


def problems(folder: Path, url: str = HERE, **more: Any) -> str:
    path = write(folder, url, **{"faults": {"redis.hole": fault(folder / "flag")}, **more})
    with pytest.raises(Misconfigured) as caught:
        files.load(path)
    return "\n".join(caught.value.problems)


def test_what_is_right_is_read_with_the_files_that_it_names(tmp_path: Path) -> None:
    (tmp_path / "dsn").write_text("postgresql://lab:password@127.0.0.1/seawall\n")
    path = write(tmp_path, HERE, {"redis.hole": fault(tmp_path / "flag")}, dsn_file="dsn", held={
        "name": "ask", "url": "https://in.staging.example/in/x", "secret_file": "lab.secret"})  # fmt: skip
    found = files.load(path)
    assert found.name == "staging" and found.token == "secret" and found.source.url == f"{HERE}/in/t"
    assert found.store == ("127.0.0.1", 5432) and found.held is not None
    assert found.addresses["held"] == "in.staging.example:443" and not found.here
    assert "secret" not in repr(found).replace("secret_file", "").replace("lab.secret", ""), "nothing secret is shown"
    path = write(tmp_path, HERE, {"redis.hole": fault(tmp_path / "flag")})
    assert files.load(path).here and files.load(path).hosts == {"127.0.0.1"}


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"name": "The Staging"}, "name: 'The Staging'"),
        ({"admin": "staging:8081"}, "admin: staging:8081 must be http://HOST:PORT"),
        ({"token_file": "nowhere"}, "token_file: "),
        ({"ca_file": "token"}, "ca_file: "),
        ({"dsn_file": "token"}, "dsn_file: token holds no postgresql://"),
        ({"surprise": 1}, "unknown field `surprise`"),
        ({"faults": {}}, "fault: name at least one"),
        ({"limits": {"seconds": 0.5}}, "limits.seconds: from 1 to 3600"),
        ({"abort": [{"claim": "too much", "name": "x"}]}, "abort: too much: either above or below"),
        ({"abort": [{"claim": "too much", "name": "x", "above": float("nan")}]}, "abort: too much: it is never met"),
        ({"faults": {"redis.hole": {"apply": ["true"]}}}, '[fault."redis.hole"]: revert: missing'),
        ({"faults": {"redis.hole": {"apply": [], "passing": True}}}, "apply: a list of words is needed"),
        ({"faults": {"a.end": {"apply": ["a"], "revert": ["b"], "passing": True}}}, "passing: what ends by itself"),
        ({"faults": {"a.end": {"apply": ["a"], "passing": True, "cuts": ["db"]}}}, 'cuts: there is no [path."db"]'),
        (
            {"faults": {"a.end": {"apply": {"argv": ["a"], "timeout_s": 600}, "passing": True}}},
            "apply: timeout_s is more than 0, and 60 at most",
        ),
        (
            {"faults": {"redis.hole": {"aply": ["true"]}}},
            '[fault."redis.hole"]: Object contains unknown field `aply`',
        ),
        ({"path": {"db": {"ask": "ping db"}}}, '[path."db"]: Expected `object | array`, got `str`'),
        ({"path": {"db": {"ask": "ping db"}}}, "a command is a list of words"),
        ({"path": {"db": {"ask": []}}}, '[path."db"]: ask: a list of words'),
        ({"source": {"name": "lab", "secret_file": "lab.secret"}}, "source: either url or url_file is needed"),
    ],
)
def test_what_is_not_right_is_said(more: dict[str, Any], said: str, tmp_path: Path) -> None:
    assert said in problems(tmp_path, **more)


def test_all_problems_are_said_at_once_and_no_token_with_them(tmp_path: Path) -> None:
    found = problems(tmp_path, url="ftp://h", name="No!", source={"name": "lab", "url": "ftp://h/in/TOKEN",
                                                                  "secret_file": "lab.secret"})  # fmt: skip
    assert "name: 'No!'" in found and "admin: ftp://h must be" in found and "source: its URL must be" in found
    assert "TOKEN" not in found


def test_words_in_braces_are_filled_in_and_doubled_ones_are_braces() -> None:
    made = Command(argv=["tc", "delay", "{ms}ms", "{{ms}}", "tcp dport { 22, 6379 }"]).filled({"ms": "300"})
    assert made.argv == ["tc", "delay", "300ms", "{ms}", "tcp dport { 22, 6379 }"]
    with pytest.raises(KeyError):
        Command(argv=["{nothing}"]).filled({"ms": "300"})


def examples() -> list[str]:
    return re.findall(r"```toml\n(.*?)```", PAGE.read_text("utf-8"), re.DOTALL)


def test_the_files_on_the_page_are_right() -> None:
    first, kubernetes, held = examples()
    whole = msgspec.convert(tomllib.loads(f"{first}\n{held}"), TargetFile)
    assert not list(files._problems(whole)) and set(whole.fault) == {"redis.hole", "redis.slow", "collector.end"}
    (fault,) = tomllib.loads(kubernetes)["fault"].values()
    assert msgspec.convert(fault, Fault).gone


@pytest.mark.parametrize(("says", "ends", "there", "gone"), [("lab-deny-redis lab-redis netem", 0, 0, 1),
                                                             ("another", 0, 1, 0), ("", 1, 2, 2)])  # fmt: skip
def test_the_looks_on_the_page_have_three_answers(says: str, ends: int, there: int, gone: int, tmp_path: Path) -> None:
    """What can't look says neither yes nor no: it would be taken for a fault that is gone."""
    for name in ("sudo", "tc", "kubectl"):
        (tmp_path / name).write_text(f"#!/bin/sh\necho {says}\nexit {ends}\n")
        (tmp_path / name).chmod(0o755)
    faults = {key: each for text in examples()[:2] for key, each in tomllib.loads(text)["fault"].items()}
    looks = [(faults["redis.slow"]["verify"][-1], there), (faults["redis.hole"]["gone"][-1], gone)]
    looks.append((tomllib.loads(examples()[0])["fault"]["redis.hole"]["verify"][-1], there))
    for look, wanted in looks:
        done = subprocess.run(["sh", "-c", look], env={**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"},
                              check=False, timeout=60)  # fmt: skip
        assert done.returncode == wanted, look
