"""The comparison of a ledger with what a platform holds: pure, so that a test can hand it any platform it can think of.

The words, per event that was sent (Jepsen's total-queue checker, with its "unknown")::

    accepted    answered 2xx at least once
    finished    accepted, there, its bytes right, every run in an end state
    lost        accepted, and not there; or a run that its like have is missing; or it, or a run, ended as dead letter;
                or a run didn't succeed, where all must
    corrupted   there, and its bytes or its answer's id are not what was sent
    unknown     accepted or there, and not at its end: not drained. Red, as "nobody looked" is not "nothing was lost"
    recovered   not answered, or unsurely, and there all the same: fine, and counted
    invented    there, and never sent, or refused with 4xx
    duplicated  more than one event for one id, or more than one run of a workflow for one event

and per request that was held::

    own         its answer names it
    late        it was answered with a ticket, under which its own answer came later
    ticket      … and it hasn't come: unknown too, when the event was accepted
    silent      nothing came, or an answer that is nobody's: an error
    wrong       its answer, or that of its ticket, names another, or was made of other bytes than its own
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from seawall.lab.checker.ledger import Attempt, Run
from seawall.lab.traffic.payload import body, sha256

END_STATES = frozenset({"succeeded", "failed", "cancelled"})
EXAMPLES_MAX = 20
"""Findings of one word that are kept with their reason; the counts are always whole."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SeenRun:
    """One run, as the platform tells it."""

    id: str
    workflow: str
    status: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SeenEvent:
    """One event, as the platform tells it."""

    id: str
    key: str  # "": it has none
    sha256: str  # of the bytes that it holds; "": they could not be read
    status: str
    runs: tuple[SeenRun, ...] = ()


@dataclass(slots=True)
class Verdict:
    """What became of one ledger's events."""

    sent: int = 0
    accepted: int = 0
    finished: int = 0
    lost: int = 0
    invented: int = 0
    corrupted: int = 0
    duplicated: int = 0
    recovered: int = 0
    unknown: int = 0
    held: int = 0
    own: int = 0
    late: int = 0
    ticket: int = 0
    silent: int = 0
    wrong: int = 0
    effects: int = 0  # of steps, that were seen
    repeated: int = 0  # of them, those done again under the same idempotency key: allowed, and counted
    runs: int = 0  # of the platform, for events of this ledger
    ended: set[str] = field(default_factory=set)  # keys that are finished or recovered
    examples: dict[str, list[str]] = field(default_factory=dict)

    @property
    def holds(self) -> bool:
        """Something was sent, nothing was lost, invented, corrupted or kept twice, and everything was looked at.

        Each event of the lab has a key, so two copies of one are the platform's fault.
        """
        wrong = self.lost or self.invented or self.corrupted or self.duplicated or self.unknown or self.wrong
        return self.sent > 0 and not wrong

    def counts(self) -> dict[str, int]:
        """In the order in which a person reads them; ``lost`` comes last."""
        held = ("held", "own", "late", "ticket", "silent", "wrong") if self.held else ()
        steps = ("effects", "repeated") if self.effects else ()
        first = ("sent", "accepted", "finished", "recovered")
        names = (*first, *held, *steps, "duplicated", "unknown", "corrupted", "invented", "lost")
        return {name: getattr(self, name) for name in names}

    def add(self, word: str, key: str, why: str) -> None:
        """Count one finding, and keep its reason while there is room."""
        setattr(self, word, getattr(self, word) + 1)
        kept = self.examples.setdefault(word, [])
        if len(kept) < EXAMPLES_MAX:
            kept.append(f"{key}: {why}")


Tickets = Mapping[str, str]
"""By the key of a request that was answered with a ticket: the key that its answer named when the ticket was looked up,
"" while there was none."""


NO_TICKETS: Tickets = {}


def judge(
    runs: Sequence[Run],
    seen: Mapping[str, Iterable[SeenEvent]],
    *,
    tickets: Tickets = NO_TICKETS,
    workflows: Iterable[str] = (),
    must_succeed: bool = False,
    must_run: bool = False,
) -> Verdict:
    """Compare.

    Args:
        runs: Of one ledger.
        seen: Every event of each run's source, by the source's id.
        tickets: What was found under the tickets of held requests.
        workflows: Those of which every event must have a run, beside those of which any event has one.
        must_succeed: Their code can't fail, so a run that did was failed by somebody else: it is lost.
        must_run: There is a workflow for every event, so where none has a run all of them are missing.
    """
    verdict = Verdict()
    good = frozenset({"succeeded"}) if must_succeed else END_STATES
    for run in runs:
        events = [each for each in seen.get(run.source_id, ()) if not run.shared or each.key.startswith(f"{run.id}_")]
        wanted = set(workflows) | {r.workflow for e in events for r in e.runs}
        if must_run and not wanted:
            wanted = {"any workflow"}
        _judge_run(verdict, run, events, wanted, good)
        if run.held:
            for attempt in run.attempts:
                _judge_held(verdict, attempt, tickets.get(attempt.key, ""))
    return verdict


