"""Files of experiments: what isn't right is said with its place, before anything is broken."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest

from seawall.kernel.error import Misconfigured, Rejected
from seawall.lab import experiment
from seawall.lab.run import preflight, toolkit
from seawall.lab.target import file as files
from seawall.lab.target import plan

from .tiny import document, write

PATH = Path("mine.yaml")


def problems(said: dict[str, Any]) -> str:
    with pytest.raises(Misconfigured) as caught:
        experiment.parse(said, PATH)
    return "\n".join(caught.value.problems)


@pytest.mark.parametrize("name", experiment.names())
def test_every_file_of_the_catalogue_is_right(name: str) -> None:
    found = experiment.find(name)
    toolkit.check(found.document)
    assert found.name == name and found.steps and found.ours.expect.on


def test_a_file_of_ones_own_is_found_by_its_path(tmp_path: Path) -> None:
    path = write(tmp_path, document())
    found = experiment.find(str(path))
    assert found.name == "silent-echo" and found.steps == ["hole", "wait 0.6", "mend"] and found.path == path
    assert found.share_of_day == 30 / 86_400
    toolkit.check(found.document)


def test_the_file_that_the_page_shows_is_right(tmp_path: Path) -> None:
    page = Path(__file__).resolve().parents[2] / "docs" / "lab.md"
    path = tmp_path / "mine.yaml"
    path.write_text(page.read_text().split("```yaml\n")[1].split("```")[0])
    found = experiment.find(str(path))
    toolkit.check(found.document)
    assert len(found.ours.expect.on) == 2, "`on` is a word, though YAML takes it for true"


def test_the_example_of_the_page_on_writing_one_is_right_and_fits_the_target_of_the_other_page(tmp_path: Path) -> None:
    docs = Path(__file__).resolve().parents[2] / "docs"
    path, target = tmp_path / "slow-redis.yaml", tmp_path / "staging.toml"
    path.write_text((docs / "experiments.md").read_text().split("```yaml\n")[1].split("```")[0])
    target.write_text((docs / "gameday.md").read_text().split("```toml\n")[1].split("```")[0])
    for name in ("staging.token", "lab.secret"):
        (tmp_path / name).write_text("x")
    (tmp_path / "lab.url").write_text("https://in.staging.example/in/x")
    found = experiment.find(str(path))
    toolkit.check(found.document)
    assert found.name == "slow-redis" and len(found.ours.expect.on) == 4
    fitted = plan.fit(found, files.load(target), file="staging.toml")
    assert fitted.at is not None and not fitted.at.here and not fitted.at.unseen
    assert "delay 300ms" in " ".join(fitted.at.faults)


def test_what_is_not_there_is_said_with_what_is(tmp_path: Path) -> None:
    with pytest.raises(Rejected, match="no-such; there are"):
        experiment.find("no-such")
    with pytest.raises(Rejected, match="there is no file"):
        experiment.find(str(tmp_path / "no.yaml"))
    (tmp_path / "broken.yaml").write_text("a: [")
    with pytest.raises(Misconfigured):
        experiment.find(str(tmp_path / "broken.yaml"))
    (tmp_path / "list.yaml").write_text("- a")
    with pytest.raises(Misconfigured, match="no experiment"):
        experiment.find(str(tmp_path / "list.yaml"))


ON = [{"claim": "c", "func": "verdict", "arguments": {"lost": 0}}]
WRONG = {
    "unknown field": ({"colour": "red"}, "unknown field `colour`"),
    "worst case": ({"worst_case": " "}, "worst_case: say what is lost"),
    "seconds": ({"seconds": {"min": 40}}, "0 <= min <= max"),
    "no end": ({"seconds": {"max": 0}}, "max from 1 to 3600"),
    "for ever": ({"seconds": {"recover": 1e9}}, "seconds.recover"),
    "profile": ({"profile": "huge"}, "profile"),
    "incident": ({"incident": "I9"}, "incident"),
    "no claim": ({"expect": {"on": []}}, "expect.on: a run that expects nothing"),
    "off without weak": ({"expect": {"on": ON, "off": ON}}, "without: which weak parts"),
    "weak without off": ({"without": ["deaf"]}, "expect.off: what is seen"),
    "no such function": ({"expect": {"on": [{"claim": "c", "func": "hopes"}]}}, "has no attribute 'hopes'"),
    "no such argument": (
        {"expect": {"on": [{"claim": "c", "func": "stays", "arguments": {"nmae": "x"}}]}},
        "missing a required argument",
    ),
    "no such module": ({"expect": {"on": [{"claim": "c", "func": "f", "module": "no.such"}]}}, "No module named"),
    "no bound": ({"abort": [{"claim": "c", "name": "n"}]}, "either above or below"),
    "no word": ({"expect": {"on": [{"claim": "c", "func": "verdict"}]}}, "it holds always: a word of the ledger"),
    "never met": ({"abort": [{"claim": "c", "name": "n", "above": float("nan")}]}, "a bound isn't a number"),
    "any memory": ({"memory_mb": float("nan")}, "memory_mb: a number above 0"),
    "nobody calls": ({"traffic": []}, "calls: without traffic"),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_value_is_said_with_its_place(name: str) -> None:
    ours, why = WRONG[name]
    found = problems(document(**ours))
    assert why in found and "mine.yaml: extension seawall" in found


def test_what_would_leave_faults_in_place_under_plain_chaos_run_is_refused() -> None:
    said = document()
    for name in ("runtime", "controls", "extensions", "steady-state-hypothesis"):
        less = copy.deepcopy(said)
        del less[name]
        assert name.split("-")[0] in problems(less)
    less = copy.deepcopy(said)
    less["runtime"]["rollbacks"]["strategy"] = "default"
    assert "must be always" in problems(less)


def test_what_chaos_toolkit_does_not_take_is_said() -> None:
    said = document()
    said["method"][0]["provider"]["func"] = "no_such"
    with pytest.raises(Misconfigured, match="no_such"):
        toolkit.check(said)


def test_a_person_is_told_what_is_broken_and_the_worst_case_as_a_share_of_the_day(tmp_path: Path) -> None:
    found = experiment.load(write(tmp_path, document(seconds={"max": 180}, needs=["redis"])))
    said = "\n".join(preflight.question(found, on=True, off=False))
    assert "redis" in said and "- hole" in said and "an echo is late" in said
    assert "180 s at most, 0.21 % of a day's traffic" in said


@pytest.mark.parametrize(
    ("func", "arguments"),
    [
        ("stays", {"name": "n"}),
        ("stays", {"name": "n", "at_most": 1, "share": 0}),
        ("stays", {"name": "n", "at_most": float("nan")}),
        ("reaches", {"name": "n"}),
        ("reaches", {"name": "n", "at_least": 1, "samples": 0}),
        ("becomes", {"name": "n"}),
        ("told", {"text": "t", "times": 0}),
        ("steady", {"at_least": 0}),
        ("verdict", {"lost": [0, float("nan")]}),
    ],
)
def test_a_claim_that_says_nothing_is_refused(func: str, arguments: dict[str, Any]) -> None:
    found = problems(document(expect={"on": [{"claim": "c", "func": func, "arguments": arguments}]}))
    assert "expect on: c: it holds always" in found or "not a number" in found
