"""The whole report as one HTML file that needs nothing else: no script, no font, no address outside of its folder."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path

from seawall.lab.later import later
from seawall.lab.record import Record
from seawall.lab.report import graph, part, summary, word
from seawall.lab.report.markup import Child, Markup, join, tag
from seawall.lab.report.original import NOT_STATED, Original, originals, told
from seawall.lab.report.shelf import Case, Run, Shelf

POLICY = "default-src 'none'; style-src 'unsafe-inline'"
"""Even if something came through unescaped, a browser would run and load nothing."""
NUMBERS = ("accepted", "lost at most", "held answered")
TIGHT = ("experiment", "lost", "detected", "recovered")


def page(shelf: Shelf) -> str:
    """The file's text."""
    began = sorted(run.record.began for run in shelf.newest)
    body = [
        tag("h1", "Seawall's lab: what was broken, and what became of it"),
        tag("p", f"Runs from {began[0]} to {began[-1]}." if began else "No run lies in this folder.", class_="quiet"),
        problems(shelf.problems),
        overview(shelf),
        *(incident(id, list(cases)) for id, cases in groupby(shelf.cases, key=lambda case: case.incident)),
        earlier(shelf.earlier),
    ]
    style = Markup((Path(__file__).parent / "style.css").read_text("utf-8"))
    head = [
        tag("meta", charset="utf-8"),
        tag("meta", http_equiv="Content-Security-Policy", content=POLICY),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("title", "Seawall's lab"),
        tag("style", style),
    ]
    return "<!doctype html>\n" + tag("html", tag("head", *head), tag("body", tag("main", *body)), lang="en") + "\n"


def slug(case: Case) -> str:
    """Its place in the page."""
    name = re.sub(r"[^a-z0-9]+", "-", case.name.lower()).strip("-") or "experiment"
    return f"x-{name}" + "".join(
        f"-{re.sub(r'[^a-z0-9]+', '-', str(each).lower())}" for each in (case.drawn, case.where) if each
    )


def problems(found: Sequence[str]) -> Markup | None:
    if not found:
        return None
    return join([tag("p", "These folders could not be read:", class_="bad"), tag("ul", *(tag("li", p) for p in found))])


# ── The table of all ───────────────────────────────────────────────────────────────────────────────────────────────
def overview(shelf: Shelf) -> Markup:
    """A row for each run, then all of them as one."""
    heads = tag("tr", *(tag("th", name, scope="col", class_=_class(name)) for name in summary.COLUMNS))
    rows = [row for case in shelf.cases for row in _rows(case)]
    last = summary.total(run.record for run in shelf.newest)
    if last:
        rows.append(tag("tr", *(tag("td", last[name], class_=_class(name)) for name in summary.COLUMNS), class_="sum"))
    seen = {run.record.incident for run in shelf.newest}
    missing = [f"{id} ({each.who}: {each.name.lower()})" for id, each in originals().items() if id not in seen]
    waiting = [tag("li", f"{each.text}. {each.title}.") for each in later()]
    made = tag("table", tag("caption", "All runs"), tag("thead", heads), tag("tbody", *rows))
    return join([
        part.scrolled(made, label="Table of all runs"),
        tag("p", summary.ABOUT, class_="quiet"),
        tag("p", f"Not among these runs: {'; '.join(missing)}.", class_="quiet") if missing else None,
        *((tag("p", "Incidents, or halves of them, that no experiment makes happen yet:", class_="quiet"),
           tag("ul", *waiting, class_="quiet")) if waiting else ()),
    ])  # fmt: skip


def _rows(case: Case) -> list[Markup]:
    rows = [_row(case, run) for run in case.runs]
    if case.on is None:
        said = summary.not_run(case.runs[-1].record)
        cells: dict[str, Child] = {**said, "came out": tag("span", f"? {said['came out']}", class_="odd")}
        rows.append(tag("tr", *(tag("td", cells[name], class_=_class(name)) for name in summary.COLUMNS)))
    return rows


def _row(case: Case, run: Run) -> Markup:
    record = run.record
    cells: dict[str, Child] = {**summary.row(record)}
    cells["experiment"] = tag("a", summary.row(record)["experiment"], href=f"#{slug(case)}")
    cells["came out"] = part.status(record)
    style = "bad" if record.verdict.get("lost", 0) else "good" if cells["lost"] == "0" else None
    cells["lost"] = tag("span", cells["lost"], class_=style)
    return tag("tr", *(tag("td", cells[name], class_=_class(name)) for name in summary.COLUMNS))


