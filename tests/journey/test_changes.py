"""Who changed what, over a whole platform's life: flags, a killed role, settings, and a stop while nobody looks."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from typing import Any

import pytest

from journey.program import READY_S, seawall
from seawall.journal.filesystem import LocalFilesystem
from seawall.lab.tree import Tree
from seawall.machine.folder import Folder, Lock


def changes(tree: Tree, *more: str) -> list[dict[str, Any]]:
    said = seawall("changes", "--since", "1h", "--json", "--data", str(tree.data), *more)
    assert said.code == 0, said.err
    items: list[dict[str, Any]] = said.json["items"]
    return items


def until_told(tree: Tree, kind: str, count: int) -> list[dict[str, Any]]:
    latest = time.monotonic() + 30
    while len(found := changes(tree, "--kind", kind)) < count:
        assert time.monotonic() < latest, (kind, found)
        time.sleep(0.1)
    return found


@pytest.mark.slow
def test_the_timeline_tells_a_platforms_life_and_flags_outlive_it(start: Callable[..., Tree]) -> None:
    tree = start()
    data = ("--data", str(tree.data))
    assert seawall("source", "add", "gh", "--kind", "none", *data).code == 0
    done = seawall("flags", "set", "held-requests", "off", "--source", "gh", "--why", "it hangs", "--json", *data)
    assert done.code == 0, done.err
    assert done.json["live"] and [flip["who"] for flip in done.json["flips"]] == ["source gh"]
    late = seawall("flags", "set", "held-requests", "on", "--why", "?", "--expect-version", "0", *data)
    assert late.code == 1 and "made it default, off for source gh (it hangs)" in late.err
    assert seawall("flags", "set", "helt", "on", "--why", "?", *data).code == 3
    assert seawall("flags", "set", "geo", "maybe", "--why", "?", *data).code == 2

    folder = Folder(tree.data, LocalFilesystem())
    collector = Lock(folder.run / "collector.lock").holder_pid()
    assert collector is not None
    os.kill(collector, signal.SIGKILL)
    (tree.data / "seawall.toml").write_text("[router]\nbatch_records = 7\n")
    preview = seawall("settings", "diff", str(tree.data / "seawall.toml"), *data)
    assert preview.code == 0 and "router.batch_records" in preview.out
    up = Lock(folder.path / "lock").holder_pid()
    assert up is not None
    os.kill(up, signal.SIGHUP)
    [restart] = until_told(tree, "restart", 1)
    assert (restart["what"], restart["why"]) == ("collector", "killed by SIGKILL")
    [setting] = until_told(tree, "setting", 1)
    assert (setting["what"], setting["before"], setting["after"]) == ("router.batch_records", "500", "7")

    assert seawall("down", *data).code == 0
    tree.stop()  # it has gone; this only reaps it
    tree.start()
    tree.wait_ready(READY_S)
    starts = until_told(tree, "start", 2)
    told = changes(tree)
    assert [one["at"] for one in told] == sorted(one["at"] for one in told)
    [stop] = [one for one in told if one["kind"] == "stop"]
    assert stop["by"] == starts[0]["by"] and stop["why"] == "SIGTERM"
    assert [one["what"] for one in told if one["kind"] == "version"] == ["seawall"]
    flags = seawall("flags", "list", "--json", *data).json["items"]
    [held] = [one for one in flags if one["name"] == "held-requests"]
    assert held["rules"] == [{"by": "source", "name": "gh", "value": "off"}] and held["changed_by"].endswith("admin)")
