"""The parts of the page: what is said of one run, and of one plot."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from urllib.parse import quote

from seawall.lab.record import Expectation, Fault, Moment, Proof, Record, Status
from seawall.lab.report import figure, panel, plot, word
from seawall.lab.report.figure import Phases, Spread
from seawall.lab.report.markup import Child, Markup, join, tag
from seawall.lab.report.panel import Panel
from seawall.lab.report.shelf import RUNS, Run

TITLES = {"on": "With the protections", "off": "Without the protections"}
CLASSES = {Status.AS_EXPECTED: "good", Status.NOT_AS_EXPECTED: "bad"}
MARKS = {Status.AS_EXPECTED: "✓", Status.NOT_AS_EXPECTED: "✗"}
TIMELINE_MAX = 400


def table(
    head: Sequence[str], rows: Iterable[Sequence[Child]], *, caption: str | None = None, right: Iterable[int] = ()
) -> Markup:
    """A table whose first column names its row.

    Args:
        right: Columns of numbers.
    """
    numbers = set(right)

    def cell(kind: str, n: int, content: Child, scope: str | None = None) -> Markup:
        return tag(kind, content, class_="n" if n in numbers else None, scope=scope)

    body = [
        tag("tr", *(cell("td" if n else "th", n, each, None if n else "row") for n, each in enumerate(row)))
        for row in rows
    ]
    heads = tag("tr", *(cell("th", n, each, "col") for n, each in enumerate(head)))
    made = tag("table", tag("caption", caption) if caption else None, tag("thead", heads), tag("tbody", *body))
    return tag("div", made, class_="wide")


def status(record: Record) -> Markup:
    """How a run came out; the sign says it too, not the colour alone."""
    sign, style = MARKS.get(record.status, "?"), CLASSES.get(record.status, "odd")
    return tag("span", f"{sign} {word.came_out(record)}", class_=style)


def ticks(found: Sequence[Expectation | Proof], *, empty: str) -> Markup:
    """A list with a tick or a cross before each, and what was measured behind it."""
    if not found:
        return tag("p", empty, class_="quiet")
    return tag("ul", *(
        tag("li",
            tag("span", "✓" if each.held else "✗", class_=f"mark {'good' if each.held else 'bad'}", role="img",
                aria_label="held" if each.held else "did not hold"),
            each.claim,
            tag("span", f": {each.said}", class_="said") if each.said else None,
        )
        for each in found
    ), class_="ticks")  # fmt: skip


def outcome(found: Run) -> Markup:
    """How one run came out, and why one may believe it."""
    record = found.record
    return tag("section",
        tag("h4", title(found)),
        tag("p", status(record)),
        tag("p", "Weak parts: ", ", ".join(record.weak)) if record.weak else None,
        tag("ul", *(tag("li", why) for why in record.why)) if record.why else None,
        tag("h5", "What this run should show"), ticks(record.expectations, empty="Nothing was expected."),
        tag("h5", "What the rig proved of itself"), ticks(record.proofs, empty="Nothing was proven."),
        class_="run",
    )  # fmt: skip


def course(found: Run) -> Markup:
    """What happened in one run, in order, and how to see it again."""
    record = found.record
    return tag("section",
        tag("h4", title(found)), timeline(found), facts(record.facts),
        tag("h5", "Run it again"), tag("p", tag("code", record.command or "not kept")),
        tag("p", _about(record), files(found), class_="quiet"),
        class_="run",
    )  # fmt: skip


def title(found: Run) -> str:
    return TITLES.get(found.record.protections, found.record.protections)


def _about(record: Record) -> str:
    return f"Began {record.began or '(not kept)'}, took {word.seconds(record.seconds)}, seed {record.seed}. "


def files(found: Run) -> Markup | None:
    """Links to what the run left, beside this page."""
    if not found.folder or not found.files:
        return None
    links = [tag("a", name, href=quote(f"{RUNS}/{found.folder}/{name}")) for name in found.files]
    return join(["Files: ", *(join([", " if n else "", link]) for n, link in enumerate(links)), "."])


def timeline(found: Run) -> Markup:
    """What was broken and what happened, in order. Seconds since the first fault."""
    entries = _entries(found.record.faults, found.record.moments)
    rows = [(_since(at_s - found.zero_s), kind, text) for at_s, kind, text in entries[:TIMELINE_MAX]]
    if len(entries) > TIMELINE_MAX:
        rows.append(("", "", f"and {len(entries) - TIMELINE_MAX} more, in the run's record"))
    if not rows:
        return tag("p", "Nothing was kept.", class_="quiet")
    return tag("div", table(("s", "what", ""), rows, right=[0]), class_="scroll")


def _entries(faults: Sequence[Fault], moments: Sequence[Moment]) -> list[tuple[float, str, Child]]:
    struck = {fault.name for fault in faults}  # what was killed is told as a fault already
    found: list[tuple[float, str, Child]] = [
        (each.at_s, each.kind, each.text) for each in moments if each.kind != "killed" or each.text not in struck
    ]
    for n, fault in enumerate(faults, 1):
        chip = tag("span", str(n), class_="num")
        found.append((fault.began_s, "broken", join([chip, f" {fault.name}", _target(fault)])))
        if fault.ended_s is None:
            continue
        if fault.ended_s > fault.began_s:
            by = f", by the {fault.ended_by}" if fault.ended_by else ""
            found.append((fault.ended_s, "undone", join([chip, f" {fault.name}{by}"])))
    return sorted(found, key=lambda entry: entry[0])


def _since(at_s: float) -> str:
    return f"{at_s:+.1f}".replace("-", "\u2212")


def _target(fault: Fault) -> str:
    return f" ({fault.target})" if fault.target and fault.target not in fault.name else ""


def verdicts(runs: Sequence[Run]) -> Markup:
    """Each word of the ledger's verdict, what it means, and its count in each run; "lost" last, with its bound."""
    there = [each for each in runs if each.record.verdict]
    if not there:
        return tag("p", "There is none: no traffic, or ended before it could be judged.", class_="quiet")
    names = {name for each in there for name in each.record.verdict}
    rows = [
        (name, word.MEANS.get(name, ""), *(_counted(each.record, name) for each in there))
        for name in (*sorted(names - set(word.MEANS)), *(name for name in word.MEANS if name in names))
    ]
    rows.append(("lost at most", "with 95 % confidence, when none of n accepted events was: 3/n",
                 *(word.bound_said(word.bound(each.record)) for each in there)))  # fmt: skip
    return table(("", "", *(title(each) for each in there)), rows, right=range(2, 2 + len(there)))


