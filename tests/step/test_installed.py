"""Steps of other packages are found, and a broken one says whose it is."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from seawall.kernel.error import Misconfigured
from seawall.step import Toolbox, http_request, load, step
from seawall.step.installed import installed
from step.rig import toolbox
from workflow.fake import MemoryRun

MODULE = '''
from seawall.step import Toolbox, step

@step("page", version=3)
async def page(tools: Toolbox, who: str) -> str:
    """Wake somebody.

    More words."""
    return who

@step("other", version=1)
async def misnamed(tools: Toolbox) -> None: ...

def plain() -> None: ...
'''


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with an installed package."""
    (tmp_path / "acme_steps.py").write_text(MODULE)
    (tmp_path / "acme_broken.py").write_text("raise RuntimeError('no licence')\n")
    info = tmp_path / "acme-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: acme\nVersion: 1.0\n")
    lines = ["page = acme_steps:page", "wrong_name = acme_steps:misnamed", "plain = acme_steps:plain",
             "gone = acme_nowhere:x", "broken = acme_broken:x", "sql = acme_steps:page"]  # fmt: skip
    (info / "entry_points.txt").write_text("[seawall.steps]\n" + "\n".join(lines) + "\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


async def test_a_step_of_another_package_is_found_and_used_like_ours(site: Path) -> None:
    page = load("page")
    assert (page.name, page.version, page.__name__) == ("page", 3, "page@3")
    kept = {}
    async with toolbox() as made:
        assert await MemoryRun(kept).context().step(page, "ann") == "ann"
        assert made.count("seawall_step_calls_total", step="page") == 1
    assert list(kept) == [("page@3", 0)]
    assert load("http_request") is http_request


@pytest.mark.parametrize(
    ("name", "says"),
    [("gone", "acme_nowhere"), ("broken", "RuntimeError: no licence"), ("plain", "is no step"),
     ("wrong_name", "calls itself other"), ("nothing", "no installed package has it; known: ")],
)  # fmt: skip
def test_a_broken_step_says_whose_it_is_and_what_is_wrong(name: str, says: str, site: Path) -> None:
    with pytest.raises(Misconfigured, match=says) as caught:
        load(name)
    assert name in str(caught.value) and ("acme" in str(caught.value) or name == "nothing")


def test_the_list_has_every_step_and_each_problem(site: Path) -> None:
    found = {(one.name, one.package): one for one in installed()}
    assert found["page", "acme"].version == 3 and found["page", "acme"].does == "Wake somebody."
    assert found["http_request", "seawall"].version == 1
    broken = {name for (name, _), one in found.items() if one.problem}
    assert broken == {"wrong_name", "plain", "gone", "broken", "sql"}
    assert found["sql", "seawall"].problem == "" and "Seawall's own" in found["sql", "acme"].problem


def test_the_command_lists_them_and_fails_when_one_is_broken(site: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(site)}
    command = [sys.executable, "-m", "seawall", "steps", "list"]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False, timeout=60)
    assert done.returncode == 1 and "page" in done.stdout and "no licence" in done.stderr
    done = subprocess.run([*command, "--json"], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0 and len(json.loads(done.stdout)["items"]) >= 4


def test_a_wrong_declaration_fails_where_it_stands() -> None:
    async def fine(tools: Toolbox) -> None: ...

    def plain(tools: Toolbox) -> None: ...

    for name, version in (("No", 1), ("", 1), ("x" * 99, 1), ("x", 0), ("x", True)):
        with pytest.raises(ValueError, match="step"):
            step(name, version=version)(fine)
    with pytest.raises(TypeError, match="async def"):
        step("x", version=1)(plain)  # type: ignore[arg-type]
