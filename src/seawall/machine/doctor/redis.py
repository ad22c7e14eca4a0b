"""Checks of the Redis that shares rate limits. That it keeps nothing over a restart is no finding: all of it may be
forgotten at any moment."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from seawall.machine.doctor.finding import Finding, Severity

SLOW_US_MAX = 100_000
"""A slow log must show at least what takes longer: our own patience ends at 150 ms."""


def unreachable(why: str) -> Finding:
    """It was named, and doesn't answer."""
    return Finding(
        check="redis",
        severity=Severity.WARNING,
        what=why,
        why="each collector keeps rate limits alone: together they let through a limit each; events are accepted",
        cure="start it, correct cache.url, or empty it",
    )


def fitness(said: Mapping[str, str]) -> Iterator[Finding]:
    """What it says of itself (cache.examine.examined)."""
    policy, foreign = said.get("maxmemory_policy", "noeviction"), int(said.get("foreign", "0"))
    if policy != "noeviction":
        yield Finding(
            check="redis-eviction",
            severity=Severity.WARNING,
            what=f"Redis has maxmemory-policy = {policy}"
            + ("" if _number(said.get("maxmemory", "0")) != 0 else ", and no limit"),
            why="a full one throws numbers away without a word, and whoever was over a limit has all of it again",
            cure="set maxmemory-policy noeviction: a full one then says so, and each collector keeps limits alone",
        )
    if foreign:
        yield Finding(
            check="redis-shared",
            severity=Severity.WARNING,
            what=f"{foreign} of {said['sampled']} keys that were looked at in Redis aren't ours",
            why="a cache beside it fills it and keeps it busy, and whoever empties that cache empties this too; work"
            " that was queued in a cache's Redis couldn't even be counted (Forem)",
            cure="give Seawall a Redis of its own; another database number of the same server isn't one",
        )
    slower_us = _number(said.get("slowlog-log-slower-than", ""))
    if slower_us is not None and not 0 <= slower_us <= SLOW_US_MAX:
        off = "is off" if slower_us < 0 else f"shows only what takes longer than {slower_us // 1000} ms"
        yield Finding(
            check="redis-slowlog",
            severity=Severity.WARNING,
            what=f"Redis' slow log {off}",
            why="one slow command stops all clients, and nobody can say whose it was (seawall_redis_slow_total)",
            cure="set slowlog-log-slower-than 10000",
        )


def _number(text: str) -> int | None:
    """None for what is none: a server that only speaks Redis' protocol says what it likes."""
    try:
        return int(text)
    except ValueError:
        return None
