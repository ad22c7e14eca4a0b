"""What a held request is answered, from what the store knows. Pure.

A reply wins over everything. Without one the ends of the event's runs are the answer, once all have ended: one of them
may still reply. An event that starts no run, or is kept without acting on it, has its status as the answer.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

import msgspec

from seawall.kernel.event import id_text
from seawall.kernel.limit import RESULT_BYTES_MAX
from seawall.kernel.seam.ticket import Reply
from seawall.kernel.status import EventStatus, RunStatus
from seawall.store.ticket import EndedRun, Outcome

JSON: Final = "application/json"
PROBLEM: Final = "application/problem+json"


def is_over(outcome: Outcome) -> bool:
    """Whether the wait has an answer now."""
    if outcome.reply is not None:
        return True
    if outcome.status is None:
        return False
    return outcome.status is not EventStatus.ROUTED or outcome.open_runs == 0


def results_wanted(outcome: Outcome) -> list[EndedRun]:
    """Runs whose results are part of the answer and came without them, since they are large.

    Empty when the answer shows none, or when all together would be more than one reply may have.
    """
    if outcome.reply is not None or not is_over(outcome) or _failure(outcome.ended) is not None:
        return []
    if not _fit(outcome.ended):
        return []
    return [run for run in outcome.ended if run.result is None and run.result_bytes]


def answer_of(outcome: Outcome, *, body: bytes | None = None, results: dict[int, bytes | None] | None = None) -> Reply:
    """The answer to a ticket.

    Args:
        body: The stored reply's body, where the outcome came without it.
        results: Results of ``results_wanted`` by run id.
    """
    id = id_text(outcome.event_id)
    if outcome.reply is not None:
        stored = outcome.reply
        content = stored.body if stored.body is not None else body
        return Reply(status=stored.status, content_type=stored.content_type, body=content or b"")
    if outcome.status is None or outcome.status is EventStatus.ACCEPTED:
        return _json(202, {"id": id, "status": "accepted"}, final=False)
    if outcome.status is not EventStatus.ROUTED:
        said = {"id": id, "status": outcome.status.name.lower(), "reason": outcome.reason}
        return _json(202, said, final=outcome.status is not EventStatus.HELD)
    if outcome.open_runs:
        return _json(202, {"id": id, "status": "routed"}, final=False)
    if not outcome.ended:
        return _json(200, {"id": id, "status": "routed", "runs": []})
    failed = _failure(outcome.ended)
    return _json(200, _succeeded(id, outcome.ended, results or {})) if failed is None else _problem(id, failed)


def forgotten(outcome: Outcome) -> Reply:
    """For whoever asks so late that a reply, had there been one, may be gone: how the runs ended would pass for it."""
    said = {
        "type": "urn:seawall:problem:reply-forgotten", "title": "reply forgotten", "status": 404,
        "id": id_text(outcome.event_id),
        "detail": "replies are kept for 24 hours; /in/events/ID says what became of the event",
    }  # fmt: skip
    return Reply(status=404, content_type=PROBLEM, body=msgspec.json.encode(said))


def _failure(ended: Sequence[EndedRun]) -> EndedRun | None:
    """The run to name when not all succeeded: a failed or dead one before a cancelled one."""
    failed = [run for run in ended if run.status is not RunStatus.SUCCEEDED]
    return min(failed, key=lambda run: (run.status is RunStatus.CANCELLED, run.id), default=None)


def _problem(id: str, run: EndedRun) -> Reply:
    # What the workflow raised is its owner's affair: a sender gets the run's id, with which the owner finds the rest.
    status = 409 if run.status is RunStatus.CANCELLED else 502
    said = {"title": f"Run {run.status.word}", "status": status, "id": id, "run": str(run.id)}
    return Reply(status=status, content_type=PROBLEM, body=msgspec.json.encode(said))


def _succeeded(id: str, ended: Sequence[EndedRun], results: dict[int, bytes | None]) -> dict[str, object]:
    said: dict[str, object] = {"id": id, "status": "succeeded"}
    if not _fit(ended):
        said["detail"] = f"the results of {len(ended)} runs are together larger than {RESULT_BYTES_MAX} bytes"
        return said
    # Stored results are JSON already: they are passed on as they are, not parsed again.
    parts = [msgspec.Raw(run.result or results.get(run.id) or b"null") for run in ended]
    said["result"] = parts[0] if len(parts) == 1 else parts
    return said


def _fit(ended: Sequence[EndedRun]) -> bool:
    return sum(run.result_bytes for run in ended) <= RESULT_BYTES_MAX


def _json(status: int, said: Mapping[str, object], *, final: bool = True) -> Reply:
    return Reply(status=status, content_type=JSON, body=msgspec.json.encode(said), final=final)
