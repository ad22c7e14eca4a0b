"""Sizes (guidance; an exception carries a comment with its reason, ``# Size: …`` in the module or class)."""

from __future__ import annotations

import ast
import re

from .source import body_lines, functions, modules, report

MODULE_LINES_MAX = 400
FUNCTION_LINES_MAX = 70
FUNCTION_LINES_USUAL = 33
USUAL_SHARE_MIN = 0.95
CLASS_LINES_MAX = 200
NESTING_MAX = 4
VAGUE = {"util", "utils", "helper", "helpers", "common", "base", "manager", "service", "handler", "misc"}


def _reason(comments: dict[int, str], start: int, end: int) -> bool:
    return any(start <= n <= end and re.match(r"#\s*Size: .{10,}", c) for n, c in comments.items())


def test_modules_are_short_or_say_why() -> None:
    findings = []
    for m in modules():
        lines = m.text.count("\n")
        if lines > MODULE_LINES_MAX and not _reason(m.comments, 1, lines):
            findings.append(f"{m.at(1)} {lines} lines; split it by job, or give the reason in a comment '# Size: …'")
    assert not findings, report(findings, f"Modules over {MODULE_LINES_MAX} lines")


def test_no_function_is_longer_than_the_hard_stop() -> None:
    findings = [
        f"{m.at(f.lineno)} {f.name}: {body_lines(f)} lines; keep state and branches, move pure parts into leaves"
        for m in modules()
        for f in functions(m)
        if body_lines(f) > FUNCTION_LINES_MAX
    ]
    assert not findings, report(findings, f"Functions over {FUNCTION_LINES_MAX} lines")


def test_nineteen_functions_of_twenty_are_short() -> None:
    sizes = [(body_lines(f), m.at(f.lineno), f.name) for m in modules() for f in functions(m)]
    long = sorted((s for s in sizes if s[0] > FUNCTION_LINES_USUAL), reverse=True)
    share = 1 - len(long) / len(sizes)
    findings = [f"{at} {name}: {lines} lines" for lines, at, name in long]
    assert share >= USUAL_SHARE_MIN, report(findings, f"Only {share:.1%} of functions have at most 33 lines")


def test_classes_are_short_or_say_why() -> None:
    findings = []
    for m in modules():
        for node in ast.walk(m.tree):
            if isinstance(node, ast.ClassDef):
                lines = (node.end_lineno or 0) - node.lineno + 1
                if lines > CLASS_LINES_MAX and not _reason(m.comments, node.lineno - 3, node.end_lineno or 0):
                    findings.append(f"{m.at(node.lineno)} {node.name}: {lines} lines; split it, or '# Size: …'")
    assert not findings, report(findings, f"Classes over {CLASS_LINES_MAX} lines")


def test_code_is_not_nested_deeply() -> None:
    findings = []
    for m in modules():
        for f in functions(m):
            depth, line = _depth(f.body, 0)
            if depth > NESTING_MAX:
                findings.append(f"{m.at(line)} {f.name}: nested {depth} deep; return early, or name the inner part")
    assert not findings, report(findings, f"Nesting over {NESTING_MAX}")


def _depth(body: list[ast.stmt], level: int) -> tuple[int, int]:
    """(deepest level of blocks, its line); nested functions are counted on their own, `elif` is no level."""
    deepest = (level, body[0].lineno if body else 0)
    for node in body:
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            continue
        for name in ("body", "orelse", "finalbody", "handlers", "cases"):
            inner = getattr(node, name, None)
            if not inner or not isinstance(inner, list):
                continue
            elif_chain = name == "orelse" and len(inner) == 1 and isinstance(inner[0], ast.If)
            if name in ("handlers", "cases"):
                inner = [s for part in inner for s in part.body]
            deepest = max(deepest, _depth(inner, level if elif_chain else level + 1))
    return deepest


def test_module_names_say_what_they_do() -> None:
    findings = [f"{m.at(1)} {m.path.stem}; say what job it does" for m in modules() if m.path.stem in VAGUE]
    assert not findings, report(findings, "Vague names")
