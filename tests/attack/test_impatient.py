"""Stopping that is cut short in the midst of traffic: what was answered 2xx is there after the next start."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from seawall.lab.checker import ledger
from seawall.lab.checker.verify import verify
from seawall.lab.platform import Platform
from seawall.lab.tree import Tree
from seawall.store import place

APP = Path(__file__).resolve().parents[2] / "examples" / "demo.py"
READY_S = 90.0
SHORT = """
stop_collector_s = 0.5
stop_router_s = 0.5
stop_worker_s = 0.5
stop_console_s = 0.5
stop_postgres_s = 1.0
"""


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tree]:
    """A platform that may take hardly any time to stop; what one test leaves behind, the next must bear."""
    folder = tmp_path_factory.mktemp("impatient")
    (folder / "short.toml").write_text(SHORT)
    (folder / "short.toml").chmod(0o600)
    options = ("--config", str(folder / "short.toml"))
    with Tree(folder / "data", app=APP, log=folder / "up.log", options=options) as made:
        made.start()
        made.wait_ready(READY_S)
        yield made
    place.forget(folder / "data")


def ended(tree: Tree, *, within_s: float = 40.0) -> None:
    """Wait for the end of `up`."""
    assert tree._up is not None
    tree._up.wait(within_s)


def second_signal(tree: Tree) -> None:
    """Like somebody who presses Ctrl-C again and again."""
    up = tree.pid("up")
    assert up is not None and tree._up is not None
    pause = threading.Event()
    while tree._up.poll() is None:
        os.kill(up, signal.SIGTERM)
        pause.wait(0.02)


def end_of_the_budget(tree: Tree) -> None:
    """Like a stop in which no role does what it is told."""
    stopped = [pid for role in ("collector", "router", "worker") if (pid := tree.pid(role)) is not None]
    for pid in stopped:
        os.kill(pid, signal.SIGSTOP)
    up = tree.pid("up")
    assert up is not None
    os.kill(up, signal.SIGTERM)
    ended(tree)
    for pid in stopped:
        assert not Path(f"/proc/{pid}").exists() or b"seawall" not in Path(f"/proc/{pid}/cmdline").read_bytes()


def end_of_the_supervisors_patience(tree: Tree) -> None:
    """Like a container whose time to stop is over at once: SIGTERM, then SIGKILL for all of them."""
    pids = [pid for part in ("up", "collector", "router", "worker", "console", "postgres") if (pid := tree.pid(part))]
    os.kill(pids[0], signal.SIGTERM)
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
    ended(tree)


@pytest.mark.parametrize(
    "cut_short",
    [
        second_signal,
        *(pytest.param(how, marks=pytest.mark.slow) for how in (end_of_the_budget, end_of_the_supervisors_patience)),
    ],
)
def test_nothing_is_lost_when_stopping_is_cut_short(
    tree: Tree, tmp_path: Path, cut_short: Callable[[Tree], None]
) -> None:
    path = tmp_path / "ledger"
    command = [
        sys.executable, "-m", "seawall", "lab", "traffic", "--rate", "150", "--seconds", "300", "--seed", "5",
        "--ledger", str(path), "--data", str(tree.data), "--json",
    ]  # fmt: skip
    with subprocess.Popen(command, stdout=subprocess.PIPE) as traffic:
        try:
            taking(path)
            cut_short(tree)
            tree.start()
            tree.wait_ready(READY_S)
            taking(path)
        finally:
            traffic.terminate()
            said, _ = traffic.communicate(timeout=60)
    assert traffic.returncode == 0
    with Platform(tree.place) as platform:
        verdict = verify(platform, ledger.read(path), timeout_s=90.0, workflows=("weigh",), must_succeed=True)
    assert verdict.holds, f"{verdict.counts()} {verdict.examples}\n{tree.log_tail(40)}"
    assert verdict.accepted == json.loads(said)["acked"] > 50
    assert verdict.duplicated == 0, verdict.examples
    exits = [line for line in tree.log.read_text().splitlines() if '"exit report"' in line]
    assert all(not json.loads(line).get("lost") for line in exits)


def taking(path: Path) -> None:
    """Wait until some more events were answered 2xx: the ledger has grown."""
    pause, latest = threading.Event(), time.monotonic() + 60
    begun = path.stat().st_size if path.exists() else 0
    while not path.exists() or path.stat().st_size < begun + 20_000:
        assert time.monotonic() < latest, "the traffic isn't taken"
        pause.wait(0.02)
