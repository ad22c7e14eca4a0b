"""The rig's traffic: every stream of an experiment, in a thread, into one ledger; and what was answered lately."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import threading
import time
from base64 import b64encode
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from seawall.kernel.error import Rejected, Unavailable
from seawall.lab.checker.ledger import Ledger
from seawall.lab.platform import Platform, Source
from seawall.lab.traffic import Plan, Target, Traffic

TYPES = {"events": "lab.event", "held": "lab.ask"}
BEGIN_S = 30.0
END_S = 60.0
FOR_EVER_S = 86_400.0
KEEP_S = 30.0
KEPT_MAX = 100_000
CONNECTIONS_MAX = 512
ADDRESS_S = 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class Stream:
    """One kind of traffic."""

    kind: str  # events, held
    rate: float  # a second
    wait_s: float = 8.0  # of held ones
    bytes_max: int = 4096
    timeout_s: float = 10.0  # how long an answer may take, beyond wait_s, before it counts as none
    type: str = ""  # of its events; "": the usual one of its kind
    tenant: str = ""  # whose events they are; "": the usual one's
    tenants: int = 1  # of so many tenants, which share the rate: NAME-1, NAME-2, …

    @property
    def connections(self) -> int:
        """Enough for all that may be under way when each takes as long as it may."""
        waits_s = self.timeout_s + (self.wait_s if self.kind == "held" else 0)
        return min(CONNECTIONS_MAX, max(16, round(self.rate * waits_s * 1.25)))


def streams(said: Sequence[Mapping[str, Any]]) -> list[Stream]:
    """From the fields of an experiment's ``traffic``.

    Raises:
        Rejected: An unknown field or kind, or a value out of range.
    """
    found = []
    for one in said:
        try:
            made = Stream(**one)
        except TypeError as error:
            raise Rejected(400, "traffic", f"{dict(one)}: {error}") from error
        ranges = {
            "rate": (0.1, 2000), "wait_s": (0.5, 25), "bytes_max": (0, 1 << 20), "timeout_s": (0.1, 60),
            "tenants": (1, 50),
        }  # fmt: skip
        for name, (least, most) in ranges.items():
            if not isinstance(value := getattr(made, name), (int, float)) or not least <= value <= most:
                raise Rejected(400, "traffic", f"{name} is {value!r}; from {least:g} to {most:g} is allowed")
        if made.kind not in TYPES:
            raise Rejected(400, "traffic", f"kind {made.kind!r}; there are {', '.join(TYPES)}")
        found += _of_tenants(made)
    return found


def _of_tenants(stream: Stream) -> list[Stream]:
    if stream.tenants == 1:
        return [stream]
    name, rate = stream.tenant or "tenant", stream.rate / stream.tenants
    return [replace(stream, tenant=f"{name}-{n + 1}", tenants=1, rate=rate) for n in range(stream.tenants)]


@dataclass(slots=True)
class Window:
    """Answers of some seconds: by word, and how long they took."""

    seconds: float
    words: Counter[str] = field(default_factory=Counter)
    took_s: list[float] = field(default_factory=list)

    @property
    def all(self) -> int:
        return sum(self.words.values())

    def count(self, sort: str) -> int:
        """Of one sort: ``ok`` (2xx), ``refused`` (4xx), ``failed`` (5xx), ``none``, or a word itself."""
        return sum(count for word, count in self.words.items() if word == sort or _sort(word) == sort)

    def quantile_s(self, share: float) -> float | None:
        """None: nothing was answered."""
        ordered = sorted(self.took_s)
        return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else None


def _sort(word: str) -> str:
    if not word[:3].isdigit():
        return "ok" if word in ("own", "ticket", "wrong") else "none"
    return {"2": "ok", "4": "refused", "5": "failed"}.get(word[0], "none")


class Recent:
    """Answers of the last ``KEEP_S``; written by the traffic's thread, read by any."""

    def __init__(self) -> None:
        self._kept: deque[tuple[float, str, float]] = deque(maxlen=KEPT_MAX)
        self.total: Counter[str] = Counter()

    def seen(self, word: str, took_s: float) -> None:
        now = time.monotonic()
        self._kept.append((now, word, took_s))
        self.total[word] += 1
        while self._kept and self._kept[0][0] < now - KEEP_S:
            self._kept.popleft()

    def window(self, seconds: float) -> Window:
        """What was answered in the last ``seconds``."""
        since, found = time.monotonic() - seconds, Window(seconds)
        for at, word, took_s in reversed(self._copy()):
            if at < since:
                break
            found.words[word] += 1
            found.took_s.append(took_s)
        return found

    def _copy(self) -> list[tuple[float, str, float]]:
        while True:
            try:
                return list(self._kept)
            except RuntimeError:  # it was changed meanwhile
                continue


def _end(loop: asyncio.AbstractEventLoop, traffic: Traffic) -> None:
    with contextlib.suppress(RuntimeError):  # the loop is closed: it has ended
        loop.call_soon_threadsafe(traffic.stop)


