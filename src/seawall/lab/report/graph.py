"""The plots of one experiment: every run of it beside the others in the same frame, and the same figures as a table."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from seawall.lab.report import figure, panel, plot, word
from seawall.lab.report.figure import Phases, Spread
from seawall.lab.report.markup import Markup, join, tag
from seawall.lab.report.panel import Panel
from seawall.lab.report.part import table, title
from seawall.lab.report.plot import Drawn, Frame, Line, Strip
from seawall.lab.report.shelf import Run

CHANGES_MAX = 12


@dataclass(frozen=True, slots=True)
class Graph:
    """One panel over some runs."""

    panel: Panel
    runs: Sequence[Run]
    frame: Frame
    lines: Sequence[Sequence[Line]]  # of each run the same names in the same order, also where one wasn't measured
    still: Sequence[str]  # what was measured, and was 0 throughout

    def curves(self, n: int) -> Drawn:
        """Of one run."""
        run, unit = self.runs[n], self.panel.unit + (", in decades" if self.frame.log else "")
        return plot.curves(self.frame, self.lines[n], panel.shades(run), panel.marks(run), unit=unit)


def graph(one: Panel, runs: Sequence[Run]) -> Graph | None:
    """None when nothing of it was measured, or all of it was 0."""
    found = [panel.lines(one, run) for run in runs]
    moving = {name for lines in found for name, line in lines.items() if any(value for _, value in line.points)}
    if not moving:
        return None
    still = sorted({line.label for lines in found for name, line in lines.items() if name not in moving})
    names = [name for name in one.names if name in moving]
    lines = [[each.get(name, Line(one.names[name], ())) for name in names] for each in found]
    start_s, end_s = panel.span(runs)
    every = [line for each in lines for line in each]
    frame = plot.frame(every, start_s=start_s, end_s=end_s, log=one.log, full=one.full)
    return Graph(one, runs, frame, lines, still)


def plots(runs: Sequence[Run], ident: str) -> Markup:
    """All plots of an experiment: the usual ones, then in a fold what else was measured."""
    if not any(each.samples for each in runs):
        return tag("p", "Nothing was measured, or its series is gone.", class_="quiet")
    usual = [each for n, one in enumerate(panel.PANELS) if (each := figure_of(one, runs, f"{ident}-p{n}"))]
    others = panel.others(panel.names(runs))
    own = [each for n, one in enumerate(others) if one.usual and (each := figure_of(one, runs, f"{ident}-u{n}"))]
    rest = [one for one in others if not one.usual]
    more = [each for n, one in enumerate(rest) if (each := figure_of(one, runs, f"{ident}-o{n}"))]
    fold = tag("details", tag("summary", f"What else was measured ({len(more)} plots)"), *more) if more else None
    return join([states(runs, f"{ident}-s"), *own, *usual, fold])


def figure_of(one: Panel, runs: Sequence[Run], ident: str) -> Markup | None:
    """One panel of all runs beside each other, over the same as a table."""
    found = graph(one, runs)
    if found is None:
        return None
    pictures = [
        tag("div", tag("p", title(run), class_="quiet"), plot.picture(
            [found.curves(n)], title=f"{one.title}, {one.unit}: {title(run).lower()}",
            description=described(run, found.lines[n]), ident=f"{ident}-{n}",
        ))
        for n, run in enumerate(runs)
    ]  # fmt: skip
    caption = one.title + (f" (0 throughout: {', '.join(found.still)})" if found.still else "")
    return tag("figure", tag("figcaption", caption), tag("div", *pictures, class_="two"), figures(found))


def alone(one: Panel, runs: Sequence[Run], ident: str) -> Markup | None:
    """One panel of all runs below each other, as a picture that needs no page."""
    found = graph(one, runs)
    if found is None:
        return None
    said = " ".join(f"{title(run)}: {described(run, found.lines[n])}" for n, run in enumerate(runs))
    parts, captions = list[Drawn](), list[str]()
    for n, run in enumerate(runs):
        parts += [found.curves(n), plot.notes([f"{shade.number}  {shade.text}" for shade in panel.shades(run)])]
        captions += [f"{one.title}: {title(run).lower()}", ""]
    return plot.picture(parts, title=f"{one.title}, {one.unit}", description=said, ident=ident, captions=captions)


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


def _changes(strip: Strip) -> str:
    shown = [f"{band.text} from {band.began_s:.1f} s" for band in strip.bands[:CHANGES_MAX]]
    return ", ".join(shown + (["and so on"] if len(strip.bands) > CHANGES_MAX else []))


def described(run: Run, lines: Iterable[Line]) -> str:
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


def figures(found: Graph) -> Markup:
    """The same as a table."""
    what = f"{found.panel.title}, {found.panel.unit}"
    head = [what, "protections", "before: mean", "while broken: least", "mean", "most", "after: mean"]
    rows = [
        (line.label, run.record.protections, *_phases(figure.phases(line.points, run.record.faults, run.zero_s)))
        for run, lines in zip(found.runs, found.lines, strict=True)
        for line in lines
    ]
    return tag("details", tag("summary", "These figures as a table"), table(head, rows, right=range(2, 7), label=what))


def _phases(found: Phases) -> tuple[str, ...]:
    return (
        _mean(found.before), *([word.number(v) for v in (found.during.least, found.during.mean, found.during.most)]
        if found.during else ["-"] * 3), _mean(found.after),
    )  # fmt: skip


def _mean(found: Spread | None) -> str:
    return word.number(found.mean) if found else "-"
