"""What the collector knows of sources, on its own: intake needs no store.

The snapshot is compared with the store each second, and at once when a hint (NOTIFY) or an unknown token asks for it.
A sealed copy on disk makes a restart during a store outage know every source. While the store hasn't confirmed the
snapshot for ``stale_s``, what it refuses is not certain: the caller then answers 503 instead of 4xx.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import Protocol

import msgspec

from seawall.collector.key import KeyRule
from seawall.collector.sealed import KeptCopy, SealedCopy
from seawall.collector.setting import Choice, Settings, choice, rate_of
from seawall.guard import Heart, Supervisor
from seawall.guard.patience import patiently
from seawall.kernel import signature
from seawall.kernel.clock import Clock, Deadline
from seawall.kernel.error import SeawallError
from seawall.kernel.event import Encoder
from seawall.kernel.log import fields, logger
from seawall.kernel.metric import Metrics
from seawall.kernel.seam.filesystem import Filesystem
from seawall.kernel.seam.limiter import Rate
from seawall.kernel.status import CHANNEL_SOURCE
from seawall.store import pool
from seawall.store.source import Edition, Loaded
from seawall.store.vault import Vault

log = logger("collector")

TOKENS_CACHED_MAX = 10_000
FORGET_S = 1.0
HINT_CHECK_S = 1.0
HINT_CONNECT_S = 1.0
"""Connecting, and LISTEN, take so long each; together below the supervisor's stall limit."""

SLOW = "PostgreSQL, or the disk of the copy"

Asked = Callable[[], None]


class SourceReader(Protocol):
    """The part of ``store.source.Sources`` that a snapshot needs."""

    async def edition(self, *, timeout_s: float) -> Edition: ...

    async def load(self, *, timeout_s: float) -> tuple[Edition, list[Loaded]]: ...

    async def seen(self, collector: str, version: int, *, timeout_s: float) -> float | None: ...

    async def forget(self, collector: str, *, timeout_s: float) -> None: ...


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Source:
    """A source, ready to judge requests."""

    id: bytes
    name: str
    kind: signature.Kind
    encoder: Encoder  # of its records
    secrets: signature.Secrets
    choice: Choice
    options: signature.Options
    removed: bool
    keys: KeyRule | None  # None: the kind's own dedupe key
    tenant: str
    rate: Rate | None
    metered: bool  # it or its tenant has a rate
    demanding: bool  # more than the signature is looked at: a handshake, JSON, or ``keys``
    trouble: str  # not "": its row can't be used here; answer 503, since that is our fault
    doubt: str = ""  # not "": a secret of it can't be opened, so that nothing it verifies not is certainly wrong


