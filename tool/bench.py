"""Runs every ``bench/*.py`` in order of name and writes ``build/bench.json``.

A benchmark is a program of its own: it prints what a person wants to read, and to the file named by ``BENCH_RESULT`` it
writes a JSON list of ``{name, value, unit, bound, holds}``. A benchmark that fails, or writes nothing, counts as a
row that doesn't hold: silence is never a good figure.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
BENCH_SECONDS_MAX = 900


def main(names: list[str]) -> int:
    scripts = [p for p in sorted((ROOT / "bench").glob("*.py")) if not names or p.stem in names]
    scripts = [p for p in scripts if not p.stem.startswith("_")]
    if not scripts:
        print("bench: there is no benchmark of that name in bench/", file=sys.stderr)
        return 2
    rows: list[dict[str, Any]] = []
    for script in scripts:
        print(f"\n── {script.stem} " + "─" * (100 - len(script.stem)), flush=True)
        rows += _run(script)
    (ROOT / "build").mkdir(exist_ok=True)
    (ROOT / "build" / "bench.json").write_text(json.dumps(rows, indent=1) + "\n")
    return _summary(rows)


def _run(script: Path) -> list[dict[str, Any]]:
    """The rows of one benchmark, or one row that says that it failed."""
    with tempfile.TemporaryDirectory(prefix="seawall-bench-") as folder:
        result = Path(folder) / "result.json"
        environment = {**os.environ, "BENCH_RESULT": str(result)}
        try:
            done = subprocess.run(
                [sys.executable, str(script)], cwd=ROOT, env=environment, timeout=BENCH_SECONDS_MAX, check=False
            )
            if done.returncode != 0:
                return [_failed(script, f"ended with status {done.returncode}")]
            rows: list[dict[str, Any]] = json.loads(result.read_text())
        except subprocess.TimeoutExpired:
            return [_failed(script, f"took more than {BENCH_SECONDS_MAX} s")]
        except (OSError, ValueError) as error:
            return [_failed(script, f"left no readable result: {error}")]
    return rows or [_failed(script, "measured nothing")]


def _failed(script: Path, why: str) -> dict[str, Any]:
    return {"name": script.stem, "value": None, "unit": "", "bound": why, "holds": False}


def _summary(rows: list[dict[str, Any]]) -> int:
    print("\n── all figures " + "─" * 90)
    for row in rows:
        sign = "holds" if row["holds"] else "FAILS" if row["holds"] is False else "     "
        value = f"{row['value']:,.4g}" if isinstance(row["value"], (int, float)) else "-"
        print(f"{sign}  {row['name']:60} {value:>12} {row['unit']:16} {row['bound'] or ''}")
    broken = sum(row["holds"] is False for row in rows)
    print(f"\n{len(rows)} figures, {broken} out of bounds; build/bench.json")
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
