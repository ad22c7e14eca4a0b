"""Writes ``docs/metrics.md`` from the code: run it after a metric was added (a tidy test compares the two)."""

from __future__ import annotations

import ast
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "src" / "seawall"
ROOMS = (
    "guard",
    "collector",
    "cache",
    "journal",
    "router",
    "store",
    "worker",
    "step",
    "responder",
    "watch",
    "console",
    "machine",
)
HEAD = """# Metrics

Each role serves its own at `/metrics` of its socket `DIR/run/ROLE.sock`; the admin address serves those of all roles. A
name ends in its unit, and `_total` only grows. Written by `tool/metrics.py`; a test compares this page with the code.
"""


def main() -> None:
    found: dict[str, dict[str, str]] = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        room = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and (line := _line(node)) is not None:
                found.setdefault(room, {})[line.split("`")[1]] = line
    parts = [HEAD]
    for room in (*ROOMS, *sorted(found.keys() - set(ROOMS))):
        if room in found:
            rows = "\n".join(found[room][name] for name in sorted(found[room]))
            parts.append(f"## {room}\n\n| name | labels | what it says |\n|---|---|---|\n{rows}\n")
    (ROOT / "docs" / "metrics.md").write_text("\n".join(parts))


def _line(call: ast.Call) -> str | None:
    """A row of the table, when the call makes a metric: its name, then its help, then its labels."""
    texts = [a.value for a in call.args[:2] if isinstance(a, ast.Constant) and isinstance(a.value, str)]
    if len(texts) < 2 or not texts[0].startswith("seawall_") or not texts[1]:
        return None  # without a help it is another room's, which is only read here
    labels = ", ".join(f"`{k.arg}`" for k in call.keywords if k.arg)
    return f"| `{texts[0]}` | {labels} | {texts[1]} |"


if __name__ == "__main__":
    main()
