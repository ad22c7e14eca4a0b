"""The README shows what the lab's report says, by the generator and not by hand."""

from __future__ import annotations

import json
from xml.etree import ElementTree

import pytest
from shown import BEGIN, END, KEPT, PLOT, block, replaced

from seawall.lab.record import Status
from seawall.lab.report.summary import records

from .source import ROOT

README = ROOT / "README.md"
kept = ROOT / KEPT


def test_the_readme_has_the_table_of_the_kept_report_and_none_while_none_is_kept() -> None:
    text = README.read_text("utf-8")
    wanted = block(kept.read_text("utf-8")) if kept.exists() else f"{BEGIN}\n{END}\n"
    assert replaced(text, wanted) == text, "README.md:1 is stale; run tool/shown.py"


def test_what_is_kept_came_out_as_expected() -> None:
    said = json.loads(kept.read_text("utf-8")) if kept.exists() else {"as_expected": True, "runs": []}
    found = records(said)
    assert said["as_expected"] and all(record.status is Status.AS_EXPECTED for record in found)
    assert not found or {(r.incident, r.protections) for r in found} >= {("I1", "on"), ("I1", "off")}


def test_the_plot_is_kept_with_the_report_and_needs_nothing_else() -> None:
    assert (ROOT / PLOT).exists() == kept.exists()
    if kept.exists():
        text = (ROOT / PLOT).read_text("utf-8")
        root = ElementTree.fromstring(text)
        assert root.tag == "{http://www.w3.org/2000/svg}svg" and root.get("viewBox")
        assert "href" not in text and "<script" not in text and "url(" not in text


def test_a_block_is_put_between_its_marks() -> None:
    assert replaced(f"a\n{BEGIN}\nold\n{END}\nz\n", f"{BEGIN}\nnew\n{END}\n") == f"a\n{BEGIN}\nnew\n{END}\nz\n"
    with pytest.raises(SystemExit):
        replaced("a\n", "b")
