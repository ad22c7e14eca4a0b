"""Tells a webhook what begins and what is over. It needs no store: what it has to tell may be that the store is away.

An outbox in memory, bounded; each alert is tried a few times with growing pauses, in order. A receiver knows repeats by
`webhook-id`, which is the same for the same beginning or end of the same alert.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import random
import ssl
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final
from urllib.parse import SplitResult, urlsplit

import msgspec

from seawall.guard import Heart
from seawall.guard.retry import Backoff
from seawall.kernel import signature
from seawall.kernel.clock import Clock
from seawall.kernel.error import Misconfigured
from seawall.kernel.log import fields, logger
from seawall.kernel.metric import Metrics
from seawall.store.watch import AlertRow, labels_text
from seawall.watch.setting import Settings

log = logger("watch")

WAITING_MAX: Final = 500
PAUSE_MIN_S: Final = 0.5
PAUSE_MAX_S: Final = 60.0
BEAT_S: Final = 0.5
ANSWER_BYTES_MAX: Final = 4096


class Told(msgspec.Struct, frozen=True, kw_only=True):
    """What is sent."""

    type: str  # alert.raised, alert.cleared
    timestamp: str
    data: AlertRow


@dataclass(frozen=True, slots=True)
class Letter:
    """One request, but for its signature."""

    id: str
    name: str
    body: bytes


def letter(row: AlertRow) -> Letter:
    """What is told of an alert that begins, or is over (``cleared_at``)."""
    over = row.cleared_at is not None
    at = row.cleared_at or row.raised_at
    told = Told(type="alert.cleared" if over else "alert.raised", timestamp=at.isoformat(), data=row)
    what = "\n".join((row.machine, row.role, row.name, labels_text(row.labels), row.raised_at.isoformat(), str(over)))
    return Letter(
        f"alert_{hashlib.sha256(what.encode('utf-8', 'replace')).hexdigest()[:32]}", row.name, msgspec.json.encode(told)
    )


def target(url: str) -> SplitResult | None:
    """A URL's parts; None: none was given.

    Raises:
        Misconfigured: It can't be sent to.
    """
    if not url:
        return None
    try:
        parts = urlsplit(url)
        fine = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port or 1) > 0
    except ValueError:
        fine = False
    if not fine or not url.isascii() or not url.isprintable() or " " in url:
        raise Misconfigured(["watch.webhook_url: must be http://HOST[:PORT]/… or https://… in plain characters"])
    return parts


def checked(settings: Settings) -> None:
    """Raises Misconfigured: the webhook can't be sent to, or not signed."""
    target(settings.webhook_url)
    if settings.webhook_secret:
        try:
            signature.sign("standard", settings.webhook_secret.encode(), b"", 0.0, id="a")
        except (ValueError, UnicodeEncodeError) as error:
            raise Misconfigured(
                ["watch.webhook_secret: must be whsec_ and base64, as Standard Webhooks has it"]
            ) from error


