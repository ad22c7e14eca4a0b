"""``seawall journal``: what a person sees of the files, also beside a running writer."""

from __future__ import annotations

import base64
import dataclasses
import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from desk import SMALL, opened, segments

from seawall.cli.journal import journal
from seawall.cli.say import FAILED, NOT_FOUND, Failed
from seawall.journal import LocalFilesystem
from seawall.journal.frame import FRAME_BYTES
from seawall.journal.spool.checkpoint import Checkpoint
from seawall.kernel.event import EventIds, Record, encode, id_text
from seawall.testing import ManualClock

IDS = EventIds(ManualClock())


def record(body: bytes) -> Record:
    return Record(
        id=IDS.next(), source_id=bytes(16), kind="none", tenant="t", source="s", received_us=1_790_000_000_000_000,
        headers=b"a\0b\0A\0c", body=body,
    )  # fmt: skip


async def data_folder(folder: Path, records: list[Record]) -> Path:
    """A data folder with two logs; the records are in the first."""
    async with opened(folder / "journal" / "c1", SMALL) as desk:
        await desk.keep(*(encode(record) for record in records))
    async with opened(folder / "journal" / "c2", SMALL):
        pass
    return folder


def run(*words: str | Path) -> Result:
    result = CliRunner().invoke(journal, [str(word) for word in words])
    if result.exception is not None and not isinstance(result.exception, Failed):
        raise result.exception
    return result


def code(result: Result) -> int:
    assert isinstance(result.exception, Failed)
    return result.exception.code


async def test_inspect_shows_logs_and_segments_of_a_data_folder_a_journal_folder_or_one_log(tmp_path: Path) -> None:
    data = await data_folder(tmp_path, [record(b"x" * 9000) for _ in range(3)])
    for folder, logs in ((data, 2), (data / "journal", 2), (data / "journal" / "c1", 1)):
        shown = json.loads(run("inspect", folder, "--json").stdout)
        assert len(shown) == logs
        assert len(shown[0]["segments"]) == 3
    assert "c1: log " in run("inspect", data).stdout


@pytest.mark.parametrize("us", [253_402_300_800_000_000, 2**63, 2**64 - 1])
async def test_an_event_of_no_possible_time_keeps_nobody_from_those_behind_it(us: int, tmp_path: Path) -> None:
    odd = dataclasses.replace(record(b"odd"), received_us=us)
    data = await data_folder(tmp_path, [odd, record(b"behind")])
    told = [json.loads(line) for line in run("export", data).stdout.splitlines()]
    assert [base64.b64decode(event["body"]) for event in told] == [b"odd", b"behind"]
    assert str(us) in told[0]["received_at"] and told[1]["received_at"].startswith("2026-")


async def test_a_data_folders_spool_is_looked_at_too(tmp_path: Path) -> None:
    data, spooled = await data_folder(tmp_path, [record(b"kept")]), record(b"spooled")
    async with opened(data / "spool" / "c1", SMALL) as desk:
        (at,) = await desk.keep(encode(spooled))
        Checkpoint(data / "spool" / "c1", LocalFilesystem()).keep(at)
    shown = json.loads(run("inspect", data, "--json").stdout)
    assert [log["name"] for log in shown] == ["c1", "c2", "spool/c1"]
    assert [log["forwarded"] for log in shown] == [None, None, {"segment": 1, "end": at.offset_bytes}]
    assert f"spool/c1: log {at.log_id.hex()}, forwarded to segment 1, {at.offset_bytes}" in run("inspect", data).stdout
    assert "spool/c1: sound, 1 events" in run("verify", data).stdout
    (event,) = json.loads(run("export", data, "--event", id_text(spooled.id), "--json").stdout)
    assert (event["journal"], base64.b64decode(event["body"])) == ("spool/c1", b"spooled")
    assert len(run("export", data / "spool").stdout.splitlines()) == 1


async def test_verify_counts_every_record_of_a_sound_journal(tmp_path: Path) -> None:
    data = await data_folder(tmp_path, [record(b"x" * 3000) for _ in range(9)])
    verdicts = json.loads(run("verify", data, "--json").stdout)
    assert [(verdict["sound"], verdict["events"]) for verdict in verdicts] == [(True, 9), (True, 0)]
    assert "c1: sound, 9 events" in run("verify", data).stdout


async def test_verify_beside_a_running_writer_blames_nothing_and_writes_nothing(tmp_path: Path) -> None:
    async with opened(tmp_path / "c1") as desk:
        await desk.keep(b"one", b"two")
        before = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "c1").iterdir()}
        (verdict,) = json.loads(run("verify", tmp_path / "c1", "--json").stdout)
        assert (verdict["sound"], verdict["events"], verdict["unproven_bytes"]) == (True, 2, 0)
        assert {path.name: path.stat().st_mtime_ns for path in (tmp_path / "c1").iterdir()} == before
        await desk.keep(b"three")


async def test_verify_names_damage_and_fails(tmp_path: Path) -> None:
    data = await data_folder(tmp_path, [record(b"x" * 1000) for _ in range(5)])
    segment = segments(data / "journal" / "c1")[0]
    content = bytearray(segment.read_bytes())
    content[4096 + FRAME_BYTES + 20] ^= 1
    segment.write_bytes(content)
    result = run("verify", data)
    assert code(result) == FAILED
    assert "segment 1, bytes 4096 to " in result.stdout and "payload checksum" in result.stdout


async def test_verify_sees_a_lost_header_of_the_newest_segment(tmp_path: Path) -> None:
    data = await data_folder(tmp_path, [record(b"x" * 9000) for _ in range(3)])
    newest = segments(data / "journal" / "c1")[-1]
    newest.write_bytes(bytes(4096) + newest.read_bytes()[4096:])
    assert code(run("verify", data)) == FAILED


async def test_verify_names_an_unfinished_tail_without_blame(tmp_path: Path) -> None:
    data = await data_folder(tmp_path, [record(b"x" * 1000) for _ in range(2)])
    segment = segments(data / "journal" / "c1")[0]
    segment.write_bytes(segment.read_bytes().rstrip(b"\0")[:-500])
    result = run("verify", data)
    assert result.exception is None
    assert "1 events" in result.stdout and "half written" in result.stdout


async def test_export_gives_every_event_with_its_exact_body_and_headers(tmp_path: Path) -> None:
    records = [record(bytes(range(256)) * n) for n in range(1, 4)]
    data = await data_folder(tmp_path, records)
    events = [json.loads(line) for line in run("export", data).stdout.splitlines()]
    assert [event["id"] for event in events] == [id_text(record.id) for record in records]
    assert [base64.b64decode(event["body"]) for event in events] == [record.body for record in records]
    assert events[0]["headers"] == [["a", "b"], ["A", "c"]]
    (one,) = json.loads(run("export", data, "--event", events[1]["id"], "--json").stdout)
    assert one == events[1]
    assert len(run("export", data, "--limit", "2").stdout.splitlines()) == 2
    assert code(run("export", data, "--event", "nonsense")) == NOT_FOUND


async def test_export_gives_a_record_of_a_newer_version_as_it_is(tmp_path: Path) -> None:
    async with opened(tmp_path / "c1") as desk:
        await desk.keep(b"\xff something new")
    event = json.loads(run("export", tmp_path / "c1").stdout)
    assert base64.b64decode(event["record"]) == b"\xff something new"


@pytest.mark.parametrize("command", ["inspect", "verify", "export"])
def test_a_folder_without_a_journal_is_said(tmp_path: Path, command: str) -> None:
    assert code(run(command, tmp_path / "nothing")) == NOT_FOUND