class Snapshot:
    """All sources as of one version. Lookups are plain dictionary reads; ``register`` adds the loop that refreshes.

    Args:
        name: The collector's name in table ``collector``.
        file: Where the sealed copy is kept.
        hints: The store in which to LISTEN for changes; None: polling alone.
    """

    def __init__(
        self, settings: Settings, *, name: str, sources: SourceReader, vault: Vault, filesystem: Filesystem,
        file: Path, clock: Clock, metrics: Metrics, hints: pool.Settings | None = None,
    ) -> None:  # fmt: skip
        self._settings = settings
        self._name = name
        self._sources = sources
        self.copy = KeptCopy(SealedCopy(file, vault=vault, filesystem=filesystem))
        """On disk: a restart without the store knows what is in there."""
        self._clock = clock
        self._hints = hints
        self._by_hash: dict[bytes, Source] = {}
        self._by_token: dict[bytes, Source] = {}
        self._edition: Edition | None = None  # None: the store hasn't given us any in this process
        self._checked_at: float | None = None  # when the store last confirmed what we have
        self.unreadable = ""
        """Why the copy on disk couldn't be read at the start, until the store has given all of it; "" else."""
        self._tried_at = float("-inf")
        self._asked: list[Asked] = []
        self._wake = asyncio.Event()
        self.version = 0  # 0: nothing was ever loaded
        self.taken = 0  # times that all sources were replaced
        self.ordered: frozenset[bytes] = frozenset()  # ids of sources whose order matters
        self.spool_rate: float | None = None  # records a second that a spool may forward, as the governor said last
        self.live: Mapping[str, int] = {}  # sources that take events, by tenant
        metrics.gauge("seawall_snapshot_age_seconds", "Since the store last confirmed the snapshot.").read = self.age_s
        self._count = metrics.gauge("seawall_snapshot_sources_count", "Sources in the snapshot.")
        self._failures = metrics.counter("seawall_snapshot_refresh_failures_total", "Refreshes that the store failed.")

    @property
    def stale(self) -> bool:
        """True: a refusal that depends on configuration would not be certain."""
        return self.age_s() > self._settings.stale_s

    def age_s(self) -> float:
        """Seconds since the store confirmed it; infinite before the first time in this process."""
        return float("inf") if self._checked_at is None else self._clock.monotonic() - self._checked_at

    @property
    def known(self) -> bool:
        """Whether there ever was a snapshot, be it the copy's. Without one every token is unknown."""
        return self.version > 0

    @property
    def troubles(self) -> dict[str, str]:
        """By name of source: why it can't be served, or only in part. Looks at all sources."""
        return {
            s.name: s.trouble or s.doubt for s in self._by_hash.values() if (s.trouble or s.doubt) and not s.removed
        }

    def find(self, token: bytes) -> Source | None:
        """The source of a token, None when it is unknown."""
        source = self._by_token.get(token)
        if source is None:
            source = self._by_hash.get(sha256(token).digest())
            if source is not None and len(self._by_token) < TOKENS_CACHED_MAX:
                self._by_token[token] = source
        return source

    def name_of(self, source_id: bytes) -> str:
        """A source's name, for people; its id where it isn't known any more. Looks at all of them."""
        return next((s.name for s in self._by_hash.values() if s.id == source_id), source_id.hex())

    def ask(self, asked: Asked) -> None:
        """Have the store looked at, since a token is unknown, and call ``asked`` after, whatever came of it.

        It is called after a look that begins from now on: one under way may have seen the store before a source was
        added. That is at once when the last look is ``refresh_s`` ago, else with the next one that is due anyhow, so
        that unknown tokens in numbers don't become queries in numbers.
        """
        self._asked.append(asked)
        if self._clock.monotonic() - self._tried_at >= self._settings.refresh_s:
            self._wake.set()

    def reload(self, settings: Settings) -> None:
        """Go on with other limits: for tenants at once, else from the next refresh on."""
        by_tenant = settings.tenant_rate_per_s > 0
        if by_tenant != (self._settings.tenant_rate_per_s > 0):
            self._by_hash = {
                hash: replace(source, metered=source.rate is not None or by_tenant)
                for hash, source in self._by_hash.items()
            }
            self._by_token = {}
        self._settings = settings

    def hint(self) -> None:
        """Something changed, says NOTIFY: look now."""
        self._wake.set()

    def register(self, supervisor: Supervisor) -> None:
        """Add the loops that refresh and listen. Not essential: readiness of intake doesn't depend on the store."""
        supervisor.add("collector.snapshot", self._run, essential=False)
        if self._hints is not None:
            hints = replace(self._hints, connect_timeout_s=min(HINT_CONNECT_S, self._hints.connect_timeout_s))
            listener = pool.Listener(hints, [CHANNEL_SOURCE], lambda _, __: self.hint(), role="collector")
            supervisor.add("collector.source_hint", lambda heart: _listen(listener, heart), essential=False)

    async def open(self) -> None:
        """Read the sealed copy, when there is one. A copy that can't be read is left out, with an error in the log:
        the store has it all."""
        try:
            version, sources = await self.copy.read()
        except FileNotFoundError:
            return
        except (OSError, SeawallError, msgspec.DecodeError) as error:
            self.unreadable = str(error)
            log.error("the snapshot's copy can't be read", extra=fields(file=str(self.copy.file), cause=str(error)))
            return
        self._take(version, sources)

    async def close(self) -> None:
        """Tell the store that nobody need wait for this collector. The store may be away; nothing depends on it."""
        _release(self._taken_over())
        self.copy.close()
        if self._checked_at is not None:
            try:
                await self._sources.forget(self._name, timeout_s=FORGET_S)
            except SeawallError as error:
                log.info("the store wasn't told that this collector stops", extra=fields(cause=str(error)))

    async def refresh(self, *, progress: Callable[[], None] = lambda: None) -> None:
        """Compare with the store and load what changed; say that we live.

        Args:
            progress: Called between steps, each of which takes ``store_timeout_s`` at most.

        Raises:
            Unavailable, Overloaded, Uncertain: The store failed; the snapshot stays as it was.

        Cancelled: the snapshot is the old or the new one, never a mixture.
        """
        # What the store says was true when it was asked, or later; its age counts from then.
        asked_at = self._tried_at = self._clock.monotonic()
        limit_s = self._settings.store_timeout_s
        edition = await self._sources.edition(timeout_s=limit_s)
        progress()
        if edition != self._edition:
            async with asyncio.timeout(limit_s):
                edition, sources = await self._sources.load(timeout_s=limit_s)
            self._take(edition.version, sources)
            self._edition, self.unreadable = edition, ""
            self.copy.put(edition.version, sources)
            self._checked_at = asked_at
            progress()
        # Kept before it is called live: a restart with the store away must not forget what was promised.
        live = await self.copy.kept(timeout_s=limit_s)
        progress()
        self._checked_at = asked_at
        self.spool_rate = await self._sources.seen(self._name, live, timeout_s=limit_s)

    async def _run(self, heart: Heart) -> None:
        while True:
            self._wake.clear()
            asked = self._taken_over()
            try:
                await patiently(heart, self.refresh(progress=heart.touch), what=SLOW)
                await heart.beat()
            except SeawallError as error:
                self._failed(heart, str(error))
            except TimeoutError:
                self._failed(heart, "PostgreSQL took too long to list all sources")
            finally:
                _release(asked)
            await self._pause(heart)

    def _failed(self, heart: Heart, why: str) -> None:
        self._failures.value += 1
        heart.unready(why)

    async def _pause(self, heart: Heart) -> None:
        """Wait for the next turn, or for somebody who asks."""
        deadline = Deadline.after(self._settings.refresh_s, self._clock)
        while (left_s := deadline.left_s(self._clock)) and not self._wake.is_set():
            heart.touch()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(min(left_s, 1.0)):
                    await self._wake.wait()

    def _taken_over(self) -> list[Asked]:
        asked, self._asked = self._asked, []
        return asked

    def _take(self, version: int, sources: list[Loaded]) -> None:
        self._by_hash = {s.token_hash: _made(s, self._settings) for s in sources}
        self._by_token = {}
        self._count.value = len(self._by_hash)
        self.ordered = frozenset(source.id for source in self._by_hash.values() if source.choice.ordered)
        self.live = Counter(source.tenant for source in self._by_hash.values() if not source.removed)
        self.version = version
        self.taken += 1


