from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from seawall.lab.checker.ledger import Ledger, read

WRITER = """
import sys
from pathlib import Path
from seawall.lab.checker.ledger import Ledger
ledger = Ledger(Path(sys.argv[1]))
ledger.begin("r", {"source_id": "s"})
n = 0
while True:
    ledger.sent(f"r_{n}", n=n, attempt=0, sha256="x", bytes=1, sent_us=1)
    print(n, flush=True)
    n += 1
"""


def _write(path: Path, *, run: str, acked: int) -> None:
    with Ledger(path) as ledger:
        ledger.begin(run, {"source_id": "s", "seed": 1})
        for n in range(acked):
            ledger.sent(f"{run}_{n}", n=n, attempt=0, sha256="ab", bytes=2, sent_us=5)
            ledger.answered(f"{run}_{n}", attempt=0, status=202, event_id=f"e{n}", answered_us=9)
        ledger.end(run, {"sent": acked})


def test_what_was_written_is_read_back(tmp_path: Path) -> None:
    path = tmp_path / "L"
    _write(path, run="r", acked=2)
    book = read(path)
    assert (book.torn_lines, book.unreadable) == (0, [])
    assert [(a.key, a.status, a.event_id, a.acked) for a in book.runs[0].attempts] == [
        ("r_0", 202, "e0", True),
        ("r_1", 202, "e1", True),
    ]
    assert book.runs[0].source_id == "s"
    assert book.runs[0].end == {"sent": 2}


def test_an_attempt_without_an_answer_is_unsure(tmp_path: Path) -> None:
    path = tmp_path / "L"
    with Ledger(path) as ledger:
        ledger.begin("r", {})
        ledger.sent("r_0", n=0, attempt=0, sha256="x", bytes=1, sent_us=1)
    attempt = read(path).runs[0].attempts[0]
    assert (attempt.status, attempt.acked, attempt.refused) == (0, False, False)


def test_a_second_run_is_appended_behind_a_torn_line(tmp_path: Path) -> None:
    path = tmp_path / "L"
    _write(path, run="a", acked=2)
    with path.open("ab") as file:
        file.write(b'["sent","a_2",2,0,"ab"')
    _write(path, run="b", acked=1)
    book = read(path)
    assert book.torn_lines == 1
    assert not book.unreadable
    assert [len(run.attempts) for run in book.runs] == [2, 1]


def test_a_line_that_was_changed_is_named_and_not_skipped_in_silence(tmp_path: Path) -> None:
    path = tmp_path / "L"
    _write(path, run="a", acked=2)
    text = path.read_text().replace('["sent","a_1",1', '["sent","a_1","one"')
    path.write_text(text)
    assert read(path).unreadable == [4, 5]


def test_a_file_that_is_no_ledger_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "L"
    path.write_text("hello\n")
    with pytest.raises(ValueError, match="holds no run"):
        read(path)


def test_lines_outlive_a_kill_of_their_writer(tmp_path: Path) -> None:
    path = tmp_path / "L"
    writer = subprocess.Popen([sys.executable, "-c", WRITER, str(path)], stdout=subprocess.PIPE)
    assert writer.stdout is not None
    said = [int(writer.stdout.readline()) for _ in range(500)][-1]
    os.kill(writer.pid, signal.SIGKILL)
    writer.wait()
    writer.stdout.close()
    kept = [a.n for a in read(path).runs[0].attempts]
    assert kept[: said + 1] == list(range(said + 1))


def _on_a_failing_disk(path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Ledger, list[int]]:
    """A ledger with a line, and its syncs so far: each of them fails."""
    calls: list[int] = []

    def failing(descriptor: int) -> None:
        calls.append(descriptor)
        raise OSError(5, "Input/output error")

    ledger = Ledger(path)
    monkeypatch.setattr(os, "fsync", failing)
    ledger.begin("r", {})
    return ledger, calls


def test_a_failed_sync_is_final(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ledger, calls = _on_a_failing_disk(tmp_path / "L", monkeypatch)
    while not calls:
        pass
    ledger._syncer.join()
    with pytest.raises(OSError, match="Input/output"):
        ledger.sent("r_0", n=0, attempt=0, sha256="x", bytes=1, sent_us=1)
    monkeypatch.undo()
    ledger.close()
    assert len(calls) == 1


def test_what_a_held_request_was_answered_is_read_back(tmp_path: Path) -> None:
    with Ledger(tmp_path / "L") as ledger:
        ledger.begin("r", {"wait_s": 8.0})
        for n in range(2):
            ledger.sent(f"r_{n}", n=n, attempt=0, sha256="x", bytes=1, sent_us=1)
        ledger.replied("r_0", attempt=0, whose="r_0", ticket="")
        ledger.replied("r_1", attempt=0, whose="", ticket="/in/tickets/e")
    run = read(tmp_path / "L").runs[0]
    assert run.held
    assert [(a.whose, a.ticket) for a in run.attempts] == [("r_0", ""), ("", "/in/tickets/e")]


def test_runs_that_were_written_at_once_are_told_apart(tmp_path: Path) -> None:
    with Ledger(tmp_path / "L") as ledger:
        for run in ("a", "b"):
            ledger.begin(run, {"source_id": run})
        for key in ("a_0", "b_0", "a_1"):
            ledger.sent(key, n=0, attempt=0, sha256="x", bytes=1, sent_us=1)
        ledger.end("a", {"sent": 2})
    first, second = read(tmp_path / "L").runs
    assert [a.key for a in first.attempts] == ["a_0", "a_1"] and [a.key for a in second.attempts] == ["b_0"]
    assert first.end == {"sent": 2} and second.end is None


def _damage(path: Path) -> list[str]:
    return [why for _, why in read(path).damage()]


def test_a_generator_that_was_killed_tears_one_line_and_more_is_damage(tmp_path: Path) -> None:
    path = tmp_path / "L"
    _write(path, run="a", acked=2)
    assert _damage(path) == []
    with path.open("ab") as file:
        file.write(b'["answered","a_1",0,202\n')
    assert "more than generators that didn't end" in _damage(path)[0]
    with path.open("ab") as file:
        file.write(b'["run","b",{"source_id":"s"}]\n["sent","b_0",0,0,"ab"')
    assert "2 torn lines, 1 more" in _damage(path)[0]


@pytest.mark.parametrize("gone", ["sent", "answered"])
def test_lines_that_the_generator_counted_and_that_are_gone_are_damage(tmp_path: Path, gone: str) -> None:
    path = tmp_path / "L"
    with Ledger(path) as ledger:
        ledger.begin("a", {"source_id": "s"})
        for n in range(3):
            ledger.sent(f"a_{n}", n=n, attempt=0, sha256="ab", bytes=2, sent_us=5)
            ledger.answered(f"a_{n}", attempt=0, status=202, event_id=f"e{n}", answered_us=9)
        ledger.end("a", {"sent": 3, "acked": 3})
    assert _damage(path) == []
    lines = path.read_text().splitlines(keepends=True)
    kept = [line for line in lines if f'"{gone}","a_2"' not in line and '"answered","a_2"' not in line]
    path.write_text("".join(kept))
    assert "and the ledger has 2" in _damage(path)[0]


def test_a_sync_that_failed_after_the_last_line_is_told_at_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger, calls = _on_a_failing_disk(tmp_path / "L", monkeypatch)
    ledger._syncer.join()
    monkeypatch.undo()
    with pytest.raises(OSError, match="Input/output"):
        ledger.close()
    assert len(calls) == 1, "a second sync may claim what the first one lost"
