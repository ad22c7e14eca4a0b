"""A rung of a ladder is refused until the one below it is green, and whatever its rig can't have on this machine."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from seawall.kernel.error import Misconfigured
from seawall.lab import experiment, record
from seawall.lab.record import Status
from seawall.lab.run import ladder, runner
from seawall.lab.run.place import Folder
from seawall.lab.run.runner import Run
from seawall.lab.zone import net as nets

from . import made_runs
from .tiny import document, write

LADDER = ("zone-1-process", "zone-2-host", "zone-3-whole", "zone-4-live")


def kept(folder: Folder, status: Status, *, on: bool = True, at: str = "061500") -> None:
    made = made_runs.record("below", on=on, at=at, status=status)
    made.save(folder.run(made.id))


def upper(path: Path, **more: Any) -> experiment.Experiment:
    said = document()
    said["extensions"][0] |= {"after": "below", **more}
    return experiment.load(write(path, said))


def test_of_two_runs_within_a_second_none_takes_the_place_of_the_other(tmp_path: Path) -> None:
    folder = Folder(tmp_path)
    kept(folder, Status.AS_EXPECTED)
    kept(folder, Status.INVALID)
    kept(folder, Status.NOT_AS_EXPECTED)
    found = [record.load(path) for path in sorted(folder.runs.iterdir())]
    assert [each.status for each in found] == [Status.AS_EXPECTED, Status.INVALID, Status.NOT_AS_EXPECTED]
    assert [path.name.rpartition(".")[2] for path in sorted(folder.runs.iterdir())] == [
        "20261123T061500", "20261123T061500-02", "20261123T061500-03",
    ]  # fmt: skip
    assert not ladder.green("below", folder), "the last one counts"


def test_the_newest_run_below_must_be_green(tmp_path: Path) -> None:
    folder, found = Folder(tmp_path / "lab"), upper(tmp_path)
    with pytest.raises(Misconfigured, match="below comes before it"):
        ladder.admit(found, folder)
    kept(folder, Status.AS_EXPECTED, on=False)
    assert not ladder.green("below", folder), "the incident itself is no reason to go on"
    kept(folder, Status.AS_EXPECTED, at="061600")
    ladder.admit(found, folder)
    kept(folder, Status.NOT_AS_EXPECTED, at="061700")
    with pytest.raises(Misconfigured, match="--force"):
        ladder.admit(found, folder)
    ladder.admit(found, folder, force=True)
    ladder.admit(found, folder, earlier={"below"})


def test_a_record_that_can_not_be_read_is_none(tmp_path: Path) -> None:
    folder = Folder(tmp_path / "lab")
    (folder.run("below.on.20261123T060000") / "run.json").write_text("{")
    assert not ladder.green("below", folder)


def test_nothing_is_begun_of_what_is_refused(tmp_path: Path) -> None:
    found = upper(tmp_path)
    with pytest.raises(Misconfigured, match="below"):
        runner.run_all([Run(found, True)], folder=tmp_path / "lab", seed=1, told=lambda record: None)
    assert not (tmp_path / "lab" / "rig").exists()


def test_zones_are_refused_where_they_can_not_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nets.os, "geteuid", lambda: 1000)
    with pytest.raises(Misconfigured, match="only root"):
        ladder.admit(experiment.find(LADDER[0]), Folder(tmp_path), force=True)


@pytest.mark.parametrize("zones", [{}, {"a": 1}, {"a": 9}, {"long": 2}, {"a": "2"}, ["a"]])
def test_zones_that_make_no_sense_are_refused(zones: object) -> None:
    from seawall.lab.zone.rig import hosts_of

    with pytest.raises(Misconfigured, match=r"options\.zones"):
        hosts_of({"zones": zones})
    assert hosts_of({}) == {"a": ["a1", "a2"], "b": ["b1", "b2"]}


def test_the_ladder_to_a_zone_outage_has_each_rung_after_the_one_before() -> None:
    found = [experiment.find(name) for name in LADDER]
    assert [each.ours.after for each in found] == ["", *LADDER[:3]]
    names = experiment.names()
    assert [name for name in names if name in LADDER] == list(LADDER), "`make lab` climbs it in this order"
