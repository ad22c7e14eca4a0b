"""A flag is never on before what it needs is there, and whatever is safe wins: any settings, any rules, any order."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from seawall.guard.declared import REGISTRY
from seawall.guard.flag import (
    BY,
    EVERYBODY,
    RULES_MAX,
    Flag,
    Loop,
    On,
    Part,
    Registry,
    Release,
    Rule,
    Schema,
    Setting,
    Subject,
    Wish,
    changed,
    evaluate,
    release,
    wanted,
)
from seawall.guard.preview import flips
from seawall.guard.switchboard import NOTHING, Known, Switchboard
from seawall.kernel.error import Misconfigured, Rejected
from seawall.testing.clock import ManualClock

GOOD = Flag(
    name="light", owner="house", help="It is light.", without="it is dark", default=True, safe=False,
    requires=(Part("power"),), roles=("router",), by=BY,
)  # fmt: skip
LAMP = replace(GOOD, name="lamp", requires=(On("light"), Loop("bulb")))
NAMES = st.sampled_from(["acme", "gh", "other"])
RULES = st.builds(Rule, by=st.sampled_from(BY), name=NAMES, value=st.booleans())
SETTINGS = st.builds(
    Setting, flag=st.just("light"), value=st.sampled_from([None, True, False]),
    rules=st.lists(RULES, unique_by=lambda rule: (rule.by, rule.name)).map(tuple), version=st.integers(0, 9),
)  # fmt: skip
SUBJECTS = st.builds(Subject, tenant=st.sampled_from(["", "acme", "other"]), source=st.sampled_from(["", "gh", "x"]))


def board(
    *flags: Flag, role: str = "router", loop_ready: Callable[[str], bool] = lambda name: False, version: str = "1.2.3"
) -> Switchboard:
    return Switchboard(
        Registry(flags or (GOOD, LAMP)), role=role, release=version, clock=ManualClock(), loop_ready=loop_ready
    )


def known(*settings: Setting, schema: int = 3) -> Known:
    return Known(settings={one.flag: one for one in settings}, schema=schema)


# What may be declared


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"owner": " "}, "has no owner"),
        ({"safe": None}, "its safe value must be"),
        ({"default": "on"}, "its default value must be"),
        ({"help": ""}, "has no help"),
        ({"without": ""}, "has no without"),
        ({"roles": ()}, "no role asks it"),
        ({"name": "Light_1"}, "a name is words"),
        ({"by": ("planet",)}, "can't be set by planet"),
        ({"requires": (On("nothing"),)}, "isn't declared"),
        ({"requires": (On("light"),)}, "requires it"),
        ({"requires": (Release("soon"),)}, "is no version"),
    ],
)
def test_a_flag_that_is_half_declared_is_refused(change: dict[str, Any], said: str) -> None:
    with pytest.raises(Misconfigured, match=said):
        Registry([replace(GOOD, **change)])


def test_a_flag_without_a_safe_value_can_not_even_be_made() -> None:
    with pytest.raises(TypeError, match="safe"):
        Flag(name="a", owner="b", help="c", without="d", default=True, requires=(), roles=("router",))  # type: ignore[call-arg]


def test_all_problems_are_told_together() -> None:
    with pytest.raises(Misconfigured) as caught:
        Registry([GOOD, GOOD, replace(LAMP, owner="", roles=("worker",))])
    assert len(caught.value.problems) == 3
    assert "flag lamp: requires flag light, which isn't asked in each of its roles" in caught.value.problems


def test_a_circle_of_needs_is_refused() -> None:
    first, second = (replace(GOOD, name=a, requires=(On(b),)) for a, b in (("a", "b"), ("b", "a")))
    with pytest.raises(Misconfigured, match="flag a: requires flag b, which requires it"):
        Registry([first, second])


def test_what_is_declared_here_is_safe_when_it_is_off_and_needs_something() -> None:
    for flag in REGISTRY:
        assert not flag.safe and flag.requires, flag.name


def test_an_unknown_flag_is_told_with_those_there_are() -> None:
    with pytest.raises(Rejected, match="'lihgt' isn't declared; there are lamp, light"):
        Registry([GOOD, LAMP]).asked("lihgt")
    with pytest.raises(Misconfigured, match="not declared"):
        board().switch("lihgt")
    with pytest.raises(Misconfigured, match="isn't declared for role worker"):
        board(role="worker").switch("light")


# What it evaluates to


@given(SETTINGS, SUBJECTS, st.booleans(), st.booleans())
def test_it_is_safe_until_all_it_needs_is_ready_whatever_is_set(
    setting: Setting, subject: Subject, safe: bool, default: bool
) -> None:
    flag = replace(GOOD, safe=safe, default=default)
    found = evaluate(Registry([flag]), {"light": setting}, lambda flag: "no power", flag, subject)
    assert found.value is safe
    assert bool(found.held) == (found.wanted != safe)


@given(SETTINGS, SUBJECTS, st.booleans(), st.booleans(), st.randoms())
def test_the_safe_one_of_fitting_rules_wins_in_any_order(
    setting: Setting, subject: Subject, safe: bool, default: bool, random: Any
) -> None:
    flag = replace(GOOD, safe=safe, default=default)
    rules = list(setting.rules)
    random.shuffle(rules)
    found = wanted(flag, setting, subject)
    assert found == wanted(flag, replace(setting, rules=tuple(rules)), subject)
    fitting = [r.value for r in rules if r.name == (subject.tenant if r.by == "tenant" else subject.source)]
    if safe in fitting:
        assert found == safe
    elif not fitting:
        assert found == (default if setting.value is None else setting.value)


@given(SETTINGS, st.sampled_from([True, False]), SUBJECTS)
def test_setting_it_for_all_leaves_no_exception(setting: Setting, value: bool, subject: Subject) -> None:
    assert wanted(GOOD, changed(GOOD, setting, Wish(value=value)), subject) is value


@given(SETTINGS, st.sampled_from(BY), NAMES, st.sampled_from([None, True, False]), SUBJECTS)
def test_setting_it_for_one_changes_nobody_else(
    setting: Setting, by: str, name: str, value: bool | None, subject: Subject
) -> None:
    after = changed(GOOD, setting, Wish(value=value, by=by, name=name))
    if not subject.is_named(Rule(by, name, True)):
        assert wanted(GOOD, after, subject) == wanted(GOOD, setting, subject)
    elif value is GOOD.safe:
        assert wanted(GOOD, after, subject) is GOOD.safe
    assert [(r.by, r.name) for r in after.rules] == sorted({(r.by, r.name) for r in after.rules})


@given(SETTINGS, SETTINGS, st.booleans(), st.booleans())
def test_a_flag_that_needs_another_is_never_on_without_it(
    light: Setting, lamp: Setting, power: bool, bulb: bool
) -> None:
    registry = Registry([GOOD, LAMP])
    settings = {"light": light, "lamp": replace(lamp, flag="lamp")}

    def unready(flag: Flag) -> str:
        return "" if (power if flag.name == "light" else bulb) else "no"

    above = evaluate(registry, settings, unready, LAMP, EVERYBODY)
    below = evaluate(registry, settings, unready, GOOD, EVERYBODY)
    assert not above.value or (below.value and power and bulb)


def test_rules_are_bounded_and_only_by_what_is_declared() -> None:
    setting = Setting(flag="light")
    for number in range(RULES_MAX):
        setting = changed(GOOD, setting, Wish(value=False, by="source", name=f"s{number}"))
    with pytest.raises(Rejected, match="remove some"):
        changed(GOOD, setting, Wish(value=False, by="source", name="one more"))
    assert len(changed(GOOD, setting, Wish(value=None, by="source", name="s1")).rules) == RULES_MAX - 1
    with pytest.raises(Rejected, match="can't be set by tenant; it can by nothing"):
        changed(replace(GOOD, by=()), Setting(flag="light"), Wish(value=False, by="tenant", name="acme"))


def test_versions_compare_by_their_numbers() -> None:
    assert release("0.10.0") > release("0.9.9")  # type: ignore[operator]
    assert release("1.2.dev3+local") == (1, 2)
    assert release("next") is None


# In a process


def test_a_process_that_knows_nothing_goes_by_the_safe_value() -> None:
    made = board(GOOD)
    made.provide("power", lambda: True)
    assert made.switch("light")() is False
    [line] = made.lines()
    assert (line.value, line.wanted, line.held, line.origin, line.age_s) == (False, True, NOTHING, "nobody", None)


def test_each_need_counts_at_each_question() -> None:
    loops, power = {"bulb": False}, [False]
    flag = replace(GOOD, requires=(Part("power"), Loop("bulb"), Schema(3), Release("1.2.3")))
    for version, schema, power[0], loops["bulb"] in (
        ("1.2.2", 3, True, True), ("1.2.3", 2, True, True), ("1.2.3", 3, False, True), ("1.2.3", 3, True, False),
    ):  # fmt: skip
        made = board(flag, loop_ready=loops.__getitem__, version=version)
        made.provide("power", lambda: power[0])
        made.confirmed(known(Setting(flag="light", value=True, version=1), schema=schema), asked_at=0.0)
        assert made.switch("light")() is False, (version, schema, power, loops)
        assert "isn't ready" in made.lines()[0].held
    power[0] = loops["bulb"] = True
    assert made.switch("light")() is True
    power[0] = False  # and it falls back when what it needs goes away
    assert made.switch("light")() is False


def test_what_nobody_provides_is_never_ready() -> None:
    made = board(GOOD)
    made.confirmed(known(), asked_at=0.0)
    assert made.switch("light")() is False and made.lines()[0].held == "power isn't ready"


def test_the_copy_holds_until_the_store_speaks_and_the_store_wins() -> None:
    made = board(GOOD)
    made.provide("power", lambda: True)
    made.restored(known(Setting(flag="light", value=False, version=7)))
    assert made.switch("light")() is False and made.lines()[0].origin == "copy" and made.lines()[0].kept
    newer = known(Setting(flag="light", value=True, version=3))  # a store that was restored to before
    assert made.confirmed(newer, asked_at=0.0) and not made.confirmed(newer, asked_at=0.0)
    assert made.switch("light")() is True and not made.lines()[0].kept
    made.kept(newer)
    assert made.lines()[0].kept


# What would flip


def test_a_preview_names_roles_subjects_and_flags_that_lean_on_it() -> None:
    registry = Registry([replace(GOOD, roles=("router", "collector")), LAMP])
    ready = {"router": {"light": "", "lamp": ""}, "collector": {"light": "power isn't ready"}}
    before = Setting(flag="light", value=True, rules=(Rule("source", "gh", False),))
    after = changed(GOOD, before, Wish(value=False))
    found = {(f.flag, f.role, f.who, f.before, f.after) for f in flips(registry, {"light": before}, after, ready, {})}
    assert found == {
        ("light", "router", "everybody else", True, False),
        ("lamp", "router", "everybody else", True, False),
        ("light", "collector", "everybody else", False, False),  # it isn't on there yet, and won't be any more
    }
    back = flips(registry, {"light": after}, before, ready, {"gh": "acme"})
    held = [f for f in back if f.role == "collector"]
    assert [(f.before, f.after, f.held) for f in held] == [(False, False, "power isn't ready")]


@given(SETTINGS, SETTINGS, st.booleans())
def test_a_preview_says_exactly_what_comes_of_it(before: Setting, after: Setting, power: bool) -> None:
    registry, lack = Registry([GOOD]), "" if power else "no power"
    told = flips(registry, {"light": before}, after, {"router": {"light": lack}}, {"gh": "acme"})
    rules = {(rule.by, rule.name) for one in (before, after) for rule in one.rules}
    named = [Subject(tenant=name) if by == "tenant" else Subject("acme" if name == "gh" else "", name)
             for by, name in sorted(rules)]  # fmt: skip
    expected = []
    for subject in (EVERYBODY, *named):
        now, then = (evaluate(registry, {"light": one}, lambda _: lack, GOOD, subject) for one in (before, after))
        if (now.value, now.wanted) != (then.value, then.wanted):
            expected.append((str(subject), now.value, then.value, then.held))
    assert sorted((f.who, f.before, f.after, f.held) for f in told) == sorted(expected)
