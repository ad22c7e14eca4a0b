"""The whole check over a real socket: a platform that did wrong is found out, whatever it did."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from seawall.kernel.error import Rejected, Unavailable
from seawall.lab.checker.ledger import Book, Ledger, read
from seawall.lab.checker.verdict import Verdict
from seawall.lab.checker.verify import verify
from seawall.lab.platform import Place, Platform
from seawall.lab.traffic.payload import body, sha256

from .platform_server import FakePlatform

COUNT = 10


@pytest.fixture
def fake() -> Iterator[FakePlatform]:
    with FakePlatform() as made:
        yield made


@pytest.fixture
def book(fake: FakePlatform, tmp_path: Path) -> Book:
    """A ledger of COUNT acked events that ``fake`` keeps and has run."""
    with Ledger(tmp_path / "L") as ledger:
        ledger.begin("r", {"source_id": "s1", "seed": 3, "type": "t", "bytes_max": 300})
        for n in range(COUNT):
            data = body(3, n, type="t", bytes_max=300)
            ledger.sent(f"r_{n}", n=n, attempt=0, sha256=sha256(data), bytes=len(data), sent_us=1)
            id = fake.keep(f"r_{n}", data)
            ledger.answered(f"r_{n}", attempt=0, status=202, event_id=id, answered_us=2)
    return read(tmp_path / "L")


def _counts(fake: FakePlatform, book: Book, *, timeout_s: float = 0.0) -> dict[str, int]:
    with Platform(fake.find, patience_s=0.1) as platform:
        verdict = verify(platform, book, timeout_s=timeout_s)
    assert verdict.holds == (
        not any(verdict.counts()[w] for w in ("lost", "invented", "corrupted", "duplicated", "unknown"))
    )
    return {word: count for word, count in verdict.counts().items() if count and word not in ("sent", "accepted")}


def test_a_platform_that_kept_everything_is_believed(fake: FakePlatform, book: Book) -> None:
    assert _counts(fake, book) == {"finished": COUNT}


def _lose_event(fake: FakePlatform) -> None:
    del fake.events[4]


def _lose_run(fake: FakePlatform) -> None:
    del fake.runs[4]


def _stall_run(fake: FakePlatform) -> None:
    fake.runs[4]["status"] = "running"


def _change_bytes(fake: FakePlatform) -> None:
    fake.bodies[fake.events[4]["id"]] += b" "


def _hide_bytes(fake: FakePlatform) -> None:
    fake.events[4]["body_sha256"] = None
    fake.bodies[fake.events[4]["id"]] = b"others"


def _invent_event(fake: FakePlatform) -> None:
    fake.keep("somebody-else", b"{}")


def _double_event(fake: FakePlatform) -> None:
    fake.keep("r_4", fake.bodies[fake.events[4]["id"]])


def _double_run(fake: FakePlatform) -> None:
    fake.runs.append({**fake.runs[4], "id": "again"})


def _bury_event(fake: FakePlatform) -> None:
    fake.events[4]["status"] = "dead"


@pytest.mark.parametrize(
    ("wrong", "expected"),
    [
        (_lose_event, {"finished": COUNT - 1, "lost": 1}),
        (_lose_run, {"finished": COUNT - 1, "lost": 1}),
        (_bury_event, {"finished": COUNT - 1, "lost": 1}),
        (_stall_run, {"finished": COUNT - 1, "unknown": 1}),
        (_change_bytes, {"finished": COUNT - 1, "corrupted": 1}),
        (_hide_bytes, {"finished": COUNT - 1, "corrupted": 1}),
        (_invent_event, {"finished": COUNT, "invented": 1}),
        (_double_event, {"finished": COUNT, "duplicated": 1}),
        (_double_run, {"finished": COUNT, "duplicated": 1}),
    ],
)
def test_what_a_platform_did_wrong_is_found(
    fake: FakePlatform, book: Book, wrong: Callable[[FakePlatform], None], expected: dict[str, int]
) -> None:
    wrong(fake)
    assert _counts(fake, book) == expected


def test_what_comes_late_is_waited_for(fake: FakePlatform, book: Book) -> None:
    fake.runs[0]["status"] = "queued"
    rounds: list[int] = []

    def progress(verdict: object) -> None:
        rounds.append(1)
        fake.runs[0]["status"] = "succeeded"

    with Platform(fake.find) as platform:
        verdict = verify(platform, book, timeout_s=30.0, progress=progress)
    assert verdict.holds
    assert len(rounds) == 2


def test_a_platform_that_is_away_leaves_everything_unknown(book: Book) -> None:
    def nowhere() -> Place:
        raise Unavailable("the platform", "it isn't running")

    verdict = verify(Platform(nowhere, patience_s=0.0), book, timeout_s=0.0)
    assert not verdict.holds
    assert (verdict.accepted, verdict.unknown, verdict.lost) == (COUNT, COUNT, 0)


def test_a_wrong_token_is_said_and_not_waited_out(fake: FakePlatform, book: Book) -> None:
    wrong = Place(admin=fake.url, token="other")
    with Platform(lambda: wrong) as platform, pytest.raises(Rejected) as said:
        verify(platform, book, timeout_s=60.0)
    assert said.value.status == 401


def test_a_ledger_in_which_nothing_was_sent_proves_nothing() -> None:
    assert not Verdict().holds


def test_a_copy_that_comes_while_something_is_under_way_is_seen(fake: FakePlatform, book: Book) -> None:
    asked: list[int] = []

    def drained() -> bool:
        asked.append(1)
        if len(asked) == 2:
            _double_event(fake)
        return len(asked) > 1

    with Platform(fake.find) as platform:
        verdict = verify(platform, book, timeout_s=30.0, drained=drained)
    assert verdict.duplicated == 1 and len(asked) == 2


def test_what_never_drains_keeps_nobody_waiting_for_ever(fake: FakePlatform, book: Book) -> None:
    with Platform(fake.find) as platform:
        assert verify(platform, book, timeout_s=0.0, drained=lambda: False).holds


def test_events_of_which_none_has_a_run_are_lost_where_there_is_a_workflow(fake: FakePlatform, book: Book) -> None:
    fake.runs.clear()
    with Platform(fake.find, patience_s=0.1) as platform:
        assert verify(platform, book, timeout_s=0.0).holds
        assert verify(platform, book, timeout_s=0.0, must_run=True).lost == COUNT


def test_a_damaged_ledger_is_unknown(fake: FakePlatform, tmp_path: Path, book: Book) -> None:
    del book
    path = tmp_path / "L"
    path.write_text(path.read_text() + '["answered","r_3",0,20\n["end","r",{}]\n')
    with Platform(fake.find, patience_s=0.1) as platform:
        verdict = verify(platform, read(path), timeout_s=0.0)
    assert not verdict.holds and "torn" in verdict.examples["unknown"][0]
