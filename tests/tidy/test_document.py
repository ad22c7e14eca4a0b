"""What the documents promise stands in the code, and the other way round."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

from .source import PACKAGE, ROOT, Module, modules, names_of_tests, report, tracked, untested

NAME = re.compile(r"^-- name: (\w+)$", re.MULTILINE)
METRIC = re.compile(r"`(seawall_[a-z0-9_]+)`")
ALERT = re.compile(r"[a-z]+(-[a-z]+)+")
RAISES = ("raised", "saw", "Rule")
DECISION_PARTS = ("**Status**", "**Force**", "**Decision**", "**Given up**", "**Holds while**", "**Checked by**")


def _constants() -> dict[str, str]:
    """Every string constant of the product and one place where it stands."""
    found: dict[str, str] = {}
    for m in modules():
        for node in ast.walk(m.tree):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.setdefault(node.value, m.at(node.lineno))
    return found


def test_every_metric_is_documented_and_every_documented_metric_exists() -> None:
    page = ROOT / "docs" / "metrics.md"
    listed = set(METRIC.findall(page.read_text())) if page.exists() else set()
    used = {name: at for name, at in _constants().items() if re.fullmatch(r"seawall_[a-z0-9_]+_[a-z0-9]+", name)}
    channels = {"seawall_run", "seawall_reply", "seawall_source"}
    exposed = {
        n: at for n, at in used.items() if n not in channels and re.search(r"_(total|seconds|bytes|count|ratio)$", n)
    }
    findings = [f"{at} {name}; run tool/metrics.py" for name, at in sorted(exposed.items()) if name not in listed]
    findings += [
        f"docs/metrics.md:1 {name} is listed, and nothing exposes it; run tool/metrics.py"
        for name in sorted(listed - set(used))
    ]
    assert not findings, report(findings, "Metrics")


def _alerts(module: Module) -> Iterator[str]:
    """Names of the alerts that a module raises: said where it is raised, or by a constant of the module."""
    said: dict[str, str] = {}
    for node in ast.walk(module.tree):
        if isinstance(node, (ast.Assign, ast.AnnAssign)) and node.value is not None:
            [target, *_] = node.targets if isinstance(node, ast.Assign) else [node.target]
            names = target.elts if isinstance(target, ast.Tuple) else [target]
            values = node.value.elts if isinstance(node.value, ast.Tuple) else [node.value]
            pairs = zip(names, values, strict=False)
            said |= {ast.unparse(n): str(v.value) for n, v in pairs if isinstance(v, ast.Constant)}
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Call) and node.args and ast.unparse(node.func).split(".")[-1] in RAISES:
            first = node.args[0]
            name = str(first.value) if isinstance(first, ast.Constant) else said.get(ast.unparse(first), "")
            if ALERT.fullmatch(name):
                yield name


def test_every_alert_is_on_its_page_and_no_other() -> None:
    cells = re.findall(r"^\| (`.*?) \|", (ROOT / "docs" / "alerts.md").read_text(), re.MULTILINE)
    listed = {name for cell in cells for name in re.findall(r"`([^`]+)`", cell)}
    raised = {name: m.at(1) for m in modules() for name in _alerts(m)}
    findings = [f"{at} raises {name}; put it into docs/alerts.md" for name, at in raised.items() if name not in listed]
    findings += [f"docs/alerts.md:1 {name} is raised by nobody" for name in sorted(listed - raised.keys())]
    assert not findings, report(findings, "Alerts")
    assert len(raised) > 40


def test_everything_that_an_experiment_may_name_is_on_the_page_of_the_lab() -> None:
    page = (ROOT / "docs" / "lab.md").read_text()
    named = {f"seawall.lab.{name}" for name in ("act", "load", "volume", "zone.act", "probe", "expect", "claim")}
    findings = [
        f"{m.at(node.lineno)} {node.name}; put it into docs/lab.md"
        for m in modules()
        if m.name in named
        for node in m.tree.body
        if isinstance(node, ast.FunctionDef) and not node.name.startswith("_") and node.name != "vain"
        if f"`{node.name}`" not in page and f".{node.name}`" not in page
    ]
    assert not findings, report(findings, "Actions, probes and claims")


def test_every_check_of_the_doctor_is_on_the_page_of_commands() -> None:
    page = (ROOT / "docs" / "cli.md").read_text()
    table = page[page.index("## What the doctor looks at") : page.index("## Signals")]
    listed = {
        name for cell in re.findall(r"^\| (`.*?) \|", table, re.MULTILINE) for name in re.findall(r"`([^`]+)`", cell)
    }
    looked = {
        str(word.value.value)
        for m in modules()
        for node in ast.walk(m.tree)
        if isinstance(node, ast.Call)
        for word in node.keywords
        if word.arg == "check" and isinstance(word.value, ast.Constant) and isinstance(word.value.value, str)
    }
    assert listed == looked


def test_every_table_of_settings_is_given_to_somebody() -> None:
    """A setting that is read, checked and shown, and reaches nobody, is worse than none."""
    tables = set(re.findall(r"^## \[(\w+)\]$", (ROOT / "docs" / "settings.md").read_text(), re.MULTILINE))
    given = {
        str(node.args[0].value)
        for m in modules()
        for node in ast.walk(m.tree)
        if isinstance(node, ast.Call)
        if isinstance(node.func, ast.Attribute) and node.func.attr == "of"
        if node.args and isinstance(node.args[0], ast.Constant)
    }
    assert tables <= given, f"src/seawall/app.py:1 gives nobody the settings of {tables - given}"


def test_every_named_statement_is_used_and_says_who_calls_it() -> None:
    constants = set(_constants())
    findings = []
    for path in sorted((PACKAGE / "store" / "query").glob("*.sql")):
        text = path.read_text()
        parts = NAME.split(text)
        for name, block in zip(parts[1::2], parts[2::2], strict=True):
            line = text[: text.index(f"-- name: {name}")].count("\n") + 1
            at = f"{path.relative_to(ROOT)}:{line}"
            if name not in constants:
                findings.append(f"{at} {name} is used by nobody; remove it")
            if not block.strip().startswith("--"):
                findings.append(f"{at} {name} doesn't say who calls it and which index serves it")
    assert not findings, report(findings, "Statements")


def test_every_lease_and_every_run_number_counts_in_one_timeline() -> None:
    """After a fail-over to a replica that lagged, epochs and numbers would come again (decision 0033)."""
    findings = []
    for path in sorted((PACKAGE / "store" / "query").glob("*.sql")):
        parts = NAME.split(path.read_text())
        for name, block in zip(parts[1::2], parts[2::2], strict=True):
            sql = re.sub(r"--[^\n]*", "", block)
            if "shard_lease" in sql and "for key share" in sql and "store_timeline()" not in sql:
                findings.append(f"{path.relative_to(ROOT)}:1 {name} needs a lease, whatever the server's timeline")
            if "nextval('run_number')" in sql and "run_number_base()" not in sql:
                findings.append(f"{path.relative_to(ROOT)}:1 {name} numbers runs without run_number_base()")
    assert not findings, report(findings, "Timelines")


def test_decisions_are_numbered_listed_and_complete() -> None:
    folder = ROOT / "docs" / "decisions"
    index = (folder / "README.md").read_text()
    findings, numbers = [], {}
    for path in sorted(folder.glob("*.md")):
        if path.name == "README.md":
            continue
        at = f"{path.relative_to(ROOT)}:1"
        number = re.match(r"(\d{4})-[a-z0-9-]+\.md$", path.name)
        if number is None:
            findings.append(f"{at} is not named NNNN-what-was-decided.md")
            continue
        if number[1] in numbers:
            findings.append(f"{at} has the number of {numbers[number[1]]}; take the next free one")
        numbers[number[1]] = path.name
        if path.name not in index:
            findings.append(f"{at} isn't listed in docs/decisions/README.md")
        text = path.read_text()
        findings += [f"{at} has no {part}" for part in DECISION_PARTS if part not in text]
    assert not findings, report(findings, "Decisions")


def _anchors(page: Path) -> set[str]:
    """Of its headings, as forges make them."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-") for heading in headings}


