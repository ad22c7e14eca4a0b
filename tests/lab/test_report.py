"""From folders of runs to the page and the file: what they say, and that nothing in a run can make them say more."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from click.testing import CliRunner

from seawall.cli.report import report as command
from seawall.lab import history
from seawall.lab.record import SERIES, Expectation, Fault, Moment, Proof, Record, Status, load
from seawall.lab.report import write
from seawall.lab.report.original import NOT_STATED, originals
from seawall.lab.report.shelf import SERIES_BYTES_MAX, read
from seawall.lab.report.summary import COLUMNS, document, markdown, records, row, total
from seawall.lab.storm import schedule

from .made_runs import WELL, leave, pair, record, several, shape

EVIL = (
    "</title></style><script>alert(1)</script><img src=//x.test/ onerror=alert(1)>\" onload='x' \x00\x1b[2J\u202e&amp;"
)
VOID = {"meta", "br", "hr", "wbr"}


class Elements(HTMLParser):
    """Every element of a page, and whether each that begins also ends."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def _elements(page: str) -> Elements:
    found = Elements()
    found.feed(page)
    found.close()
    assert not found.open
    return found


def _page(folder: Path) -> str:
    return write(folder).html.read_text("utf-8")


def _row(text: str, start: str) -> list[str]:
    """The cells of the row of a page's first table that begins so."""
    for line in re.findall(r"<tr[^>]*>(.*?)</tr>", text):
        cells = [_elements(cell).text for cell in re.findall(r"<t[dh][^>]*>(.*?)</t[dh]>", line)]
        if cells and cells[0] == start:
            return cells
    raise AssertionError(f"no row begins with {start}")


# ── The page ───────────────────────────────────────────────────────────────────────────────────────────────────────
def test_the_page_needs_nothing_from_outside_and_runs_nothing(tmp_path: Path) -> None:
    several(tmp_path)
    page = _page(tmp_path)
    found = _elements(page)
    assert not {"script", "img", "link", "iframe", "object", "image", "use", "foreignobject"} & {
        t for t, _ in found.found
    }
    targets = [a[key] or "" for _, a in found.found for key in ("href", "src", "xlink:href") if key in a]
    assert targets and all(re.match(r"#|run/[\w.-]+/", target) for target in targets)
    assert not re.search(r"url\(|@import", page)
    policy = next(a["content"] for t, a in found.found if t == "meta" and a.get("http-equiv"))
    assert policy is not None and "default-src 'none'" in policy


def _hostile() -> Record:
    return Record(
        id="x.on.20261123T000000", name=EVIL, title=EVIL, incident=EVIL, protections="on", weak=[EVIL], command=EVIL,
        began=EVIL, why=[EVIL], expectations=[Expectation(claim=EVIL, held=False, said=EVIL)], seconds=40,
        proofs=[Proof(claim=EVIL, at_s=1, held=True, said=EVIL)],
        faults=[Fault(name=EVIL, target=EVIL, began_s=10, ended_s=20, ended_by=EVIL)],
        moments=[Moment(at_s=11, kind=EVIL, text=EVIL), Moment(at_s=12, kind="alert", text=EVIL)],
        verdict={EVIL: 3, "accepted": 10}, facts={EVIL: EVIL},
    )  # fmt: skip


def test_nothing_in_a_run_becomes_markup(tmp_path: Path) -> None:
    def values(at_s: float) -> Mapping[str, float]:
        return {f"room.{EVIL}_ms": at_s, f"breaker.{EVIL}_code": 2, EVIL: 3.0, "intake.ok_rate": at_s}

    leave(tmp_path, _hostile(), values)
    (tmp_path / "run" / "no<b>record").mkdir()
    found = _elements(_page(tmp_path))
    assert not {"script", "img", "b"} & {tag for tag, _ in found.found}
    assert not [name for _, attributes in found.found for name in attributes if name.startswith("on")]
    assert not re.search("[\x00\x1b\u202e]", found.text)
    assert "<script>alert(1)</script>" in found.text  # said, as what it is


