"""Workflows and revoked secrets, kept in memory and never out of date: each batch compares versions in its transaction.

So a workflow that was registered before an event was routed gets its run, and a secret revoked before an event came
holds it, without a read of either in the common case and without a window in which the memory is trusted.
"""

from __future__ import annotations

from seawall.kernel.alert import Alerts
from seawall.kernel.correlation import ways
from seawall.router.alarm import unread
from seawall.router.batch import SECOND_US, Rules
from seawall.router.match import Matcher
from seawall.router.settings import Settings
from seawall.store import router as rows
from seawall.store.pool import Store


class Rulebook:
    """The rules in force, read when first asked for and again after ``outdated``.

    Args:
        runs_expected: There is an app: a store without any workflow doesn't know it yet.
    """

    def __init__(self, store: Store, settings: Settings, *, runs_expected: bool, alerts: Alerts) -> None:
        self._store = store
        self._alerts = alerts
        self._runs_expected = runs_expected
        self._window_us = settings.dedupe_window_s * SECOND_US
        self._rules: Rules | None = None

    async def current(self) -> Rules | None:
        """The rules as last read; None: the app's workflows aren't registered yet.

        Raises:
            Unavailable: They must be read, and the store is away.
        """
        if self._rules is None:
            catalogue = await rows.catalogue(self._store)
            unread(self._alerts, catalogue.unread, rows.WORKFLOWS_MAX)
            if self._runs_expected and not catalogue.workflows:
                return None
            shapes = {type: [ways(fields) for fields in each] for type, each in catalogue.shapes.items()}
            self._rules = Rules(catalogue, Matcher(catalogue.workflows), shapes, self._window_us)
        return self._rules

    def outdated(self) -> None:
        """A batch found that they changed."""
        self._rules = None
