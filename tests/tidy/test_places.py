"""Each dangerous thing has one place."""

from __future__ import annotations

import ast
import re
from collections.abc import Callable

from seawall.migrate.runner import versions

from .source import Module, docstrings, functions, modules, report

SQL = re.compile(
    r"^\s*(--|/\*)?\s*(select\b.+\bfrom\b|insert\s+into\b|update\s+\w+\s+set\b|delete\s+from\b|truncate\s+\w+"
    r"|(create|alter|drop)\s+(unlogged\s+|unique\s+)?(table|index|schema|role|database|sequence|view|user)\b"
    r"|with\s+\w+\s+as\s*\(|listen\s+\w+$|notify\s+\w+$|select\s+pg_\w+\()",
    re.IGNORECASE | re.DOTALL,
)


def _calls(module: Module, test: Callable[[str], bool]) -> list[tuple[int, str]]:
    """(line, dotted name) of attributes and names that ``test`` accepts."""
    found = []
    for node in ast.walk(module.tree):
        if isinstance(node, (ast.Attribute, ast.Name)):
            dotted = ast.unparse(node)
            if test(dotted):
                found.append((node.lineno, dotted))
    return found


def _texts(module: Module) -> list[tuple[int, str]]:
    """(line, value) of string constants that aren't prose."""
    prose = docstrings(module.tree)
    return [
        (node.lineno, node.value)
        for node in ast.walk(module.tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in prose
    ]


def test_sql_is_only_in_sql_files() -> None:
    findings = [
        f"{m.at(line)} SQL in Python; name it in store/query/*.sql (or migrate/version/*.sql)"
        for m in modules()
        for line, text in _texts(m)
        if SQL.match(text)
    ]
    assert not findings, report(findings, "SQL")


def test_fsync_is_called_in_three_files() -> None:
    allowed = {"seawall.journal.filesystem", "seawall.lab.checker.ledger", "seawall.lab.arm.file"}
    findings = [
        f"{m.at(line)} {name}; use kernel.seam.filesystem, whose errors the journal understands"
        for m in modules()
        if m.name not in allowed
        for line, name in _calls(
            m, lambda n: n.split(".")[-1] in ("fsync", "fdatasync", "F_FULLFSYNC", "sync_file_range")
        )
    ]
    assert not findings, report(findings, "fsync")


def test_http_servers_are_in_files_named_route_and_the_collectors_parser() -> None:
    servers = ("uvicorn", "starlette", "httptools", "http.server", "aiohttp", "granian", "hypercorn")
    findings = []
    for m in modules():
        if m.path.name == "route.py" or m.name == "seawall.collector.parser":
            continue
        for node in ast.walk(m.tree):
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            for name in names:
                # lab speaks HTTP as a client: the parser of answers is not a server.
                if name.startswith(servers) and not (m.room == "lab" and name == "httptools"):
                    findings.append(f"{m.at(node.lineno)} imports {name}; HTTP server types live in route.py")
    assert not findings, report(findings, "HTTP servers")


def test_the_environment_is_read_in_settings_only() -> None:
    findings = [
        f"{m.at(line)} {name}; settings.py reads the environment once and passes values by constructor"
        for m in modules()
        if m.name != "seawall.settings"
        for line, name in _calls(m, lambda n: n in ("os.environ", "os.getenv", "os.environb"))
    ]
    assert not findings, report(findings, "Environment")


def test_time_and_randomness_in_the_kernel_come_as_objects() -> None:
    banned = {"time.time", "time.time_ns", "datetime.now", "datetime.utcnow"}
    findings = [
        f"{m.at(line)} {name}; take a Clock (kernel/clock.py)"
        for m in modules()
        if m.room not in ("cli", "lab", "testing") and m.name not in ("seawall.kernel.clock", "seawall.kernel.log")
        for line, name in _calls(m, lambda n: n in banned)
    ]
    assert not findings, report(findings, "Time")


def test_every_broad_except_says_why() -> None:
    findings = []
    for m in modules():
        for node in ast.walk(m.tree):
            if not isinstance(node, ast.ExceptHandler):
                continue
            caught = ast.unparse(node.type) if node.type else "everything"
            if caught not in ("Exception", "BaseException", "everything") or _ends_with_raise(node):
                continue
            first = node.body[0].lineno
            near = [
                re.sub(r"#\s*noqa[^#—-]*[—-]*", "", c) for n, c in m.comments.items() if node.lineno - 1 <= n <= first
            ]
            if not any(len(c.strip(" #")) > 10 for c in near):
                findings.append(
                    f"{m.at(node.lineno)} catches {caught}; name the errors, or say beside it why all of them"
                )
    assert not findings, report(findings, "Broad except")


def _ends_with_raise(node: ast.ExceptHandler) -> bool:
    return isinstance(node.body[-1], ast.Raise)


def test_nothing_unfinished_is_shipped() -> None:
    # With ~ inside, so that a search for these words doesn't end here.
    words = re.compile(r"\b(TO~DO|FIX~ME|XX~X|HA~CK)\b".replace("~", ""))
    raised = "NotImplemented~Error".replace("~", "")
    findings = [f"{m.at(n)} {c}" for m in modules() for n, c in m.comments.items() if words.search(c)]
    for m in modules():
        findings += [f"{m.at(line)} {name}" for line, name in _calls(m, lambda n: n == raised)]
        for f in functions(m):
            if len(f.body) == 1 and isinstance(f.body[0], ast.Pass):
                findings.append(f"{m.at(f.lineno)} {f.name} does nothing")
    assert not findings, report(findings, "Unfinished")


def test_versions_of_the_schema_are_numbered_from_one_without_gaps() -> None:
    numbers = [version.number for version in versions()]
    assert numbers == list(range(1, len(numbers) + 1)), "two changes have come with one number: give the later the next"
