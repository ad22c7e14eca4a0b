"""A full disk that is made larger under a running journal: the same process takes records again, and none is lost."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from disk_rig import WriterProcess, call, compare, mounted, needs_root, program, read

pytestmark = needs_root
MIB = 1024 * 1024
SMALL, LARGE = 12 * MIB, 48 * MIB


@pytest.mark.parametrize("kind", ["tmpfs", "ext4"])
def test_a_volume_that_grows_under_traffic_is_used_at_once_and_nothing_is_lost(tmp_path: Path, kind: str) -> None:
    mount, grow = _tmpfs(tmp_path) if kind == "tmpfs" else _ext4(tmp_path)
    with mounted(tmp_path, *mount) as disk:
        (disk / "filler").write_bytes(bytes(6 * MIB))
        with WriterProcess(disk / "c1") as writer:
            writer.read_until(100, refusals=50)
            kept = len(writer.said.kept)
            grow()
            writer.read_until(kept + 100)
            assert len(writer.said.kept) >= kept + 100, "it didn't take any more"
            assert not writer.said.unsure
            writer.kill()
        compare(writer.said, read(disk / "c1"))


Made = tuple[tuple[str | Path, ...], Callable[[], None]]
"""How it is mounted, and what makes it larger while it is."""


def _tmpfs(folder: Path) -> Made:
    larger = ("-o", f"remount,size={LARGE}", folder / "disk")
    return ("-t", "tmpfs", "-o", f"size={SMALL}", "none"), lambda: call(program("mount"), *larger)


def _ext4(folder: Path) -> Made:
    image = folder / "image"
    _size(image, SMALL)
    call(program("mkfs.ext4"), "-q", "-F", "-m", "0", image)
    return ("-o", "loop", image), lambda: _grow_ext4(image)


def _grow_ext4(image: Path) -> None:
    _size(image, LARGE)
    told = subprocess.run([program("losetup"), "-j", image], check=True, capture_output=True, timeout=30, text=True)
    device = told.stdout.partition(":")[0]
    call(program("losetup"), "-c", device)
    try:
        call(program("resize2fs"), device)
    except subprocess.CalledProcessError as error:
        if b"Permission denied" not in error.stderr:
            raise
        pytest.skip("needs CAP_SYS_RESOURCE, which root hasn't got here (resize2fs of a mounted volume)")


def _size(image: Path, bytes: int) -> None:
    with image.open("ab") as file:
        file.truncate(bytes)
