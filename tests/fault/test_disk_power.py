"""Real power loss: ext4 on a loop device is shut down in the middle of writing (its own ioctl for such tests), which
drops everything that wasn't synced, names included.

What counts is what was said before the cut. Unlike a machine without power, a process whose file system was shut down
goes on for a moment, and a sync that was under way may return success though its journal was aborted (seen in one run
of twenty: the bytes were there, the new size of the file wasn't). Nobody could have heard those answers.
"""

from __future__ import annotations

import fcntl
import os
import struct
from pathlib import Path

import pytest
from disk_rig import Said, WriterProcess, call, compare, mounted, needs_root, program, read

pytestmark = needs_root

SHUTDOWN = 0x8004587D  # EXT4_IOC_SHUTDOWN
WITHOUT_LOG_FLUSH = struct.pack("I", 2)


@pytest.mark.parametrize("answers", [1, 20, 1000])
def test_what_was_acknowledged_survives_a_power_cut(tmp_path: Path, answers: int) -> None:
    image = tmp_path / "image"
    image.touch()
    os.truncate(image, 64 * 1024 * 1024)
    call(program("mkfs.ext4"), "-q", "-F", image)
    with mounted(tmp_path, "-o", "loop", image) as disk, WriterProcess(disk / "c1") as writer:
        writer.read_until(answers)
        folder = os.open(disk, os.O_RDONLY)
        writer.read_now()
        said = Said(kept=set(writer.said.kept))
        try:
            fcntl.ioctl(folder, SHUTDOWN, WITHOUT_LOG_FLUSH)
        except OSError as error:
            writer.kill()
            pytest.skip(f"this kernel's ext4 can't be shut down: {error}")
        finally:
            os.close(folder)
        assert writer.drain() == 70, "it went on after its disk was gone"
    assert len(said.kept) >= answers
    with mounted(tmp_path, "-o", "loop", image) as disk:
        compare(said, read(disk / "c1"))
        with WriterProcess(disk / "c1", first=1_000_000) as again:
            again.read_until(100)
            again.kill()
        again.said.kept |= said.kept
        compare(again.said, read(disk / "c1"))
