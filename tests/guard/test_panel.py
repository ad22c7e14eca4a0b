"""Every breaker of a process is on its panel, says what happens without its dependency, and obeys a hand."""

from __future__ import annotations

import random
import re
from pathlib import Path

import pytest

import seawall
from seawall.guard.breaker import Breaker, Limits, State
from seawall.guard.panel import Panel
from seawall.kernel.error import Misconfigured, Rejected
from seawall.testing import ManualClock

BUILDS = {"guard/dependency.py", "journal/spool/spool.py", "step/meter.py"}
"""Where breakers are made; whoever makes one elsewhere must put it on a panel too."""


def breaker() -> Breaker:
    return Breaker("redis", Limits(), clock=ManualClock(), rng=random.Random(1))


def test_a_breaker_without_a_declared_default_is_refused() -> None:
    with pytest.raises(Misconfigured, match="redis: declares no default"):
        Panel().add(breaker(), without="  ")


def test_a_hand_moves_a_breaker_by_name_and_lets_it_go() -> None:
    panel, one = Panel(), breaker()
    panel.add(one, without="limits are local")
    for hand, state in (("open", State.FORCED_OPEN), ("closed", State.FORCED_CLOSED), ("auto", State.CLOSED)):
        panel.force("redis", hand)
        assert one.state is state
        assert [line.state for line in panel.lines()] == [state.value]
    for name, hand, status in (("kafka", "open", 404), ("redis", "ajar", 422)):
        with pytest.raises(Rejected) as error:
            panel.force(name, hand)
        assert error.value.status == status


def test_a_process_without_a_shed_list_has_no_work_to_switch() -> None:
    assert not Panel().work()
    with pytest.raises(Rejected):
        Panel().shed("countries", "off")


def test_breakers_are_made_where_a_default_is_declared_and_nowhere_else() -> None:
    package = Path(seawall.__file__).parent
    makes = re.compile(r"[^\w.]Breaker\(")
    found = {
        str(path.relative_to(package))
        for path in package.rglob("*.py")
        if any(makes.search(line) and not line.startswith("class ") for line in path.read_text().splitlines())
    }
    assert found == BUILDS
    made = [path for path in package.rglob("*.py") if re.search(r"\bDependency\(|\bSpool\(", path.read_text())]
    joins = {str(p.relative_to(package)) for p in made if "panel.add(" in p.read_text()}
    assert {"cache/geo.py", "cache/shared.py", "journal/spool/joint.py"} <= joins
    assert {str(p.relative_to(package)) for p in made} - joins <= {"guard/dependency.py", "journal/spool/spool.py"}
