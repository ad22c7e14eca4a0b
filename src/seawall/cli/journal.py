"""``seawall journal``: a journal's files, looked at offline or beside a running platform."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import IO

import click

from seawall.cli.say import FAILED, NOT_FOUND, Failed, json_option, json_text, say, say_json, say_table
from seawall.journal import LocalFilesystem, survey
from seawall.kernel.error import Corrupt
from seawall.kernel.event import Record, decode, headers_of, id_text
from seawall.kernel.seam.journal import Frame

EXIT_CODES = "\b\nExit codes: 0 all is well, 1 damage was found or a file can't be read, 3 there is no journal."


@click.group(epilog=EXIT_CODES)
def journal() -> None:
    """Look at the files that accepted events are kept in. FOLDER is a data folder (then its spool too), a folder of
    journals, or one journal in it. Nothing is written or locked: it may be used beside a running platform, and on a
    copy."""


@journal.command("inspect", epilog="\b\nExample:\n  seawall journal inspect ./data\n\n" + EXIT_CODES)
@click.argument("folder", type=click.Path(path_type=Path))
@json_option
def inspect_(folder: Path, as_json: bool) -> None:
    """Show journals and their segments, without reading events."""
    with _failures(folder):
        views = [survey.inspect(log, LocalFilesystem()) for log in _logs(folder)]
    if as_json:
        say_json([_view(view) for view in views])
        return
    for view in views:
        aside = f", kept aside: {', '.join(view.kept_aside)}" if view.kept_aside else ""
        forwarded = f", forwarded to segment {at.segment_id}, {at.offset_bytes}" if (at := view.forwarded) else ""
        say(f"{view.name}: log {view.log_id}{forwarded}{aside}")
        rows = [
            {
                "segment": segment.id, "bytes": segment.size_bytes, "created": _time(segment.created_us),
                "first": segment.first_sequence, "header": "good" if segment.sound else "UNREADABLE",
            }
            for segment in view.segments
        ]  # fmt: skip
        say_table(rows, ["segment", "bytes", "created", "first", "header"], empty="no segments yet")


@journal.command("verify", epilog="\b\nExample:\n  seawall journal verify ./data --json\n\n" + EXIT_CODES)
@click.argument("folder", type=click.Path(path_type=Path))
@json_option
def verify_(folder: Path, as_json: bool) -> None:
    """Read every event and check every byte; exit code 1 when anything is damaged or missing."""
    with _failures(folder):
        verdicts = [survey.verify(log, LocalFilesystem()) for log in _logs(folder)]
    if as_json:
        say_json([_verdict(verdict) for verdict in verdicts])
    for verdict in verdicts if not as_json else ():
        said = "sound" if verdict.sound else f"DAMAGED in {len(verdict.damage)} places"
        say(f"{verdict.name}: {said}, {verdict.records} events, {verdict.size_bytes} bytes")
        for part in verdict.damage:
            say(f"  segment {part.segment_id}, bytes {part.start_bytes} to {part.end_bytes}: {part.reason}")
        if verdict.unproven_bytes:
            say(f"  {verdict.unproven_bytes} bytes at the end are half written: normal while it runs")
    if not all(verdict.sound for verdict in verdicts):
        raise Failed(FAILED, "the journal is damaged; the bytes are still there (docs/decisions/0001)")


@journal.command(
    "export",
    epilog="""\b
Examples:
  seawall journal export ./data > events.jsonl
  seawall journal export ./data --event 0193… --json

"""
    + EXIT_CODES,
)
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--event", "event", metavar="ID", help="Only this event.")
@click.option("--limit", type=click.IntRange(min=1), metavar="N", help="At most so many events.")
@click.option(
    "--output", type=click.File("w", lazy=True), default="-", metavar="FILE", help="[default: standard output]"
)
@click.option("--json", "as_json", is_flag=True, help="One JSON array instead of one object a line.")
def export(folder: Path, event: str | None, limit: int | None, output: IO[str], as_json: bool) -> None:
    """Write events as JSON, one a line: what was accepted, with its headers and its exact body (base64)."""
    with _failures(folder):
        logs = _logs(folder)
        count = 0
        output.write("[\n" if as_json else "")
        for line in _lines(logs, event):
            output.write((",\n" if as_json and count else "") + line + ("" if as_json else "\n"))
            count += 1
            if count == limit:
                break
        output.write("\n]\n" if as_json else "")
    if event is not None and count == 0:
        raise Failed(NOT_FOUND, f"event {event} isn't in the journal; it may have been routed and forgotten")


def _lines(logs: list[Path], event: str | None) -> Iterator[str]:
    for log in logs:
        for frame in survey.records(log, LocalFilesystem()):
            value = _event(survey.name_of(log), frame)
            if event is None or value.get("id") == event:
                yield json_text(value)


def _event(name: str, frame: Frame) -> dict[str, object]:
    where = {"journal": name, "segment": frame.end.segment_id, "end": frame.end.offset_bytes}
    try:
        record = decode(frame.payload)
    except Corrupt as error:
        # A record of a newer Seawall: its bytes are right, so they are given as they are.
        return {**where, "unknown": str(error), "record": base64.b64encode(frame.payload).decode()}
    return {**where, **_fields(record)}


def _fields(record: Record) -> dict[str, object]:
    return {
        "id": id_text(record.id), "source": record.source, "source_id": record.source_id.hex(), "kind": record.kind,
        "tenant": record.tenant, "received_at": _time(record.received_us), "key": record.key,
        "key_signed": record.key_signed, "target": record.target, "peer": record.peer, "wait_ms": record.wait_ms,
        "headers": headers_of(record.headers), "body": base64.b64encode(record.body).decode(),
    }  # fmt: skip


def _view(view: survey.LogView) -> dict[str, object]:
    return {
        "name": view.name, "folder": str(view.folder), "log_id": view.log_id, "last_writer": view.writer,
        "kept_aside": view.kept_aside,
        "forwarded": {"segment": at.segment_id, "end": at.offset_bytes} if (at := view.forwarded) else None,
        "segments": [
            {
                "id": segment.id, "bytes": segment.size_bytes, "header_readable": segment.sound,
                "created_at": _time(segment.created_us), "first_sequence": segment.first_sequence,
            }
            for segment in view.segments
        ],
    }  # fmt: skip


def _verdict(verdict: survey.Verdict) -> dict[str, object]:
    return {
        "name": verdict.name, "log_id": verdict.log_id, "sound": verdict.sound, "events": verdict.records,
        "bytes": verdict.size_bytes, "unproven_bytes": verdict.unproven_bytes,
        "damage": [
            {"segment": part.segment_id, "start": part.start_bytes, "end": part.end_bytes, "reason": part.reason}
            for part in verdict.damage
        ],
    }  # fmt: skip


def _logs(folder: Path) -> list[Path]:
    logs = survey.logs_in(folder)
    if not logs:
        raise Failed(NOT_FOUND, f"there is no journal in {folder}")
    return logs


@contextmanager
def _failures(folder: Path) -> Iterator[None]:
    try:
        yield
    except (Corrupt, OSError) as error:
        raise Failed(FAILED, f"{folder}: {error}") from error


def _time(us: int) -> str | None:
    try:
        return datetime.fromtimestamp(us / 1_000_000, UTC).isoformat(timespec="milliseconds") if us else None
    except (ValueError, OverflowError, OSError):
        return f"{us} microseconds since 1970"  # no possible time; its bytes are as they were written
