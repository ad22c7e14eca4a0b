"""Whoever is let in, in whatever order lines are looked at: no limit is exceeded, and nobody waits for ever."""

from __future__ import annotations

from collections import Counter
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from seawall.kernel.allowance import Allowance, Limit, Rate
from seawall.store.line import Waiting
from seawall.worker.line.turnstile import Standing, Verdict, decide

READ = 4
ACCOUNTS = st.integers(0, 3)
RULES = st.builds(
    lambda per, whole, rate: Allowance(
        "flow",
        tuple(rule for rule in (per and Limit(per, key="/a"), whole and Limit(whole)) if rule),
        (Rate(rate, per=1.0, key="/b"),) if rate else (),
    ),
    st.integers(0, 3), st.integers(0, 5), st.sampled_from([0, 3, 1000]),
).filter(lambda rules: rules.limits or rules.rates)  # fmt: skip


class World:
    """Lines and admitted runs as the store keeps them, and a clock."""

    def __init__(self, rules: Allowance) -> None:
        self.rules = {1: rules}
        self.lines: dict[int, Waiting] = {}
        self.in_hand: dict[int, Waiting] = {}
        self.spaced: dict[bytes, int] = {}
        self.began: Counter[bytes] = Counter()
        self.now_us = 1_000_000
        self.made = 0

    def arrive(self, a: int, b: int) -> None:
        self.made += 1
        keys, gates = self.rules[1].keys("acme", {"a": a, "b": b})
        self.lines[self.made] = Waiting(self.made, 1, "acme", (keys or gates)[0], keys, gates, vt=self.made, queue_id=1)

    def look(self, lines: list[bytes]) -> Verdict:
        """One pass over some lines."""
        waiting = [
            run
            for line in lines
            for run in sorted((r for r in self.lines.values() if r.line == line), key=lambda r: (r.vt, r.id))[:READ]
        ]
        waiting.sort(key=lambda run: (run.vt, run.id))
        count = Counter(key for run in self.in_hand.values() for key in run.keys)
        verdict = decide(
            waiting, self.rules, Standing(self.now_us, dict(count), dict(self.spaced)), read_max=READ, lines=lines
        )
        self.spaced |= verdict.spaced
        for run in verdict.admitted:
            self.in_hand[run.id] = self.lines.pop(run.id)
            self.began.update(run.gates)
        for run, line in verdict.moved:
            self.lines[run.id] = run._replace(line=line)
        for run in verdict.anew:
            keys, gates = self.rules[1].keys("acme", {})
            self.lines[run.id] = run._replace(keys=keys, gates=gates, line=(keys or gates or (b"",))[0])
        self.check()
        return verdict

    def check(self) -> None:
        for key, count in Counter(key for run in self.in_hand.values() for key in run.keys).items():
            rule = self.rules[1].rule(key)
            assert not isinstance(rule, Limit) or count <= rule.most
        for key, count in self.began.items():
            rule = self.rules[1].rule(key)
            if isinstance(rule, Rate):
                passed_us = self.now_us - 1_000_000
                assert count <= 1 + (passed_us + rule.slack_us) // rule.spacing_us

    def sweep(self) -> None:
        lines = sorted({run.line for run in self.lines.values()})
        while lines:
            lines = self.look(lines).more


@settings(max_examples=60, deadline=None)
@given(RULES, st.lists(st.tuples(st.sampled_from("aaales"), ACCOUNTS, ACCOUNTS), max_size=60))
def test_no_limit_is_exceeded_and_all_come_in(rules: Allowance, moves: list[tuple[str, int, int]]) -> None:
    world = World(rules)
    for move, a, b in moves:
        world.now_us += 20_000 * a
        if move == "a":
            world.arrive(a, b)
        elif move == "e" and world.in_hand:
            world.in_hand.pop(sorted(world.in_hand)[a % len(world.in_hand)])
        elif move == "l" and world.lines:
            lines = sorted({run.line for run in world.lines.values()})
            world.look(lines[: 1 + b])
        else:
            world.sweep()
    for _ in range(4 * world.made + 2):
        world.in_hand.clear()
        world.now_us += 1_000_000
        world.sweep()
    assert not world.lines, "somebody was never let in"


def run(id: int, allowance: Allowance, body: Any, *, line: bytes | None = None) -> Waiting:
    keys, gates = allowance.keys("acme", body)
    return Waiting(id, 1, "acme", line or (keys or gates)[0], keys, gates, vt=id, queue_id=1)


def decided(waiting: list[Waiting], allowance: Allowance, **counts: Any) -> Verdict:
    standing = Standing(1_000_000, counts.get("admitted", {}), counts.get("next_us", {}))
    return decide(waiting, {1: allowance}, standing, read_max=100, lines={run.line for run in waiting})


def test_a_run_goes_to_the_line_that_has_no_room_and_holds_nothing_there() -> None:
    rules = Allowance("flow", (Limit(1, key="/a"), Limit(2)))
    first, second, third = (run(n, rules, {"a": n % 2}) for n in range(3))
    verdict = decided([first, second, third], rules, admitted={first.keys[1]: 1})
    assert verdict.admitted == [first]
    assert verdict.moved == [(second, second.keys[1])], "the workflow's own limit is what holds it up"
    assert not verdict.anew


def test_runs_keyed_by_other_rules_are_keyed_anew_and_removed_rules_hold_up_nobody() -> None:
    before, after = Allowance("flow", (Limit(1, key="/a"),)), Allowance("flow", (Limit(1, key="/b"),))
    waiting = run(1, before, {"a": 1})
    assert decided([waiting], after).anew == [waiting]
    assert decided([waiting], Allowance("flow"), admitted={waiting.line: 9}).admitted == [waiting]


def test_a_rate_says_when_to_look_again_and_survives_a_clock_that_went_back() -> None:
    rules = Allowance("flow", (), (Rate(1, per=10.0),))
    waiting = [run(n, rules, {}) for n in range(2)]
    verdict = decided(waiting, rules)
    assert verdict.admitted == waiting[:1]
    assert verdict.spaced == verdict.looks_us == {waiting[0].line: 11_000_000}
    back = decided(waiting[1:], rules, next_us={waiting[0].line: 10**15})
    assert back.looks_us == {waiting[0].line: 11_000_000}
