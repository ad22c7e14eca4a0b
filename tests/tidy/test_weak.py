"""The product has no switch that leaves a protection out: weak parts are the lab's, and nothing leads from the one to
the other but an argument of `cli.main`."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

from seawall.lab.weak import PARTS
from seawall.settings import read

from .source import ROOT, Module, modules, names_of_tests, report

HANDED_ON = {"seawall.app", "seawall.cli", "seawall.cli.up", "seawall.cli.run"}
"""Who may name `Making` in the product: who makes rooms with it, and the way to there."""

SUSPICIOUS = re.compile(
    r"\b(weak|unsafe|insecure|canary|unprotected)\b"
    r"|\b(no|without|skip|disable)\W(breaker|f?sync|governor|reconcile|timeout|limit|fairness|readiness|ack)",
    re.IGNORECASE,
)


def _product() -> Iterator[Module]:
    return (m for m in modules() if m.room not in ("lab", "testing"))


def _named(module: Module, name: str) -> Iterator[int]:
    for node in ast.walk(module.tree):
        if (isinstance(node, ast.Name) and node.id == name) or (isinstance(node, ast.Attribute) and node.attr == name):
            yield node.lineno


def test_only_who_makes_rooms_names_what_they_are_made_of() -> None:
    findings = [
        f"{m.at(line)} names Making; the composition root alone chooses parts"
        for m in _product()
        if m.name not in HANDED_ON
        for line in _named(m, "Making")
    ]
    assert not findings, report(findings, "Making")


def test_nobody_but_the_lab_makes_rooms_otherwise() -> None:
    findings = []
    for m in modules():
        for node in ast.walk(m.tree):
            bases = [ast.unparse(base) for base in node.bases] if isinstance(node, ast.ClassDef) else []
            if any("Making" in base for base in bases) and not m.name.startswith("seawall.lab.weak."):
                findings.append(f"{m.at(node.lineno)} {bases} is made otherwise here; that is lab/weak's")
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "Making" and (node.args or node.keywords):
                findings.append(f"{m.at(node.lineno)} Making is made with something; it takes no choice from anybody")
    assert not findings, report(findings, "Making")


def test_the_program_that_is_installed_makes_the_product() -> None:
    """Both ways into it call `main` with nothing."""
    assert 'seawall = "seawall.cli:main"' in (ROOT / "pyproject.toml").read_text()
    [entry] = [m for m in modules() if m.name == "seawall.__main__"]
    calls = [ast.unparse(node) for node in ast.walk(entry.tree) if isinstance(node, ast.Call)]
    assert calls == ["main()"], calls
    findings = [
        f"{m.at(node.lineno)} passes something to cli.main"
        for m in _product()
        for node in ast.walk(m.tree)
        if isinstance(node, ast.Call) and ast.unparse(node.func).endswith("cli.main")
    ]
    assert not findings, report(findings, "cli.main")


def test_no_text_of_the_product_leads_to_a_weak_part() -> None:
    """Neither a module's name to load by, nor a part's: of lab, the product knows the commands."""
    findings = []
    for m in _product():
        for node in ast.walk(m.tree):
            text = node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else ""
            if "lab.weak" in text or text in PARTS:
                findings.append(f"{m.at(node.lineno)} {text!r}")
    assert not findings, report(findings, "Weak parts in the product")


def test_no_setting_and_no_option_switches_a_protection_off() -> None:
    findings = [f"setting {key}" for key in _settings() if SUSPICIOUS.search(key.replace("_", " "))]
    for m in _product():
        for node in ast.walk(m.tree):
            if not (isinstance(node, ast.Call) and ast.unparse(node.func) in ("click.option", "environ")):
                continue
            words = [a.value for a in node.args if isinstance(a, ast.Constant) and isinstance(a.value, str)]
            findings += [f"{m.at(node.lineno)} {word}" for word in words if SUSPICIOUS.search(word.replace("_", " "))]
    assert not findings, report(findings, "Switches")


def _settings() -> list[str]:
    return [" ".join(key) for key in read({}, config=None, environment={}).values]


def test_every_weak_part_has_a_canary_and_a_row_in_the_page() -> None:
    page = (ROOT / "docs" / "lab.md").read_text()
    findings = []
    for part in PARTS.values():
        path = ROOT / "tests" / "lab" / "canary" / part.canary
        if not path.exists() or not any("canary" in name for name in names_of_tests(path)):
            findings.append(f"{part.name}: no test of a canary in {path.relative_to(ROOT)}")
        row = f"| `{part.name}` | {part.incident or '–'} | {part.lacks} | `tests/lab/canary/{part.canary}` |"
        if row not in page:
            findings.append(f"docs/lab.md:1 lacks the row: {row}")
    assert not findings, report(findings, "Canaries")
