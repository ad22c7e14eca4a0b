"""The fixture of rehearsals. A project's ``conftest.py`` has one line::

from seawall.testing.plugin import rehearse, rehearsal_stage  # noqa: F401
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from seawall.testing.rehearsal import Rehearsal
from seawall.testing.stage import Stage


@pytest.fixture(scope="session")
def rehearsal_stage() -> Iterator[Stage]:
    """One PostgreSQL for the whole session."""
    with Stage() as stage:
        yield stage


@pytest.fixture
def rehearse(rehearsal_stage: Stage) -> Callable[..., Rehearsal]:
    """``async with rehearse(app) as rehearsal:``; further arguments are those of `Rehearsal`."""

    def make(*args: object, **options: object) -> Rehearsal:
        return Rehearsal(args[0], rehearsal_stage, **options)  # type: ignore[arg-type]

    return make
