"""The parts of the page: what is said of one run, and of all runs of an experiment in one table."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from urllib.parse import quote

from seawall.lab.record import Expectation, Fault, Moment, Proof, Record, Status
from seawall.lab.report import summary, word
from seawall.lab.report.markup import Child, Markup, join, tag
from seawall.lab.report.shelf import RUNS, Run

TITLES = {"on": "With the protections", "off": "Without the protections"}
CLASSES = {Status.AS_EXPECTED: "good", Status.NOT_AS_EXPECTED: "bad"}
MARKS = {Status.AS_EXPECTED: "✓", Status.NOT_AS_EXPECTED: "✗"}
TIMELINE_MAX = 400


def table(head: Sequence[str], rows: Iterable[Sequence[Child]], *, label: str, right: Iterable[int] = ()) -> Markup:
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
    made = tag("table", tag("thead", heads), tag("tbody", *body))
    return scrolled(made, label=f"Table of {label}")


def scrolled(content: Markup, *, label: str, style: str = "wide") -> Markup:
    """In a box that scrolls where there is little room: reachable by keyboard, and named."""
    return tag("div", content, class_=style, tabindex="0", role="group", aria_label=label)


def status(record: Record, *, whole: bool = False) -> Markup:
    """How a run came out; the sign says it too, not the colour alone."""
    sign, style = MARKS.get(record.status, "?"), CLASSES.get(record.status, "odd")
    said = word.came_out(record)
    if whole:
        said = f"{said}, as expected" if said == "it happens" else word.SAYS[record.status]
    return tag("span", f"{sign} {said}", class_=style)


PROOFS_MAX = 8


def proofs(found: Sequence[Proof]) -> Markup:
    """Those that didn't hold, always; the others in a fold where they are many: a storm has dozens."""
    if len(found) <= PROOFS_MAX:
        return ticks(found, empty="Nothing was proven.")
    failed = [each for each in found if not each.held]
    held = [each for each in found if each.held]
    fold = tag("details", tag("summary", f"{len(held)} proofs that held"), ticks(held, empty=""))
    return join([ticks(failed, empty="") if failed else None, fold])


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
        tag("p", status(record, whole=True)),
        tag("p", "Weak parts: ", ", ".join(record.weak)) if record.weak else None,
        tag("ul", *(tag("li", why) for why in record.why)) if record.why else None,
        worse(found.worse),
        people(record),
        tag("h5", "What this run should show"), ticks(record.expectations, empty="Nothing was expected."),
        _unseen(record.unseen),
        tag("h5", "What the rig proved of itself"), proofs(record.proofs),
        class_="run",
    )  # fmt: skip


def not_run() -> Markup:
    """In the place of the run with the protections."""
    said = tag("span", f"? {summary.NOT_RUN}", class_="odd")
    why = "Nothing is shown of what they do: the incident happens without them, and that is all."
    return tag("section", tag("h4", TITLES["on"]), tag("p", said), tag("p", why), class_="run")


def people(record: Record) -> Markup | None:
    """What people made of a drill, beside what the platform did."""
    made = record.drill
    if made is None:
        return None
    rows = [
        (said, word.seconds(value) if value is not None else "never")
        for said, value in (("people saw it after", made.seen_s), ("first right act after", made.acted_s),
                            ("first alert after", record.detect_s))
    ]  # fmt: skip
    zero_s = min((fault.began_s for fault in record.faults), default=0.0)
    marks = [(f"{each.at_s - zero_s:+.1f} s", each.word, each.text, each.by) for each in made.marks]
    return join([
        tag("h5", "A drill: nobody was told what comes"), table(("what", "when"), rows, label="the drill"),
        table(("when", "mark", "what", "who"), marks, label="marks of the drill") if marks else None,
        tag("p", f"Drawn of {', '.join(made.candidates)}.", class_="quiet"),
    ])  # fmt: skip


def _unseen(found: Sequence[str]) -> Markup | None:
    """What wasn't judged, since nobody sees it from outside."""
    if not found:
        return None
    return join([tag("h5", "Not seen from outside, and not judged"), tag("ul", *(tag("li", each) for each in found))])


def worse(found: Sequence[str]) -> Markup | None:
    """What has got worse since earlier runs."""
    if not found:
        return None
    return join([tag("p", "Worse than before:", class_="bad"), tag("ul", *(tag("li", why) for why in found))])


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
    made = table(("s", "kind", "what"), rows, right=[0], label="what happened")
    return scrolled(made, label="Timeline", style="scroll")


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
    return table(("word", "meaning", *(title(each) for each in there)), rows, right=range(2, 2 + len(there)),
                 label="the verdict")  # fmt: skip


def _counted(record: Record, name: str) -> Markup | str:
    if name not in record.verdict:
        return "-"
    return tag("span", word.count(record.verdict[name]), class_=_worry(record, name))


def _worry(record: Record, name: str) -> str | None:
    if name not in (*word.WRONG, "silent"):
        return None
    return "bad" if record.verdict[name] else "good"


def facts(found: Mapping[str, str]) -> Markup | None:
    return (
        join([tag("h5", "Figures of this run"), table(("what", "figure"), found.items(), label="figures of this run")])
        if found
        else None
    )
