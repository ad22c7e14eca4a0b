"""kill -9 of a writing process, at any moment: everything that it acknowledged is there."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from disk_rig import Said, WriterProcess, compare, read


def kill_again_and_again(folder: Path, *, seed: int, kills: int) -> int:
    """Returns how many records were acknowledged."""
    rng = random.Random(seed)
    said = Said()
    first = 0
    for _ in range(kills):
        with WriterProcess(folder, first=first) as writer:
            writer.read_until(rng.randint(1, 3000))
            writer.kill()
        for mine, its in zip(
            (said.kept, said.unsure, said.refused),
            (writer.said.kept, writer.said.unsure, writer.said.refused),
            strict=True,
        ):
            mine |= its
        first += 1_000_000
        compare(said, read(folder))
    return len(said.kept)


def test_killed_writers_lose_nothing_that_they_acknowledged(tmp_path: Path) -> None:
    assert kill_again_and_again(tmp_path / "c1", seed=1, kills=3) > 3


@pytest.mark.soak
def test_a_hundred_killed_writers_lose_nothing(tmp_path: Path) -> None:
    for seed in range(10):
        kill_again_and_again(tmp_path / f"c{seed}", seed=seed, kills=10)
