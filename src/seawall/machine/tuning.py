"""The settings in force in one process, and how they change while it runs."""

from __future__ import annotations

import logging
from collections.abc import Callable

from seawall.kernel.error import Misconfigured
from seawall.kernel.log import fields, logger
from seawall.settings import Settings

log = logger("machine")


class Tuning:
    """Reads settings again when asked to. What is wrong changes nothing, and what can't change while the process runs
    is named; both are said in the log.

    Args:
        settings: As at the start.
        reread: Raises Misconfigured.
        apply: Puts all of them in force; raises Misconfigured or OSError before it changed anything.
        quietly: The parent says for all what was changed.
    """

    def __init__(
        self,
        settings: Settings,
        reread: Callable[[], Settings],
        apply: Callable[[Settings], None],
        *,
        quietly: bool = False,
    ) -> None:
        self.settings = settings
        self._reread = reread
        self._apply = apply
        self._level = logging.DEBUG if quietly else logging.INFO

    def reload(self) -> None:
        """Never raises for what a file or its disk does: it is called from a signal."""
        try:
            tuned = self.settings.tuned(self._reread())
            self._apply(tuned.settings)
        except (Misconfigured, OSError) as error:
            problems = error.problems if isinstance(error, Misconfigured) else [str(error)]
            log.error("settings not reloaded; the old ones stay", extra=fields(problems=problems))
            return
        self.settings = tuned.settings
        log.log(self._level, "settings reloaded", extra=fields(changed=tuned.changed))
        if tuned.kept:
            log.warning("some settings need a restart; their old values stay", extra=fields(settings=tuned.kept))
