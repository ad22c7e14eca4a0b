"""Whole platforms, as a user starts them."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from journey.program import APP, READY_S
from seawall.lab.tree import Tree


@pytest.fixture
def home() -> Iterator[Path]:
    """A folder of the test's own that PostgreSQL's user can pass through, also when we are root."""
    made = Path(tempfile.mkdtemp(prefix="seawall-journey-"))
    made.chmod(0o711)
    yield made
    shutil.rmtree(made, ignore_errors=True)


@pytest.fixture
def start(home: Path) -> Iterator[Callable[..., Tree]]:
    """Starts platforms; all are stopped at the end."""
    trees: list[Tree] = []

    def started(name: str = "data", *, app: str = APP, options: tuple[str, ...] = (), wait: bool = True) -> Tree:
        file = home / f"{name}.py"
        file.write_text(app)
        tree = Tree(home / name, app=file, log=home / f"{name}.log", options=options)
        trees.append(tree)
        tree.start()
        if wait:
            tree.wait_ready(READY_S)
        return tree

    yield started
    for tree in trees:
        tree.stop()
