"""``make lab`` runs what there is to run, goes on after a failure, and is green only when all was."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
LISTED = {"experiments": [{"name": "a", "runs": ["on", "off"]}, {"name": "b", "runs": ["on"]}]}
FAKE = """#!/bin/sh
echo "$@" >> "{place}/called"
[ "$2" = list ] && cat "{place}/listed"
grep -qxF -e "$*" "{place}/fails" && exit 1
exit 0
"""


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A clone of which only the script is real."""
    (tmp_path / "tool").mkdir()
    shutil.copy(ROOT / "tool" / "lab.sh", tmp_path / "tool")
    programs = tmp_path / ".venv" / "bin"
    programs.mkdir(parents=True)
    (programs / "python").symlink_to(sys.executable)
    (programs / "seawall").write_text(FAKE.format(place=tmp_path))
    (programs / "seawall").chmod(0o755)
    (tmp_path / "listed").write_text(json.dumps(LISTED))
    (tmp_path / "fails").write_text("")
    return tmp_path


def _run(place: Path, *names: str) -> tuple[int, list[str]]:
    done = subprocess.run(["sh", str(place / "tool" / "lab.sh"), *names], capture_output=True, timeout=60, check=False)
    return done.returncode, [line for line in (place / "called").read_text().splitlines() if line != "lab list --json"]


def test_all_experiments_are_run_and_reported(place: Path) -> None:
    assert _run(place) == (0, [
        "lab parts prepare", "lab run a --twice --yes", "lab run b --yes", "lab storm --seed 7 --minutes 2",
        "lab report",
    ])  # fmt: skip


def test_what_comes_after_another_is_run_after_it_whatever_runs_they_have(place: Path) -> None:
    listed = {"experiments": [{"name": "a", "runs": ["on"]}, {"name": "b", "runs": ["on", "off"], "needs": ["redis"]}]}
    (place / "listed").write_text(json.dumps(listed))
    assert _run(place)[1][1:3] == ["lab run a --yes", "lab run b --twice --yes"]


def test_only_those_that_are_named(place: Path) -> None:
    assert _run(place, "b") == (0, ["lab parts prepare", "lab run b --yes", "lab report"])
    assert _run(place, "c")[0] == 3


def test_a_name_that_is_not_there_is_said_and_nothing_passes_for_it(place: Path) -> None:
    assert _run(place, "b", "c") == (3, ["lab parts prepare"])


@pytest.mark.parametrize("failing", ["lab run a --twice --yes", "lab run b --yes", "lab report"])
def test_one_that_fails_keeps_no_other_from_running_and_is_not_forgotten(place: Path, failing: str) -> None:
    (place / "fails").write_text(failing + "\n")
    code, called = _run(place)
    assert code == 1 and len(called) == 5


def test_nothing_is_run_on_parts_that_do_not_work(place: Path) -> None:
    (place / "fails").write_text("lab parts prepare\n")
    assert _run(place) == (1, ["lab parts prepare"])
