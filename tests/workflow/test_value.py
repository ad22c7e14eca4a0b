"""What is kept of a value says the same when it is read, or it isn't kept."""

from __future__ import annotations

import math
from typing import Any

import msgspec
import pytest

from seawall import Context
from seawall.workflow.value import as_json
from workflow.fake import MemoryRun

CYCLE: list[Any] = []
CYCLE.append(CYCLE)


@pytest.mark.parametrize("value", [None, 0.5, [None, "null"], {"a": [1, "\x00"], "b": None}, "é" * 9, 2**63])
def test_what_is_kept_is_what_was_given(value: object) -> None:
    assert msgspec.json.decode(as_json(value, 1000, "it")) == value


@pytest.mark.parametrize(
    "value",
    [object(), CYCLE, math.nan, {"a": [1, -math.inf]}, "\ud800", {"\ud800": 1}, {(1, 2): 3}],
)
def test_what_json_can_not_say_is_refused_in_words(value: object) -> None:
    with pytest.raises(ValueError, match="this one can't be kept as JSON: "):
        as_json(value, 1000, "this", "one")


def test_what_is_too_large_says_how_large_it_is() -> None:
    with pytest.raises(ValueError, match="it is 12 bytes as JSON, at most 11 are kept"):
        as_json("x" * 10, 11, "it")


async def test_a_payload_that_is_no_number_begins_no_run() -> None:
    ctx: Context = MemoryRun().context()
    for call in (ctx.run, ctx.start):
        with pytest.raises(ValueError, match="the payload can't be kept as JSON: NaN"):
            await call("other", {"share": math.nan})
