"""The event as a workflow sees it."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from seawall import Event, NotJSON

NOW = datetime(2026, 1, 2, tzinfo=UTC)


def test_headers_are_found_whatever_their_case_and_keep_every_value() -> None:
    event = Event(id="e", type="t", received_at=NOW, headers=b"X-One\x001\0Accept\0a\0x-one\x002")
    assert event.headers["x-ONE"] == "1" and event.headers.all("X-one") == ["1", "2"]
    assert list(event.headers) == ["x-one", "accept"] and len(event.headers) == 2
    assert "ACCEPT" in event.headers and "host" not in event.headers and 3 not in event.headers
    assert event.headers.get("host") is None


@pytest.mark.parametrize(
    ("body", "reason"), [(b"", "empty"), (b"{", "invalid"), (b"NaN", "invalid"), (b"[" * 200 + b"]" * 200, "too_deep")]
)
def test_a_body_that_is_no_json_says_why_when_it_is_asked_for(body: bytes, reason: str) -> None:
    event = Event(id="0193", type="t", received_at=NOW, body=body)
    with pytest.raises(NotJSON, match=f"event 0193 is no JSON .{reason}") as caught:
        _ = event.json
    assert caught.value.reason == reason and event.body == body


def test_json_is_read_once() -> None:
    event = Event(id="e", type="t", received_at=NOW, body=b'{"a": [1, 18446744073709551616]}')
    assert event.json is event.json
    assert event.json["a"][1] == 2**64
