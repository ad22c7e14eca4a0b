"""Writes ``docs/lab/matrix.md`` from the lab's matrix: run it after a cell was changed (a tidy test compares them)."""

from __future__ import annotations

from pathlib import Path

from seawall.lab.matrix import page

PAGE = Path(__file__).resolve().parent.parent / "docs" / "lab" / "matrix.md"

if __name__ == "__main__":
    PAGE.write_text(page(), "utf-8")
