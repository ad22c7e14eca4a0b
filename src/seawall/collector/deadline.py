"""Which deadline a client has missed. Pure: one sweep over all connections asks, several times a second."""

from __future__ import annotations

from seawall.collector.parser import Connection
from seawall.collector.setting import Settings

STANDSTILL = 2.0
"""Turns of the sweep that may pass between two of them; what goes beyond is time in which nobody was heard."""


def now_for_clients(then: float, passed_s: float, sweep_s: float) -> float:
    """The time that deadlines go by, ``passed_s`` after it was ``then``. It stands while this process does (a paused
    machine, a starved core): what clients sent meanwhile waits in their sockets, and is none of their lateness."""
    return then + min(passed_s, STANDSTILL * sweep_s)


def breach_of(c: Connection, s: Settings, now: float) -> str | None:
    """None: nothing is overdue. "": close without a word. Else: why its request is answered 408."""
    if c.blocked_at is not None and now - c.blocked_at > s.write_s:
        return ""
    if c.deaf:
        return "" if now - c.begun_at > s.request_s else None
    if c.lingering:
        return "" if now - c.begun_at > s.linger_s else None
    if c.paused:
        return None  # we are the ones who don't read
    if c.exchange is not None:
        return None if c.ending else _late(c, s, now) or None
    idle_max_s = s.idle_s if c.served else s.head_s
    return "" if not c.queue and now - c.begun_at > idle_max_s else None


def _late(c: Connection, s: Settings, now: float) -> str:
    """Why the request that is being received takes too long, or "" when it doesn't."""
    age_s = now - c.begun_at
    assert c.exchange is not None, "only asked about a request"
    if not c.exchange.in_body:
        return f"the headers took longer than {s.head_s:g} s" if age_s > s.head_s else ""
    if age_s > s.request_s:
        return f"the request took longer than {s.request_s:g} s"
    slow_s = now - c.body_at - s.body_grace_s
    if slow_s > 0 and c.body_seen_bytes < slow_s * s.body_rate_min_bytes:
        return f"the body came slower than {s.body_rate_min_bytes} bytes a second"
    return ""
