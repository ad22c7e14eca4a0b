"""What a hand holds is kept over a restart, and a file that can't be read or written stops nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

from seawall.machine.hand import Hands


def test_what_is_kept_is_read_again(tmp_path: Path) -> None:
    assert Hands(tmp_path / "router.shed").read() == {}
    Hands(tmp_path / "router.shed").keep({"countries": "off"})
    assert Hands(tmp_path / "router.shed").read() == {"countries": "off"}
    assert (tmp_path / "router.shed").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("text", ["", "[]", "{", "\xff", "null"])
def test_a_file_that_holds_something_else_is_left_out_with_a_warning(
    text: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "router.shed").write_text(text, "latin-1")
    assert Hands(tmp_path / "router.shed").read() == {}
    assert "can't be read" in caplog.text


def test_a_disk_that_can_not_keep_it_costs_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    Hands(tmp_path / "gone" / "router.shed").keep({"countries": "off"})
    assert "can't be kept" in caplog.text
