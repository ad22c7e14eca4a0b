"""What users import from the room is there, and costs those who don't ask for it nothing."""

from __future__ import annotations

import subprocess
import sys

import pytest

from seawall import step


@pytest.mark.parametrize("name", step.__all__)
def test_each_name_is_where_the_room_says(name: str) -> None:
    assert getattr(step, name).__name__


def test_a_name_that_is_not_there_is_said_like_any_other() -> None:
    with pytest.raises(AttributeError, match="has no nonsense"):
        _ = step.nonsense


def test_reading_settings_brings_in_no_protocol() -> None:
    code = "import sys, seawall.step.setting; print('h11' in sys.modules)"
    assert subprocess.check_output([sys.executable, "-c", code]).strip() == b"False"
