"""The matrix has no empty cell, names nothing that isn't there, and is the page that people read."""

from __future__ import annotations

from pathlib import Path

import pytest

from seawall.lab import experiment
from seawall.lab.matrix import cell, cells, code, page, problems

from .source import ROOT, names_of_tests, report


def _tests() -> dict[str, set[str]]:
    folder = ROOT / "tests"
    return {str(path.relative_to(folder)): names_of_tests(path) for path in folder.rglob("test_*.py")}


def test_each_cell_promises_something_and_names_what_proves_it() -> None:
    findings = problems(tests=_tests(), experiments=experiment.names())
    assert not findings, report(findings, "The matrix")


def test_the_page_is_what_the_matrix_says() -> None:
    assert (ROOT / "docs" / "lab" / "matrix.md").read_text("utf-8") == page(), "run tool/matrix.py"


def test_who_calls_what_is_read_from_the_code() -> None:
    found = {flow.name: code.calls(flow) for flow in code.FLOWS}
    assert found["intake"] == {"disk", "postgres", "redis", "kafka", "dns"}, "countries are looked up by the router"
    assert found["replay"] == {"postgres", "dns"}
    assert found["API"] == {"disk", "postgres", "dns"}
    assert found["sync"] == found["run"] == set(code.DEPENDENCIES)


def test_a_cell_that_is_empty_or_names_what_is_not_there_is_a_finding(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "cells.toml"
    file.write_text("""
        [intake.disk]
        slow = { promise = "x", by = ["a/test_b.py::test_c"] }
        [intake.moon]
        slow = { promise = "x", by = [] }
    """)
    monkeypatch.setattr(cell, "FILE", file)
    said = "\n".join(problems(tests={}, experiments=()))
    assert "intake, disk slow: there is no a/test_b.py::test_c" in said
    assert "intake, disk hung: empty" in said and "intake.moon.slow: there is no such cell" in said
    assert len([one for one in cells() if one.promise]) == 1
