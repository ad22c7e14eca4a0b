"""What the README shows works as it stands there: its workflow, its commands, and its proof."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable
from pathlib import Path

import pytest

from journey.program import Said, seawall
from seawall.lab.tree import Tree

README = (Path(__file__).resolve().parents[2] / "README.md").read_text()


def _commands(section: str) -> list[list[str]]:
    """Arguments of each `seawall` command in the section of this title."""
    text = README.partition(f"## {section}\n")[2].partition("\n## ")[0]
    lines = re.findall(r"^\.venv/bin/seawall (.*)$", text, re.MULTILINE)
    return [shlex.split(line.rstrip("&"), comments=True) for line in lines]


def test_the_first_workflow_runs_and_answers(start: Callable[..., Tree]) -> None:
    found = re.search(r"```python\n(.*?)```", README, re.DOTALL)
    assert found is not None
    tree = start(app=found[1])
    up, *commands = _commands("A first workflow in two minutes")
    assert up[0] == "up"
    said: list[Said] = [seawall(*command, SEAWALL_DATA=str(tree.data)) for command in commands]
    assert [s.code for s in said] == [0] * len(commands), [s.err for s in said]
    added, answered, explained, listed = (s.out for s in said)
    assert "whsec_" in added
    assert "HTTP 200" in answered
    assert "Thank you, Ada!" in answered
    assert "HTTP 202" in explained
    assert "write_text" in explained
    assert listed.count("succeeded") == 2


@pytest.mark.slow
def test_the_proof_ends_with_lost_0(start: Callable[..., Tree], home: Path) -> None:
    examples = Path(__file__).resolve().parents[2] / "examples"
    tree = start(app=(examples / "demo.py").read_text())
    commands = _commands("Proving it yourself")
    assert [words[0] for words in commands] == ["down", "up", "lab", "lab"]
    traffic, verify = commands[2:]
    given = {"E": str(tree.data), "L": str(home / "L"), "30": "2", "500": "100"}
    sent = seawall(*(given.get(word, word) for word in traffic))
    assert sent.code == 0, sent.err
    judged = seawall(*(given.get(word, word) for word in verify))
    assert judged.code == 0, judged.err
    assert judged.out.splitlines()[-1].strip() == "lost 0"
    assert not seawall("source", "list", "--data", str(tree.data), "--json").json["items"], (
        "the lab's source is still there"
    )
