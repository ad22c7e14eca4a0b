"""The way of an event from a complete request to the journal, and of the journal's word back to the sender.

Verify over the raw bytes, submit, answer from the journal's callback. Nothing on that way waits for anything but the
journal, and no 2xx leaves before the event is durable.
"""

from __future__ import annotations

from functools import partial
from typing import Protocol

from seawall.collector.admission import Admission
from seawall.collector.duplicate import Duplicates, digest_of
from seawall.collector.exchange import ANSWERED, ASKED, HELD, PARKED, SUBMITTED, Exchange
from seawall.collector.hold import Holds
from seawall.collector.rate import Rates
from seawall.collector.receipt import Receipts
from seawall.collector.share import Shares
from seawall.collector.snapshot import Source
from seawall.kernel import json
from seawall.kernel.clock import Clock
from seawall.kernel.error import SeawallError, Uncertain
from seawall.kernel.event import id_ascii
from seawall.kernel.metric import Metrics
from seawall.kernel.seam.journal import Journal, Outcome, Position
from seawall.kernel.seam.place import COUNTRY_HEADER
from seawall.kernel.signature import Refused, Verified

CREDENTIALS = frozenset((b"authorization", b"cookie", b"proxy-authorization"))
"""Headers that never reach the disk."""

NOT_KEPT = CREDENTIALS | {COUNTRY_HEADER}
"""Nor does what would pass for ours."""


class Ids(Protocol):
    """Makes event ids (kernel.event.EventIds)."""

    def next(self) -> bytes: ...

    @property
    def latest_ms(self) -> int: ...


class Version(Protocol):
    """The snapshot's version (collector.snapshot.Snapshot)."""

    @property
    def version(self) -> int: ...


