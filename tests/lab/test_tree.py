"""The lab signals only processes that it can prove to be its platform's."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from seawall.kernel.error import Unavailable
from seawall.lab.tree import Tree, _start


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    (tmp_path / "run").mkdir()
    return Tree(tmp_path, app=tmp_path / "app.py", log=tmp_path / "log")


@pytest.fixture
def process() -> Iterator[subprocess.Popen[bytes]]:
    """A process that was told to be a router, as far as its arguments say."""
    command = [sys.executable, "-c", "input(print('here', flush=True))", "run", "router"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as made:
        assert made.stdout is not None
        made.stdout.readline()  # for a moment after it was begun it has no arguments yet
        yield made
        made.kill()


def _write(tree: Tree, role: str, pid: int, start: str) -> None:
    (tree.data / "run" / f"{role}.lock").write_text(json.dumps({"pid": pid, "start": start}))


def test_a_role_is_found_by_its_lock_file(tree: Tree, process: subprocess.Popen[bytes]) -> None:
    _write(tree, "router", process.pid, _start(process.pid))
    assert tree.pid("router") == process.pid


def test_a_number_that_was_given_to_another_process_is_not_it(tree: Tree, process: subprocess.Popen[bytes]) -> None:
    _write(tree, "router", process.pid, "1")
    assert tree.pid("router") is None


def test_an_up_that_holds_a_roles_lock_for_a_moment_is_not_the_role(
    tree: Tree, process: subprocess.Popen[bytes]
) -> None:
    _write(tree, "worker", process.pid, _start(process.pid))
    assert tree.pid("worker") is None


def test_a_dead_process_is_nobody(tree: Tree, process: subprocess.Popen[bytes]) -> None:
    _write(tree, "router", process.pid, _start(process.pid))
    process.kill()
    process.wait()
    assert tree.pid("router") is None
    with pytest.raises(Unavailable, match="isn't running"):
        tree.kill("router")


def test_a_postgres_that_works_elsewhere_is_not_ours(tree: Tree) -> None:
    data = tree.data / "postgres" / "data"
    data.mkdir(parents=True)
    (tree.data / "postgres.where").write_text(json.dumps({"place": "postgres"}))
    (data / "postmaster.pid").write_text(f"{os.getpid()}\n")
    assert tree.pid("postgres") is None


def test_a_folder_where_nothing_runs_says_so(tree: Tree) -> None:
    with pytest.raises(Unavailable, match="doesn't say where it is"):
        tree.place()
    assert "doesn't say where it is" in tree.unready()
    tree.stop()


def test_no_variable_leads_the_labs_platform_to_somebodys_own(tree: Tree, monkeypatch: pytest.MonkeyPatch) -> None:
    """Variables count more than files: with the DSN of production in a shell, the lab would have broken that."""
    for name in (
        "SEAWALL_DSN",
        "SEAWALL_DSN_FILE",
        "SEAWALL_CACHE_URL",
        "SEAWALL_KAFKA_BOOTSTRAP",
        "PGHOST",
        "PGSERVICE",
    ):
        monkeypatch.setenv(name, "production")
    monkeypatch.setenv("SEAWALL_PG_BIN", "/opt/postgres")
    monkeypatch.setenv("HOME", "/home/me")
    monkeypatch.setattr(tree, "_command", ["env"])
    tree.start()
    assert tree._up is not None and tree._up.wait(30) == 0
    said = tree.log.read_text()
    assert "production" not in said and "SEAWALL_PG_BIN=/opt/postgres" in said and "HOME=/home/me" in said