def _release(asked: list[Asked]) -> None:
    for call in asked:
        try:
            call()
        except Exception:
            # Any kind: it is a request's way from here on, and what breaks there must not cost the others theirs.
            log.exception("a request that waited for its source can't be handled")


def _made(s: Loaded, settings: Settings) -> Source:
    """A source as requests are judged by it. One that can't be used here is kept, with why."""
    # With a secret left, what that one signed is taken; what it didn't, the one we can't open may have signed.
    trouble, doubt = ("", s.trouble) if s.secrets else (s.trouble, "")
    chosen, kind = Choice(), signature.KINDS["none"]
    try:
        chosen, kind = choice(s.settings), signature.KINDS[s.kind]
    except KeyError:
        trouble = f"kind {s.kind!r} is unknown to this version"
    except ValueError as error:
        trouble = f"its settings can't be used: {error}"
    if (trouble or doubt) and not s.removed:
        log.error("a source can't be served in full", extra=fields(source=s.name, cause=trouble or doubt))
    keys = KeyRule(chosen.dedupe, kind) if chosen.dedupe.given else None
    return Source(
        id=s.id, name=s.name, kind=kind, secrets=s.secrets, choice=chosen,
        encoder=Encoder(source_id=s.id, kind=kind.name, tenant=s.tenant, source=s.name),
        options=signature.Options(**msgspec.structs.asdict(chosen.signature)),
        tenant=s.tenant, rate=(rate := rate_of(chosen.rate_per_s, chosen.burst)),
        metered=rate is not None or settings.tenant_rate_per_s > 0,
        keys=keys, demanding=bool(kind.handshake or chosen.require_json or keys),
        removed=s.removed, trouble=trouble, doubt=doubt,
    )  # fmt: skip


async def _listen(listener: pool.Listener, heart: Heart) -> None:
    """Hold the subscription and prove it alive each second; what was missed meanwhile, polling finds."""
    while True:
        try:
            async with listener.subscribed() as check:
                heart.touch()
                while True:
                    await check(HINT_CHECK_S)
                    await heart.beat()
                    await asyncio.sleep(HINT_CHECK_S)
        except SeawallError as error:
            heart.unready(str(error))
            await asyncio.sleep(HINT_CHECK_S)