class Intake:
    """Takes events in."""

    def __init__(
        self, *, admission: Admission, rates: Rates, journal: Journal, holds: Holds, snapshot: Version,
        duplicates: Duplicates, receipts: Receipts, ids: Ids, clock: Clock, metrics: Metrics, shares: Shares,
    ) -> None:  # fmt: skip
        self._admission = admission
        self._rates = rates
        self._journal = journal
        self._holds = holds
        self._snapshot = snapshot
        self._duplicates = duplicates
        self._receipts = receipts
        self._ids = ids
        self._shares = shares
        self._clock = clock
        self.now = 0.0
        self._accepted = metrics.counter("seawall_accepted_total", "Events that became durable.")
        self._late = metrics.counter(
            "seawall_accepted_late_total", "Events that became durable after their sender was gone or told uncertain."
        )
        self._repeats = metrics.counter("seawall_duplicate_hints_total", "Repeats that were answered from memory.")

    def take(self, x: Exchange) -> None:
        """Verify a complete request and submit it."""
        source = x.source
        assert source is not None, "admission has found the source"
        wall_us = self._clock.wall_us()
        body = x.body()
        verdict = source.kind.verify(source.secrets, x.headers, body, wall_us / 1_000_000, source.options)
        if source.demanding and isinstance(verdict, Verified):
            demanded = self._demanded(x, source, verdict, body)
            if demanded is None:
                return
            verdict = demanded
        if isinstance(verdict, Refused):
            self._refuse(x, source, verdict)
            return
        key = verdict.key.encode()
        if key:
            x.key, x.digest, x.received_us = source.id + key, digest_of(body, verdict.key_id), wall_us
            first = self._duplicates.find(x.key, x.digest, wall_us)
            # Whoever waits wants the workflow's reply, which memory doesn't have: kept as a record, the repeat gets a
            # ticket of its own, which the router points at the first event's run.
            if first is not None and x.patience is None:
                self._repeats.value += 1
                x.answer(self._receipts.duplicate(id_ascii(first.id), replicated=first.replicated))
                return
        if source.metered:
            x.stage = ASKED
            self._rates.spend(source, partial(self._spent, x, source, verdict, wall_us))
            if x.stage == ASKED and not x.hold_body():
                x.answer(self._receipts.unavailable("too busy", "too many bodies are being received"))
        else:
            self._keep(x, source, verdict, wall_us)

    def _spent(self, x: Exchange, source: Source, verdict: Verified, wall_us: int, refusal: bytes | None) -> None:
        """The limiter's word. Whoever was answered meanwhile was told that nothing is stored."""
        if x.stage != ASKED:
            return
        if refusal is not None:
            x.answer(refusal)
        else:
            self._keep(x, source, verdict, wall_us)

    def _keep(self, x: Exchange, source: Source, verdict: Verified, wall_us: int) -> None:
        x.id = self._ids.next()
        payload = source.encoder.encode(
            x.id, wall_us, key=verdict.key.encode(), key_signed=verdict.key_signed, target=x.rest,
            peer=x.peer or x.connection.peer, key_id=verdict.key_id, config_version=self._snapshot.version,
            wait_ms=x.wait_ms, headers=_kept(x), body=x.body(),
        )  # fmt: skip
        self._submit(x, payload)

    def _demanded(self, x: Exchange, source: Source, verdict: Verified, body: bytes) -> Verified | Refused | None:
        """What only some sources ask for. None: the request has its answer."""
        if source.kind.handshake is not None and (reply := source.kind.handshake(body)) is not None:
            x.answer(self._receipts.plain(200, reply))
            return None
        if source.choice.require_json and (problem := json.parse(body)[1]) is not None:
            x.answer(self._admission.by_configuration(422, "not JSON", f"this source takes JSON only: {problem}"))
            return None
        return verdict if source.keys is None else source.keys.judge(verdict, x.headers, body)

    def _refuse(self, x: Exchange, source: Source, verdict: Refused) -> None:
        if source.doubt and verdict.status == 401:
            detail = "a secret of it can't be read here, which may be the right one; that is our trouble"
            x.answer(self._receipts.unavailable("source can't be served", detail, retry_after_s=30.0))
            return
        headers, title = b"", "dedupe key refused"
        if verdict.status == 401:
            title, challenge = "signature refused", source.kind.challenge
            headers = b"WWW-Authenticate: %b\r\n" % challenge.encode("ascii") if challenge else b""
        x.answer(self._admission.by_configuration(verdict.status, title, verdict.reason, headers=headers))

    def _submit(self, x: Exchange, payload: bytes) -> None:
        x.stage, x.submitted_at, x.size_bytes = SUBMITTED, self.now, len(payload)
        try:
            self._journal.submit(payload, x.done)
        except SeawallError as error:
            x.answer(self._admission.refused_by_journal(error))
        else:
            x.submitted()

    def settled(self, x: Exchange, outcome: Outcome) -> None:
        """The journal's word: answer what waits for it."""
        if not isinstance(outcome, Position):
            self._not_durable(x, outcome)
            return
        self._accepted.value += 1
        source = x.source
        assert source is not None, "only an admitted exchange was submitted"
        self._shares.kept(source, outcome, x.size_bytes)
        if x.key:
            self._duplicates.add(x.key, x.digest, x.id, x.received_us, replicated=outcome.replicated)
        if x.stage != SUBMITTED:
            self._late.value += 1
        elif x.patience is not None:
            x.replicated = outcome.replicated
            self._holds.hold(x, wait_ms=int(x.patience.left_s * 1000))
        else:
            x.answer(self._receipts.accepted(id_ascii(x.id), source, replicated=outcome.replicated))

    def _not_durable(self, x: Exchange, error: SeawallError) -> None:
        if isinstance(error, Uncertain):
            x.answer(self.uncertain(str(error)))
        else:
            x.answer(self._admission.refused_by_journal(error))

    def uncertain(self, why: str) -> bytes:
        """503 that says: it may have been stored. With a dedupe key a repeat is safe."""
        return self._receipts.unavailable("outcome is uncertain", why, retry_after_s=2.0, uncertain=True)

    def let_go(self, x: Exchange) -> None:
        """This collector stops: end a hold with 202 and where to ask, and the wait for a look at the store with 503."""
        if x.stage == PARKED and x.token:
            x.answer(self._receipts.unavailable("stopping", "this collector is stopping; another try finds the next"))
        elif x.stage == HELD:
            self._holds.let_go(x)

    def gone(self, x: Exchange) -> None:
        """Nobody reads this answer any more. What was submitted stays submitted."""
        if x.stage == HELD:
            self._holds.gone(x)
        x.stage = ANSWERED


def _kept(x: Exchange) -> bytes:
    """Headers as the record keeps them: all, in order, without credentials."""
    flat = x.flat
    if not NOT_KEPT.isdisjoint(x.headers):
        pairs = zip(flat[0::2], flat[1::2], strict=True)
        flat = [part for name, value in pairs if name.lower() not in NOT_KEPT for part in (name, value)]
    return b"\0".join(flat)
