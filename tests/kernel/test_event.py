"""The record of an event: what goes in comes out, and what isn't a record is never taken for one."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from seawall.kernel.error import Corrupt
from seawall.kernel.event import DAY_MS, Encoder, EventIds, Record, decode, encode, headers_of, id_day, id_text
from seawall.kernel.limit import RECORD_BYTES_MAX

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)


class SteppingClock:
    """Wall time from a list, the last one repeated."""

    def __init__(self, *wall_us: int) -> None:
        self._wall_us = list(wall_us)

    def monotonic(self) -> float:
        return 0.0

    def wall_us(self) -> int:
        return self._wall_us.pop(0) if len(self._wall_us) > 1 else self._wall_us[0]


RECORDS = st.builds(
    Record,
    id=st.binary(min_size=16, max_size=16),
    source_id=st.binary(min_size=16, max_size=16),
    kind=TEXT,
    tenant=TEXT,
    source=TEXT,
    received_us=st.integers(0, 2**63),
    key=TEXT,
    key_signed=st.booleans(),
    target=st.text(st.characters(max_codepoint=255), max_size=40),
    peer=TEXT,
    key_id=st.integers(0, 2**31),
    config_version=st.integers(0, 2**63),
    wait_ms=st.integers(0, 25_000),
    headers=st.binary(max_size=200),
    body=st.binary(max_size=3000),
)


@given(RECORDS)
def test_a_record_comes_back_exactly(record: Record) -> None:
    assert decode(encode(record)) == record


@given(RECORDS, st.data())
def test_a_cut_record_is_never_a_record(record: Record, data: st.DataObject) -> None:
    payload = encode(record)
    cut = data.draw(st.integers(0, len(payload) - 1))

    with pytest.raises(Corrupt):
        decode(payload[:cut])


@given(RECORDS)
def test_a_sources_encoder_gives_the_very_bytes_of_encode(record: Record) -> None:
    encoder = Encoder(source_id=record.source_id, kind=record.kind, tenant=record.tenant, source=record.source)
    assert encode(record) == encoder.encode(
        record.id, record.received_us, key=record.key.encode("utf-8", "surrogateescape"), key_signed=record.key_signed,
        target=record.target.encode("latin-1"), peer=record.peer.encode(), key_id=record.key_id,
        config_version=record.config_version, wait_ms=record.wait_ms, headers=record.headers, body=record.body,
    )  # fmt: skip


def test_a_record_of_another_version_is_refused_by_name() -> None:
    with pytest.raises(Corrupt, match="version 9"):
        decode(b"\x09" + bytes(200))


def test_the_largest_event_fits_a_record() -> None:
    assert RECORD_BYTES_MAX > 10 * 1024 * 1024 + 32 * 1024


def test_ids_never_go_back_when_the_clock_does() -> None:
    ids = EventIds(SteppingClock(2_000_000_000, 1_000_000_000, 1_500_000_000, 3_000_000_000))

    made = [ids.next() for _ in range(4)]

    assert [int.from_bytes(i[:6], "big") for i in made] == [2_000_000, 2_000_000, 2_000_000, 3_000_000]


def test_ids_differ_and_are_version_7_uuids() -> None:
    import uuid

    ids = EventIds(SteppingClock(1_700_000_000_000_000))

    made = {ids.next() for _ in range(10_000)}

    assert len(made) == 10_000
    assert {uuid.UUID(bytes=i).version for i in made} == {7}
    assert {uuid.UUID(bytes=i).variant for i in made} == {uuid.RFC_4122}


def test_an_id_carries_its_day_and_its_text_is_canonical() -> None:
    import uuid

    id = EventIds(SteppingClock(20_000 * DAY_MS * 1000)).next()

    assert id_day(id) == 20_000
    assert id_text(id) == str(uuid.UUID(bytes=id))


def test_headers_keep_order_and_repetition() -> None:
    assert headers_of(b"A\0x\0a\0y\0B\0") == [("A", "x"), ("a", "y"), ("B", "")]
    assert headers_of(b"") == []
