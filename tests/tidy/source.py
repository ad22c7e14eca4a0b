"""The project's own files, read once, for the tidy tests. Every finding is one line: ``file:line what; cure``."""

from __future__ import annotations

import ast
import io
import re
import subprocess
import tokenize
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "src" / "seawall"


@dataclass(frozen=True)
class Module:
    """One Python file of the product."""

    path: Path
    name: str  # dotted: seawall.store.pool
    text: str
    tree: ast.Module
    comments: dict[int, str] = field(default_factory=dict)  # line number -> comment

    @property
    def room(self) -> str:
        """``store`` of seawall.store.pool; a single file of the top level is a room of its own; "" is the root."""
        parts = self.name.split(".")
        return parts[1] if len(parts) > 1 else ""

    def at(self, line: int) -> str:
        return f"{self.path.relative_to(ROOT)}:{line}"


@cache
def modules() -> tuple[Module, ...]:
    """Every module of ``src/seawall``, in order of path."""
    return tuple(_read(path) for path in sorted(PACKAGE.rglob("*.py")))


def _read(path: Path) -> Module:
    text = path.read_text("utf-8")
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
    tokens = tokenize.generate_tokens(io.StringIO(text).readline)
    comments = {t.start[0]: t.string for t in tokens if t.type == tokenize.COMMENT}
    return Module(path, name, text, ast.parse(text), comments)


@cache
def tracked() -> tuple[Path, ...]:
    """Files under version control, and new ones that nobody ignores; all files where there is no git."""
    command = ["git", "-c", "safe.directory=*", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, check=False)
    if done.returncode != 0:
        ours = (ROOT / n for n in ("src", "tests", "docs", "examples", "bench", "tool", "requirements"))
        return tuple(p for folder in ours for p in sorted(folder.rglob("*")) if p.is_file())
    paths = (ROOT / name for name in done.stdout.decode().split("\0") if name)
    return tuple(p for p in paths if p.is_file())


def functions(module: Module) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    for node in ast.walk(module.tree):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            yield node


def body_lines(node: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Lines of a function's body, without its signature and its docstring."""
    body = node.body
    if (
        isinstance(body[0], ast.Expr)
        and isinstance(body[0].value, ast.Constant)
        and isinstance(body[0].value.value, str)
    ):
        body = body[1:]
    return (node.end_lineno or 0) - body[0].lineno + 1 if body else 0


def docstrings(tree: ast.Module) -> set[int]:
    """Ids of the constants that are docstrings, so that prose isn't taken for code."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            found.add(id(node.value))
    return found


def report(findings: list[str], rule: str) -> str:
    """The message of a failed test."""
    return f"{rule}\n  " + "\n  ".join(findings)


def names_of_tests(path: Path) -> set[str]:
    """Names of the tests of one file."""
    return set(re.findall(r"^(?:async )?def (test_\w+)\(", path.read_text(), re.MULTILINE))


def untested(page: str) -> tuple[set[str], list[str]]:
    """The tests that a page of docs/ names (``room/test_it.py::test_this``), and what is wrong with it: those that
    aren't there, and rows of its tables that name none."""
    text = (ROOT / "docs" / page).read_text()
    named = set(re.findall(r"`([\w/]+\.py::test_\w+)`", text))
    findings = []
    for path, _, name in (one.partition("::") for one in sorted(named)):
        if not (ROOT / "tests" / path).exists() or name not in names_of_tests(ROOT / "tests" / path):
            findings.append(f"docs/{page}:1 names {path}::{name}, which isn't there")
    # A row without a test is a promise that nobody has checked.
    rows = [
        line for line in text.splitlines() if line.startswith("| ") and not line.startswith(("| threat", "| fault"))
    ]
    findings += [f"docs/{page}:1 has no test for: {row[:60]}" for row in rows if "::test_" not in row]
    return named, findings