def test_every_picture_is_well_formed_and_has_words_for_who_sees_none(tmp_path: Path) -> None:
    several(tmp_path)
    page = _page(tmp_path)
    pictures = re.findall(r"<svg.*?</svg>", page, re.DOTALL)
    assert len(pictures) > 20
    idents: list[str] = []
    for each in pictures:
        root = ElementTree.fromstring(each)
        assert root.get("role") == "img"
        labels = (root.get("aria-labelledby") or "").split()
        texts = {e.get("id"): e.text for e in root.iter() if e.get("id")}
        assert len(labels) == 2 and all(texts[label] for label in labels)
        idents += labels
    assert len(set(idents)) == len(idents)
    tables = [a for t, a in _elements(page).found if t == "table"]
    assert len(tables) > 10


def test_an_incident_is_told_with_its_source_and_both_runs_beside_its_own_times(tmp_path: Path) -> None:
    pair(tmp_path)
    page = _page(tmp_path)
    text = _elements(page).text
    known = originals()["I1"]
    assert all(line in text for line in known.story) and known.source in text
    assert _row(page, "Time to detect")[1:] == [known.detect, "no alert", "4.2 s"]
    assert _row(page, "Time to mitigate")[1:] == [known.mitigate, "not while it lasted", "2.1 s"]
    assert _row(page, "Time to recover")[1:] == [NOT_STATED, "22.5 s", "1.5 s"]
    assert _row(page, "Held requests answered")[1:] == [NOT_STATED, "41 of 640", "640 of 640"]
    assert "seawall lab run redis-listener-dies --without --seed 0" in text
    assert "redis a black hole, by the rollback" in text
    assert "Weak parts: deaf-listener" in text
    assert "I3 (Forem/DEV" in text  # those that were not run are said, too


def test_an_experiment_of_a_user_tells_of_its_own_incident(tmp_path: Path) -> None:
    mine = {"source": "our own, in May", "detect": "2 h", "mitigate": NOT_STATED, "story": "It broke.\nWe looked."}
    leave(tmp_path, record("mine", incident="", original=mine))
    leave(tmp_path, record("theirs", incident="I1", original={"source": "x", "recover": "a day", "story": "A rung."}))
    page = _page(tmp_path)
    text = _elements(page).text
    assert "It broke." in text and "our own, in May" in text
    assert text.count("A rung.") == 1 and originals()["I1"].story[0] not in text
    assert _row(page.split("(mine)")[1], "Time to detect")[1:] == ["2 h", "4.2 s"]
    assert _row(page.split("(mine)")[1], "Time to mitigate")[1:] == [NOT_STATED, "2.1 s"]
    assert _row(page, "Time to recover")[1:] == ["a day", "1.5 s"]  # the file's word, where it has one
    assert _row(page, "Time to detect")[1:] == [originals()["I1"].detect, "4.2 s"]


def test_originals_have_three_lines_and_a_source() -> None:
    assert sorted(originals()) == ["I1", "I2", "I3", "I4", "I5"]
    assert all(len(each.story) == 3 and each.source for each in originals().values())


# ── What is counted ────────────────────────────────────────────────────────────────────────────────────────────────
def test_lost_0_has_its_bound_beside_it(tmp_path: Path) -> None:
    said = row(record())
    assert (said["lost"], said["lost at most"], said["came out"]) == ("0", "≤ 0.11 %", "as expected")
    assert row(record(on=False))["came out"] == "it happens"


