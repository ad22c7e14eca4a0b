"""fdatasync fails with EIO in a real process: it stops, and what it had acknowledged is there after its restart."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from disk_rig import HERE, WriterProcess, call, compare, program, read


@pytest.fixture
def failing_sync(tmp_path: Path) -> Path:
    if sys.platform != "linux":
        pytest.skip("needs LD_PRELOAD")
    library = tmp_path / "failing_sync.so"
    call(program("gcc"), "-shared", "-fPIC", "-O1", "-o", library, HERE / "failing_sync.c", "-ldl")
    return library


@pytest.mark.parametrize("fail_at", [2, 3, 7, 40])
def test_the_first_failed_sync_stops_the_process_and_loses_nothing(
    tmp_path: Path, failing_sync: Path, fail_at: int
) -> None:
    with WriterProcess(tmp_path / "c1", LD_PRELOAD=str(failing_sync), FAIL_AT=str(fail_at)) as writer:
        assert writer.drain() == 70
    # The whole batch is unsure, and nothing was acknowledged after it.
    assert writer.said.unsure
    assert max(writer.said.kept, default=-1) < min(writer.said.unsure)
    compare(writer.said, read(tmp_path / "c1"))
    with WriterProcess(tmp_path / "c1", first=1_000_000) as again:
        again.read_until(100)
        again.kill()
    again.said.kept |= writer.said.kept
    compare(again.said, read(tmp_path / "c1"))
