"""Each incident has its place in the catalogue, also one that nothing can make happen yet."""

from __future__ import annotations

import importlib.util

import pytest
from click.testing import CliRunner

from seawall.cli.experiment import list_
from seawall.kernel.error import Rejected
from seawall.lab import experiment
from seawall.lab.later import later
from seawall.lab.matrix.page import page
from seawall.lab.report.original import originals


def test_each_of_the_five_incidents_has_an_experiment_or_a_name_for_one() -> None:
    there = {experiment.find(name).ours.incident for name in experiment.names()}
    assert there | {each.incident for each in later()} >= set(originals())


def test_a_name_goes_when_its_experiment_comes() -> None:
    for each in later():
        assert each.name not in experiment.names()
        parent = each.room.rpartition(".")[0]
        assert importlib.util.find_spec(parent) is not None
        assert importlib.util.find_spec(each.room) is None, f"{each.room} is there: {each.name} can be written"


def test_what_is_not_there_yet_is_said_wherever_experiments_are_listed() -> None:
    shown = CliRunner().invoke(list_, [], standalone_mode=False).output
    for each in later():
        assert f"{each.incident} {each.name}: not there yet; it joins with " in shown
        assert f"- `{each.name}` ({each.incident}): {each.title}" in page()
        with pytest.raises(Rejected, match=f"{each.name}: not there yet"):
            experiment.find(each.name)
