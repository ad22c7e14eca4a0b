"""Open-loop traffic: arrivals come when the schedule says, whatever the platform does, as real senders' do.

A closed loop slows down with the server and so hides its worst moments (coordinated omission). Here latency counts from
the moment an event was due, and an event that finds all connections busy waits in a bounded line; beyond that it counts
as ``unsent``, in the open. Nothing is repeated unless asked for: each attempt stands alone in the ledger.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import ssl
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from seawall.kernel.signature import sign
from seawall.lab.checker.ledger import Ledger
from seawall.lab.traffic.connection import Answer, Connection, NoAnswer
from seawall.lab.traffic.payload import body, sha256

RETRY_S = 0.25
"""First pause before a repeat, doubled each time."""

COME_AGAIN = frozenset({429, 503})
LATE_KEPT_S = 5.0
"""So long the worst delay of an arrival is told: whoever asks at least so often misses none."""
BARE = " bare"
"""At the word of such an answer that doesn't say when: a sender is promised that it does."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What to send."""

    rate: float  # events a second, on average; arrivals are a Poisson process
    seconds: float
    seed: int
    type: str = "lab.event"
    bytes_max: int = 64 * 1024
    connections: int = 64
    line_max: int = 10_000  # events that are due and wait for a connection
    answer_timeout_s: float = 10.0
    retries: int = 0  # repeats of an attempt that wasn't answered 2xx or 4xx, with the same id
    wait_s: float = 0.0  # so long each sender waits for its workflow's answer (Prefer: wait); 0: for the receipt only

    def arrivals(self) -> Iterator[float]:
        """Seconds from the start at which events are due, in order; a function of the seed alone."""
        rng = random.Random(f"{self.seed}.arrivals")
        at = rng.expovariate(self.rate)
        while at < self.seconds:
            yield at
            at += rng.expovariate(self.rate)


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """Where to send, and as whom."""

    address: Callable[[], tuple[str, int]]  # asked again after each failure: a restarted platform may have moved
    path: str
    secret: bytes = field(repr=False)
    host: str = "seawall"  # as the request names it
    tls: ssl.SSLContext | None = None  # None: plain


Seen = Callable[[str, float], None]
"""Told of each answer: its word (as in `Tally.answers`, or ``own``, ``wrong``, ``ticket`` of one that was held), and
seconds since it was due."""


@dataclass(slots=True)
class Tally:
    """What happened, so far."""

    sent: int = 0
    unsent: int = 0  # due, but the line was full
    answers: Counter[str] = field(default_factory=Counter)  # status, or why there was none
    latencies_s: list[float] = field(default_factory=list)  # of acks, from the moment the event was due

    def acked(self) -> int:
        return sum(count for word, count in self.answers.items() if word.startswith("2"))

    def quantile_ms(self, share: float) -> float | None:
        """None: nothing was acked."""
        if not self.latencies_s:
            return None
        ordered = sorted(self.latencies_s)
        return round(ordered[min(len(ordered) - 1, int(share * len(ordered)))] * 1000, 3)

    def summary(self) -> dict[str, object]:
        return {
            "sent": self.sent,
            "acked": self.acked(),
            "unsent": self.unsent,
            "answers": dict(sorted(self.answers.items())),
            "p50_ms": self.quantile_ms(0.5),
            "p99_ms": self.quantile_ms(0.99),
            "max_ms": self.quantile_ms(1.0),
        }


@dataclass(frozen=True, slots=True)
class _Due:
    n: int
    at: float  # monotonic