def test_paths_and_links_in_documents_exist() -> None:
    findings = []
    for path in (p for p in tracked() if p.suffix == ".md"):
        for number, line in enumerate(path.read_text().splitlines(), 1):
            at = f"{path.relative_to(ROOT)}:{number}"
            for link in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", line):
                if not (path.parent / link).exists():
                    findings.append(f"{at} links to {link}, which isn't there")
            for link in re.findall(r"\]\(([^):]*#[^)]+)\)", line):
                to, _, anchor = link.partition("#")
                page = path.parent / to if to else path
                if page.suffix == ".md" and page.exists() and anchor not in _anchors(page):
                    findings.append(f"{at} links to {link}, and that page has no such heading")
            for name in re.findall(r"`((?:src|tests|docs|examples|bench|tool|requirements)/[\w./-]+)`", line):
                if not (ROOT / name).exists():
                    findings.append(f"{at} names {name}, which isn't there")
    assert not findings, report(findings, "Links")


def test_the_map_names_every_room_and_nothing_that_is_gone() -> None:
    named = set(re.findall(r"`([\w./]+?)/?`", (ROOT / "ARCHITECTURE.md").read_text()))
    rooms = {
        str(path.parent.relative_to(PACKAGE)) for pattern in ("*/*.py", "*/*/*.py") for path in PACKAGE.glob(pattern)
    }
    findings = [f"ARCHITECTURE.md:1 doesn't name {room}" for room in sorted(rooms - named)]
    findings += [
        f"ARCHITECTURE.md:1 names {name}, which isn't there"
        for name in sorted(named)
        if name.endswith(".py") and not any(PACKAGE.rglob(name))
    ]
    assert not findings, report(findings, "The map")


