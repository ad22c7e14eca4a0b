"""Which path does what. Paths are compared as they came: no decoding, no normalisation, nothing to disagree about."""

from __future__ import annotations

from collections.abc import Callable

from seawall.collector.admission import Admission
from seawall.collector.approval import PREFIX, ApprovalPages
from seawall.collector.exchange import Exchange
from seawall.collector.intake import Intake
from seawall.collector.look_up import LookUps
from seawall.collector.receipt import Receipts
from seawall.collector.snapshot import Snapshot
from seawall.guard.supervisor import LoopHealth
from seawall.kernel.seam.journal import Journal

EVENT, TICKET = LOOK_UPS = b"/in/events/", b"/in/tickets/"
_ALLOW_POST, _ALLOW_GET = b"Allow: POST\r\n", b"Allow: GET\r\n"


class Routes:
    """Sends each request on its way: ``begin`` at its head, ``complete`` at its end."""

    def __init__(
        self, *, admission: Admission, intake: Intake, look_ups: LookUps, receipts: Receipts, journal: Journal,
        health: Callable[[], list[LoopHealth]], snapshot: Snapshot, approvals: ApprovalPages,
    ) -> None:  # fmt: skip
        self._admission = admission
        self._intake = intake
        self._look_ups = look_ups
        self._receipts = receipts
        self._journal = journal
        self._health = health
        self._snapshot = snapshot
        self._approvals = approvals

    def begin(self, x: Exchange) -> None:
        """Judge a head. Only what takes a body gets a ``body_bytes_max`` above 0."""
        target = x.target
        if x.method == b"POST" and target[:4] == b"/in/" and not target.startswith(LOOK_UPS):
            token = target[4:].partition(b"?")[0].partition(b"/")[0]
            x.rest = target[4 + len(token) :]
            self._admission.judge(x, token)
            return
        path, mark, query = target.partition(b"?")
        if path[:1] != b"/":
            x.refuse(self._receipts.problem(400, "malformed request", "the target must begin with /"))
        elif path.startswith(PREFIX):
            self._approvals.begin(x)
        elif path == b"/v1/events":
            x.rest = mark + query
            self._begin_with_token(x)
        elif x.method != b"GET":
            self._not_allowed(x, path)
        elif not (path in (b"/livez", b"/readyz") or path.startswith((EVENT, TICKET))):
            self._nothing_here(x, path)

    def complete(self, x: Exchange) -> None:
        """The whole request is there and wasn't refused."""
        if x.source is not None:
            self._intake.take(x)
            return
        path = x.target.partition(b"?")[0].decode("latin-1")
        if path == "/livez":
            x.answer(self._receipts.plain(200, b"alive\n"))
        elif path == "/readyz":
            self._ready(x)
        elif x.target.startswith(PREFIX):
            self._approvals.complete(x)
        elif path.startswith(EVENT.decode()):
            self._look_ups.event(x, path[len(EVENT) :])
        else:
            self._look_ups.ticket(x, path[len(TICKET) :])

    def _begin_with_token(self, x: Exchange) -> None:
        if x.method != b"POST":
            x.refuse(self._receipts.problem(405, "method not allowed", "events are posted", headers=_ALLOW_POST))
            return
        word, _, token = x.headers.get(b"authorization", b"").partition(b" ")
        if word.lower() != b"bearer" or not token:
            headers = b"WWW-Authenticate: Bearer\r\n"
            detail = "send Authorization: Bearer SOURCE_TOKEN"
            x.refuse(self._receipts.problem(401, "no source token", detail, headers=headers))
            return
        self._admission.judge(x, token.strip())

    def _not_allowed(self, x: Exchange, path: bytes) -> None:
        if path[:4] == b"/in/" and not path.startswith((EVENT, TICKET)):
            x.refuse(self._receipts.problem(405, "method not allowed", "events are posted", headers=_ALLOW_POST))
        elif path in (b"/livez", b"/readyz") or path.startswith((EVENT, TICKET)):
            x.refuse(self._receipts.problem(405, "method not allowed", "this can only be read", headers=_ALLOW_GET))
        else:
            self._nothing_here(x, path)

    def _nothing_here(self, x: Exchange, path: bytes) -> None:
        if path[:4] == b"/in/":
            self._not_allowed_to_read(x)
        else:
            x.refuse(self._receipts.problem(404, "not found", "events are posted to /in/TOKEN"))

    def _not_allowed_to_read(self, x: Exchange) -> None:
        x.refuse(self._receipts.problem(405, "method not allowed", "events are posted", headers=_ALLOW_POST))

    def _ready(self, x: Exchange) -> None:
        """Ready means: sources are known, the journal takes events, and every essential loop makes progress. How old
        that knowledge is doesn't matter, nor does the store, except to a process that has none from anywhere."""
        reasons = [f"{h.name}: {h.reason or 'not ready'}" for h in self._health() if h.essential and not h.ready]
        if not self._snapshot.known:
            reasons.insert(
                0, "snapshot: no source is known: the store hasn't answered yet, and there is no copy to read"
            )
        if self._journal.refusal is not None:
            reasons.insert(0, f"journal: {self._journal.refusal}")
        if self._admission.stopping:
            reasons.insert(0, "stopping")
        x.answer(self._receipts.json(503 if reasons else 200, {"ready": not reasons, "reasons": reasons}))
