"""SIGHUP: every role, as `app.py` joins it, takes each live setting over everywhere at once, and goes on."""

from __future__ import annotations

import asyncio
import gc
import inspect
import logging
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from seawall.app import ROLES, Making
from seawall.guard import Supervisor
from seawall.guard.panel import Panel
from seawall.guard.shed import ShedList
from seawall.journal.filesystem import LocalFilesystem
from seawall.kernel.alert import Alerts
from seawall.kernel.clock import SystemClock
from seawall.kernel.error import Misconfigured
from seawall.kernel.metric import Metrics
from seawall.kernel.setting import Field, fields_of
from seawall.machine.claim import bound
from seawall.machine.folder import Folder
from seawall.machine.role import Site
from seawall.machine.tuning import Tuning
from seawall.settings import Settings, _rooms, read
from seawall.testing.postgres import Database

APP = """
from seawall import App
app = App()
@app.workflow(on="x")
async def nothing(event, ctx): ...
"""
LIVE = {"collector": ("journal", "responder", "collector"), "router": ("router", "housekeeping"),
        "worker": ("worker",), "console": ("console", "watch")}  # fmt: skip
"""Rooms of each role whose settings change while it runs."""


def other(field: Field) -> Any:
    """An allowed value that isn't the default."""
    low = field.low if field.low is not None else field.default / 2
    return field.kind(low if low != field.default else field.high)


def changed(settings: Settings) -> Settings:
    """Every live number is another one."""
    values = dict(settings.values)
    for section, kind in _rooms().items():
        for name, field in fields_of(kind).items():
            if field.live and field.kind in (int, float):
                values[section, name] = replace(values[section, name], value=other(field))
    return Settings(values)


def test_each_section_with_a_live_setting_is_reloaded_by_some_role() -> None:
    with_live = {s for s, kind in _rooms().items() if any(f.live for f in fields_of(kind).values())}
    assert with_live == {section for sections in LIVE.values() for section in sections}


@pytest.mark.parametrize("role", list(LIVE))
async def test_nothing_in_a_role_goes_on_with_old_limits(role: str, tmp_path: Path, database: Database) -> None:
    file = tmp_path / "app.py"
    file.write_text(APP)
    flags = {"dsn": database.dsn, "worker_dsn": database.worker_dsn, "app": str(file)}
    settings = read(flags, config=None, environment={})
    folder = Folder(tmp_path / "data", LocalFilesystem())
    folder.prepare()
    kinds = tuple(_rooms()[section] for section in LIVE[role])
    before = {id(one): one for one in living(kinds)}
    metrics = Metrics()
    supervisor = Supervisor(metrics)
    site = Site(
        settings=settings, folder=folder, metrics=metrics, supervisor=supervisor,
        alerts=(alerts := Alerts(metrics, SystemClock())), panel=Panel(),
        shed=ShedList(clock=SystemClock(), metrics=metrics, alerts=alerts),
        socket=bound("listen", "127.0.0.1:0") if role in ("collector", "console") else None,
    )  # fmt: skip
    async with ROLES[role](site, Making()) as opened, supervisor:
        await until(lambda: all(one.ready for one in supervisor.health()))
        fresh = settings.tuned(changed(settings)).settings
        opened.reload(fresh)
        wanted = {kind: fresh.of(section, kind) for section, kind in zip(LIVE[role], kinds, strict=True)}
        restarts = {one.name: one.restarts for one in supervisor.health()}

        def holders() -> list[str]:
            gc.unfreeze()  # the worker keeps what it began with from being looked at
            old = [one for one in living(kinds) if id(one) not in before and one != wanted[type(one)]]
            return [describe(holder) for one in old for holder in gc.get_referrers(one) if is_room(holder, old)]

        for _ in range(20):  # until loops that read them once a round have gone round
            await asyncio.sleep(0.5)
            if not (found := holders()):
                break
        assert not found, found
        await until(lambda: all(one.ready for one in supervisor.health() if one.essential))
        assert {one.name: one.restarts for one in supervisor.health()} == restarts


def living(kinds: tuple[type[Any], ...]) -> list[Any]:
    return [one for one in gc.get_objects() if type(one) in kinds]


def is_room(holder: object, mine: list[Any]) -> bool:
    """Not this test, and not the composition root, whose functions only hand settings on."""
    composing = inspect.isasyncgen(holder) and holder.ag_code.co_name in LIVE
    return holder is not mine and not composing and not inspect.isframe(holder) and not isinstance(holder, list)


def describe(holder: object) -> str:
    return f"{type(holder).__module__}.{type(holder).__qualname__} {holder!r:.200}"


async def until(true: Callable[[], bool], timeout_s: float = 20.0) -> None:
    async with asyncio.timeout(timeout_s):
        while not true():
            await asyncio.sleep(0.01)


# ── One process's settings ───────────────────────────────────────────────────────────────────────────────────────────


class Lines(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[str, dict[str, Any]]] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.seen.append((record.getMessage(), getattr(record, "seawall", {})))


@pytest.fixture
def lines() -> Iterator[Lines]:
    handler, logger = Lines(), logging.getLogger("seawall.machine")
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel("INFO")
    yield handler
    logger.removeHandler(handler)
    logger.setLevel(level)


def with_file(tmp_path: Path, text: str) -> Settings:
    file = tmp_path / "seawall.toml"
    file.write_text(text)
    return read({}, config=file, environment={})


def test_live_settings_are_applied_and_others_are_named(tmp_path: Path, lines: Lines) -> None:
    old = read({}, config=None, environment={})
    fresh = with_file(tmp_path, 'log_level = "debug"\nlisten = "127.0.0.1:1"\n[collector]\nhead_s = 3\n')
    applied: list[Settings] = []
    tuning = Tuning(old, lambda: fresh, applied.append)
    tuning.reload()
    assert tuning.settings is applied[0]
    assert applied[0].program.log_level == "debug" and applied[0].program.listen == old.program.listen
    assert lines.seen == [
        ("settings reloaded", {"changed": ["log_level = debug", "collector.head_s = 3.0"]}),
        ("some settings need a restart; their old values stay", {"settings": ["listen"]}),
    ]
    tuning.reload()
    assert lines.seen[2:] == [
        ("settings reloaded", {"changed": []}),
        ("some settings need a restart; their old values stay", {"settings": ["listen"]}),
    ]


@pytest.mark.parametrize("error", [Misconfigured(["seawall.toml:1: bad"]), OSError("no disk")])
def test_a_bad_file_or_disk_keeps_the_old_settings_and_says_so(error: Exception, lines: Lines) -> None:
    old = read({}, config=None, environment={})

    def broken() -> Settings:
        raise error

    applied: list[Settings] = []
    tuning = Tuning(old, broken, applied.append)
    tuning.reload()
    assert tuning.settings is old and not applied
    assert [message for message, _ in lines.seen] == ["settings not reloaded; the old ones stay"]


def test_a_secret_that_changed_is_named_and_not_shown() -> None:
    old = read({}, config=None, environment={})
    tuned = old.tuned(read({"dsn": "postgresql://u:hunter2@h/d"}, config=None, environment={}))
    assert tuned.kept == ["dsn"] and "hunter2" not in str(tuned.changed)
