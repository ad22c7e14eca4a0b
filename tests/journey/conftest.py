"""Whole platforms, as a user starts them."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from journey.program import APP, READY_S
from seawall.lab.tree import Tree


@contextlib.contextmanager
def _home() -> Iterator[Path]:
    """A folder of our own that PostgreSQL's user can pass through, also when we are root."""
    made = Path(tempfile.mkdtemp(prefix="seawall-journey-"))
    made.chmod(0o711)
    yield made
    shutil.rmtree(made, ignore_errors=True)


@pytest.fixture
def home() -> Iterator[Path]:
    """A folder of the test's own."""
    with _home() as made:
        yield made


@pytest.fixture(scope="module")
def shared() -> Iterator[Tree]:
    """A platform for all tests that leave it running as it was; each makes sources of its own."""
    with _home() as home:
        (home / "app.py").write_text(APP)
        with Tree(home / "data", app=home / "app.py", log=home / "log") as tree:
            tree.start()
            tree.wait_ready(READY_S)
            yield tree


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