class Webhook:
    """The outbox and its loop. What doesn't fit, or isn't taken after all tries, is counted and logged."""

    def __init__(self, settings: Settings, *, clock: Clock, metrics: Metrics, rng: random.Random) -> None:
        checked(settings)
        self.settings = settings
        self._clock = clock
        self._waiting: deque[Letter] = deque()
        self._wake = asyncio.Event()
        self._backoff = Backoff(PAUSE_MIN_S, PAUSE_MAX_S, rng)
        self._tls: ssl.SSLContext | None = None
        self._sent = metrics.counter(
            "seawall_alerts_sent_total", "Beginnings and ends of alerts that the webhook took."
        )
        self._lost = metrics.counter(
            "seawall_alerts_unsent_total", "Beginnings and ends of alerts that the webhook never took."
        )
        metrics.gauge("seawall_alerts_waiting_count", "Beginnings and ends of alerts that wait to be sent.").read = (
            lambda: len(self._waiting)
        )

    def tell(self, row: AlertRow) -> None:
        """Send it, soon. Returns at once."""
        if not self.settings.webhook_url:
            return
        if len(self._waiting) >= WAITING_MAX:
            self._lose(self._waiting.popleft(), "too many wait")
        self._waiting.append(letter(row))
        self._wake.set()

    async def run(self, heart: Heart) -> None:
        """The supervised loop."""
        while True:
            if not self._waiting:
                await heart.beat()
                await self._rest(BEAT_S)
                continue
            first = self._waiting[0]
            problem = await self._delivered(first, heart)
            if self._waiting and self._waiting[0] is first:
                self._waiting.popleft()
            if problem:
                self._lose(first, problem)
            else:
                self._sent.value += 1

    async def _delivered(self, one: Letter, heart: Heart) -> str:
        """Try until it is taken, or given up: why; "": it was taken."""
        self._backoff.reset()
        for tries in range(1, self.settings.webhook_tries + 1):
            problem = await self._tried(one, heart)
            if not problem:
                return ""
            log.warning("an alert wasn't sent", extra=fields(alert=one.name, tries=tries, cause=problem))
            heart.unready(f"the webhook doesn't take alerts: {problem}")
            until = self._clock.monotonic() + self._backoff.pause_s()
            while (left_s := until - self._clock.monotonic()) > 0:
                heart.unready(f"the webhook doesn't take alerts: {problem}")
                await asyncio.sleep(min(BEAT_S, left_s))
        return problem

    async def _rest(self, seconds: float) -> None:
        self._wake.clear()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._wake.wait()

    def _lose(self, one: Letter, why: str) -> None:
        self._lost.value += 1
        log.error("an alert is not sent any more", extra=fields(alert=one.name, id=one.id, cause=why))

    async def _tried(self, one: Letter, heart: Heart) -> str:
        """One request; what was wrong, "": it was taken."""
        sending = asyncio.create_task(self._send(one), name="watch.webhook.send")
        try:
            while not sending.done():
                heart.touch()
                await asyncio.wait([sending], timeout=BEAT_S)
            status = sending.result()
        except TimeoutError:
            return f"no answer within {self.settings.webhook_timeout_s:g} s"
        except (OSError, EOFError, ValueError, asyncio.LimitOverrunError, Misconfigured) as error:
            return str(error) or type(error).__name__
        finally:
            sending.cancel()
        return "" if 200 <= status < 300 else f"HTTP {status}"

    async def _send(self, one: Letter) -> int:
        """The answer's status. Raises TimeoutError, OSError, EOFError, ValueError, LimitOverrunError, Misconfigured."""
        settings = self.settings
        parts = target(settings.webhook_url)
        if parts is None:
            return 200  # it was taken away meanwhile
        headers = [("Content-Type", "application/json"), ("User-Agent", "seawall"), ("Webhook-Id", one.id)]
        if settings.webhook_secret:
            now_s = self._clock.wall_us() / 1e6
            headers = headers[:2] + signature.sign(
                "standard", settings.webhook_secret.encode(), one.body, now_s, id=one.id
            )
        async with asyncio.timeout(settings.webhook_timeout_s):
            tls = self._context() if parts.scheme == "https" else None
            port = parts.port or (443 if tls is not None else 80)
            reader, writer = await asyncio.open_connection(parts.hostname, port, ssl=tls, limit=ANSWER_BYTES_MAX)
            try:
                writer.write(_request(parts, headers, one.body))
                await writer.drain()
                return _status(await reader.readuntil(b"\r\n"))
            finally:
                writer.transport.abort()

    def _context(self) -> ssl.SSLContext:
        """Made once: it reads the machine's certificates."""
        if self._tls is None:
            self._tls = ssl.create_default_context()
        return self._tls


def _request(parts: SplitResult, headers: Sequence[tuple[str, str]], body: bytes) -> bytes:
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    host = parts.netloc.rpartition("@")[2]
    lines = [f"POST {path} HTTP/1.1", f"Host: {host}", *(f"{name}: {value}" for name, value in headers)]
    lines += [f"Content-Length: {len(body)}", "Connection: close", "", ""]
    return "\r\n".join(lines).encode("ascii") + body


def _status(line: bytes) -> int:
    words = line.split(b" ", 2)
    if len(words) < 2 or not words[0].startswith(b"HTTP/1.") or len(words[1]) != 3 or not words[1].isdigit():
        raise ValueError("the answer isn't HTTP/1.1")
    return int(words[1])