def _counted(record: Record, name: str) -> Markup | str:
    if name not in record.verdict:
        return "-"
    return tag("span", word.count(record.verdict[name]), class_=_worry(record, name))


def _worry(record: Record, name: str) -> str | None:
    if name not in (*word.WRONG, "silent"):
        return None
    return "bad" if record.verdict[name] else "good"


def facts(found: Mapping[str, str]) -> Markup | None:
    return join([tag("h5", "Figures of this run"), table(("what", ""), found.items())]) if found else None


def plots(runs: Sequence[Run], ident: str) -> Markup:
    """All plots of an experiment: the usual ones, then in a fold what else was measured."""
    if not any(each.samples for each in runs):
        return tag("p", "Nothing was measured, or its series is gone.", class_="quiet")
    usual = [each for n, one in enumerate(panel.PANELS) if (each := drawn(one, runs, f"{ident}-p{n}"))]
    rest = panel.others(panel.names(runs))
    more = [each for n, one in enumerate(rest) if (each := drawn(one, runs, f"{ident}-o{n}"))]
    fold = tag("details", tag("summary", f"What else was measured ({len(more)} plots)"), *more) if more else None
    return join([states(runs, f"{ident}-s"), *usual, fold])


def drawn(one: Panel, runs: Sequence[Run], ident: str) -> Markup | None:
    """One panel of all runs, beside each other in the same frame; None when nothing of it was measured."""
    found = [panel.lines(one, run) for run in runs]
    moving = {name for lines in found for name, line in lines.items() if any(value for _, value in line.points)}
    still = sorted({lines[name].label for lines in found for name in lines if name not in moving})
    if not any(found) or not moving:
        return None
    start_s, end_s = panel.span(runs)
    # In each run the same names with the same colours, also when one of them wasn't measured there.
    names = [name for name in one.names if name in moving]
    shown = [[lines.get(name, plot.Line(one.names[name], ())) for name in names] for lines in found]
    frame = plot.frame([line for lines in shown for line in lines], start_s=start_s, end_s=end_s, log=one.log,
                       full=one.full)  # fmt: skip
    pictures = [
        tag("div", tag("p", title(run), class_="quiet"), plot.picture(
            [plot.curves(frame, lines, panel.shades(run), panel.marks(run), unit=_unit(one, frame))],
            title=f"{one.title}, {one.unit}: {title(run).lower()}",
            description=described(run, lines), ident=f"{ident}-{n}",
        ))
        for n, (run, lines) in enumerate(zip(runs, shown, strict=True))
    ]  # fmt: skip
    caption = one.title + (f" (0 throughout: {', '.join(still)})" if still else "")
    return tag("figure", tag("figcaption", caption), tag("div", *pictures, class_="two"), figures(one, runs, shown))


