from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from seawall.testing.postgres import PostgresServer
from seawall.testing.rehearsal import Rehearsal
from seawall.testing.stage import Stage

Rehearse = Callable[..., Rehearsal]


@pytest.fixture(scope="session")
def stage(_shared_server: PostgresServer) -> Iterator[Stage]:
    with Stage(_shared_server) as made:
        yield made


@pytest.fixture
def rehearse(stage: Stage) -> Rehearse:
    return lambda app, **options: Rehearsal(app, stage, **options)
