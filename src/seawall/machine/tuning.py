"""The settings in force in one process, and how they change while it runs."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from seawall.kernel.error import Misconfigured
from seawall.kernel.log import fields, logger
from seawall.kernel.setting import Difference, Value
from seawall.settings import TOP, Settings, Tuned, load_resolved, read, verify
from seawall.store.dsn import shown

log = logger("machine")


class Tuning:
    """Reads settings again when asked to. What is wrong changes nothing, and what can't change while the process runs
    is named; both are said in the log.

    Args:
        settings: As at the start.
        reread: Raises Misconfigured.
        apply: Puts all of them in force; raises Misconfigured or OSError before it changed anything.
        quietly: The parent says for all what was changed.
        noted: Told what is in force from now on, when anything is.
    """

    def __init__(
        self,
        settings: Settings,
        reread: Callable[[], Settings],
        apply: Callable[[Settings], None],
        *,
        quietly: bool = False,
        noted: Callable[[Sequence[Difference]], None] = lambda changed: None,
    ) -> None:
        self.settings = settings
        self._noted = noted
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
        if taken := [difference for difference in tuned.differences if difference.live]:
            self._noted(taken)
        if tuned.kept:
            log.warning("some settings need a restart; their old values stay", extra=fields(settings=tuned.kept))


def last_settings(resolved: Path, fresh: Settings) -> list[Difference]:
    """What differs from the settings of a platform's last life; [] when nothing tells them. Another store is told by
    its host, port and database, and nothing else of its DSN.

    Args:
        resolved: DIR/run/settings.json. Its store is the one really used; its origin says whether it was given.
    """
    try:
        former = load_resolved(resolved)
    except Misconfigured:
        return []
    found = (_told(one) for one in former.differences(fresh) if one.key not in DSNS.values())
    return [one for one in found if one is not None]


def _told(difference: Difference) -> Difference | None:
    """A difference, with a store in words that may be shown; None: the same store is used as before."""
    if difference.key not in DSNS:
        return difference
    used, then = difference.now, difference.then
    given = "" if used.origin == "default" else str(used.value)
    if given == then.value:
        return None
    before, after = (shown(dsn) if dsn else UNSAID[used.key] for dsn in (given, str(then.value)))
    if before == after:
        after += " (its user, password or options changed)"
    return Difference(replace(used, value=before, secret=False), replace(then, value=after, secret=False))


def reloaded(running: Settings, config: Path) -> Tuned:
    """What a running platform would make of a settings file, were it its own and SIGHUP came now.

    Args:
        running: As it was written for its roles (``Settings.resolved``). Flags and variables that it was started with
            are known by their origin, and stay stronger than any file.

    Raises:
        Misconfigured: The file would be refused, and nothing changed.
    """
    given = {key: value for key, value in running.values.items() if value.origin != "default"}
    values = {key: _given(running, value) for key, value in given.items()}
    flags = {given[key].key: value for key, value in values.items() if given[key].origin.startswith("--")}
    environment = {given[key].origin: _text(value) for key, value in values.items() if _is_variable(given[key])}
    fresh = read(flags, config=config, environment=environment)
    tuned = _as_read(running, fresh).tuned(fresh)
    verify(tuned.settings)
    return tuned


UNSAID = {"dsn": "the embedded PostgreSQL", "worker_dsn": "as dsn"}
"""What is used where no DSN is given."""

DSNS = {"dsn": "dsn_file", "worker_dsn": "worker_dsn_file"}
"""Settings that ``Settings.resolved`` replaces by what is used, and the files that they may come from."""


def _is_variable(value: Value) -> bool:
    return value.origin.startswith("SEAWALL_")


def _given(running: Settings, value: Value) -> Any:
    """A value as it was given: a file of a DSN stands in the DSN's origin."""
    for name, file in DSNS.items():
        if value.key == file:
            return running.values[TOP, name].origin
    return value.value


def _text(value: Any) -> str:
    """As a variable says it."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return ",".join(map(str, value)) if isinstance(value, tuple) else str(value)


def _as_read(running: Settings, fresh: Settings) -> Settings:
    """The running settings as they were read: without the store that was filled in, and with the files of DSNs as they
    are now, since their contents are compared."""
    values = dict(running.values)
    for name, file in DSNS.items():
        if values[TOP, name].origin == "default":
            values[TOP, name] = replace(values[TOP, name], value="")
        values[TOP, file] = fresh.values[TOP, file]
    return Settings(values)
