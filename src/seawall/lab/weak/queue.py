"""``shared-queue`` and ``unfair-queue``: the workers of incident I2. All work stands in one line, in the order in which
it came, so whoever brings most of it has most of the workers, and whoever comes later waits for all of it."""

from __future__ import annotations

from dataclasses import replace

from seawall.app import Making
from seawall.kernel.placement import Placement
from seawall.workflow import App

QUEUE = "default"


class FirstInFirstOut(Placement):
    """One stream for all tenants of a queue."""

    def next(self, queue_id: int, tenant: str, *, backlog: bool, apart: str = "", priority: int = 0) -> int:
        return super().next(queue_id, "", backlog=backlog, apart=apart, priority=priority)


def one_queue(app: App) -> App:
    """The same workflows in one queue, which nothing is said of."""
    return app.over(lambda workflow: replace(workflow, queue=QUEUE, priority=0), queues=())


class OneQueue(Making):
    """Puts the first in place."""

    def app(self, file: str) -> App:
        return one_queue(super().app(file))

    def placement(self) -> type[Placement]:
        return FirstInFirstOut


class Unfair(Making):
    """Puts the second in place."""

    def placement(self) -> type[Placement]:
        return FirstInFirstOut