def _class(name: str) -> str | None:
    return "n" if name in NUMBERS else "tight" if name in TIGHT else None


# ── An incident and its experiments ────────────────────────────────────────────────────────────────────────────────
def incident(id: str, cases: Sequence[Case]) -> Markup:
    """The original's story, then each experiment that makes it happen, with what the story says of it alone."""
    known = originals().get(id)
    title = f"{id}: {known.name}" if known else f"Incident {id}" if id else "Other experiments, and storms"
    # A single experiment's own story is the whole one: said once.
    head = _story(known) if known and (len(cases) > 1 or not _own(cases[0])) else None
    return tag("section", tag("h2", title, id=f"i-{id or 'other'}"), head, *(experiment(case) for case in cases))


def _own(case: Case) -> bool:
    """Whether its file tells a story."""
    return bool(case.runs[-1].record.original.get("story"))


def _story(known: Original) -> Markup:
    lines = tag("blockquote", *(tag("p", line) for line in known.story)) if known.story else None
    who = f"{known.who}. " if known.who else ""
    return join([lines, tag("p", f"{who}Source: {known.source}.", class_="quiet")])


def experiment(case: Case) -> Markup:
    """Its times beside the original's, then both runs beside each other."""
    known = told(case.incident, case.runs[-1].record.original)
    name = ", ".join(each for each in (case.name, case.drawn, case.where) if each)
    return tag("article",
        tag("h3", f"{case.title} ", tag("span", f"({name})", class_="quiet"), id=slug(case)),
        _story(known) if known and (_own(case) or not known.who) else None,
        times(case, known),
        tag("div", *(part.outcome(run) for run in case.runs), None if case.on else part.not_run(), class_="two"),
        tag("h4", "The ledger's verdict"),
        part.verdicts(case.runs),
        tag("h4", "What was seen"),
        _shading(case),
        graph.plots(case.runs, slug(case)),
        tag("h4", "What happened"),
        tag("div", *(part.course(run) for run in case.runs), class_="two"),
    )  # fmt: skip


def _shading(case: Case) -> Markup | None:
    if not any(run.record.faults for run in case.runs):
        return None
    said = (
        "Shaded: while something was broken, numbered as in the timeline. Dashed: alerts and acts. Both runs have the "
        "same axes; a line ends where nobody could look. Point at a bar, a flag or a band to read what it is."
    )
    return tag("p", said, class_="quiet")


def times(case: Case, known: Original | None) -> Markup:
    """To detect, mitigate, recover, and what was lost."""
    head = [
        "figure",
        *([f"{known.who}, the original" if known.who else "the original"] if known else []),
        *(part.title(each) for each in case.runs),
    ]
    rows: list[list[Child]] = []
    for title, key, of in (
        ("Time to detect", "detect", word.detect),
        ("Time to mitigate", "mitigate", word.mitigate),
        ("Time to recover", "recover", word.recover),
        ("Lost", "lost", _lost),
    ):
        original = [getattr(known, key, NOT_STATED)] if known else []
        rows.append([title, *original, *(of(run.record) for run in case.runs)])
    if any(run.record.verdict.get("held", 0) for run in case.runs):
        original = [NOT_STATED] if known else []
        rows.append(["Held requests answered", *original, *(word.held(run.record) for run in case.runs)])
    rows.append(["Came out", *(["-"] if known else []), *(part.status(run.record) for run in case.runs)])
    return part.table(head, rows, label="times")


def _lost(record: Record) -> str:
    n = word.accepted(record)
    return f"{word.lost(record)} of {word.count(n)} accepted" if record.verdict else "-"


def earlier(runs: Sequence[Run]) -> Markup | None:
    """What newer runs have taken the place of."""
    if not runs:
        return None
    rows = [
        (run.record.id, part.status(run.record), word.lost(run.record), word.detect(run.record),
         word.mitigate(run.record), word.recover(run.record))
        for run in runs
    ]  # fmt: skip
    head = ("run", "came out", "lost", "detected", "mitigated", "recovered")
    return tag("section", tag("h2", "Earlier runs"), part.table(head, rows, label="earlier runs"))
