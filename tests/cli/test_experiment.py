"""``seawall lab list|show|run`` from a shell."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from lab import made_runs
from lab.tiny import document, write
from seawall.cli.experiment import list_, panic, run, say_record, show
from seawall.cli.say import Failed
from seawall.lab import experiment
from seawall.lab.arm import living, revert
from seawall.lab.arm.armoury import Armoury
from seawall.lab.record import Status


def said(*arguments: str) -> Result:
    return CliRunner().invoke(run, arguments, standalone_mode=False)


@pytest.fixture
def mine(tmp_path: Path) -> str:
    weak = {"without": ["deaf"], "expect": {
        "on": [{"claim": "nothing is lost", "func": "verdict", "arguments": {"lost": 0}}],
        "off": [{"claim": "something is lost", "func": "verdict", "arguments": {"lost": [1, 9]}}],
    }}  # fmt: skip
    return str(write(tmp_path, document(**weak, original={"source": "a retrospective", "detect": "a few moments"})))


def test_nothing_is_broken_without_a_word(mine: str, tmp_path: Path) -> None:
    done = said(mine, "--folder", str(tmp_path / "lab"))
    assert isinstance(done.exception, Failed) and done.exception.code == 2 and "--yes" in str(done.exception)
    assert "an echo is late" in done.output and "0.035 % of a day's traffic" in done.output and "- hole" in done.output
    assert not (tmp_path / "lab").exists()


def test_the_name_must_be_typed(mine: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("seawall.cli.experiment.interactive", lambda: True)
    done = CliRunner().invoke(run, [mine, "--folder", str(tmp_path / "lab")], input="yes\n", standalone_mode=False)
    assert isinstance(done.exception, Failed) and "not confirmed" in str(done.exception)
    assert not (tmp_path / "lab").exists()


def test_what_makes_no_sense_is_misused_and_nothing_is_done(mine: str, tmp_path: Path) -> None:
    once = str(write(tmp_path, document(), "once"))
    for code, words, why in (
        (2, (mine, "--twice", "--without"), "not both"),
        (2, (once, "--twice"), "names no weak part"),
        (3, ("no-such",), "no such experiment"),
    ):
        done = said(*words, "--yes", "--folder", str(tmp_path / "lab"))
        assert isinstance(done.exception, Failed) and done.exception.code == code and why in str(done.exception)
    assert not (tmp_path / "lab").exists()


def test_show_says_what_it_breaks_and_what_is_expected(mine: str) -> None:
    done = CliRunner().invoke(show, [mine], standalone_mode=False)
    for text in ("- hole", "something is lost", "a retrospective", "detected: a few moments", "not stated"):
        assert text in done.output, done.output
    found = json.loads(CliRunner().invoke(show, [mine, "--json"], standalone_mode=False).output)
    assert found["runs"] == ["on", "off"] and found["extension"]["calls"] == ["echo"]


def test_list_has_every_file_of_the_catalogue() -> None:
    found = json.loads(CliRunner().invoke(list_, ["--json"], standalone_mode=False).output)
    assert [each["name"] for each in found["experiments"]] == experiment.names()


def test_panic_in_the_wrong_folder_says_where_a_run_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    armoury = Armoury(tmp_path / "a lab" / "armed", run="r", rig=None, lost=lambda why: None, told=lambda id, by: None)
    (tmp_path / "home").mkdir()
    monkeypatch.chdir(tmp_path / "home")
    with armoury:
        for mistyped in ([], ["--folder", str(tmp_path / "alab")]):
            done = CliRunner().invoke(panic, mistyped, standalone_mode=False)
            assert done.return_value == 1 and "no lab ever was in" in done.output
            assert f"seawall lab panic --folder '{tmp_path}/a lab'" in done.output
        (tmp_path / "other" / "armed").mkdir(parents=True)
        done = CliRunner().invoke(panic, ["--folder", str(tmp_path / "other")], standalone_mode=False)
        assert done.return_value == 0 and done.output == "nothing was broken\n", "that one was meant"
    assert tmp_path / "a lab" not in living.labs(tmp_path)


def test_what_could_not_be_undone_is_said_as_a_person_would_type_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    armed = revert.parse(
        {"do": "command", "argv": ["ssh", "gw", "sudo nft delete table inet lab"], "folder": "/etc/lab"}
    )
    assert revert.words(armed) == "run ssh gw 'sudo nft delete table inet lab' in /etc/lab"
    made = made_runs.record(status=Status.ABORTED, why=["STILL BROKEN: redis: run x: NOT undone: y", "Ctrl-C"])
    say_record(made, tmp_path, err=False)
    said = capsys.readouterr().out
    assert "tried again and again" in said and f"seawall lab panic --folder {tmp_path}" in said


def test_panic_where_nothing_ever_ran_is_calm(tmp_path: Path) -> None:
    done = CliRunner().invoke(panic, ["--folder", str(tmp_path / "no")], standalone_mode=False)
    assert done.output.startswith("nothing was broken: no lab ever was in") and not (tmp_path / "no").exists()
