"""Gives keys to ready runs that were made without: by who knew nothing of limits, or before these were declared."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from seawall.kernel.json import parse
from seawall.store import line
from seawall.store.line import Keyed
from seawall.store.pool import Store
from seawall.worker.shard import Held
from seawall.workflow import Workflow

RUNS, BYTES = 200, 8 << 20
"""Of one statement."""

REMEMBERED_MAX = 10_000
"""A refill meets them again and again until they have their keys, so it may forget."""


class Keying:
    """Runs that a refill of this worker met, and left where they are."""

    def __init__(self, store: Store, workflows: Callable[[], Mapping[int, Workflow]]) -> None:
        self._store = store
        self._workflows = workflows
        self._runs: dict[int, Held] = {}

    def met(self, held: Held, run_ids: Iterable[int]) -> None:
        """A refill of this shard read them."""
        for id in run_ids:
            if len(self._runs) < REMEMBERED_MAX:
                self._runs[id] = held

    @property
    def some(self) -> bool:
        return bool(self._runs)

    async def work(self) -> list[tuple[str, bytes]]:
        """Put some of them into their lines; returns these, each with its workflow.

        Raises:
            Unavailable, Uncertain: Safe to repeat.
        """
        ids = [id for id, _ in zip(self._runs, range(RUNS), strict=False)]
        leases = {self._runs[id].lease: None for id in ids if not self._runs[id].lost}
        found = await line.unkeyed(self._store, ids, bytes_max=BYTES)
        workflows, keyed = self._workflows(), []
        for run in found:
            workflow = workflows.get(run.workflow_id)
            if workflow is None or workflow.allowance is None or not run.found:
                keyed.append(Keyed(run.id, (), ()))  # it begins; one whose event is gone ends so
            else:
                keyed.append(Keyed(run.id, *workflow.allowance.keys(run.tenant, parse(run.body or b"")[0])))
        placed = await line.line_up(self._store, list(leases), keyed) if keyed else []
        cut = sum(len(run.body or b"") for run in found) >= BYTES
        for id in [run.id for run in found] if cut else ids:
            self._runs.pop(id, None)
        return [(workflows[id].name, key) for key, id in placed if key is not None and id in workflows]