class Traffic:
    """One run of the generator, into one ledger.

    Args:
        seen: Told of each answer as it comes.
    """

    def __init__(
        self, plan: Plan, target: Target, ledger: Ledger, *, run: str, seen: Seen = lambda word, took_s: None
    ) -> None:
        self.plan = plan
        self._seen = seen
        self.tally = Tally()
        self._target = target
        self._ledger = ledger
        self._run = run
        self._line: asyncio.Queue[_Due] = asyncio.Queue(plan.line_max)
        self._stopping = asyncio.Event()
        self._due: float | None = None  # monotonic, of the next arrival
        self._late = (float("-inf"), 0.0)  # when an arrival came too late, and by how much

    @property
    def late_s(self) -> float:
        """By how much arrivals came later than the schedule says, at worst, in the last ``LATE_KEPT_S``: how long the
        generator itself has stood still, whatever the platform does. Any thread may ask; it also tells of an arrival
        that is late now."""
        now, due, (at, late_s) = time.monotonic(), self._due, self._late
        return max(0.0, late_s if now - at <= LATE_KEPT_S else 0.0, now - due if due is not None else 0.0)

    def stop(self) -> None:
        """No more arrivals; what is under way ends in its own time."""
        self._stopping.set()

    async def send(self) -> Tally:
        """Send the whole plan; every event that was sent has its lines in the ledger on return.

        Raises:
            OSError: The ledger can't be written. Sending stops.

        Cancelled: attempts under way stay unsure in the ledger.
        """
        try:
            async with asyncio.TaskGroup() as group:
                senders = [group.create_task(self._sender(), name=f"traffic.{n}") for n in range(self.plan.connections)]
                try:
                    await self._arrive()
                finally:
                    self._due = None
                await self._line.join()
                for sender in senders:
                    sender.cancel()
        except* OSError as errors:
            raise errors.exceptions[0] from None
        self._ledger.end(self._run, self.tally.summary())
        return self.tally

    async def _arrive(self) -> None:
        """Put events into the line when they are due."""
        start = time.monotonic()
        for n, offset in enumerate(self.plan.arrivals()):
            self._due = start + offset
            wait_s = self._due - time.monotonic()
            if wait_s > 0:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(wait_s):
                        await self._stopping.wait()
            elif n % 64 == 0:
                await asyncio.sleep(0)  # behind schedule: let the senders work
            self._was_late(time.monotonic() - (start + offset))
            if self._stopping.is_set():
                return
            try:
                self._line.put_nowait(_Due(n, start + offset))
            except asyncio.QueueFull:
                self.tally.unsent += 1

    def _was_late(self, late_s: float) -> None:
        now = time.monotonic()
        if late_s >= self._late[1] or now - self._late[0] > LATE_KEPT_S:
            self._late = (now, late_s)

    async def _sender(self) -> None:
        """Send what is due over one connection, for ever."""
        connection = Connection(self._target.tls)
        try:
            while True:
                due = await self._line.get()
                try:
                    await self._deliver(connection, due)
                finally:
                    self._line.task_done()
        finally:
            connection.close()

    async def _deliver(self, connection: Connection, due: _Due) -> None:
        data = body(self.plan.seed, due.n, type=self.plan.type, bytes_max=self.plan.bytes_max)
        self.tally.sent += 1
        for attempt in range(self.plan.retries + 1):
            if attempt:
                await asyncio.sleep(RETRY_S * 2 ** (attempt - 1))
            status = await self._attempt(connection, due, data, attempt)
            if 200 <= status < 500 and status != 429:
                return

    async def _attempt(self, connection: Connection, due: _Due, data: bytes, attempt: int) -> int:
        """One try; its status, 0 when there was no answer."""
        key = f"{self._run}_{due.n}"
        request = self._request(key, data)
        self._ledger.sent(
            key, n=due.n, attempt=attempt, sha256=sha256(data), bytes=len(data), sent_us=time.time_ns() // 1000
        )
        try:
            answer = await connection.exchange(self._target.address(), request, timeout_s=self.plan.answer_timeout_s)
        except NoAnswer as error:
            self.tally.answers[error.note] += 1
            self._seen(error.note, time.monotonic() - due.at)
            self._ledger.answered(
                key, attempt=attempt, status=0, event_id="", answered_us=time.time_ns() // 1000, note=error.note
            )
            return 0
        took_s, word = time.monotonic() - due.at, str(answer.status)
        if answer.status in COME_AGAIN and "retry-after" not in answer.headers:
            word += BARE
        self.tally.answers[word] += 1
        if 200 <= answer.status < 300:
            self.tally.latencies_s.append(took_s)
        event_id, note = _reading(answer)
        if self.plan.wait_s:
            event_id = answer.headers.get("location", "").rpartition("/")[2] or event_id
            named, ticket = _reply(answer, event_id, sha256(data))
            word = "ticket" if ticket else word if not named else "own" if named == key else "wrong"
            self._ledger.replied(key, attempt=attempt, whose=named, ticket=ticket)
        self._seen(word, took_s)
        self._ledger.answered(
            key, attempt=attempt, status=answer.status, event_id=event_id, answered_us=time.time_ns() // 1000, note=note
        )
        return answer.status

    def _request(self, key: str, data: bytes) -> bytes:
        signed = sign("standard", self._target.secret, data, time.time(), id=key)
        head = [
            f"POST {self._target.path} HTTP/1.1",
            f"host: {self._target.host}",
            "user-agent: seawall-lab",
            "content-type: application/json",
            f"content-length: {len(data)}",
            # For the odd bodies, which have no readable type of their own.
            f"ce-type: {self.plan.type}",
            *(f"{name}: {value}" for name, value in signed),
            *([f"prefer: wait={self.plan.wait_s:g}"] if self.plan.wait_s else []),
        ]
        return "\r\n".join(head).encode() + b"\r\n\r\n" + data


def _reading(answer: Answer) -> tuple[str, str]:
    """(event id, note) of an answer. An ack whose id can't be read is still an ack."""
    try:
        said = json.loads(answer.body)
        event_id = str(said.get("id", ""))
        note = "duplicate" if said.get("duplicate") else str(said.get("title", ""))
    except (ValueError, AttributeError, RecursionError):
        return "", "unreadable answer"
    return event_id, note


def _reply(answer: Answer, event_id: str, sent: str) -> tuple[str, str]:
    """(the key that a held request's answer names, where to ask again when the answer was only that)."""
    if answer.status in (202, 504):
        return "", f"/in/tickets/{event_id}" if event_id else ""
    return whose(answer.body, sent), ""


def whose(body: bytes, sent: str) -> str:
    """The key that a workflow's answer names; "" where it names none.

    Args:
        sent: The checksum of the request's bytes. An answer that tells another one isn't that request's, whatever it
            names: it was made of other bytes.
    """
    try:
        said = json.loads(body)
        key, made_of = str(said["key"]), str(said.get("sha256", sent))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return ""
    return key if made_of == sent else f"{key} with other bytes"
