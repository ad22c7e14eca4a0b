"""The ledger: what was sent and what was answered, in a file of the lab's own that the product never touches.

Text, one JSON array a line, appended::

    ["run", id, {seed, rate, seconds, source, source_id, type, bytes_max, started_us}]
    ["sent", key, n, attempt, sha256, bytes, sent_us]             before the first byte leaves
    ["reply", key, attempt, whose, ticket]                        before the next one, of a request that was held
    ["answered", key, attempt, status, event_id, answered_us, note]
    ["end", id, {…counts}]

A run that was held says so by ``wait_s``, one to a source that others have too by ``shared``. ``whose`` is the key that
the answer itself names, "" where it names none; ``ticket`` is where to ask again, "" where that is needless.

Two lines an attempt, not one: when the sender itself dies, what it had sent must still be known, or its events would
look invented. A ``sent`` line without an ``answered`` one is an unsure answer. The last line may be torn by a crash; it
is dropped and counted. A file may hold several runs, one after the other or at once: a key begins with its run's id and
``_``, and never repeats.
"""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType

SYNC_EVERY_S = 0.02
"""A ledger line is on stable storage so long after it was written; a killed process loses none, a power cut these."""


@dataclass(slots=True)
class Attempt:
    """One try to send one event."""

    key: str
    n: int
    attempt: int
    sha256: str
    bytes: int
    sent_us: int
    status: int = 0  # 0: no answer, so nobody knows
    event_id: str = ""
    answered_us: int = 0
    note: str = "no answer was seen"
    whose: str = ""  # of a held request: the key that its answer names
    ticket: str = ""  # of a held request: where to ask again, when the answer was only that

    @property
    def acked(self) -> bool:
        """Answered 2xx: from here on the event may not be lost."""
        return 200 <= self.status < 300

    @property
    def refused(self) -> bool:
        """Answered 4xx: certainly nothing was kept."""
        return 400 <= self.status < 500


@dataclass(slots=True)
class Run:
    """One run of the generator, as its ledger tells it."""

    id: str
    about: Mapping[str, object]
    attempts: list[Attempt] = field(default_factory=list)
    end: Mapping[str, object] | None = None  # None: the generator didn't come to its end

    @property
    def source_id(self) -> str:
        return str(self.about.get("source_id", ""))

    def gap(self) -> str:
        """What the generator counted at its end and the ledger lacks; "" when it is whole."""
        there = {"sent": len({attempt.key for attempt in self.attempts}),
                 "acked": sum(attempt.acked for attempt in self.attempts)}  # fmt: skip
        said = {word: self.end.get(word) for word in there} if self.end is not None else {}
        return ", ".join(
            f"{word} {count}, and the ledger has {there[word]}"
            for word, count in said.items()
            if isinstance(count, int) and count > there[word]
        )

    @property
    def held(self) -> bool:
        """Whether its senders waited for the workflow's answer."""
        return bool(self.about.get("wait_s"))

    @property
    def shared(self) -> bool:
        """Whether others send to its source, too: only events whose key begins with the run's id are its own."""
        return bool(self.about.get("shared"))


@dataclass(slots=True)
class Book:
    """A whole ledger, read back."""

    runs: list[Run]
    torn_lines: int  # 1 when the last line was cut by a crash; more means damage
    unreadable: list[int]  # numbers of complete lines that don't make sense: the ledger can't be trusted

    def damage(self) -> Iterator[tuple[str, str]]:
        """(where, why) it can't be trusted: what was accepted may stand in what is missing."""
        for number in self.unreadable:
            yield f"line {number}", "the ledger can't be read there"
        # A generator that was killed tears one line; one that came to its end has none torn.
        torn = self.torn_lines - sum(run.end is None for run in self.runs)
        if torn > 0:
            yield "the ledger", f"{self.torn_lines} torn lines, {torn} more than generators that didn't end"
        for run in self.runs:
            if why := run.gap():
                yield f"run {run.id}", why