def _unit(one: Panel, frame: plot.Frame) -> str:
    return f"{one.unit}, in decades" if frame.log else one.unit


def states(runs: Sequence[Run], ident: str) -> Markup | None:
    """Strips: the steady state, readiness, breakers."""
    found = [panel.strips(run) for run in runs]
    if not any(found):
        return None
    start_s, end_s = panel.span(runs)
    frame = plot.Frame(start_s, end_s)
    pictures = [
        tag("div", tag("p", title(run), class_="quiet"), plot.picture(
            [plot.strips(frame, strips, panel.shades(run), panel.marks(run))],
            title=f"Steady state and breakers: {title(run).lower()}",
            description="; ".join(f"{each.label}: {_changes(each)}" for each in strips) or "nothing was measured",
            ident=f"{ident}-{n}",
        ))
        for n, (run, strips) in enumerate(zip(runs, found, strict=True))
    ]  # fmt: skip
    return tag("figure", tag("figcaption", "Steady state and breakers"), tag("div", *pictures, class_="two"))


CHANGES_MAX = 12


def _changes(strip: plot.Strip) -> str:
    shown = [f"{band.text} from {band.began_s:.1f} s" for band in strip.bands[:CHANGES_MAX]]
    return ", ".join(shown + (["and so on"] if len(strip.bands) > CHANGES_MAX else []))


def described(run: Run, lines: Iterable[plot.Line]) -> str:
    """In words what a plot shows."""
    said = []
    for line in lines:
        found = figure.phases(line.points, run.record.faults, run.zero_s)
        parts = [
            f"{when} {word.number(spread.mean)} on average, {word.number(spread.least)} to {word.number(spread.most)}"
            for when, spread in (("before", found.before), ("while broken", found.during), ("after", found.after))
            if spread is not None
        ]
        said.append(f"{line.label}: {'; '.join(parts) or 'not measured'}")
    return ". ".join(said) + ". The figures stand in the table below the picture."


def figures(one: Panel, runs: Sequence[Run], shown: Sequence[Sequence[plot.Line]]) -> Markup:
    """The same as a table."""
    head = [
        f"{one.title}, {one.unit}",
        "protections",
        "before: mean",
        "while broken: least",
        "mean",
        "most",
        "after: mean",
    ]
    rows = [
        (line.label, run.record.protections, *_phases(figure.phases(line.points, run.record.faults, run.zero_s)))
        for run, lines in zip(runs, shown, strict=True)
        for line in lines
    ]
    return tag("details", tag("summary", "These figures as a table"), table(head, rows, right=range(2, 7)))


def _phases(found: Phases) -> tuple[str, ...]:
    return (
        _mean(found.before), *([word.number(v) for v in (found.during.least, found.during.mean, found.during.most)]
        if found.during else ["-"] * 3), _mean(found.after),
    )  # fmt: skip


def _mean(found: Spread | None) -> str:
    return word.number(found.mean) if found else "-"
