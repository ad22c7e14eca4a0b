"""What on a machine will bite is one line, with its cure."""

from __future__ import annotations

import os
import resource
from pathlib import Path

import pytest

from seawall.kernel.clock import SystemClock
from seawall.machine import check

MOUNTS = """21 1 8:1 / / rw - ext4 /dev/sda1 rw
22 21 0:30 / {here} rw,nosuid shared:1 - {kind} none rw
23 21 0:31 / {here}-beside rw - tmpfs none rw
broken line
"""


class Clock(SystemClock):
    def __init__(self, wall_us: int) -> None:
        self._wall_us = wall_us

    def wall_us(self) -> int:
        return self._wall_us


@pytest.mark.parametrize(
    ("kind", "said"), [("tmpfs", "a restart may empty"), ("nfs4", "network file system"), ("ext4", "")]
)
def test_a_data_folder_on_tmpfs_or_a_network_is_said(tmp_path: Path, kind: str, said: str) -> None:
    found = check.warnings(tmp_path, SystemClock(), mounts=MOUNTS.format(here=tmp_path, kind=kind))
    about_disk = [line for line in found if "is on" in line]
    assert bool(about_disk) == bool(said) and all(said in line and "use a" in line for line in about_disk)


def test_the_longest_mount_point_above_a_folder_counts(tmp_path: Path) -> None:
    mounts = MOUNTS.format(here=tmp_path, kind="xfs")
    assert check.filesystem_of(tmp_path / "x", mounts) == "xfs"
    assert check.filesystem_of(Path("/elsewhere"), mounts) == "ext4"


def test_a_wrong_clock_is_said(tmp_path: Path) -> None:
    assert any("set the clock" in line for line in check.warnings(tmp_path, Clock(10**15), mounts=""))
    newest = tmp_path / "file"
    newest.touch()
    back = int((newest.stat().st_mtime - 3600) * 1e6)
    assert any("behind the newest file" in line for line in check.warnings(tmp_path, Clock(back), mounts=""))


def test_a_full_disk_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.statvfs(tmp_path)
    full = os.statvfs_result((*real[:4], 1, *real[5:]))
    monkeypatch.setattr(os, "statvfs", lambda _: full)
    assert any("MiB free" in line for line in check.warnings(tmp_path, SystemClock(), mounts=""))


def test_open_files_are_raised_as_far_as_allowed() -> None:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (256, before[1]))
        said = check.raise_open_files()
        soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        assert soft > 256
        assert (said is None) == (soft >= check.FILES_MIN)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