class Ledger:
    """The writer. Lines reach the operating system before ``sent`` returns, and the disk within SYNC_EVERY_S.

    Raises:
        OSError: The file can't be opened, written or synced; traffic without a ledger proves nothing, so it ends.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
        self._mend_tail()
        self._dirty = False
        self._failure: OSError | None = None
        self._told = False
        self._closing = threading.Event()
        self._syncer = threading.Thread(target=self._sync_loop, name="ledger.sync", daemon=True)
        self._syncer.start()
        folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        os.fsync(folder)
        os.close(folder)

    def __enter__(self) -> Ledger:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def begin(self, run: str, about: Mapping[str, object]) -> None:
        self._append(["run", run, dict(about)])

    def sent(self, key: str, *, n: int, attempt: int, sha256: str, bytes: int, sent_us: int) -> None:
        """Must be called before the request's first byte leaves."""
        self._append(["sent", key, n, attempt, sha256, bytes, sent_us])

    def replied(self, key: str, *, attempt: int, whose: str, ticket: str) -> None:
        """What a held request was answered; before ``answered``, which says that it was."""
        self._append(["reply", key, attempt, whose, ticket])

    def answered(self, key: str, *, attempt: int, status: int, event_id: str, answered_us: int, note: str = "") -> None:
        self._append(["answered", key, attempt, status, event_id, answered_us, note])

    def end(self, run: str, counts: Mapping[str, object]) -> None:
        self._append(["end", run, dict(counts)])

    def close(self) -> None:
        """Sync what is written, and close. Harmless when called twice.

        Raises:
            OSError: What was written may not outlive the machine, and nobody was told so yet.
        """
        if self._closing.is_set():
            return
        self._closing.set()
        self._syncer.join()
        try:
            if self._failure is None:
                os.fsync(self._file)
            elif not self._told:
                raise self._failure
        finally:
            os.close(self._file)

    def _append(self, line: list[object]) -> None:
        if self._failure is not None:
            self._told = True
            raise self._failure
        data = json.dumps(line, separators=(",", ":")).encode() + b"\n"
        written = os.write(self._file, data)
        if written != len(data):
            raise OSError(f"{self.path}: only {written} of {len(data)} bytes of a ledger line were written")
        self._dirty = True

    def _mend_tail(self) -> None:
        """End a line that an earlier crash tore, so that ours begins on its own."""
        size = os.fstat(self._file).st_size
        if size and os.pread(self._file, 1, size - 1) != b"\n":
            os.write(self._file, b"\n")

    def _sync_loop(self) -> None:
        while not self._closing.wait(SYNC_EVERY_S):
            if not self._dirty:
                continue
            self._dirty = False
            try:
                os.fsync(self._file)
            except OSError as error:
                # The first failed sync is final: a second one may claim what the first one lost.
                self._failure = error
                return


def read(path: Path) -> Book:
    """Everything that a ledger says.

    Raises:
        OSError: It can't be read.
        ValueError: It isn't a ledger.
    """
    book = Book([], 0, [])
    open_attempts: dict[tuple[str, int], Attempt] = {}
    for number, line, complete in _lines(path):
        try:
            values = json.loads(line)
            _take(book, open_attempts, values)
        except (ValueError, TypeError, IndexError, KeyError):
            # A line cut by a crash is the last one, or was ended by the next run's first write.
            if complete and line.startswith(b"[") and line.endswith(b"]"):
                book.unreadable.append(number)
            else:
                book.torn_lines += 1
    if not book.runs:
        raise ValueError(f"{path} holds no run; is it a ledger of `seawall lab traffic`?")
    return book


def _lines(path: Path) -> Iterator[tuple[int, bytes, bool]]:
    """(number, line without its end, whether it has an end)."""
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            yield number, line.rstrip(b"\n"), line.endswith(b"\n")


def _take(book: Book, open_attempts: dict[tuple[str, int], Attempt], values: list[object]) -> None:
    """Put one line into the book. Raises what indexing and conversion raise when it makes no sense."""
    word = values[0]
    if word == "run":
        book.runs.append(Run(str(values[1]), _about(values[2])))
    elif word == "sent":
        _, key, n, attempt, sha256, size, sent_us = values
        made = Attempt(str(key), _int(n), _int(attempt), str(sha256), _int(size), _int(sent_us))
        _run_of(book, made.key.rpartition("_")[0]).attempts.append(made)
        open_attempts[made.key, made.attempt] = made
    elif word == "reply":
        _, key, attempt, whose, ticket = values
        told = open_attempts[str(key), _int(attempt)]
        told.whose, told.ticket = str(whose), str(ticket)
    elif word == "answered":
        _, key, attempt, status, event_id, answered_us, note = values
        known = open_attempts[str(key), _int(attempt)]
        known.status, known.event_id = _int(status), str(event_id)
        known.answered_us, known.note = _int(answered_us), str(note)
    elif word == "end":
        _run_of(book, str(values[1])).end = _about(values[2])
    else:
        raise ValueError(word)


def _run_of(book: Book, id: str) -> Run:
    """The run of this id, else the last one."""
    return next((run for run in reversed(book.runs) if run.id == id), book.runs[-1])


def _int(value: object) -> int:
    if not isinstance(value, int):
        raise TypeError(value)
    return value


def _about(value: object) -> Mapping[str, object]:
    if not isinstance(value, dict):
        raise TypeError(value)
    return value
