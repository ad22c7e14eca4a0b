"""Lines over time as SVG, with what was broken shaded: no script, no font, nothing from outside; a reader that sees no
picture gets its title and description.

One `Frame` is shared by the plots that stand beside each other, so that they can be compared by eye.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from seawall.lab.report.figure import Point, decades, pieces, round_up, thin, ticks
from seawall.lab.report.markup import Markup, join, short, tag
from seawall.lab.report.word import number

WIDTH = 560
LEFT, RIGHT = 50, 12
HEIGHT = 150  # of the area with the lines
FOOT = 34  # below it
LANE = 13  # of one fault's bar, above the area
LEGEND = 17  # of one row of the legend
ROW = 24  # of one strip
LETTER = 6.1  # about one letter's width at the size of the text
LANES_MAX = 4

INK, FAINT, SHADE, BAR = "#2b2b2b", "#d9d9d9", "#f6d9cf", "#b5432a"
PAPER = "#ffffff"
STYLES = (
    ("#0068a8", None), ("#c4500c", "6 3"), ("#00795a", "2 2"), ("#7b3294", "9 3 2 3"), ("#7a5200", "4 2"),
    ("#4d4d4d", "1 2"),
)  # fmt: skip
"""Colours that colour-blind people tell apart, on white with a contrast of 4.5 at least; dashes tell them apart too."""
ALERT, ACT = "#a8005c", "#2b2b2b"


@dataclass(frozen=True, slots=True)
class Line:
    """One measured thing."""

    label: str
    points: Sequence[Point]


@dataclass(frozen=True, slots=True)
class Band:
    """One state of a strip, from ``began_s`` to ``ended_s``."""

    began_s: float
    ended_s: float
    text: str
    colour: str


@dataclass(frozen=True, slots=True)
class Strip:
    """Something that is in one state at a time."""

    label: str
    bands: Sequence[Band]


@dataclass(frozen=True, slots=True)
class Shade:
    """While something was broken. One that ended as it began is a stroke."""

    number: int
    text: str
    began_s: float
    ended_s: float


@dataclass(frozen=True, slots=True)
class Mark:
    """A moment: a stroke with a flag."""

    at_s: float
    text: str
    alert: bool


@dataclass(frozen=True, slots=True)
class Frame:
    """From when to when, and from how little to how much."""

    start_s: float
    end_s: float
    low: float = 0.0
    high: float = 1.0
    log: bool = False

    def x(self, at_s: float) -> float:
        part = (at_s - self.start_s) / max(1e-9, self.end_s - self.start_s)
        return LEFT + min(1.0, max(0.0, part)) * (WIDTH - LEFT - RIGHT)

    def y(self, value: float) -> float:
        """From the area's top."""
        low, high, seen = self.low, self.high, value
        if self.log:
            low, high, seen = math.log10(low), math.log10(high), math.log10(max(self.low, value))
        part = (seen - low) / max(1e-12, high - low)
        return HEIGHT * (1 - min(1.0, max(0.0, part)))

    def marks(self) -> list[float]:
        """Where lines of the grid are drawn."""
        if not self.log:
            return ticks(self.low, self.high, 4)
        found = decades(self.low, self.high)
        return found[:: 1 + (len(found) - 1) // 6]


def frame(
    lines: Sequence[Line], *, start_s: float, end_s: float, log: bool = False, full: float | None = None
) -> Frame:
    """One in which all the lines have room.

    Args:
        log: Decades, if they span more than two; values that aren't above 0 stand on the lowest.
        full: The axis ends there at least: 1 for a share.
    """
    values = [value for line in lines for _, value in line.points]
    most = max([*values, *([full] if full is not None else [])], default=1.0)
    least = min((value for value in values if value > 0), default=most)
    if log and most > 0 and most / least > 100:
        rows = decades(max(least, most / 1e6), most)
        return Frame(start_s, end_s, rows[0], rows[-1], log=True)
    lowest = min([0.0, *values])
    return Frame(start_s, end_s, -round_up(-lowest) if lowest < 0 else 0.0, round_up(most))


@dataclass(frozen=True, slots=True)
class Drawn:
    """A part of a picture, and how high it is."""

    height: float
    body: Markup


def curves(
    frame: Frame, lines: Sequence[Line], shades: Sequence[Shade] = (), marks: Sequence[Mark] = (), *, unit: str = ""
) -> Drawn:
    """Lines in a frame, under their legend."""
    legend, top = _legend(lines, unit)
    lanes, above = _lanes(frame, shades)
    area = [
        *(_shade(frame, shade, HEIGHT) for shade in shades),
        *_grid(frame),
        *(_mark(frame, mark, HEIGHT) for mark in marks),
        *(_curve(frame, line, *STYLES[n % len(STYLES)]) for n, line in enumerate(lines)),
    ]
    body = [legend, _moved(0, top, lanes), _moved(0, top + above, join([*area, _foot(frame, HEIGHT)]))]
    return Drawn(top + above + HEIGHT + FOOT, join(body))


def strips(frame: Frame, strips: Sequence[Strip], shades: Sequence[Shade] = (), marks: Sequence[Mark] = ()) -> Drawn:
    """A row for each strip, with its name above what it was."""
    lanes, above = _lanes(frame, shades)
    height = ROW * 1.6 * len(strips)
    rows = [
        _moved(0, ROW * 1.6 * n, join([
            tag("text", strip.label, x=LEFT, y=11, class_="label", fill=INK, font_size=11),
            *(_band(frame, band) for band in strip.bands),
        ]))
        for n, strip in enumerate(strips)
    ]  # fmt: skip
    area = [*(_shade(frame, s, height) for s in shades), *rows, *(_mark(frame, m, height) for m in marks)]
    body = [_moved(0, 0, lanes), _moved(0, above, join([*area, _foot(frame, height)]))]
    return Drawn(above + height + FOOT, join(body))


def notes(lines: Sequence[str]) -> Drawn:
    """Text below a part, a line each."""
    body = (tag("text", line, x=LEFT, y=12 + LEGEND * n, fill=INK) for n, line in enumerate(lines))
    return Drawn(LEGEND * len(lines) + 8.0, join(body))


def picture(
    parts: Sequence[Drawn], *, title: str, description: str, ident: str, captions: Sequence[str] = ()
) -> Markup:
    """One SVG with the parts below each other, each under its caption.

    Args:
        ident: Of the title and description, on whose page there is no other like it.
    """
    body, at = [], 4.0
    for n, part in enumerate(parts):
        if n < len(captions) and captions[n]:
            body.append(tag("text", captions[n], x=4, y=at + 13, font_size=13, font_weight="bold", fill=INK))
            at += 22
        body.append(_moved(0, at, part.body))
        at += part.height
    return tag(
        "svg",
        tag("title", title, id=f"{ident}-t"),
        tag("desc", description, id=f"{ident}-d"),
        tag("rect", width=WIDTH, height=at, fill=PAPER),
        *body,
        xmlns="http://www.w3.org/2000/svg", viewBox=f"0 0 {WIDTH} {short(at)}", role="img",
        aria_labelledby=f"{ident}-t {ident}-d", font_family="system-ui, sans-serif", font_size=11,
    )  # fmt: skip


def _moved(x: float, y: float, body: Markup) -> Markup:
    return tag("g", body, transform=f"translate({short(float(x))} {short(float(y))})")


def _legend(lines: Sequence[Line], unit: str) -> tuple[Markup, float]:
    """(it, its height); as many rows as are needed."""
    body, x, y = list[Markup](), float(LEFT), 0.0
    for n, line in enumerate(lines):
        width = 30 + len(line.label) * LETTER + 14
        if x > LEFT and x + width > WIDTH - RIGHT - len(unit) * LETTER:
            x, y = float(LEFT), y + LEGEND
        colour, dashes = STYLES[n % len(STYLES)]
        body.append(tag("line", x1=x, x2=x + 24, y1=y + 8, y2=y + 8, stroke=colour, stroke_width=2.2,
                        stroke_dasharray=dashes))  # fmt: skip
        body.append(tag("text", line.label, x=x + 29, y=y + 12, fill=INK))
        x += width
    body.append(tag("text", unit, x=WIDTH - RIGHT, y=12, text_anchor="end", fill="#555555"))
    return join(body), y + LEGEND + 4


def _lanes(frame: Frame, shades: Sequence[Shade]) -> tuple[Markup, float]:
    """A bar with its number for each fault, those that overlap below each other."""
    ends, body = list[float](), list[Markup]()
    for shade in shades:
        start = frame.x(shade.began_s)
        end = max(frame.x(shade.ended_s), start + 16)
        lane = next((n for n, free in enumerate(ends) if free <= start), None)
        if lane is None:
            lane = min(len(ends), LANES_MAX - 1)
            ends += [0.0] if lane == len(ends) else []
        ends[lane] = end + 2
        y = lane * LANE
        body.append(tag("g",
            tag("title", f"{shade.number}: {shade.text}"),
            tag("rect", x=start, y=y, width=end - start, height=LANE - 2, rx=2, fill=BAR),
            tag("text", str(shade.number), x=start + 4, y=y + 9, font_size=9.5, font_weight="bold", fill=PAPER),
        ))  # fmt: skip
    return join(body), len(ends) * LANE + 2


def _shade(frame: Frame, shade: Shade, height: float) -> Markup:
    start, end = frame.x(shade.began_s), frame.x(shade.ended_s)
    if end - start < 1:
        return tag("line", x1=start, x2=start, y1=0, y2=height, stroke=BAR, stroke_width=1.5)
    return tag("rect", x=start, y=0, width=end - start, height=height, fill=SHADE, fill_opacity=0.6)


def _grid(frame: Frame) -> list[Markup]:
    """Lines across, each with its value."""
    found = []
    for value in frame.marks():
        y = frame.y(value)
        found.append(tag("line", x1=LEFT, x2=WIDTH - RIGHT, y1=y, y2=y, stroke=FAINT))
        found.append(tag("text", number(value), x=LEFT - 6, y=y + 4, text_anchor="end", fill=INK))
    return found


def _foot(frame: Frame, height: float) -> Markup:
    """The axis of time."""
    body = [tag("line", x1=LEFT, x2=WIDTH - RIGHT, y1=height, y2=height, stroke=INK)]
    for at_s in ticks(frame.start_s, frame.end_s, 8):
        x = frame.x(at_s)
        body.append(tag("line", x1=x, x2=x, y1=height, y2=height + 4, stroke=INK))
        body.append(tag("text", short(float(at_s)), x=x, y=height + 15, text_anchor="middle", fill=INK))
    said = "seconds since the first fault" if frame.start_s < 0 else "seconds"
    body.append(tag("text", said, x=WIDTH - RIGHT, y=height + 28, text_anchor="end", fill="#555555"))
    return join(body)


def _curve(frame: Frame, line: Line, colour: str, dashes: str | None) -> Markup:
    """A path for each piece; a single point is a dot."""
    found = []
    for piece in pieces(line.points):
        if len(piece) == 1:
            found.append(tag("circle", cx=frame.x(piece[0][0]), cy=frame.y(piece[0][1]), r=1.8, fill=colour))
            continue
        places = _straight([(frame.x(at), frame.y(value)) for at, value in thin(piece)])
        path = "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in places)
        found.append(tag("path", d=path, fill="none", stroke=colour, stroke_width=1.8, stroke_linejoin="round",
                         stroke_dasharray=dashes))  # fmt: skip
    return join(found)


def _straight(places: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Without what lies between two of the same height: most lines are level most of the time."""
    return [
        place for n, place in enumerate(places)
        if n in (0, len(places) - 1) or not places[n - 1][1] == place[1] == places[n + 1][1]
    ]  # fmt: skip


def _band(frame: Frame, band: Band) -> Markup:
    start, end = frame.x(band.began_s), frame.x(band.ended_s)
    room = (end - start) / LETTER
    said = band.text if len(band.text) < room - 1 else ""
    return tag(
        "g",
        tag("title", f"{band.text}, from {band.began_s:.1f} s to {band.ended_s:.1f} s"),
        tag("rect", x=start, y=15, width=max(1.0, end - start), height=15, fill=band.colour, stroke=PAPER,
            stroke_width=0.5),
        tag("text", said, x=start + 4, y=26, fill=PAPER) if said else None,
    )  # fmt: skip


def _mark(frame: Frame, mark: Mark, height: float) -> Markup:
    x, colour = frame.x(mark.at_s), ALERT if mark.alert else ACT
    flag = f"M{short(x)} {short(height)}l-4 7h8z"
    return tag(
        "g",
        tag("title", f"{mark.at_s:.1f} s: {mark.text}"),
        tag("line", x1=x, x2=x, y1=0, y2=height, stroke=colour, stroke_dasharray="3 3"),
        tag("path", d=flag, fill=colour),
    )
