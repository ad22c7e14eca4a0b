"""A really full disk: refused and not kept; and records are taken again, by the same process, once there is room."""

from __future__ import annotations

from pathlib import Path

import pytest
from disk_rig import WriterProcess, call, compare, mounted, needs_root, program, read

pytestmark = needs_root
MIB = 1024 * 1024


@pytest.mark.parametrize("kind", ["tmpfs", "ext4"])
def test_a_full_disk_refuses_and_recovers_by_itself(tmp_path: Path, kind: str) -> None:
    if kind == "tmpfs":
        mount: tuple[str | Path, ...] = ("-t", "tmpfs", "-o", "size=12m", "none")
    else:
        image = tmp_path / "image"
        image.write_bytes(b"")
        with image.open("r+b") as file:
            file.truncate(24 * MIB)
        call(program("mkfs.ext4"), "-q", "-F", "-m", "0", image)
        mount = ("-o", "loop", image)
    with mounted(tmp_path, *mount) as disk:
        filler = disk / "filler"
        filler.write_bytes(bytes(6 * MIB))
        with WriterProcess(disk / "c1") as writer:
            writer.read_until(100, refusals=50)
            assert not writer.said.unsure
            kept = len(writer.said.kept)
            filler.unlink()
            writer.read_until(kept + 100)
            assert len(writer.said.kept) >= kept + 100, "it didn't recover"
            writer.kill()
        compare(writer.said, read(disk / "c1"))
