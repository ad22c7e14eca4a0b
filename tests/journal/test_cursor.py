"""Reading by position: the same places again and again, in any order, and records that are really missing."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from hypothesis import given
from hypothesis import strategies as st

from seawall.journal.cursor import Cursor
from seawall.journal.filesystem import LocalFilesystem
from seawall.journal.frame import HEADER_BYTES, Codec, Header
from seawall.journal.segment import segment_path
from seawall.kernel.seam.journal import Position

LOG_ID = bytes(range(16))
PLENTY = 1 << 20

Segments = Sequence[Sequence[int]]
"""The numbers of the records in each segment."""

STEPS = st.lists(
    st.tuples(st.integers(0, 100), st.integers(0, 100), st.integers(1, 9), st.integers(0, 200)), max_size=12
)
"""Reads: from which place, up to which, how many records, how many bytes."""


def _write(folder: Path, segments: Segments) -> None:
    """A log whose every byte is right; whether its numbers are is the caller's affair."""
    end, number = 0, 1
    for id, numbers in enumerate(segments, 1):
        salt = id.to_bytes(16, "big")
        number = numbers[0] if numbers else number
        header = Header(
            log_id=LOG_ID, segment_id=id, salt=salt, created_us=0, first_sequence=number, previous_end=end
        )  # fmt: skip
        frames = b"".join(Codec(salt).encode([_payload(each)], each)[0] for each in numbers)
        segment_path(folder, id).write_bytes(header.encode() + frames)
        end = HEADER_BYTES + len(frames)
        number = numbers[-1] + 1 if numbers else number


def _payload(number: int) -> bytes:
    return b"record %d" % number


def _sound(sizes: Sequence[int]) -> Segments:
    """Records from 1 on, without a gap."""
    numbers = iter(range(1, sum(sizes) + 1))
    return [[next(numbers) for _ in range(size)] for size in sizes]


@contextmanager
def _opened(segments: Segments) -> Iterator[Cursor]:
    with TemporaryDirectory() as name:
        _write(Path(name), segments)
        cursor = Cursor(Path(name), LOG_ID, LocalFilesystem())
        try:
            yield cursor
        finally:
            cursor.close()


def _places(segments: Segments) -> list[tuple[Position, int]]:
    """Everywhere that reading can begin, in order, each with how many records lie before it."""
    places: list[tuple[Position, int]] = []
    for id, numbers in enumerate(segments, 1):
        at, before = HEADER_BYTES, places[-1][1] if places else 0
        places.append((Position(LOG_ID, id, at), before))
        for done, number in enumerate(numbers, 1):
            at += len(Codec(bytes(16)).encode([_payload(number)], number)[0])
            places.append((Position(LOG_ID, id, at), before + done))
    return places


@given(sizes=st.lists(st.integers(0, 4), min_size=1, max_size=5), steps=STEPS)
def test_a_sound_log_is_sound_from_wherever_and_however_often_it_is_read(
    sizes: list[int], steps: list[tuple[int, int, int, int]]
) -> None:
    segments = _sound(sizes)
    places = _places(segments)
    with _opened(segments) as cursor:
        for begin, end, records, size in steps:
            (at, before), (limit, until) = sorted((places[begin % len(places)], places[end % len(places)]))
            chunk = cursor.read(at, limit, records_max=records, bytes_max=size)
            assert not chunk.damage, (at, limit)
            expected = [_payload(number) for number in range(before + 1, until + 1)]
            found = [frame.payload for frame in chunk.frames]
            assert found == expected[: len(found)]
            assert found or not expected


def test_a_border_of_segments_that_is_crossed_twice_is_no_damage() -> None:
    with _opened([[1], [2, 3]]) as cursor:
        end = cursor.proven_end(cursor.start())
        border = cursor.read(cursor.start(), end, records_max=1, bytes_max=PLENTY).next
        first = cursor.read(border, end, records_max=1, bytes_max=PLENTY)
        # What a reader does that couldn't keep what it had read.
        again = cursor.read(border, end, records_max=1, bytes_max=PLENTY)
    assert first == again
    assert not again.damage


@given(
    sizes=st.lists(st.integers(1, 4), min_size=2, max_size=5), records=st.integers(1, 5), lost=st.integers(1, 100),
    steps=STEPS,
)  # fmt: skip
def test_records_that_are_missing_are_damage_however_the_log_was_read_before(
    sizes: list[int], records: int, lost: int, steps: list[tuple[int, int, int, int]]
) -> None:
    """Reading it in order tells, also after other reads; and also where the headers' own numbers agree with the gap."""
    gap = 2 + lost % (sum(sizes) - 1)  # not the first one: nothing says that the log didn't begin there
    segments = [[number + (number >= gap) for number in numbers] for numbers in _sound(sizes)]
    places = _places(segments)
    with _opened(segments) as cursor:
        for begin, end, most, size in steps:
            (at, _), (limit, _) = sorted((places[begin % len(places)], places[end % len(places)]))
            cursor.read(at, limit, records_max=most, bytes_max=size)
        at, end = cursor.start(), cursor.proven_end(cursor.start())
        reasons: list[str] = []
        while at < end:
            chunk = cursor.read(at, end, records_max=records, bytes_max=PLENTY)
            reasons += [damage.reason for damage in chunk.damage]
            at = chunk.next
        chunk = cursor.read(at, places[-1][0], records_max=1, bytes_max=PLENTY)  # the newest record
        reasons += [damage.reason for damage in chunk.damage]
    assert [reason for reason in reasons if "missing" in reason]
