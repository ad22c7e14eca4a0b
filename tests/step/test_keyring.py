"""Secrets lie in files that nobody else opens."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from seawall.step import StepRefused, secret
from seawall.step.keyring import Secrets, Strike


def test_a_secret_is_read_when_it_is_used(tmp_path: Path) -> None:
    file = tmp_path / "ci"
    file.write_text("one\n")
    file.chmod(0o600)
    keyring = Secrets(str(tmp_path))
    assert keyring.read(secret("ci")) == "one"
    file.write_text("two")
    assert keyring.read(secret("ci", prefix="Bearer ")) == "two"


def test_what_others_may_read_or_is_no_secret_is_refused(tmp_path: Path) -> None:
    keyring = Secrets(str(tmp_path))
    for name, data, mode in (("open", b"x", 0o644), ("empty", b"", 0o600), ("long", b"x" * 20_000, 0o600),
                             ("lines", b"a\nb", 0o600), ("bytes", b"\xff", 0o600)):  # fmt: skip
        file = tmp_path / name
        file.write_bytes(data)
        file.chmod(mode)
    os.mkfifo(tmp_path / "pipe", 0o600)
    (tmp_path / "folder").mkdir(mode=0o700)
    for name in ("open", "empty", "long", "lines", "bytes", "pipe", "folder", "missing"):
        with pytest.raises(StepRefused, match=f"secret {name}"):
            keyring.read(secret(name))
    with pytest.raises(StepRefused, match=r"step\.secrets"):
        Secrets("").read(secret("x"))


@pytest.mark.parametrize("name", ["", "../x", "a/b", "/etc/passwd", ".x", "a..b", "a\nb", "x" * 101])
def test_a_name_leads_out_of_no_folder(name: str) -> None:
    with pytest.raises(ValueError, match="secret"):
        secret(name)


def test_known_secrets_are_struck_out_also_as_json_writes_them() -> None:
    strike = Strike(["ab", 'to"ken', "to"])
    assert strike.text('ab to"ken to\\"ken') == "ab [secret] [secret]"
    assert strike.data(b'{"x":"to\\"ken"}') == b'{"x":"[secret]"}'