@pytest.mark.parametrize(
    ("more", "lost", "at_most"),
    [
        ({"verdict": {**WELL, "unknown": 3}}, "none seen", "-"),
        ({"verdict": {**WELL, "lost": 267}}, "267 (10 %)", "-"),
        ({"verdict": {}}, "-", "-"),
        ({"verdict": {**WELL, "accepted": 0}}, "0", "-"),
        ({"status": Status.INVALID}, "0", "-"),
        ({"status": Status.ABORTED}, "0", "-"),
    ],
)
def test_no_bound_where_a_run_may_not_speak_for_it(more: dict[str, Any], lost: str, at_most: str) -> None:
    said = row(record(**more))
    assert (said["lost"], said["lost at most"]) == (lost, at_most)


def test_answers_that_came_late_under_a_ticket_are_not_called_answers() -> None:
    assert row(record(verdict={**WELL, "own": 102, "late": 538}))["held answered"] == "102 of 640, 538 late"
    assert row(record(verdict={"accepted": 5, "lost": 0}))["held answered"] == "-"


def test_the_sum_is_of_runs_with_protections_only() -> None:
    both = [record(), record("b"), record(on=False, verdict={**WELL, "lost": 9}), record("c", status=Status.INVALID)]
    last = total(both)
    assert last is not None and (last["accepted"], last["lost"], last["lost at most"]) == (
        "5\u202f340",
        "0",
        "≤ 0.056 %",
    )
    assert total([record(verdict={**WELL, "unknown": 1}), record("b")]) is None
    assert total([]) is None


# ── The file ───────────────────────────────────────────────────────────────────────────────────────────────────────
def test_the_file_says_of_each_run_whether_it_came_out_as_expected(tmp_path: Path) -> None:
    pair(tmp_path)
    written = write(tmp_path)
    said = json.loads(written.json.read_text("utf-8"))
    assert said["as_expected"] is True and said["problems"] == []
    assert [(run["name"], run["protections"], run["as_expected"], run["status"]) for run in said["runs"]] == [
        ("redis-listener-dies", "off", True, "as_expected"), ("redis-listener-dies", "on", True, "as_expected"),
    ]  # fmt: skip
    on = said["runs"][1]
    assert (on["incident"], on["detect_s"], on["mitigate_s"], on["recover_s"]) == ("I1", 4.2, 2.1, 1.5)
    assert on["verdict"]["lost"] == 0 and on["lost_share_max"] == pytest.approx(3 / 2670)
    assert said["originals"]["I1"]["recover"] == NOT_STATED
    assert [each.id for each in records(said)] == [run["id"] for run in said["runs"]]


def test_the_newest_run_counts_and_the_earlier_ones_are_listed(tmp_path: Path) -> None:
    leave(tmp_path, record(at="050000", status=Status.NOT_AS_EXPECTED))
    leave(tmp_path, record(at="060000"))
    shelf = read(tmp_path)
    assert shelf.as_expected
    assert [run["as_expected"] for run in document(shelf)["earlier"]] == [False]
    leave(tmp_path, record(at="070000", status=Status.NOT_AS_EXPECTED))
    assert not read(tmp_path).as_expected


def test_each_seed_of_a_storm_is_an_experiment_of_its_own(tmp_path: Path) -> None:
    for n, (seed, status) in enumerate(((7, Status.NOT_AS_EXPECTED), (8, Status.AS_EXPECTED))):
        leave(tmp_path, record("storm", incident="", seed=seed, at=f"06000{n}", status=status))
    shelf = read(tmp_path)
    assert [case.runs[0].record.seed for case in shelf.cases] == [7, 8] and not shelf.as_expected
    assert 'id="x-storm-seed-7-' in _page(tmp_path)


