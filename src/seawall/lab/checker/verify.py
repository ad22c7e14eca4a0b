"""Reads the platform until everything that a ledger says was accepted has come to its end, or the time is over."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

from seawall.kernel.error import Rejected, Unavailable
from seawall.lab.checker import effect
from seawall.lab.checker.effect import Effect
from seawall.lab.checker.ledger import Book, Run
from seawall.lab.checker.verdict import SeenEvent, SeenRun, Verdict, judge
from seawall.lab.platform import Platform
from seawall.lab.traffic.payload import sha256
from seawall.lab.traffic.traffic import whose

ROUND_S = 1.0
CLOCK_S = 600.0
SAMPLE = 500
"""Events whose bytes are fetched, of those whose checksum the platform tells."""

Progress = Callable[[Verdict], None]
"""Told the verdict of each round, the last one too."""


def verify(
    platform: Platform,
    book: Book,
    *,
    timeout_s: float,
    workflows: Iterable[str] = (),
    must_succeed: bool = False,
    must_run: bool = False,
    effects: Callable[[], Iterable[Effect]] | None = None,
    drained: Callable[[], bool] | None = None,
    progress: Progress | None = None,
) -> Verdict:
    """The verdict on a ledger: as soon as nothing is missing or unfinished, else what stands after ``timeout_s``.

    Args:
        workflows: Those of which every event must have a run.
        must_succeed: A run that failed, or was cancelled, is lost: the workflows can't fail by themselves.
        must_run: Each stream of events has a workflow, and where their app writes down what steps do, an effect.
        effects: What the workflows' steps have done, where their app writes it down.
        drained: Whether nothing is under way any more. Asked before each look: while it is, a second copy of an event
            may still come, and the look isn't the last one.

    Raises:
        Rejected: The platform refuses our token, or doesn't know what we ask for.
    """
    reader = Reader(platform)
    latest = time.monotonic() + timeout_s
    while True:
        began = time.monotonic()
        last = drained is None or drained()
        try:
            seen = {run.source_id: reader.events(run.source_id, since=_since(book, run)) for run in book.runs}
            tickets = {key: named for run in book.runs if run.held for key, named in reader.tickets(run).items()}
            verdict = judge(
                book.runs, seen, tickets=tickets, workflows=workflows, must_succeed=must_succeed, must_run=must_run
            )
            if effects is not None:
                effect.judge(verdict, book.runs, effects(), must=must_run)
        except Unavailable as error:
            verdict = _nobody_looked(book, error)
        for where, why in book.damage():
            verdict.add("unknown", where, why)
        if progress is not None:
            progress(verdict)
        if (last and not (verdict.lost or verdict.unknown)) or time.monotonic() > latest:
            return verdict
        # A round of a large ledger takes a while; never spend more than half of the platform's time on our reading.
        time.sleep(max(ROUND_S, time.monotonic() - began))


def _since(book: Book, run: Run) -> str:
    """Which events of a source that others have too are looked at: a selection. "" where all are."""
    if not run.shared:
        return ""
    began = [int(str(each.about.get("started_us", 0))) for each in book.runs if each.source_id == run.source_id]
    # The clock there may be another one.
    at = datetime.fromtimestamp(min(began) / 1e6 - CLOCK_S, UTC)
    return f'source="{run.about.get("source")}", since={at:%Y-%m-%dT%H:%M:%SZ}'


def _nobody_looked(book: Book, error: Unavailable) -> Verdict:
    """What can be said without the platform: nothing, which is red."""
    verdict = Verdict(sent=len({a.key for run in book.runs for a in run.attempts}))
    for key in {a.key for run in book.runs for a in run.attempts if a.acked}:
        verdict.accepted += 1
        verdict.add("unknown", key, str(error))
    if not verdict.accepted:
        verdict.add("unknown", "the platform", str(error))
    return verdict


class Reader:
    """What the platform holds of some sources. Bytes are read once: an event never changes."""

    def __init__(self, platform: Platform) -> None:
        self._platform = platform
        self._checksums: dict[str, str] = {}
        self._sampled = 0
        self._replies: dict[str, str] = {}

    def events(self, source_id: str, *, since: str = "") -> list[SeenEvent]:
        """Every event of one source with its runs, as they stand.

        Args:
            since: A selection in place of the source's id: of a source that others have too, only what is new.
        """
        asked = {"where": since} if since else {"source": source_id}
        # Events before runs: an event and its runs become visible together, so none that is seen lacks its runs.
        rows = list(self._platform.items("/v1/events", **asked))
        runs: dict[str, list[SeenRun]] = {}
        for row in self._platform.items("/v1/runs", **asked):
            run = SeenRun(id=str(row["id"]), workflow=str(row["workflow"]), status=str(row["status"]))
            runs.setdefault(str(row["event"]), []).append(run)
        return [self._seen(row, runs.get(str(row["id"]), [])) for row in rows]

    def tickets(self, run: Run) -> Mapping[str, str]:
        """By key, whom the reply under the ticket of a held request names; without those that have none yet."""
        for attempt in run.attempts:
            if not attempt.ticket or attempt.key in self._replies:
                continue
            status, said = self._platform.public(attempt.ticket)
            if status == 429:
                break  # the next round asks on
            if status == 200:
                self._replies[attempt.key] = whose(said, attempt.sha256)
        return self._replies

    def _seen(self, row: Mapping[str, Any], runs: list[SeenRun]) -> SeenEvent:
        id = str(row["id"])
        if id not in self._checksums:
            self._checksums[id] = self._checksum(id, str(row.get("body_sha256") or ""))
        return SeenEvent(
            id=id,
            key=str(row.get("dedupe_key") or ""),
            sha256=self._checksums[id],
            status=str(row["status"]),
            runs=tuple(runs),
        )

    def _checksum(self, id: str, told: str) -> str:
        """The database's own checksum of the stored bytes; for the first ones, and where it told none, the bytes
        themselves are fetched and counted here, since a platform could tell a right checksum and hand out wrong bytes.
        """
        if told and self._sampled >= SAMPLE:
            return told
        self._sampled += 1
        try:
            return sha256(self._platform.raw("GET", f"/v1/events/{id}/raw"))
        except Rejected:
            return ""
