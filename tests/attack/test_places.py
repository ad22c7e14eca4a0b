"""What no attack on the wire could show: how secrets are compared, and how long keys are remembered."""

from __future__ import annotations

import ast
from dataclasses import fields

from seawall.collector.duplicate import WINDOW_US
from seawall.collector.setting import choice
from seawall.kernel import limit
from seawall.kernel.signature import DEFAULT, KINDS
from seawall.router import Settings
from tidy.source import modules

WORDS = {"digest", "secret", "expected", "given", "signature", "token"}


def _leaks_time(node: ast.AST) -> bool:
    """``==`` or ``!=`` over what only the sender's secret gives, with no constant on either side."""
    if not isinstance(node, ast.Compare) or not isinstance(node.ops[0], ast.Eq | ast.NotEq):
        return False
    sides = (node.left, *node.comparators)
    named = {part.id for side in sides for part in ast.walk(side) if isinstance(part, ast.Name)}
    return not any(isinstance(side, ast.Constant) for side in sides) and not WORDS.isdisjoint(named)


def test_digests_and_tokens_are_compared_in_constant_time() -> None:
    kinds = {m.name.rpartition(".")[2]: m for m in modules() if m.name.startswith("seawall.kernel.signature.")}
    for kind in KINDS:
        found = kinds[kind.replace("-", "_")]
        calls = {n.func.id for n in ast.walk(found.tree) if isinstance(n, ast.Call) and isinstance(n.func, ast.Name)}
        assert "compare_digest" in calls or not KINDS[kind].has_secret, kind
    [console] = [m for m in modules() if m.name == "seawall.console.route"]
    assert "hmac.compare_digest(token" in console.text
    [links] = [m for m in modules() if m.name == "seawall.kernel.approval"]
    assert "hmac.compare_digest(mac" in links.text
    for m in (*kinds.values(), console, links):
        leaks = [m.at(node.lineno) for node in ast.walk(m.tree) if isinstance(node, ast.Compare) and _leaks_time(node)]
        assert leaks == []


def test_keys_are_remembered_longer_than_any_replay_window() -> None:
    """Else a request recorded at the window's beginning would be a new event before its end."""
    widest = f'{{"signature":{{"tolerance_s":{limit.REPLAY_S_MAX}}}}}'
    assert choice(widest).signature.tolerance_s == limit.REPLAY_S_MAX >= DEFAULT.tolerance_s
    [window] = [f for f in fields(Settings) if f.name == "dedupe_window_s"]
    assert window.metadata["min"] >= 2 * limit.REPLAY_S_MAX
    assert window.metadata["min"] * 1_000_000 >= WINDOW_US, "and the collector's memory is no longer than the store's"
