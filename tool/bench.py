"""Runs every benchmark in ``bench/`` in order of name, and leaves ``build/bench.json`` with this run's rows only.

A benchmark is a program that a newcomer can read; it prints its figures and publishes them through ``bench/result.py``.
One that fails, hangs or publishes nothing counts as a row that doesn't hold: silence is never a good figure.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
PLACE = ROOT / "build" / "bench.json"
BENCH_SECONDS_MAX = 900
ONLY_NAMED = ("peers",)
"""Benchmarks that install what they measure: nobody wants that unasked."""


def main(names: list[str]) -> int:
    scripts = [p for p in sorted((ROOT / "bench").glob("*.py")) if "__main__" in p.read_text()]
    scripts = [p for p in scripts if (p.stem in names if names else p.stem not in ONLY_NAMED)]
    if not scripts:
        print("bench: there is no benchmark of that name in bench/", file=sys.stderr)
        return 2
    PLACE.parent.mkdir(exist_ok=True)
    PLACE.unlink(missing_ok=True)
    failed: list[dict[str, Any]] = []
    for script in scripts:
        print(f"\n── {script.stem} " + "─" * (100 - len(script.stem)), flush=True)
        before = len(_rows())
        why = _run(script)
        if not why and len(_rows()) == before:
            why = "published nothing"
        if why:
            print(f"bench: {script.stem} {why}", file=sys.stderr)
            failed.append({"name": script.stem, "value": 0.0, "unit": "", "bound": why, "holds": False})
    rows = _rows() + failed
    PLACE.write_text(json.dumps(rows, indent=1) + "\n")
    broken = [row["name"] for row in rows if row["holds"] is False]
    print(f"\n{len(rows)} figures in build/bench.json; {len(broken)} out of bounds", *broken)
    return 1 if broken else 0


def _rows() -> list[dict[str, Any]]:
    try:
        rows: list[dict[str, Any]] = json.loads(PLACE.read_text())
    except FileNotFoundError:
        return []
    return rows


def _run(script: Path) -> str:
    """Why it failed, or "" when it didn't."""
    try:
        done = subprocess.run([sys.executable, str(script)], cwd=ROOT, timeout=BENCH_SECONDS_MAX, check=False)
    except subprocess.TimeoutExpired:
        return f"took more than {BENCH_SECONDS_MAX} s"
    return f"ended with status {done.returncode}" if done.returncode else ""


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