class Flow:
    """The streams, each to a source of its own, until ``stop``.

    Args:
        path: Of the ledger.
        address: Where it sends, asked for each request; None: where the platform says.
    """

    shared = False
    """Whether others send to its sources, too (ledger.Run.shared)."""

    def __init__(
        self, platform: Platform, wanted: Sequence[Stream], path: Path, *, seed: int,
        address: Callable[[], tuple[str, int]] | None = None,
    ) -> None:  # fmt: skip
        self._given = address
        self._platform = platform
        self._wanted = wanted
        self._path = path
        self._seed = seed
        self._begun = threading.Event()
        self._traffic: list[Traffic] = []
        self._thread = threading.Thread(target=self._run, name="lab.traffic", daemon=True)
        self._address: tuple[float, tuple[str, int]] = (float("-inf"), ("", 0))
        self._loop: asyncio.AbstractEventLoop | None = None
        self.recent = {kind: Recent() for kind in TYPES}
        self.died = ""

    def start(self) -> None:
        """Make the sources, and begin.

        Raises:
            Rejected, Unavailable: A source couldn't be made.
        """
        self._made = [(stream, *self._source(stream)) for stream in self._wanted]
        self._thread.start()
        if not self._begun.wait(BEGIN_S):
            raise Unavailable("the traffic", f"it didn't begin: {self.died}")

    def stop(self) -> None:
        """No more arrivals; on return the ledger has all that was sent. Harmless when called twice, or never begun.

        Raises:
            Unavailable: It didn't end, or had died before.
        """
        loop = self._loop
        if loop is not None and self._thread.is_alive():
            for each in self._traffic:
                loop.call_soon_threadsafe(each.stop)
            self._thread.join(END_S)
        if self._thread.is_alive():
            raise Unavailable("the traffic", f"it didn't end within {END_S:g} s")
        if self.died:
            raise Unavailable("the traffic", self.died)

    def more(self, stream: Stream) -> Callable[[], None]:
        """One more stream, from now on, into the same ledger; what ends it. ``stop`` does too.

        Raises:
            Rejected, Unavailable: Its source couldn't be made, or the traffic has ended.
        """
        source, secret = self._source(stream)
        begun: Future[Traffic] = Future()
        loop = self._loop
        if loop is None or not self._thread.is_alive():
            raise Unavailable("the traffic", "it has ended")
        loop.call_soon_threadsafe(self._join, stream, source, secret, begun)
        try:
            traffic = begun.result(BEGIN_S)
        except TimeoutError:
            raise Unavailable("the traffic", "it didn't begin") from None
        return lambda: _end(loop, traffic)

    def _join(self, stream: Stream, source: Source, secret: bytes, begun: Future[Traffic]) -> None:
        try:
            made = self._one(self._book, stream, source, secret, self._seed + len(self._traffic))
            self._traffic.append(made)
            self._group.create_task(made.send())
        except Exception as error:  # noqa: BLE001 - whoever asked is in another thread, and is told
            begun.set_exception(error)
        else:
            begun.set_result(made)

    @property
    def running(self) -> bool:
        return self._thread.is_alive()

    @property
    def open(self) -> int:
        """Requests under way or due."""
        return sum(each.tally.sent - sum(each.tally.answers.values()) for each in self._traffic)

    @property
    def sent(self) -> int:
        return sum(each.tally.sent for each in self._traffic)

    @property
    def unsent(self) -> int:
        return sum(each.tally.unsent for each in self._traffic)

    @property
    def late_s(self) -> float:
        """How long the generator itself has stood still lately (Traffic.late_s), the worst of its streams."""
        return max((each.late_s for each in [*self._traffic]), default=0.0)

    # ── Inside ─────────────────────────────────────────────────────────────────────────────────────────────────────
    def _source(self, stream: Stream) -> tuple[Source, bytes]:
        secret = "whsec_" + b64encode(secrets.token_bytes(24)).decode()
        settings = {"wait_ms_max": round(stream.wait_s * 1000)} if stream.kind == "held" else {}
        name = f"lab-{stream.kind}-{secrets.token_hex(4)}"
        made = self._platform.own_source(name, kind="standard", secret=secret, settings=settings, tenant=stream.tenant)
        return made, secret.encode()

    def _run(self) -> None:
        try:
            asyncio.run(self._send())
        except Exception as error:  # noqa: BLE001 - whatever ended it: whoever asks the rig is told, nobody else listens
            while isinstance(error, ExceptionGroup):
                error = error.exceptions[0]
            self.died = f"{type(error).__name__}: {error}"

    async def _send(self) -> None:
        with Ledger(self._path) as book:
            for number, (stream, source, secret) in enumerate(self._made):
                self._traffic.append(self._one(book, stream, source, secret, self._seed + number))
            self._loop, self._book = asyncio.get_running_loop(), book
            async with asyncio.TaskGroup() as self._group:
                for each in self._traffic:
                    self._group.create_task(each.send())
                self._begun.set()

    def _one(self, book: Ledger, stream: Stream, source: Source, secret: bytes, seed: int) -> Traffic:
        held = stream.kind == "held"
        wait_s = stream.wait_s if held else 0.0
        plan = Plan(
            rate=stream.rate, seconds=FOR_EVER_S, seed=seed, type=stream.type or TYPES[stream.kind],
            bytes_max=stream.bytes_max, connections=stream.connections, answer_timeout_s=stream.timeout_s + wait_s,
            wait_s=wait_s,
        )  # fmt: skip
        run = f"{stream.kind[0]}{secrets.token_hex(6)}"
        book.begin(run, {
            "source": source.name, "source_id": source.id, "seed": seed, "rate": stream.rate, "type": plan.type,
            "bytes_max": plan.bytes_max, "started_us": time.time_ns() // 1000, **({"wait_s": wait_s} if held else {}),
            **({"shared": True} if self.shared else {}),
        })  # fmt: skip
        target = self._target(source, secret)
        return Traffic(plan, target, book, run=run, seen=self.recent[stream.kind].seen)

    def _target(self, source: Source, secret: bytes) -> Target:
        return Target(address=self._where(source), path=source.path, secret=secret)

    def _where(self, source: Source) -> Callable[[], tuple[str, int]]:
        if self._given is not None:
            return self._given

        def address() -> tuple[str, int]:
            read_at, known = self._address
            if time.monotonic() - read_at > ADDRESS_S:
                known = self._platform.listen(source)
                self._address = (time.monotonic(), known)
            return known

        return address