def test_storms_of_one_seed_that_are_others_are_not_mixed(tmp_path: Path) -> None:
    """Another length, overlap, choice of faults or version gives other faults: none makes another one green."""
    drawn = [
        schedule(7, 60), schedule(7, 300), schedule(7, 60, overlap=3), schedule(7, 60, faults=["redis"]),
        replace(schedule(7, 60), version=99),
    ]  # fmt: skip
    assert len({each.variant for each in drawn}) == len(drawn) and all(len(each.variant) < 80 for each in drawn)
    assert schedule(7, 60, faults=["collector"]).variant.endswith(", of collector-kill, collector-term")
    assert schedule(7, 60, faults=["redis"]).variant != schedule(7, 60, faults=["kafka"]).variant
    variants = [*(each.variant for each in drawn), drawn[0].variant]
    statuses = [Status.NOT_AS_EXPECTED, *[Status.AS_EXPECTED] * 4, Status.AS_EXPECTED]
    for n, (variant, status) in enumerate(zip(variants, statuses, strict=True)):
        made = record("storm", incident="", seed=7, variant=variant, at=f"06000{n}", status=status)
        leave(tmp_path, made)
        history.keep(tmp_path, made)
        if n == 4:
            assert not read(tmp_path).as_expected, "only the same storm takes it back"
    shelf = read(tmp_path)
    assert shelf.as_expected and len(shelf.cases) == 5 and len(shelf.earlier) == 1
    page = _page(tmp_path)
    ids = [attributes["id"] for _, attributes in _elements(page).found if attributes.get("id")]
    assert len(set(ids)) == len(ids)
    assert drawn[1].variant in page and not any(each.worse for each in history.read(tmp_path))


def test_a_storm_of_an_earlier_version_is_told_apart_by_its_title(tmp_path: Path) -> None:
    for n, title in enumerate(
        ("Storm 7: 6 faults in 1 minutes, 2 at once", "Storm 7: 31 faults in 5 minutes, 2 at once")
    ):
        leave(tmp_path, record("storm", incident="", seed=7, at=f"06000{n}", title=title))
    assert len(read(tmp_path).cases) == 2


def test_an_incident_that_was_only_made_to_happen_shows_nothing(tmp_path: Path) -> None:
    leave(tmp_path, record(on=False))
    shelf = read(tmp_path)
    said, page = document(shelf), _page(tmp_path)
    assert not shelf.as_expected and said["as_expected"] is False
    assert [run["protections"] for run in said["runs"]] == ["off"] and said["runs"][0]["as_expected"]
    assert said["not_run"] == [{"name": "redis-listener-dies", "variant": "", "where": "", "protections": "on"}]
    assert "? not run" in page and "With the protections" in page
    assert "| redis-listener-dies | on | not run |" in markdown(records(said))
    done = CliRunner().invoke(command, ["--folder", str(tmp_path)], standalone_mode=False)
    assert done.return_value == 1 and re.search(r"redis-listener-dies +on +not run", done.output), done.output
    leave(tmp_path, record(at="070000"))
    assert read(tmp_path).as_expected and document(read(tmp_path))["not_run"] == [] and "not run" not in _page(tmp_path)


def test_the_table_for_the_readme_is_as_wide_as_its_head_whatever_a_name_holds() -> None:
    lines = markdown([record("a|b\nc"), record(on=False)]).splitlines()
    assert {len(re.findall(r"(?<!\\)\|", line)) for line in lines} == {len(COLUMNS) + 1}
    assert lines[-1].count("all with protections") == 1


# ── What a crash, or somebody else, left ───────────────────────────────────────────────────────────────────────────
def _broken(folder: Path) -> Iterator[str]:
    for name, text in (("torn", '{"id": "x", "na'), ("other", "[1, 2]"), ("binary", "\udcff")):
        path = folder / "run" / name
        path.mkdir(parents=True)
        (path / "run.json").write_bytes(text.encode("utf-8", "surrogateescape"))
        yield name
    (folder / "run" / "empty").mkdir()
    yield "empty"


def test_a_folder_that_cannot_be_read_is_said_and_nothing_is_green(tmp_path: Path) -> None:
    pair(tmp_path)
    names = list(_broken(tmp_path))
    shelf = read(tmp_path)
    assert len(shelf.newest) == 2 and not shelf.as_expected
    assert sorted(problem.partition(":")[0] for problem in shelf.problems) == sorted(names)
    assert all(name in _elements(_page(tmp_path)).text for name in names)


