"""What the demo says when it is over."""

from __future__ import annotations

import re
from types import SimpleNamespace

import pytest

from seawall.cli import demo


def test_a_demo_that_goes_on_has_nobody_write_a_secret_to_a_file(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A file of /tmp is made with the shell's umask, mostly for every user of the machine to read."""

    class Place:
        listen, admin = "127.0.0.1:1", "127.0.0.1:2"

    def leave(seconds: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(demo.time, "sleep", leave)
    source = SimpleNamespace(name="gh", url="http://127.0.0.1:1/in/x")
    tree = SimpleNamespace(place=Place, data="/d")
    demo._stay(tree, SimpleNamespace(urls=lambda: {"github": (source, "s3cret")}))  # type: ignore[arg-type]
    said = capsys.readouterr().out
    assert "printf %s s3cret | .venv/bin/seawall send http://127.0.0.1:1/in/x" in said and "--secret-file -" in said
    assert "/tmp" not in said and not re.search(r">\s*\S", said)
