"""What a process sees to before it starts."""

from __future__ import annotations

import resource
from pathlib import Path

from seawall.machine import check

MOUNTS = """21 1 8:1 / / rw - ext4 /dev/sda1 rw
22 21 0:30 / {here} rw,nosuid shared:1 - {kind} none rw
23 21 0:31 / {here}-beside rw - tmpfs none rw
broken line
"""


def test_the_longest_mount_point_above_a_folder_counts(tmp_path: Path) -> None:
    mounts = MOUNTS.format(here=tmp_path, kind="xfs")
    assert check.filesystem_of(tmp_path / "x", mounts) == "xfs"
    assert check.filesystem_of(Path("/elsewhere"), mounts) == "ext4"


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


def test_a_crash_leaves_no_core() -> None:
    before = resource.getrlimit(resource.RLIMIT_CORE)
    try:
        resource.setrlimit(resource.RLIMIT_CORE, (before[1], before[1]))
        check.forbid_cores()
        assert resource.getrlimit(resource.RLIMIT_CORE) == (0, before[1])
    finally:
        resource.setrlimit(resource.RLIMIT_CORE, before)