def test_a_series_that_is_torn_hostile_or_endless_costs_plots_at_most(tmp_path: Path) -> None:
    path = leave(tmp_path, record(), shape(on=True))
    with (path / SERIES).open("a") as series:
        series.write('{"t": NaN, "intake.ok_rate": 1}\n{"t": 99, "intake.ok_rate": Infinity, "x": 1e400}\n[1]\n{"t": 1')
    assert "Answers to senders" in _page(tmp_path)
    with (path / SERIES).open("a") as series:
        series.truncate(SERIES_BYTES_MAX + 1)  # sparse: it takes no room
    page = _page(tmp_path)
    assert "it isn't drawn" in _elements(page).text and "<svg" not in page and "2\u202f670" in page


def test_a_run_whose_runner_was_killed_is_shown_as_far_as_it_came(tmp_path: Path) -> None:
    killed = record(status=Status.RUNNING, verdict={}, faults=[Fault(name="zone b", target="b", began_s=5.0)],
                    detect_s=None, mitigate_s=None, recover_s=None)  # fmt: skip
    leave(tmp_path, killed, shape(on=True))
    text = _elements(_page(tmp_path)).text
    assert "its runner was killed" in text
    assert row(killed)["detected"] == row(killed)["recovered"] == "-"  # nobody knows what would have come
    assert not read(tmp_path).as_expected


def test_a_run_without_samples_faults_or_traffic_is_shown(tmp_path: Path) -> None:
    bare = record(faults=[], moments=[], proofs=[], expectations=[], verdict={}, command="", seconds=0.0)
    leave(tmp_path, bare)
    text = _elements(_page(tmp_path)).text
    assert "Nothing was measured" in text and "Nothing was proven" in text


def test_of_many_proofs_those_that_failed_are_seen_at_once(tmp_path: Path) -> None:
    found = [Proof(claim=f"path {n}", at_s=n, held=n != 7, said="") for n in range(30)]
    leave(tmp_path, record(status=Status.INVALID, proofs=found))
    page = _page(tmp_path)
    before, _, folded = page.partition("29 proofs that held")
    assert "path 7" in before and "path 7<" not in folded and "path 8" in folded and "path 8" not in before


def test_an_old_page_stays_when_a_new_one_cannot_be_written(tmp_path: Path) -> None:
    pair(tmp_path)
    (tmp_path / "index.html").write_text("old")
    (tmp_path / "index.html.new").mkdir()
    with pytest.raises(OSError):
        write(tmp_path)
    assert (tmp_path / "index.html").read_text() == "old"


# ── The command ────────────────────────────────────────────────────────────────────────────────────────────────────
def test_the_command_writes_both_and_its_code_says_how_it_came_out(tmp_path: Path) -> None:
    run = CliRunner().invoke
    pair(tmp_path)
    done = run(command, ["--folder", str(tmp_path)], standalone_mode=False)
    assert done.return_value == 0 and "640 of 640" in done.stdout
    assert (tmp_path / "index.html").exists() and (tmp_path / "report.json").exists()
    path = leave(tmp_path, record("other", status=Status.INVALID))
    assert load(path).status is Status.INVALID
    done = run(command, ["--folder", str(tmp_path), "--json"], standalone_mode=False)
    assert done.return_value == 1 and json.loads(done.stdout)["as_expected"] is False


def test_the_command_says_that_there_are_no_runs(tmp_path: Path) -> None:
    done = CliRunner().invoke(command, ["--folder", str(tmp_path)], standalone_mode=False)
    assert getattr(done.exception, "code", None) == 3
    (tmp_path / "run").mkdir()
    done = CliRunner().invoke(command, ["--folder", str(tmp_path)], standalone_mode=False)
    assert done.return_value == 3
