"""How much of the journal's disk one tenant or source may fill with events that wait to be routed.

While routing is behind, whoever sends most would fill the disk, and then everybody is refused. So each may take a part
of what the journal can hold, and is refused beyond it while the others go on. Where there are no others, there is no
cap; nor is there one below ``share_min_bytes``, since a disk that something else has filled is our trouble (503).

Known by the bytes that this process made durable, in buckets along the log; what waited already when it began is
nobody's. Looked at once a second: a request costs a look into a set that is mostly empty.

While the store is away, nobody says what is routed, and that is when a disk fills. Then all counts that wasn't routed
by the last word on it; who is over a cap by that is told 503 and not 429, since more may be routed than we know.
"""

from __future__ import annotations

import asyncio
from collections import Counter as Counts
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from math import ceil
from random import Random

from seawall.collector.receipt import Receipts
from seawall.collector.setting import Settings
from seawall.collector.snapshot import Snapshot, Source
from seawall.guard import Heart, Supervisor
from seawall.kernel.alert import Alerts
from seawall.kernel.clock import Clock
from seawall.kernel.error import Unavailable
from seawall.kernel.metric import Metrics
from seawall.kernel.seam.backlog import Backlog, Stretch
from seawall.kernel.seam.journal import Position

EVERY_S = 1.0
ASK_S = 2.0
"""For both questions of a round together."""

BUCKET_BYTES = 1024 * 1024
BUCKETS_MAX = 512
ENTRIES_MAX = 10_000
"""Beyond either, neighbours are put together: a bucket counts as waiting until all of it is routed, so the count may be
too large by one of them, and never too small."""

RELEASE = 0.9
"""Of its cap: whoever was refused is taken again below it, so that they don't flicker."""

AFTER_S = 30.0
AFTER_S_MAX = 300.0
ALERT = "journal-share"

Owner = tuple[str, str | bytes]
"""("tenant", its name) or ("source", its id)."""

Sender = tuple[str, bytes]
"""Both: the tenant's name and the source's id."""


@dataclass(slots=True)
class _Bucket:
    begin: Position
    end: Position
    sizes: dict[Sender, int] = field(default_factory=dict)
    size_bytes: int = 0

    def waits(self, unread: Sequence[Stretch]) -> bool:
        return any(part.at < self.end and (part.end is None or part.end > self.begin) for part in unread)


class Ledger:
    """Whose bytes wait in one log. Pure.

    Each event adds to one number, which is all that it may cost; who has how much is summed up at each ``read``.
    """

    def __init__(self, *, bucket_bytes: int = BUCKET_BYTES, buckets_max: int = BUCKETS_MAX) -> None:
        self._bucket_bytes = bucket_bytes
        self._buckets_max = buckets_max
        self._buckets: deque[_Bucket] = deque()
        self._last: _Bucket | None = None
        self.held: Counts[Owner] = Counts()
        """Bytes by owner, as of the last ``read``."""

    @property
    def total_bytes(self) -> int:
        """All of it, as of now."""
        return sum(bucket.size_bytes for bucket in self._buckets)

    def add(self, position: Position, tenant: str, source_id: bytes, size_bytes: int) -> None:
        """A record ends at ``position``. They come in the log's order."""
        last = self._last
        if last is None or last.size_bytes >= self._bucket_bytes:
            last = self._begin(position, size_bytes)
        last.end = position
        last.size_bytes += size_bytes
        sender, sizes = (tenant, source_id), last.sizes
        sizes[sender] = sizes.get(sender, 0) + size_bytes

    def read(self, unread: Sequence[Stretch] | None) -> None:
        """Only what lies in these stretches waits still; None: all of it may."""
        kept = deque(bucket for bucket in self._buckets if unread is None or bucket.waits(unread))
        if not kept or kept[-1] is not self._last:
            self._last = None
        self._buckets = kept
        self.held = Counts()
        for bucket in kept:
            for (tenant, source_id), size_bytes in bucket.sizes.items():
                self.held["tenant", tenant] += size_bytes
                self.held["source", source_id] += size_bytes

    def _begin(self, position: Position, size_bytes: int) -> _Bucket:
        self._bound()  # before: a bucket that is put to another is no longer this one
        begin = max(0, position.offset_bytes - size_bytes)
        last = self._last = _Bucket(Position(position.log_id, position.segment_id, begin), position)
        self._buckets.append(last)
        return last

    def _bound(self) -> None:
        while len(self._buckets) >= self._buckets_max or (
            len(self._buckets) > 1 and sum(len(bucket.sizes) for bucket in self._buckets) > ENTRIES_MAX
        ):
            olds, self._buckets = self._buckets, deque()
            while olds:
                one = olds.popleft()
                if olds:
                    other = olds.popleft()
                    one.end, one.size_bytes = other.end, one.size_bytes + other.size_bytes
                    for sender, size_bytes in other.sizes.items():
                        one.sizes[sender] = one.sizes.get(sender, 0) + size_bytes
                self._buckets.append(one)


