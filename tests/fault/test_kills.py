"""``kill -9`` of any process at any instant loses, invents and corrupts nothing: random storms, each from one seed.

The ledger of an open-loop sender is the witness. A failing seed runs again alone with
``SEAWALL_TEST_SEED=n make test ARGS="tests/fault/test_kills.py"``.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from seawall.kernel.error import Unavailable
from seawall.lab.checker import ledger
from seawall.lab.checker.verify import verify
from seawall.lab.platform import Platform
from seawall.lab.tree import PARTS, Tree
from seawall.store import place

APP = Path(__file__).resolve().parents[2] / "examples" / "demo.py"
SEEDS = [int(os.environ["SEAWALL_TEST_SEED"])] if "SEAWALL_TEST_SEED" in os.environ else [1, 2, 3]
SOAK_SEEDS = range(1000, 1000 + int(os.environ.get("SEAWALL_TEST_SEEDS", "100")))
READY_S = 90.0
DRAIN_S = 90.0


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tree]:
    """One platform for all storms: what one leaves behind, the next must bear."""
    folder = tmp_path_factory.mktemp("kills")
    with Tree(folder / "data", app=APP, log=folder / "up.log") as made:
        made.start()
        made.wait_ready(READY_S)
        yield made
    place.forget(folder / "data")


def _kill_something(tree: Tree, chance: random.Random) -> list[str]:
    """Kill one part, or two at once; those that were there to be killed."""
    killed = []
    for part in chance.sample(PARTS, chance.choice([1, 1, 1, 2])):
        try:
            tree.kill(part)
        except Unavailable:
            continue
        killed.append(part)
        if part == "up":
            tree.start()
    return killed


def _until_it_sends(traffic: subprocess.Popen[bytes], ledger: Path) -> None:
    latest = time.monotonic() + READY_S
    while traffic.poll() is None and not (ledger.exists() and ledger.stat().st_size):
        assert time.monotonic() < latest, "the traffic doesn't begin"
        time.sleep(0.02)


def _storm(tree: Tree, path: Path, seed: int) -> None:
    chance = random.Random(seed)
    command = [
        sys.executable, "-m", "seawall", "lab", "traffic", "--rate", "150", "--seconds", "300", "--seed", str(seed),
        "--ledger", str(path), "--data", str(tree.data), "--json",
    ]  # fmt: skip
    tree.wait_ready(READY_S)
    with subprocess.Popen(command, stdout=subprocess.PIPE) as traffic:
        try:
            _until_it_sends(traffic, path)
            killed = []
            for _ in range(chance.randint(2, 4)):
                time.sleep(chance.uniform(0.3, 2.5))  # the instant is what is random here
                killed += _kill_something(tree, chance)
            tree.wait_ready(READY_S)
        finally:
            traffic.terminate()
            said, _ = traffic.communicate(timeout=60)
    assert traffic.returncode == 0, f"seed {seed}: the traffic ended with {traffic.returncode}"
    with Platform(tree.place) as platform:
        verdict = verify(platform, ledger.read(path), timeout_s=DRAIN_S, workflows=("weigh",), must_succeed=True)
    assert verdict.holds, f"seed {seed}, killed {killed}: {verdict.counts()} {verdict.examples}\n{tree.log_tail(40)}"
    assert verdict.accepted == json.loads(said)["acked"] > 50, f"seed {seed}: hardly anything was accepted"
    assert verdict.duplicated == 0, f"seed {seed}: {verdict.examples}"


@pytest.mark.parametrize("seed", [SEEDS[0], *(pytest.param(seed, marks=pytest.mark.slow) for seed in SEEDS[1:])])
def test_nothing_is_lost_whatever_is_killed(tree: Tree, tmp_path: Path, seed: int) -> None:
    _storm(tree, tmp_path / "ledger", seed)


@pytest.mark.soak
@pytest.mark.parametrize("seed", SOAK_SEEDS)
def test_nothing_is_lost_in_many_storms(tree: Tree, tmp_path: Path, seed: int) -> None:
    _storm(tree, tmp_path / "ledger", seed)
