"""Whether a request may come in, decided at its head: before its body is read, and without touching a disk or a store.

Whatever depends on a source's configuration is a 4xx only while the snapshot is fresh; after that the same refusal is a
503, since the store may know better by now. Our own trouble is never a 4xx.
"""

from __future__ import annotations

import re

from seawall.collector.exchange import PARKED, RECEIVING, Exchange
from seawall.collector.rate import Rates
from seawall.collector.receipt import Receipts
from seawall.collector.share import Shares
from seawall.collector.snapshot import Snapshot, Source
from seawall.guard.budget import Budget
from seawall.kernel import limit
from seawall.kernel.clock import Clock
from seawall.kernel.error import Overloaded, SeawallError
from seawall.kernel.seam.journal import Journal

UNSERVED = "this source can't be served now; that is our trouble, and its operator is told: send it again later"
_WAIT = re.compile(rb"(?:^|[,;\s])wait\s*=\s*\"?(\d{1,9})", re.IGNORECASE)


class Admission:
    """Judges heads."""

    def __init__(
        self, *, snapshot: Snapshot, journal: Journal, receipts: Receipts, rates: Rates, body_bytes_max: int,
        clock: Clock, shares: Shares,
    ) -> None:  # fmt: skip
        self._snapshot = snapshot
        self._rates = rates
        self._shares = shares
        self._journal = journal
        self._receipts = receipts
        self._clock = clock
        self.body_bytes_max = body_bytes_max  # where a source says none
        self.stopping = False

    def judge(self, x: Exchange, token: bytes) -> None:
        """Set the exchange's source and limits, or refuse it, or park it until the store was asked for its token."""
        refusal = self._journal.refusal
        if refusal is not None or self.stopping:
            x.refuse(self.refused_by_journal(refusal))
            return
        x.token = token
        source = self._snapshot.find(token)
        if source is not None:
            self._fit(x, source)
            return
        x.stage = PARKED
        x.body_bytes_max = limit.BODY_BYTES_MAX  # its source may allow more than others do
        self._snapshot.ask(lambda: self._again(x))

    def refused_by_journal(self, refusal: SeawallError | None) -> bytes:
        """503 for what the journal said, or for stopping. Certainly nothing was stored."""
        if refusal is None:
            return self._receipts.unavailable("stopping", "this collector is stopping; another try will find the next")
        after_s = refusal.retry_after_s if isinstance(refusal, Overloaded) else 5.0
        return self._receipts.unavailable("events can't be stored now", str(refusal), retry_after_s=after_s)

    def by_configuration(self, status: int, title: str, detail: str = "", *, headers: bytes = b"") -> bytes:
        """A refusal that a newer configuration might take back: 503 while ours may be old."""
        if self._snapshot.stale:
            return self._receipts.stale(status, title)
        return self._receipts.problem(status, title, detail, headers=headers)

    def _again(self, x: Exchange) -> None:
        """The store was asked about an unknown token. The client may be gone, and the body may be here already."""
        if x.stage != PARKED:
            return
        x.stage = RECEIVING
        source = self._snapshot.find(x.token)
        if source is None:
            self._unknown(x)
        else:
            self._fit(x, source)
        x.connection.judged(x)

    def _unknown(self, x: Exchange) -> None:
        x.refuse(self.by_configuration(404, "unknown source", "no source has this token"))

    def _fit(self, x: Exchange, source: Source) -> None:
        if source.removed:
            x.refuse(self.by_configuration(410, "source removed", "this source was removed; stop sending to it"))
            return
        if source.trouble:
            # Nobody has proven to be its sender yet, and why tells of our files and settings: that is in the log.
            x.refuse(self._receipts.unavailable("source can't be served", UNSERVED, retry_after_s=30.0))
            return
        x.source = source
        choice = source.choice
        x.body_bytes_max = choice.body_bytes_max or self.body_bytes_max
        if (refusal := self._used_up(source)) is not None:
            x.refuse(refusal)
        elif x.length > x.body_bytes_max or x.body_bytes > x.body_bytes_max:
            x.refuse(self.too_large(x, x.body_bytes_max))
        elif choice.content_types and _media_type(x) not in choice.content_types:
            allowed = ", ".join(choice.content_types)
            x.refuse(self.by_configuration(415, "unsupported media type", f"this source takes {allowed}"))
        elif choice.wait_ms_max:
            x.wait_ms = min(wished_ms(x), choice.wait_ms_max, source.kind.wait_ms_max)
            if x.wait_ms:
                # From here on, since the sender's patience began with its request: a slow body and the journal spend
                # of it, and what is left is for the reply.
                x.patience = Budget(x.wait_ms / 1000, self._clock)

    def _used_up(self, source: Source) -> bytes | None:
        refusal = self._shares.look(source)
        return self._rates.look(source) if refusal is None and source.metered else refusal

    def too_large(self, x: Exchange, limit_bytes: int) -> bytes:
        """413; where a newer configuration might allow more, 503 while ours is old."""
        detail = f"at most {limit_bytes} bytes are taken here"
        if x.length > limit.BODY_BYTES_MAX:
            return self._receipts.problem(413, "body too large", detail)
        return self.by_configuration(413, "body too large", detail)


def wished_ms(x: Exchange) -> int:
    """What ``Prefer: wait=N`` asks for; 0: nothing."""
    prefer = x.headers.get(b"prefer")
    wait = _WAIT.search(prefer) if prefer is not None else None
    return int(wait[1]) * 1000 if wait is not None else 0


def _media_type(x: Exchange) -> str:
    return x.headers.get(b"content-type", b"").partition(b";")[0].strip().lower().decode("latin-1")
