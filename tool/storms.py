"""Keeps the figures of storms in bench/RESULTS.md: what ``seawall lab storm --seeds N --json`` said, in one table.

python tool/storms.py build/storms.json
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

PAGE = Path(__file__).resolve().parents[1] / "bench" / "RESULTS.md"
BEGIN, END = "<!-- storms: written by tool/storms.py -->", "<!-- end of storms -->"
WORDS = ("accepted", "recovered", "held", "repeated", "duplicated", "unknown", "corrupted", "invented", "lost")

Run = Mapping[str, Any]


def block(runs: Sequence[Run]) -> str:
    """What stands between the marks."""
    count: Counter[str] = Counter()
    for run in runs:
        count.update({word: run["verdict"].get(word, 0) for word in WORDS})
    seeds = [run["seed"] for run in runs]
    good = sum(run["as_expected"] for run in runs)
    times = sorted(run["recover_s"] for run in runs if run["recover_s"] is not None)
    rows = [
        ("storms", f"{len(runs)}, seeds {min(seeds)} to {max(seeds)}"),
        ("as expected", f"{good}"),
        ("faults", f"{sum(len(run['faults']) for run in runs)}"),
        *((word, f"{count[word]:,}") for word in WORDS if count[word] or word in ("invented", "lost")),
        ("lost at most, of a million, with 95 % confidence (3/n)", _bound(runs, count)),
        ("steady again after the last fault, median and most", _times(times)),
    ]
    others = [
        f"- seed {run['seed']}: {run['status']}: {'; '.join(run['why'])}" for run in runs if not run["as_expected"]
    ]
    lines = [
        BEGIN, f"## Storms ({runs[0]['began'][:10]})", "",
        f"`{runs[0]['command']}` and the next seeds: [what they break](../docs/lab/storm.md).", "",
        "| figure | measured |", "|---|---|", *(f"| {name} | {said} |" for name, said in rows),
        *(["", *others] if others else []), END,
    ]  # fmt: skip
    return "\n".join(lines) + "\n"


def _bound(runs: Sequence[Run], count: Counter[str]) -> str:
    """Of no storm that wasn't judged to its end: nobody looked is not nothing was lost."""
    if count["lost"]:
        return "some were lost"
    if count["unknown"] or any(run["status"] not in ("as_expected", "not_as_expected") for run in runs):
        return "unknown: not every storm was judged to its end"
    return f"{3e6 / count['accepted']:.1f}" if count["accepted"] else "unknown"


def _times(times: Sequence[float]) -> str:
    return f"{times[len(times) // 2]:.1f} s, {times[-1]:.1f} s" if times else "unknown"


def replaced(text: str, new: str) -> str:
    """The page with the block, at its end when it has none yet."""
    if BEGIN not in text:
        return f"{text.rstrip()}\n\n{new}"
    before, _, rest = text.partition(BEGIN)
    return before + new + rest.partition(END + "\n")[2]


def main() -> int:
    runs = json.loads(Path(sys.argv[1]).read_text("utf-8"))["runs"]
    if not runs:
        print("no storms were run", file=sys.stderr)
        return 1
    PAGE.write_text(replaced(PAGE.read_text("utf-8"), block(runs)), "utf-8")
    print(block(runs))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
