"""The flags' copies on disk: the newest of all roles counts, and a torn one says nothing."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from seawall.guard.flag import Rule, Setting
from seawall.guard.switchboard import Known
from seawall.journal.filesystem import LocalFilesystem
from seawall.machine.known import KnownFlags
from seawall.testing.filesystem import FaultyFilesystem


def known(version: int, *, value: bool = False, schema: int = 3) -> Known:
    setting = Setting(
        flag="geo", value=value, rules=(Rule("tenant", "acme", True),), version=version, at_us=5, by="alice", why="…"
    )
    return Known(settings={"geo": setting}, schema=schema)


def test_a_copy_is_read_as_it_was_written(tmp_path: Path) -> None:
    copies = KnownFlags(tmp_path / "flags", "router", LocalFilesystem())
    assert copies.read() is None
    copies.write(known(3))
    copies.write(known(4))
    assert copies.read() == known(4)
    assert [path.name for path in (tmp_path / "flags").iterdir()] == ["router"]
    assert copies.file.stat().st_mode & 0o777 == 0o600


def test_of_all_roles_copies_the_newest_counts_flag_by_flag(tmp_path: Path) -> None:
    router, collector = (KnownFlags(tmp_path / "flags", role, LocalFilesystem()) for role in ("router", "collector"))
    router.write(known(9, value=True, schema=3))
    other = Setting(flag="held-requests", value=False, version=2)
    collector.write(Known(settings={"geo": known(8).settings["geo"], "held-requests": other}, schema=4))
    for one in (router, collector):
        found = one.read()
        assert found is not None
        assert found.settings == {"geo": known(9, value=True).settings["geo"], "held-requests": other}
        assert found.schema == 4


@pytest.mark.parametrize("damage", ["cut", "empty", "flip", "zeros", "other"])
def test_a_torn_copy_says_nothing_and_the_neighbours_still_does(
    tmp_path: Path, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    torn, whole = (KnownFlags(tmp_path / "flags", role, LocalFilesystem()) for role in ("router", "collector"))
    torn.write(known(9, value=True))
    data = torn.file.read_bytes()
    torn.file.write_bytes(
        {
            "cut": data[:-5], "empty": b"", "flip": data.replace(b"true", b"trua"), "zeros": bytes(len(data)),
            "other": b"seawall-flags 2 00000000\n{}",
        }[damage]
    )  # fmt: skip
    assert torn.read() is None
    assert "a copy of the flags can't be read" in caplog.text
    whole.write(known(2))
    assert torn.read() == known(2)


@pytest.mark.parametrize("call", ["create", "write_at", "sync_data", "rename"])
def test_a_copy_that_can_not_be_replaced_stays(tmp_path: Path, call: str) -> None:
    filesystem = FaultyFilesystem(LocalFilesystem())
    copies = KnownFlags(tmp_path / "flags", "router", filesystem)
    copies.write(known(1))
    filesystem.fail(call, errno.ENOSPC)
    with pytest.raises(OSError, match="No space left"):
        copies.write(known(2))
    assert copies.read() == known(1)
    filesystem.heal()
    copies.write(known(2))
    assert copies.read() == known(2)