def test_every_attack_is_on_the_page_of_security_and_every_test_that_it_names_exists() -> None:
    named, findings = untested("security.md")
    attacks = [*(ROOT / "tests" / "attack").glob("test_*.py"), ROOT / "tests" / "journey" / "test_attack.py"]
    for path in attacks:
        name = str(path.relative_to(ROOT / "tests"))
        findings += [
            f"tests/{name}:1 {test} is named nowhere in docs/security.md"
            for test in sorted(names_of_tests(path))
            if f"{name}::{test}" not in named
        ]
    assert not findings, report(findings, "Security")


def test_every_fault_has_a_test_and_every_test_that_is_named_exists() -> None:
    named, findings = untested("faults.md")
    assert not findings, report(findings, "Faults")
    assert len(named) > 30


def test_decisions_named_in_code_exist() -> None:
    numbers = {p.name[:4] for p in (ROOT / "docs" / "decisions").glob("[0-9]*.md")}
    findings = []
    for m in modules():
        for number, line in enumerate(m.text.splitlines(), 1):
            for name in re.findall(r"docs/decisions/[\w.-]+\.md", line):
                if not (ROOT / name).exists():
                    findings.append(f"{m.at(number)} names {name}, which isn't there")
            for short in re.findall(r"\(decision (\d{4})\)", line):
                if short not in numbers:
                    findings.append(f"{m.at(number)} names decision {short}, which isn't there")
    assert not findings, report(findings, "Decisions in code")


def test_the_readme_shows_the_two_commands() -> None:
    text = (ROOT / "README.md").read_text()
    for command in ("make demo", "make test"):
        assert command in text, f"README.md:1 doesn't show `{command}`"
    assert "make test" in (ROOT / ".ci" / "run").read_text(), ".ci/run:1 doesn't call `make test`"


def test_every_make_target_is_said_and_phony() -> None:
    text = (ROOT / "Makefile").read_text()
    targets = set(re.findall(r"^([a-z-]+):", text, re.MULTILINE))
    phony = set(re.search(r"^\.PHONY: (.*)$", text, re.MULTILINE)[1].split())  # type: ignore[index]
    said = set(re.findall(r"^([a-z-]+):.*## \S", text, re.MULTILINE))
    assert targets == phony == said, f"Makefile:1 {targets ^ phony | targets ^ said} lacks .PHONY or its line of help"
