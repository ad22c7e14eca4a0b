"""Numbers of what was measured, and that whatever is drawn lies within its picture."""

from __future__ import annotations

import math
import re
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from seawall.lab.record import Fault, Sample
from seawall.lab.report import figure, graph, panel, plot, word
from seawall.lab.report.markup import Markup, tag
from seawall.lab.report.panel import PANELS
from seawall.lab.report.shelf import Run

from .made_runs import record, shape

finite = st.floats(allow_nan=False, allow_infinity=False, width=32)


def test_the_bound_is_the_rule_of_three_and_only_for_none_lost() -> None:
    assert figure.upper_bound(0, 3000) == pytest.approx(0.001)
    assert figure.upper_bound(0, 2) == 1.0
    assert figure.upper_bound(1, 3000) is None
    assert figure.upper_bound(0, 0) is None


@given(st.integers(30, 10**7))
def test_the_bound_is_never_below_the_exact_one(n: int) -> None:
    found = figure.upper_bound(0, n)
    assert found is not None and found >= 1 - 0.05 ** (1 / n)


def test_a_counter_is_drawn_as_its_growth_and_not_over_a_restart() -> None:
    samples = [Sample(t, {"x.seen_total": v}) for t, v in ((0, 10), (1, 30), (2, 5), (3, 25), (9, 100))]
    assert figure.line(samples, "x.seen_total", 1.0) == [(0, 20), (2, 20)]


def test_what_is_missing_is_not_bridged() -> None:
    points = [(0.0, 1.0), (0.5, 1.0), (5.0, 2.0), (5.5, 2.0)]
    assert [len(piece) for piece in figure.pieces(points)] == [2, 2]


def test_peaks_stay_when_a_line_is_thinned() -> None:
    points = [(float(n), 1.0 if n != 7777 else 500.0) for n in range(20_000)]
    kept = figure.thin(points)
    assert len(kept) <= 2 * figure.BUCKETS + 2 and (7777.0, 500.0) in kept
    assert kept == sorted(kept)


def test_phases_are_before_while_and_after() -> None:
    points = [(-1.0, 10.0), (0.0, 2.0), (1.0, 4.0), (3.0, 9.0)]
    found = figure.phases(points, [Fault(name="f", target="t", began_s=5, ended_s=7)], 5.0)
    assert found == figure.Phases(figure.Spread(10, 10, 10), figure.Spread(2, 3, 4), figure.Spread(9, 9, 9))
    still = figure.phases(points, [Fault(name="f", target="t", began_s=5)], 5.0)
    assert still.after is None and still.during is not None and still.during.most == 9


@given(finite, finite)
def test_ticks_lie_within_and_are_few(low: float, high: float) -> None:
    found = figure.ticks(low, high)
    assert 1 <= len(found) <= 12 or not found
    slack = abs(high - low) * 1e-6 + 1e-9 * max(abs(low), abs(high))
    assert all(min(low, high) - slack <= tick <= max(low, high) + slack for tick in found)


@given(
    st.lists(st.tuples(st.floats(-1e4, 1e4), finite), max_size=40), st.booleans(), st.floats(-1e3, 0), st.floats(1, 1e3)
)
def test_whatever_is_measured_is_drawn_within_the_picture(
    points: list[tuple[float, float]], log: bool, start_s: float, end_s: float
) -> None:
    lines = [plot.Line("a", sorted(points)), plot.Line("b", ())]
    frame = plot.frame(lines, start_s=start_s, end_s=end_s, log=log)
    shades = [plot.Shade(n, "f", start_s - 5 + n, end_s + n) for n in range(9)]
    marks = [plot.Mark(end_s + 1, "m", n % 2 == 0) for n in range(2)]
    drawn = plot.curves(frame, lines, shades, marks, unit="ms")
    assert "nan" not in drawn.body and "inf" not in drawn.body
    for place in re.findall(r' d="M([\d.L -]+)"', drawn.body):
        for x, y in (pair.split(" ") for pair in place.split("L")):
            assert plot.LEFT <= float(x) <= plot.WIDTH and -0.1 <= float(y) <= plot.HEIGHT + 0.1
    assert math.isfinite(drawn.height) and drawn.height < 400


def test_values_over_many_decades_are_drawn_in_decades() -> None:
    wide = plot.frame([plot.Line("a", [(0, 2), (1, 8000)])], start_s=0, end_s=1, log=True)
    assert wide.log and (wide.low, wide.high) == (1, 10_000)
    assert not plot.frame([plot.Line("a", [(0, 20), (1, 80)])], start_s=0, end_s=1, log=True).log


def test_a_picture_that_stands_alone_names_its_runs_and_what_was_broken() -> None:
    runs = [
        Run(made, [Sample(n / 2, shape(on=on)(n / 2)) for n in range(160)])
        for on, made in ((False, record(on=False)), (True, record()))
    ]
    panel_of = next(each for each in PANELS if each.title == "Held requests")
    made = graph.alone(panel_of, runs, "x")
    assert made is not None
    root = ElementTree.fromstring(made)
    said = [each.text for each in root.iter("{http://www.w3.org/2000/svg}text")]
    assert "Held requests: without the protections" in said and "Held requests: with the protections" in said
    assert said.count("1  redis a black hole") == 2
    assert graph.alone(panel_of, [Run(record())], "x") is None


def test_bands_follow_states_and_gaps() -> None:
    points = [(0.0, 0.0), (0.5, 0.0), (1.0, 2.0), (1.5, 7.0), (9.0, 0.0)]
    found = [(band.began_s, band.ended_s, band.text) for band in panel.bands(points, panel.BREAKERS)]
    assert found == [(0, 1.0, "closed"), (1.0, 1.5, "open"), (1.5, 1.5, "state 7"), (9.0, 9.0, "closed")]


def test_what_no_panel_names_is_drawn_by_room_and_unit() -> None:
    measured = ["intake.ok_rate", "lab.memory_mb", "lab.disk_free_mb", "line.redis_bytes_s", "odd", "breaker.x_code",
                "credit.left_ratio", *(f"many.n{n}_count" for n in range(9))]  # fmt: skip
    found = {(each.title, tuple(each.names.values())) for each in panel.others(measured)}
    assert ("lab: MiB", ("disk free", "memory")) in found
    assert ("line: bytes a second", ("redis",)) in found
    assert ("Burst credits", ("left",)) in found
    assert sorted(len(names) for title, names in found if title == "many: count") == [3, 6]
    assert len({name for each in PANELS for name in each.names}) == sum(len(each.names) for each in PANELS)


def test_numbers_are_said_shortly() -> None:
    said = [word.number(v) for v in (0, 0.0004, 0.25, 3, 12.34, 999.6, 12_345, 2_500_000, 3e9, math.inf)]
    assert said == ["0", "4e-4", "0.25", "3", "12.3", "1000", "12.3k", "2.5M", "3G", "-"]
    assert [word.seconds(v) for v in (0.04, 59.96, 61, -75)] == ["0.0 s", "60.0 s", "1 min 1 s", "-1 min 15 s"]


def test_markup_is_escaped_once_and_attributes_too() -> None:
    made = tag("a", "<&>", tag("b", 'x"'), None, 3, href='"><i>', class_="c", hidden=True, title=None)
    assert made == '<a href="&quot;&gt;&lt;i&gt;" class="c" hidden>&lt;&amp;&gt;<b>x&quot;</b>3</a>'
    assert isinstance(made, Markup)
