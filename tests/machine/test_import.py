"""Each process imports what it runs, and no more: five of them start together, on as little as one core."""

from __future__ import annotations

import subprocess
import sys

import pytest

ROLE = "import seawall.cli.run, seawall.app, seawall.machine.role"
UP = (
    "import seawall.cli.up, seawall.app, seawall.machine.up, seawall.migrate.runner, seawall.store.embedded\n"
    "from seawall.settings import read\n"
    "read({}, config=None, environment={})"
)
SERVERS = {"uvicorn", "starlette", "h11"}
ROOMS = {f"seawall.{room}" for room in ("collector", "router", "worker", "responder", "console", "migrate", "workflow")}


def loaded(code: str) -> set[str]:
    done = subprocess.run(
        [sys.executable, "-c", f"{code}\nimport sys; print(*sys.modules)"],
        capture_output=True, text=True, check=True, timeout=60,
    )  # fmt: skip
    return set(done.stdout.split())


@pytest.mark.parametrize(
    ("code", "needless"),
    [
        ("import seawall.cli", {"asyncio", "asyncpg", "seawall.settings"}),
        (ROLE, {*ROOMS, *SERVERS, "seawall.store.embedded", "seawall.store.report", "seawall.machine.up"}),
        (UP, {*SERVERS, "seawall.console.route", "seawall.store.report"}),
    ],
    ids=["help", "a role before it opens", "up"],
)
def test_a_process_imports_no_more_than_it_needs(code: str, needless: set[str]) -> None:
    assert loaded(code) & needless == set()
