"""A user's file is taken as it is meant, or refused with what is wrong in it."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from seawall.kernel.error import Misconfigured
from seawall.machine.application import load_app

WORKFLOW = "@{}.workflow(on='x')\nasync def w(event, ctx): ...\n"


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield tmp_path / "mine.py"
    sys.modules.pop("seawall_user_app", None)


def _text(*names: str) -> str:
    made = "".join(f"{name} = App()\n" for name in names)
    return "from seawall import App\n" + made + "".join(WORKFLOW.format(name) for name in names)


def test_the_only_app_is_found_whatever_its_name(file: Path) -> None:
    file.write_text(_text("mine"))
    assert [workflow.name for workflow in load_app(str(file)).workflows] == ["w"]


def test_of_several_the_one_named_app_is_meant(file: Path) -> None:
    file.write_text(_text("app", "other") + "@app.workflow(on='y')\nasync def second(event, ctx): ...\n")
    assert len(load_app(str(file)).workflows) == 2


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (_text("one", "two"), "holds 2 App objects"),
        ("x = 1\n", "holds 0 App objects"),
        ("from seawall import App\napp = App()\n", "declares no workflow"),
        ("x = 1\nx +\n", "line 2: SyntaxError"),
        ("import os\n\n\nos.nothing()\n", "line 4: AttributeError"),
        ("import sys\nsys.exit(3)\n", "line 2: SystemExit: 3"),
    ],
)
def test_a_file_that_cant_be_taken_says_why_in_one_line(file: Path, text: str, said: str) -> None:
    file.write_text(text)
    with pytest.raises(Misconfigured, match=said) as refused:
        load_app(str(file))
    assert "\n" not in str(refused.value)


def test_a_file_that_is_missing_is_named(file: Path) -> None:
    with pytest.raises(Misconfigured, match=r"mine\.py: is not a file"):
        load_app(str(file))
