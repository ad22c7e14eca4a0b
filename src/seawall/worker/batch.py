"""One batch of outcomes on its way into the store, and the ways to take it apart."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from seawall.store.flush import Again, Answer, End, Rows, Spent, Step
from seawall.worker.shard import Held

if TYPE_CHECKING:
    from seawall.worker.execution import Execution

Waiter = asyncio.Future[None]


@dataclass(slots=True)
class Batch:
    """Outcomes in the order in which they came, each with the execution that it belongs to."""

    steps: list[tuple[Step, Execution, Waiter | None]] = field(default_factory=list)
    ends: list[tuple[End, Execution]] = field(default_factory=list)
    agains: list[tuple[Again, Execution]] = field(default_factory=list)
    answers: list[tuple[Answer, Execution]] = field(default_factory=list)
    spent: list[tuple[Spent, Held]] = field(default_factory=list)
    held: dict[Held, None] = field(default_factory=dict)  # shards that it needs
    count: int = 0
    bytes: int = 0
    sent: bool = False  # at least once; its rows may be there already

    def rows(self) -> Rows:
        return Rows(
            leases=[held.lease for held in self.held],
            steps=[entry[0] for entry in self.steps],
            ends=[entry[0] for entry in self.ends],
            agains=[entry[0] for entry in self.agains],
            answers=[entry[0] for entry in self.answers],
            spent=[entry[0] for entry in self.spent],
            listeners=[run.id for _, run in (*self.ends, *self.agains) if run.listens],
        )

    def executions(self) -> list[Execution]:
        """Whose outcomes are in it, each once."""
        found = [e[1] for e in self.steps] + [e[1] for e in self.ends]
        found += [e[1] for e in self.agains] + [e[1] for e in self.answers]
        return list(dict.fromkeys(found))

    def only(self, executions: Iterable[Execution], *, spent: bool) -> Batch:
        """The part of it that belongs to some executions; an execution's outcomes always stay together."""
        chosen = set(executions)
        part = Batch(
            steps=[e for e in self.steps if e[1] in chosen],
            ends=[e for e in self.ends if e[1] in chosen],
            agains=[e for e in self.agains if e[1] in chosen],
            answers=[e for e in self.answers if e[1] in chosen],
            spent=[e for e in self.spent if not e[1].lost] if spent else [],
            sent=self.sent,
        )
        part.held = dict.fromkeys([e.held for e in chosen] + [held for _, held in part.spent])
        part.count = len(part.steps) + len(part.ends) + len(part.agains) + len(part.answers) + len(part.spent)
        return part

    def singles(self) -> list[Batch]:
        """A batch for each outcome, in order; spent refills come last."""
        parts = [Batch(steps=[e], held={e[1].held: None}, count=1) for e in self.steps]
        parts += [Batch(answers=[e], held={e[1].held: None}, count=1) for e in self.answers]
        parts += [Batch(agains=[e], held={e[1].held: None}, count=1) for e in self.agains]
        parts += [Batch(ends=[e], held={e[1].held: None}, count=1) for e in self.ends]
        parts += [Batch(spent=[e], held={e[1]: None}, count=1) for e in self.spent]
        for part in parts:
            part.sent = self.sent
        return parts