class Shares:
    """Refuses who has filled its part. ``kept`` is told of each durable event.

    Args:
        backlog: What waits; None: nobody knows, and nobody is refused.
    """

    def __init__(
        self, settings: Settings, backlog: Backlog | None, *, snapshot: Snapshot, receipts: Receipts, clock: Clock,
        metrics: Metrics, alerts: Alerts, random: Random,
    ) -> None:  # fmt: skip
        self.settings = settings
        self._backlog = backlog
        self._snapshot = snapshot
        self._receipts = receipts
        self._clock = clock
        self._alerts = alerts
        self._random = random
        self._ledger = Ledger()
        self._known_at = clock.monotonic()  # when what waits was last known
        self._certain = True  # it was at the last look
        self._asked: asyncio.Task[int] | None = None  # how much room there is, of a disk that hasn't said yet
        self._rates: dict[Owner, float] = {}  # bytes a second by which those over their cap became fewer
        self._over: dict[Owner, int] = {}  # and their caps
        self._told: dict[Owner, str] = {}  # and their names, as their alerts say them
        self._refused = {
            whose: metrics.counter("seawall_share_refused_total", "Requests over a share of the journal.", by=whose)
            for whose in ("tenant", "source")
        }
        metrics.gauge(
            "seawall_unrouted_bytes", "Bytes of events that this process accepted and that wait to be routed."
        ).read = lambda: float(self._ledger.total_bytes)

    def register(self, supervisor: Supervisor) -> None:
        """Add the loop that looks at what waits. Intake is as ready without it."""
        if self._backlog is not None:
            supervisor.add("collector.share", self._run, essential=False)

    def kept(self, source: Source, position: Position, size_bytes: int) -> None:
        """An event is durable. What lies in Kafka doesn't fill this log."""
        if self._backlog is not None and position.log_id == self._backlog.log_id:
            self._ledger.add(position, source.tenant, source.id, size_bytes)

    def look(self, source: Source) -> bytes | None:
        """The refusal of a request whose tenant or source has filled its part, else None."""
        if not self._over:
            return None
        for owner in (("tenant", source.tenant), ("source", source.id)):
            cap = self._over.get(owner)
            if cap is not None:
                return self._refusal(owner, cap)
        return None

    async def _run(self, heart: Heart) -> None:
        backlog = self._backlog
        assert backlog is not None
        try:
            while True:
                if trouble := await self._look_once(backlog):
                    heart.unready(trouble)
                else:
                    await heart.beat()
                await asyncio.sleep(EVERY_S)
        finally:
            if self._asked is not None:
                self._asked.cancel()

    async def _look_once(self, backlog: Backlog) -> str:
        """Why it isn't known what waits, "" when it is. Takes ``ASK_S`` at the most."""
        until = asyncio.get_running_loop().time() + ASK_S
        try:
            room_bytes = await self._room_bytes(backlog)
        except Unavailable as error:
            return str(error)
        try:
            async with asyncio.timeout_at(until):
                unread = await backlog.unread()
        except (Unavailable, TimeoutError) as error:
            self.judge(None, room_bytes)
            return str(error) or f"what waits in the journal isn't known within {ASK_S:g} s"
        self.judge(unread, room_bytes)
        return ""

    async def _room_bytes(self, backlog: Backlog) -> int:
        """A disk that hangs is asked once, and takes one thread from others, however long it hangs."""
        if self._asked is None:
            self._asked = asyncio.ensure_future(backlog.room_bytes())
        if not (await asyncio.wait([self._asked], timeout=ASK_S / 2))[0]:
            raise Unavailable("journal", "its disk doesn't say in time how much room it has")
        asked, self._asked = self._asked, None
        return asked.result()

    def judge(self, unread: Sequence[Stretch] | None, room_bytes: int) -> None:
        """So much waits (None: nobody knows), and so much more fits: who is over its cap?"""
        ledger, now = self._ledger, self._clock.monotonic()
        before = {owner: ledger.held[owner] for owner in self._over}
        ledger.read(unread)
        passed_s = max(0.001, now - self._known_at)
        self._rates = {owner: (held - ledger.held[owner]) / passed_s for owner, held in before.items()}
        self._certain = unread is not None
        if self._certain:
            self._known_at = now
        caps = self._caps(ledger.total_bytes + room_bytes)
        over = {
            owner: cap
            for owner, held in ledger.held.items()
            if (cap := caps(owner)) is not None and held > (cap * RELEASE if owner in self._over else cap)
        }
        for owner in self._over.keys() - over.keys():
            self._alerts.cleared(ALERT, **{owner[0]: self._told.pop(owner)})
        for owner in over.keys() - self._over.keys():
            # Kept, since a source may have another name, or none, when the alert ends.
            name = self._told[owner] = self._name(owner)
            self._alerts.raised(
                ALERT, f"events of {owner[0]} {name} fill their part of the journal while they wait to be routed; more "
                "of them are refused",
                unaffected="all others", cure="GET /statusz of the admin address says why routing is behind",
                **{owner[0]: name},
            )  # fmt: skip
        self._over = over

    def _caps(self, capacity_bytes: int) -> Callable[[Owner], int | None]:
        live, s = self._snapshot.live, self.settings
        tenants, sources = len(live), sum(live.values())

        def cap(owner: Owner) -> int | None:
            share, others = (s.tenant_share, tenants > 1) if owner[0] == "tenant" else (s.source_share, sources > 1)
            return max(s.share_min_bytes, int(share * capacity_bytes)) if others and share < 1 else None

        return cap

    def _name(self, owner: Owner) -> str:
        return owner[1] if isinstance(owner[1], str) else self._snapshot.name_of(owner[1])

    @property
    def _old(self) -> bool:
        return self._clock.monotonic() - self._known_at > self.settings.stale_s

    def _refusal(self, owner: Owner, cap: int) -> bytes:
        whose = owner[0]
        self._refused[whose].value += 1
        falls = self._rates.get(owner, 0.0)
        after_s = (self._ledger.held[owner] - cap * RELEASE) / falls if falls > 0 else AFTER_S
        after_s = min(AFTER_S_MAX, max(1.0, after_s))
        detail = f"events of this {whose} fill their part of the journal, {cap} bytes; nothing was stored"
        if not self._certain or self._snapshot.stale or self._old:
            # It may all be routed by now, and that we don't know is our trouble.
            return self._receipts.unavailable("journal share used up", detail, retry_after_s=after_s)
        name = b"%b-journal" % whose.encode()
        policy = b'RateLimit-Policy: "%b";q=%d;qu="content-bytes"\r\n' % (name, cap)
        limit = b'RateLimit: "%b";r=0;t=%d\r\n' % (name, ceil(after_s))
        headers = b"Retry-After: %d\r\n" % ceil(after_s * (1 + self._random.random() / 2)) + policy + limit
        return self._receipts.problem(429, "journal share used up", detail, headers=headers)
