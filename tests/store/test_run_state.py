"""What makes a run ready says what becomes of one that stood in a line: let go past it, it would exceed its limit."""

from __future__ import annotations

import re
from importlib.resources import files

from seawall.store.statement import statements

MAKES_READY = re.compile(r"update run\b.*?\bset\b(?:(?!\bwhere\b).)*?\bstate = (?:0|case)", re.DOTALL)


def test_every_statement_that_makes_runs_ready_looks_at_their_line() -> None:
    nouns = [
        path.name[:-4] for path in files("seawall.store").joinpath("query").iterdir() if path.name.endswith(".sql")
    ]
    found = {(noun, name): sql for noun in nouns for name, sql in statements(noun).items() if MAKES_READY.search(sql)}
    assert {("worker", "wake"), ("wait", "wake_heard"), ("line", "settle"), ("bulk", "release")} <= found.keys()
    # A flush leaves a run ready that was woken while it was in hand: it was let in, and has kept its place since.
    blind = {place for place, sql in found.items() if not re.search(r"\bline\b", sql)} - {("worker", "flush")}
    assert not blind, f"{blind}: a run with a line goes back into it (state 3), or loses its keys"
