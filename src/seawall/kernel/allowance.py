"""How many runs of one key may be under way at once (``Limit``), or begin in a time (``Rate``), as a workflow declares.

A key is 20 bytes, the same wherever it is made::

    0        4        8                    20
    │ name   │ rule   │ tenant and value    │      hashes; the rule's is of its kind and of what it counts by

So all keys of a workflow stand together in an index, and a key says by which of its rules it was made. A rule's
numbers are no part of it: they may change while runs wait.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256
from typing import Final

import msgspec

from seawall.kernel import pointer
from seawall.kernel.correlation import plain

TENANT: Final = "tenant"
"""Counts each tenant's runs together. Any other key is a JSON Pointer, and those begin with a slash."""

EACH_MAX: Final = 2
"""Limits, and rates, of one workflow."""

COUNT_MAX: Final = 10_000
PER_S_MAX: Final = 30 * 86_400.0
STEP_S: Final = 0.1
"""A rate is kept in steps of so long: what it lets begin within one may begin together."""

NAME_BYTES, RULE_BYTES, KEY_BYTES = 4, 8, 20


@dataclass(frozen=True, slots=True)
class Limit:
    """At most so many runs of a key are under way at once. One that sleeps, or waits for its next attempt, isn't.

    Args:
        most: 1 to 10,000.
        key: What runs are counted by: a JSON Pointer into the event's body (of each tenant apart), ``"tenant"``, or
            None: all runs of the workflow together. Events that have nothing there share one key of their tenant.
    """

    most: int
    key: str | None = None

    def __post_init__(self) -> None:
        _whole("Limit", "most", self.most, COUNT_MAX)
        _written("Limit", self.key)


@dataclass(frozen=True, slots=True)
class Rate:
    """At most so many runs of a key begin in a time, evenly spaced; those beyond wait, and none is refused.

    A run passes once: its further attempts and what it does after a wait are not counted again.

    Args:
        count: 1 to 10,000 runs …
        per: … in so many seconds, at most 30 days.
        key: As of ``Limit``.
        burst: So many may begin together after a pause; 1: never more than one, or what a tenth of a second gives.
    """

    count: int
    per: float
    key: str | None = None
    burst: int = 1

    def __post_init__(self) -> None:
        _whole("Rate", "count", self.count, COUNT_MAX)
        _whole("Rate", "burst", self.burst, COUNT_MAX)
        if not isinstance(self.per, int | float) or not (math.isfinite(self.per) and 0 < self.per <= PER_S_MAX):
            raise ValueError(f"Rate(per={self.per!r}): seconds of more than 0 to {PER_S_MAX:g} are needed")
        _written("Rate", self.key)

    @property
    def spacing_us(self) -> int:
        """Between two that begin, on average."""
        return max(1, round(self.per * 1_000_000 / self.count))

    @property
    def slack_us(self) -> int:
        """How far ahead of its time the next one may begin."""
        return max((self.burst - 1) * self.spacing_us, round(STEP_S * 1_000_000) - self.spacing_us, 0)


Rule = Limit | Rate


@dataclass(frozen=True)
class Allowance:
    """What one workflow declares.

    Args:
        name: The workflow's: its versions are counted together.
    """

    name: str
    limits: tuple[Limit, ...] = ()
    rates: tuple[Rate, ...] = ()

    @cached_property
    def rules(self) -> dict[bytes, Rule]:
        """By the first bytes of the keys that they make."""
        rules: tuple[Rule, ...] = (*self.limits, *self.rates)
        return {_hash(self.name)[:NAME_BYTES] + _rule_hash(rule): rule for rule in rules}

    @cached_property
    def span(self) -> tuple[bytes, bytes]:
        """Between which all keys of the workflow are."""
        return span(self.name)

    def keys(self, tenant: str, body: object) -> tuple[tuple[bytes, ...], tuple[bytes, ...]]:
        """Keys of a run: of the limits and of the rates, in the order in which these are declared.

        Args:
            body: Its event's, parsed; None: it isn't JSON.
        """
        made = {id(rule): start + _value_hash(rule.key, tenant, body) for start, rule in self.rules.items()}
        return tuple(made[id(rule)] for rule in self.limits), tuple(made[id(rule)] for rule in self.rates)

    def rule(self, key: bytes) -> Rule | None:
        """By which a key was made; None: by none that is declared now."""
        return self.rules.get(key[:RULE_BYTES])

    @property
    def text(self) -> str:
        """For ``allowance``."""
        limits = [["limit", rule.most, rule.key] for rule in self.limits]
        rates = [["rate", rule.count, float(rule.per), rule.key, rule.burst] for rule in self.rates]
        return msgspec.json.encode([*limits, *rates]).decode()


def span(name: str) -> tuple[bytes, bytes]:
    """Between which all keys of a workflow of this name are, both ends excluded."""
    start = _hash(name)[:NAME_BYTES]
    return start, start + b"\xff" * KEY_BYTES


def allowance(name: str, text: str | None) -> Allowance | None:
    """What a workflow declared, from the store; None: nothing. What we didn't write there is left out."""
    if text is None:
        return None
    try:
        words = msgspec.json.decode(text, type=list[list[str | int | float | None]])
        limits = [Limit(*word[1:]) for word in words if word[:1] == ["limit"]]  # type: ignore[arg-type]
        rates = [Rate(*word[1:]) for word in words if word[:1] == ["rate"]]  # type: ignore[arg-type]
        return declared(name, limits, rates)
    except (msgspec.MsgspecError, TypeError, ValueError):
        return Allowance(name)


def declared(name: str, limits: Sequence[Limit], rates: Sequence[Rate]) -> Allowance:
    """What a workflow declares.

    Raises:
        ValueError: Too many, or two of one kind that count by the same.
    """
    for what, rules in (("concurrency", limits), ("throttle", rates)):
        if len(rules) > EACH_MAX:
            raise ValueError(f"workflow {name}: {len(rules)} of {what}; at most {EACH_MAX} are possible")
        if len({rule.key for rule in rules}) < len(rules):
            raise ValueError(f"workflow {name}: two of {what} count by the same key")
    return Allowance(name, tuple(limits), tuple(rates))


def _whole(kind: str, what: str, value: object, most: int) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= most:
        raise ValueError(f"{kind}({what}={value!r}): a whole number of 1 to {most} is needed")


def _written(kind: str, key: str | None) -> None:
    if key is None or key == TENANT:
        return
    if not isinstance(key, str):
        raise TypeError(f"{kind}(key={key!r}): a JSON Pointer like /data/id is needed, or {TENANT!r}")
    try:
        pointer.steps(key)
    except ValueError as error:
        raise ValueError(f"{kind}(key=…): {error}, and not {TENANT!r}") from None


def _rule_hash(rule: Rule) -> bytes:
    kind = "limit" if isinstance(rule, Limit) else "rate"
    return _hash(kind, rule.key or "")[: RULE_BYTES - NAME_BYTES]


def _value_hash(key: str | None, tenant: str, body: object) -> bytes:
    words: Iterable[str]
    if key is None:
        words = ()
    elif key == TENANT:
        words = (tenant,)
    else:
        value = plain(pointer.find(body, pointer.steps(key)))
        words = (tenant,) if value is None else (tenant, type(value).__name__, str(value))
    return _hash(*words)[: KEY_BYTES - RULE_BYTES]


def _hash(*words: str) -> bytes:
    digest = sha256()
    for word in words:
        data = word.encode("utf-8", "surrogatepass")
        digest.update(b"%d:" % len(data))
        digest.update(data)
    return digest.digest()
