"""Who is let in of those that wait in lines: pure, so that any order of events can be tried.

A run stands in the line of one of its keys: the one that had no room when it was looked at last. It holds nothing while
it waits, so runs with two keys can't block each other, and a line is only looked through when its own key has room, or
when nobody remembers (a sweep). Whoever finds another of its keys without room goes to that one's line, and is behind
nobody there: lines are in order of virtual time.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

from seawall.kernel.allowance import RULE_BYTES, Allowance, Limit, Rate
from seawall.store.line import Waiting


@dataclass(slots=True)
class Standing:
    """How the keys stand; moved on as runs are let in."""

    now_us: int
    admitted: dict[bytes, int]  # runs that count
    next_us: dict[bytes, int]  # of rates: when the next one would begin, were all evenly spaced


@dataclass(slots=True)
class Verdict:
    """What is to be done."""

    admitted: list[Waiting] = field(default_factory=list)
    moved: list[tuple[Waiting, bytes]] = field(default_factory=list)  # into another line
    anew: list[Waiting] = field(default_factory=list)  # keyed by rules that aren't declared any more
    spaced: dict[bytes, int] = field(default_factory=dict)  # next_us of rates that let somebody in
    looks_us: dict[bytes, int] = field(default_factory=dict)  # when a line has room again by time alone
    more: list[bytes] = field(default_factory=list)  # lines that may have room for more than was read
    full: set[bytes] = field(default_factory=set)  # keys of limits that had no room


def decide(
    waiting: Sequence[Waiting],
    allowances: Mapping[int, Allowance],
    standing: Standing,
    *,
    read_max: int,
    lines: Collection[bytes] = (),
) -> Verdict:
    """Let in as many as there is room for, in the order given.

    Args:
        waiting: The first of some lines, in order of (virtual time, id).
        allowances: By workflow id, what is declared of each run.
        read_max: So many of each line were read, if there are so many.
        lines: Those that were read.
    """
    verdict = Verdict()
    counts: dict[bytes, int] = {}
    full: set[bytes] = set()
    for run in waiting:
        counts[run.line] = counts.get(run.line, 0) + 1
        allowance = allowances[run.workflow_id]
        if not _keyed_by(run, allowance):
            verdict.anew.append(run)
            continue
        closed = _closed(run, allowance, standing)
        if closed is None:
            _enter(run, allowance, standing, verdict)
            continue
        key, look_us = closed
        if look_us is not None:
            verdict.looks_us[key] = min(look_us, verdict.looks_us.get(key, look_us))
        else:
            verdict.full.add(key)
        if key == run.line:
            full.add(key)
        else:
            verdict.moved.append((run, key))
    verdict.more = [line for line in lines if counts.get(line, 0) >= read_max and line not in full]
    return verdict


def _keyed_by(run: Waiting, allowance: Allowance) -> bool:
    """Whether it has a key of each limit that is declared now. Rates that were declared since don't matter to it."""
    made = {key[:RULE_BYTES] for key in run.keys}
    return all(start in made for start, rule in allowance.rules.items() if isinstance(rule, Limit))


def _closed(run: Waiting, allowance: Allowance, standing: Standing) -> tuple[bytes, int | None] | None:
    """The first of its keys that has no room, and when time alone will give some; None: it may go in. A key whose rule
    isn't declared any more holds up nobody."""
    for key in run.keys:
        rule = allowance.rule(key)
        if isinstance(rule, Limit) and standing.admitted.get(key, 0) >= rule.most:
            return key, None
    for key in run.gates:
        rule = allowance.rule(key)
        if isinstance(rule, Rate) and (at_us := _next_us(key, rule, standing) - rule.slack_us) > standing.now_us:
            return key, at_us
    return None


def _enter(run: Waiting, allowance: Allowance, standing: Standing, verdict: Verdict) -> None:
    verdict.admitted.append(run)
    for key in run.keys:
        standing.admitted[key] = standing.admitted.get(key, 0) + 1
    for key in run.gates:
        rule = allowance.rule(key)
        if isinstance(rule, Rate):
            next_us = max(_next_us(key, rule, standing), standing.now_us) + rule.spacing_us
            standing.next_us[key] = verdict.spaced[key] = next_us


def _next_us(key: bytes, rule: Rate, standing: Standing) -> int:
    """Never further ahead than those let in can have moved it: the clock may have gone back, or the rule changed."""
    return min(standing.next_us.get(key, 0), standing.now_us + rule.slack_us + rule.spacing_us)
