"""`seawall settings diff` says what SIGHUP would do, as it does it: flags, variables and the real store included."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from seawall.journal.filesystem import LocalFilesystem
from seawall.kernel.error import Misconfigured
from seawall.machine.folder import Folder, Lock
from seawall.machine.tuning import last_settings, reloaded
from seawall.settings import Settings, load_resolved, read

FILE = 'log_level = "info"\n[router]\nbatch_records = 100\n'


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    made = Folder(tmp_path / "data", LocalFilesystem())
    made.prepare()
    made.settings_file.write_text(FILE)
    return made


def running(folder: Folder, flags: dict[str, object] | None = None, **environment: str) -> Settings:
    """As `up` writes down what it runs with, and its roles read it."""
    settings = read(flags or {}, config=folder.settings_file, environment=environment)
    dsn = settings.program.dsn or "postgresql://embedded/seawall"
    folder.resolved_file.write_text(settings.resolved(dsn, settings.program.worker_dsn or dsn))
    return load_resolved(folder.resolved_file)


def differences(folder: Folder, text: str, flags: dict[str, object] | None = None, **environment: str) -> Any:
    config = folder.path / "new.toml"
    config.write_text(text)
    tuned = reloaded(running(folder, flags, **environment), config)
    return [(one.key, one.before, one.after, one.live) for one in tuned.differences]


def test_the_same_file_changes_nothing_wherever_values_come_from(folder: Folder) -> None:
    dsn = folder.path / "dsn"
    dsn.write_text("postgresql://a:secret@b/c\n")
    for flags, environment in (
        ({}, {}),
        ({"listen": "127.0.0.1:0", "app": "x.py"}, {"SEAWALL_LOG_LEVEL": "debug"}),
        ({"dsn_file": str(dsn)}, {}),
        ({}, {"SEAWALL_DSN_FILE": str(dsn), "SEAWALL_COLLECTOR_PROXIES": "10.0.0.0/8,192.0.2.1"}),
        ({}, {"SEAWALL_DSN": "postgresql://b/c", "SEAWALL_WORKER_DSN": "postgresql://w/c"}),
    ):
        assert differences(folder, FILE, flags, **environment) == [], (flags, environment)


def test_each_difference_says_whether_a_reload_takes_it(folder: Folder) -> None:
    found = differences(folder, "[router]\nbatch_records = 7\n[store]\nconnections_max = 9\n")
    assert found == [
        ("store.connections_max", "4", "9", False), ("router.batch_records", "100", "7", True),
    ]  # fmt: skip


def test_what_a_flag_or_a_variable_says_no_file_changes(folder: Folder) -> None:
    found = differences(
        folder, 'log_level = "error"\nlisten = "0.0.0.0:1"\n[router]\nbatch_records = 7\n', {"listen": "127.0.0.1:0"},
        SEAWALL_LOG_LEVEL="debug",
    )  # fmt: skip
    assert found == [("router.batch_records", "100", "7", True)]


def test_another_store_is_a_difference_whose_secret_is_hidden(folder: Folder) -> None:
    file = folder.path / "dsn"
    file.write_text("postgresql://a:hush@b/c\n")
    found = differences(folder, f'{FILE.partition("[")[0]}dsn_file = "{file}"\n[router]\nbatch_records = 100\n')
    assert found == [("dsn", "", "(hidden)", False)]
    folder.settings_file.write_text(f'dsn_file = "{file}"\n')
    now = running(folder)
    file.write_text("postgresql://a:other@b/c\n")
    [one] = reloaded(now, folder.settings_file).differences
    assert (one.key, one.before, one.after) == ("dsn", "(hidden)", "(hidden)")


def test_what_would_be_refused_is_told_with_all_its_problems(folder: Folder) -> None:
    config = folder.path / "new.toml"
    config.write_text("nonsense = 1\n[router]\nbatch_records = -1\n")
    with pytest.raises(Misconfigured) as caught:
        reloaded(running(folder), config)
    assert len(caught.value.problems) == 2


def test_what_changed_between_two_lives_is_known_without_the_store(folder: Folder) -> None:
    running(folder)
    fresh = read({"router.batch_records": 9}, config=folder.settings_file, environment={})
    assert [(one.key, one.before, one.after) for one in last_settings(folder.resolved_file, fresh)] == [
        ("router.batch_records", "100", "9")
    ]
    folder.resolved_file.write_text("{")
    assert last_settings(folder.resolved_file, fresh) == []


def between(folder: Folder, before: dict[str, str], after: dict[str, str]) -> list[tuple[str, str, str]]:
    running(folder, **before)
    fresh = read({}, config=folder.settings_file, environment=after)
    return [(one.key, one.before, one.after) for one in last_settings(folder.resolved_file, fresh)]


def test_another_store_between_two_lives_is_told_without_its_secrets(folder: Folder) -> None:
    one = {"SEAWALL_DSN": "postgresql://me:s3cret@h1:1,h2/d?application_name=s3cret"}
    other = {"SEAWALL_DSN": "postgresql://me:s3cret@h3/d?password=s3cret"}
    embedded = "the embedded PostgreSQL"
    assert between(folder, {}, one) == [("dsn", embedded, "h1:1,h2:5432/d")]
    assert between(folder, one, other) == [("dsn", "h1:1,h2:5432/d", "h3:5432/d")]
    assert between(folder, other, {}) == [("dsn", "h3:5432/d", embedded)]
    assert between(folder, {}, {}) == between(folder, one, one) == []


def test_a_stores_new_password_between_two_lives_is_told_as_such(folder: Folder) -> None:
    file = folder.path / "dsn"
    file.write_text("postgresql://me:s3cret@h/d\n")
    running(folder, SEAWALL_DSN_FILE=str(file))
    moved = folder.path / "moved"
    moved.write_text("postgresql://me:s3cret@h/d\n")
    fresh = read({}, config=folder.settings_file, environment={"SEAWALL_DSN_FILE": str(moved)})
    assert last_settings(folder.resolved_file, fresh) == []
    moved.write_text("postgresql://me:s3cret2@h/d\n")
    fresh = read({}, config=folder.settings_file, environment={"SEAWALL_DSN_FILE": str(moved)})
    [said] = last_settings(folder.resolved_file, fresh)
    assert (said.before, said.after) == ("h:5432/d", "h:5432/d (its user, password or options changed)")


def test_a_workers_own_store_between_two_lives_is_told_too(folder: Folder) -> None:
    both = {"SEAWALL_DSN": "postgresql://h/d", "SEAWALL_WORKER_DSN": "postgresql://w:s3cret@h/d"}
    one = {"SEAWALL_DSN": "postgresql://h/d"}
    assert between(folder, one, both) == [("worker_dsn", "as dsn", "h:5432/d")]
    assert between(folder, both, one) == [("worker_dsn", "h:5432/d", "as dsn")]


def command(folder: Folder, *arguments: str) -> subprocess.CompletedProcess[str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("SEAWALL_")}
    return subprocess.run(
        [sys.executable, "-m", "seawall", "settings", "diff", *arguments, "--data", str(folder.path)],
        capture_output=True, text=True, timeout=60, check=False, env=kept,
    )  # fmt: skip


def test_the_command_says_it_with_its_exit_status(folder: Folder) -> None:
    new = folder.path / "new.toml"
    running(folder)
    lock = Lock(folder.path / "lock")
    lock.acquire()
    try:
        for text, status, said in (
            (FILE, 0, "nothing would change"),
            ("[router]\nbatch_records = 7\n", 0, "reload"),
            ("[store]\nconnections_max = 9\n", 1, "restart"),
            ("nonsense = 1\n", 2, ""),
        ):
            new.write_text(text)
            done = command(folder, str(new))
            assert (done.returncode, said in done.stdout) == (status, True), (text, done)
        assert "nonsense: unknown" in done.stderr
        done = command(folder, str(new), "--json")
        found = json.loads(done.stdout)
        assert (done.returncode, found["accepted"], found["running"], len(found["problems"])) == (2, False, True, 1)
    finally:
        lock.release()
    new.write_text("[store]\nconnections_max = 9\n")
    found = json.loads(command(folder, str(new), "--json").stdout)
    assert found["running"] is False
    assert {one["key"]: one["takes"] for one in found["changes"]} == {
        "store.connections_max": "restart", "router.batch_records": "reload",
    }  # fmt: skip
    assert command(folder, str(folder.path / "no.toml")).returncode == 2
