"""Rate limits of sources, of tenants and of who reads: when 429 is due, and what it says.

A source's and a tenant's allowance is spent by verified events only: a stranger who learnt a URL can't use it up. Once
it is spent, requests are refused at their head, before a body is read (``look``); so a flood over a limit costs little.
RateLimit and RateLimit-Policy are those of draft-ietf-httpapi-ratelimit-headers-10.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import ceil
from random import Random

from seawall.collector.receipt import Receipts
from seawall.collector.setting import Settings, rate_of
from seawall.collector.snapshot import Snapshot, Source
from seawall.kernel.metric import Metrics
from seawall.kernel.seam.limiter import SECOND_US, Allowance, Limiter, Rate

AFTER_S_MAX = 86_400.0
"""What is told at most: who is to wait longer learns that by then, or that the rate was raised."""

_Limit = tuple[str, bytes, Rate]
"""(whose, key, rate)."""


class Rates:
    """Judges requests by rates. Told of a source only when it is ``metered``."""

    def __init__(
        self, settings: Settings, *, limiter: Limiter, snapshot: Snapshot, receipts: Receipts, metrics: Metrics,
        random: Random,
    ) -> None:  # fmt: skip
        self._limiter = limiter
        self._snapshot = snapshot
        self._receipts = receipts
        self._random = random
        self._refused = {
            whose: metrics.counter("seawall_rate_limited_total", "Requests that were answered 429.", by=whose)
            for whose in ("source", "tenant", "address")
        }
        self.reload(settings)

    def reload(self, settings: Settings) -> None:
        """Go on with other rates; what was let through before counts on."""
        self._tenant = rate_of(settings.tenant_rate_per_s, settings.tenant_burst)
        self._address = rate_of(settings.look_up_rate_per_s, settings.look_up_burst)

    def look(self, source: Source) -> bytes | None:
        """The refusal of a request whose source or tenant has nothing left, else None. Counts nothing."""
        limits = self._limits(source)
        for limit in limits:
            found = self._limiter.look(limit[1], limit[2])
            if not found.allowed:
                return self._refusal(limit, found, limits)
        return None

    def spend(self, source: Source, decided: Callable[[bytes | None], None]) -> None:
        """The same for a verified event, which is counted when ``decided`` is called with None: before this returns, or
        within ``ASK_S`` where others are asked."""
        limits = self._limits(source)

        def said(found: Sequence[Allowance]) -> None:
            refused = next((pair for pair in zip(limits, found, strict=True) if not pair[1].allowed), None)
            decided(None if refused is None else self._refusal(*refused, limits))

        self._limiter.ask([(key, rate) for _, key, rate in limits], said)

    def read_by(self, address: bytes) -> bytes | None:
        """The refusal of a read by a client that reads too much, else None; then it is counted."""
        rate = self._address
        if rate is None:
            return None
        limit = ("address", b"a" + address, rate)
        found = self._limiter.decide(limit[1], rate)
        return None if found.allowed else self._refusal(limit, found, [limit])

    def _limits(self, source: Source) -> list[_Limit]:
        limits: list[_Limit] = []
        if source.rate is not None:
            limits.append(("source", b"s" + source.id, source.rate))
        if self._tenant is not None:
            limits.append(("tenant", b"t" + source.tenant.encode(), self._tenant))
        return limits

    def _refusal(self, limit: _Limit, found: Allowance, limits: list[_Limit]) -> bytes:
        whose, _, rate = limit
        if whose == "source" and self._snapshot.stale:
            # Its rate may have been raised since.
            return self._receipts.stale(429, "rate limit exceeded")
        self._refused[whose].value += 1
        # RateLimit must not name a later moment than Retry-After, which is jittered so that nobody's wave comes back.
        after_s = min(AFTER_S_MAX, found.retry_after_us / SECOND_US)
        headers = b"Retry-After: %d\r\nRateLimit-Policy: %b\r\nRateLimit: \"%b\";r=%d;t=%d\r\n" % (
            max(1, ceil(after_s * (1 + self._random.random() / 2))), b", ".join(map(_policy, limits)), whose.encode(),
            found.remaining, max(1, ceil(after_s)),
        )  # fmt: skip
        detail = (
            f"the {whose} may have {rate.limit} at once and {rate.limit / rate.per_s:g} a second; nothing was stored"
        )
        return self._receipts.problem(429, "rate limit exceeded", detail, headers=headers)


def _policy(limit: _Limit) -> bytes:
    """``"source";q=200;w=2``: so many in so many whole seconds, as near as those can say it."""
    whose, _, rate = limit
    window_s = max(1, ceil(rate.window_us / SECOND_US))
    return b'"%b";q=%d;w=%d' % (whose.encode(), max(1, window_s * SECOND_US // rate.interval_us), window_s)
