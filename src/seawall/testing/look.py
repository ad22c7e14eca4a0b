"""What a test sees of runs and replies."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

import msgspec

from seawall.store.report import RunDetail

OVER = frozenset({"succeeded", "failed", "cancelled", "dead"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """A step that ended, or a wait."""

    name: str
    nth: int  # which of its name, from 0
    attempt: int
    result: Any  # None also when it is larger than `report.STEP_RESULT_BYTES_MAX`
    started_at: datetime
    finished_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """A run as it stands."""

    id: int
    workflow: str
    version: str
    status: str  # queued, waiting, succeeded, failed …
    attempt: int
    result: Any  # what the workflow returned
    error: str | None
    wakes_at: datetime | None  # of one that waits: when it goes on at the latest
    steps: tuple[Step, ...]

    @property
    def over(self) -> bool:
        return self.status in OVER

    @property
    def step_names(self) -> list[str]:
        """In the order in which they began."""
        return [step.name for step in self.steps]

    def step(self, name: str, nth: int = 0) -> Step:
        """One of its steps.

        Raises:
            AssertionError: It hasn't ended.
        """
        found = [step for step in self.steps if (step.name, step.nth) == (name, nth)]
        assert found, f"no step {name} ({nth}) has ended; these have: {', '.join(self.step_names)}"
        return found[0]

    @classmethod
    def of(cls, detail: RunDetail) -> Run:
        return cls(
            id=int(detail.id), workflow=detail.workflow, version=detail.version, status=detail.status,
            attempt=detail.attempt, result=_value(detail.result), error=detail.error, wakes_at=detail.run_after,
            steps=tuple(
                Step(
                    name=step.name, nth=step.nth, attempt=step.attempt, result=_value(step.result),
                    started_at=step.started_at, finished_at=step.finished_at,
                )
                for step in detail.steps
            ),
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Reply:
    """What a workflow answered."""

    status: int
    content_type: str
    body: bytes

    @property
    def json(self) -> Any:
        return msgspec.json.decode(self.body)


def _value(raw: msgspec.Raw | None) -> Any:
    return None if raw is None else msgspec.json.decode(raw)
