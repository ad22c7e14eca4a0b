"""What a person sees while an experiment runs."""

from __future__ import annotations

import io

from seawall.lab.record import Fault, Sample
from seawall.lab.run.show import Screen, chosen, graphs, line, number, sparkline

SAMPLES = [Sample(at / 2, {"intake.p99_ms": float(at), "lab.memory_mb": 100.0}) for at in range(20)]
FAULT = Fault(name="redis a black hole", target="redis", began_s=4, ended_s=6)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_sparkline_goes_from_nought_to_the_largest() -> None:
    assert sparkline([0, 1, 2, 4, None, 8], 6) == "▁▂▃▅ █"
    assert sparkline([1, 2, 8], 2) == "▃█" and sparkline([], 5) == "" and sparkline([0, 0], 5) == "▁▁"


def test_what_is_broken_is_marked_above() -> None:
    lines = graphs(["intake.p99_ms", "no.such"], SAMPLES, [FAULT], columns=80)
    assert len(lines) == 4 and lines[0].count("x") == 5 and all(len(each) < 80 for each in lines)
    assert lines[0].index("x") - lines[1].index("▁") == 8, "a mark stands over its sample"
    assert "19" in lines[1] and lines[-1].endswith("nothing is broken")
    assert "redis a black hole" in graphs([], SAMPLES, [Fault(name=FAULT.name, target="", began_s=4)], columns=80)[-1]


def test_without_a_wish_what_matters_is_drawn() -> None:
    assert chosen([], SAMPLES) == ["intake.p99_ms", "lab.memory_mb"]
    assert chosen(["a", "b"], SAMPLES) == ["a", "b"] and chosen([], []) == []
    assert line(["intake.p99_ms", "no.such"], SAMPLES[-1]) == "   9.5 s  intake.p99_ms 19"
    assert [number(value) for value in (0.1234, 12, 123.4, 12_345, 2e6, 3e9)] == [
        "0.123", "12", "123", "12.3k", "2.0M", "3.0G",
    ]  # fmt: skip


def test_a_line_that_is_said_stays_above_the_graphs() -> None:
    out = Terminal()
    screen = Screen(lambda: (SAMPLES, [FAULT]), [], out)
    screen.start()
    while "▁" not in out.getvalue():
        pass
    screen.say("redis is a black hole")
    screen.stop()
    screen.stop()
    assert "\x1b[" in out.getvalue() and "redis is a black hole\n" in out.getvalue()


def test_a_reader_that_has_gone_ends_nothing() -> None:
    out = io.StringIO()
    screen = Screen(lambda: (SAMPLES, []), [], out)
    out.close()
    screen.say("nobody hears it")
