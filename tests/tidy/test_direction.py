"""Who may import whom (rooms in data-flow order), walked over every import of the product."""

from __future__ import annotations

import ast
from collections.abc import Iterator

from .source import Module, modules, report

LEVELS = (
    {"kernel"},
    {"guard"},
    {"journal", "store", "cache", "workflow"},
    {"collector", "router", "worker", "responder", "notify", "step"},
    {"watch", "console", "migrate"},
    {"settings"},
    {"machine"},
    {"app"},
    {"cli"},
)
APPS = "seawall.lab.catalog.app."
"""Workflows of the lab's platforms are a user's: they import what users import."""

LEVEL = {room: number for number, rooms in enumerate(LEVELS) for room in rooms}
OUTSIDE = {
    "lab": {"kernel", "testing", "app", "settings"},  # of settings: the environment that leads to none of a user's
    "testing": {"kernel", "guard", "workflow", "router", "worker", "store", "migrate"},
    "": {"kernel", "workflow"},  # `from seawall import App`
    "__main__": {"cli"},
}
WEAK = "seawall.lab.weak"
"""Weak parts are the real ones with something missing, so they name the rooms that those are in."""


def imports(module: Module) -> Iterator[tuple[str, int, bool, bool]]:
    """(imported module, line, inside a function, only for the type checker) of each import of our own."""
    guarded: set[int] = set()
    inside: set[int] = set()
    for node in ast.walk(module.tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            guarded |= {id(n) for n in ast.walk(node)}
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            inside |= {id(n) for n in ast.walk(node)}
    for node in ast.walk(module.tree):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module.at(node.lineno)} relative import; write the whole name"
            known = {m.name for m in modules()}
            names = [f"{node.module}.{a.name}" if f"{node.module}.{a.name}" in known else node.module or ""
                     for a in node.names]  # fmt: skip
        for name in sorted(set(names)):
            if name.split(".")[0] == "seawall":
                yield name, getattr(node, "lineno", 0), id(node) in inside, id(node) in guarded


def _room(name: str) -> str:
    parts = name.split(".")
    return parts[1] if len(parts) > 1 else ""


def _allowed(importer: Module, room: str) -> bool:
    own = importer.room
    if importer.name.startswith(APPS):
        return room == ""
    if own == room:
        return True
    if importer.name.startswith(f"{WEAK}."):
        return room in LEVEL
    if room == "":
        return own in ("cli", "app")  # the version, and where the package lies
    if own in OUTSIDE:
        return room in OUTSIDE[own]
    if room == "lab":
        names = ("lab", "experiment", "matrix", "parts", "report", "storm", "demo", "history", "target", "drill")
        return importer.name in {f"seawall.cli.{name}" for name in names}
    if room in OUTSIDE or own not in LEVEL or room not in LEVEL:
        return False
    return LEVEL[room] < LEVEL[own]


def test_imports_point_towards_the_kernel() -> None:
    findings = [
        f"{m.at(line)} room {m.room or 'seawall'!r} imports {name}; pass it in by constructor, or meet through a seam"
        for m in modules()
        for name, line, _, _ in imports(m)
        if not _allowed(m, _room(name))
    ]
    assert not findings, report(findings, "Direction: " + " <- ".join("{" + ", ".join(sorted(r)) + "}" for r in LEVELS))


def test_every_room_has_a_level_and_says_its_job() -> None:
    findings = []
    for m in modules():
        if m.room not in LEVEL and m.room not in OUTSIDE:
            findings.append(f"{m.at(1)} room {m.room!r} has no level; add it to tests/tidy/test_direction.py")
        if m.path.name == "__init__.py" and not _docstring(m):
            findings.append(f"{m.at(1)} a room's __init__.py states its job in a paragraph")
    assert not findings, report(findings, "Rooms")


def _docstring(m: Module) -> str:
    return ast.get_docstring(m.tree) or ""


def test_no_import_hides_in_a_function() -> None:
    # Only who starts things loads late: `--help` must not pay for a driver, a collector not for the worker.
    findings = [
        f"{m.at(line)} {name} is imported inside a function; import it at the top, or mend the cycle that this dodges"
        for m in modules()
        for name, line, inside, _ in imports(m)
        if inside and m.room not in ("cli", "app", "") and not m.name.startswith(f"{WEAK}.")
    ]
    assert not findings, report(findings, "Hidden imports")


def test_modules_form_no_cycle() -> None:
    graph = {m.name: {name for name, _, inside, guarded in imports(m) if not inside and not guarded} for m in modules()}
    done: set[str] = set()
    trail: list[str] = []

    def visit(name: str) -> list[str]:
        if name in trail:
            return [*trail[trail.index(name) :], name]
        if name in done or name not in graph:
            return []
        trail.append(name)
        for other in sorted(graph[name]):
            # A package's own __init__ imports its modules; naming the package from inside is no cycle of meaning.
            if other != name and not name.startswith(other + ".") and (cycle := visit(other)):
                return cycle
        trail.pop()
        done.add(name)
        return []

    cycles = [" -> ".join(cycle) for name in sorted(graph) if (cycle := visit(name))]
    assert not cycles, report(cycles, "Import cycles")