def _judge_held(verdict: Verdict, attempt: Attempt, late: str) -> None:
    """One request that waited for its workflow's answer."""
    verdict.held += 1
    key, named = attempt.key, attempt.whose or late
    if named and named != key:
        verdict.add("wrong", key, f"it was answered with what belongs to {named}")
    elif attempt.whose:
        verdict.own += 1
    elif late:
        verdict.late += 1
    elif attempt.ticket and attempt.acked:
        verdict.ticket += 1
        verdict.add("unknown", key, f"its reply isn't under {attempt.ticket}")
    else:
        verdict.add("silent", key, f"{attempt.status or 'nothing'}: {attempt.note}")


def _judge_run(verdict: Verdict, run: Run, events: list[SeenEvent], wanted: set[str], good: frozenset[str]) -> None:
    by_key: dict[str, list[SeenEvent]] = {}
    for event in events:
        by_key.setdefault(event.key, []).append(event)
        verdict.runs += len(event.runs)
    attempts: dict[str, list[Attempt]] = {}
    for attempt in run.attempts:
        attempts.setdefault(attempt.key, []).append(attempt)
    for key in by_key.keys() - attempts.keys():
        for event in by_key[key]:
            verdict.add("invented", key or "(no key)", f"event {event.id} was never sent")
    for key, tries in attempts.items():
        verdict.sent += 1
        _judge_key(verdict, run, tries, by_key.get(key, []), wanted, good)


def _judge_key(
    verdict: Verdict,
    run: Run,
    tries: list[Attempt],
    events: list[SeenEvent],
    wanted: set[str],
    good: frozenset[str],
) -> None:
    """One event that was sent, by all of its tries and all that is there for it."""
    key, acked = tries[0].key, any(t.acked for t in tries)
    verdict.accepted += acked
    if not events:
        if acked:
            verdict.add("lost", key, f"answered {_answers(tries)}, and there is no such event")
        return
    if len(events) > 1:
        verdict.add("duplicated", key, f"{len(events)} events: {', '.join(e.id for e in events)}")
    if all(t.refused for t in tries):
        verdict.add("invented", key, f"refused with {_answers(tries)}, and event {events[0].id} is there")
        return
    # Of several copies the one that is furthest from well decides.
    words = [_word(run, tries, event, wanted, good) for event in events]
    # A repeat may be answered with an id of its own that leads to the first event; a single try may not.
    if len(tries) == 1 and acked and tries[0].event_id not in {e.id for e in events}:
        words.append(("corrupted", f"event {events[0].id} was answered as {tries[0].event_id or 'nothing'}"))
    for word in ("lost", "corrupted", "unknown"):
        for found, why in words:
            if found == word:
                verdict.add(word, key, why)
                return
    verdict.ended.add(key)
    if acked:
        verdict.finished += 1
    else:
        verdict.recovered += 1
    for event in events:
        if len({r.workflow for r in event.runs}) < len(event.runs):
            verdict.add("duplicated", key, f"event {event.id} has more than one run of a workflow")


def _word(run: Run, tries: list[Attempt], event: SeenEvent, wanted: set[str], good: frozenset[str]) -> tuple[str, str]:
    """(word, why) of one event that is there; "" when all is well."""
    at = f"event {event.id}"
    if event.status in ("dead", "conflict"):
        return "lost", f"{at} ended as {event.status}"
    if not event.sha256:
        return "unknown", f"{at}: its bytes could not be read"
    if event.sha256 != tries[0].sha256:
        return "corrupted", f"{at} holds other bytes than were sent"
    if _expected(run, tries[0]) != tries[0].sha256:
        return "unknown", f"the ledger disagrees with its own seed about n={tries[0].n}"
    if event.status != "routed":
        return "unknown", f"{at} is {event.status}"
    missing = wanted - {r.workflow for r in event.runs}
    if missing:
        return "lost", f"{at} has no run of {', '.join(sorted(missing))}"
    dead = [r for r in event.runs if r.status == "dead"]
    if dead:
        # Unlike one that failed, it is not the workflow's own word: it could not be run, or not be stored.
        return "lost", f"run {dead[0].id} of {at} ended as dead"
    ended = [r for r in event.runs if r.status in END_STATES - good]
    if ended:
        return "lost", f"run {ended[0].id} of {at} ended as {ended[0].status}, and every run must succeed"
    unfinished = [r for r in event.runs if r.status not in END_STATES]
    if unfinished:
        return "unknown", f"run {unfinished[0].id} of {at} is {unfinished[0].status}"
    return "", ""


def _expected(run: Run, attempt: Attempt) -> str:
    """What the seed says that the body's checksum is; the ledger's own word when the run didn't come from a seed."""
    about = run.about
    seed, type, bytes_max = about.get("seed"), about.get("type"), about.get("bytes_max")
    if not (isinstance(seed, int) and isinstance(type, str) and isinstance(bytes_max, int)):
        return attempt.sha256
    return sha256(body(seed, attempt.n, type=type, bytes_max=bytes_max))


def _answers(tries: list[Attempt]) -> str:
    return ", ".join(str(t.status) for t in tries if t.status) or "nothing"
