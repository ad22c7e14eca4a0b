"""What Redis says of itself, as metrics: its figures (INFO), and who keeps it busy (SLOWLOG).

One slow command stops all clients of a server that does one thing at a time, ours too, whoever sent it: so its
command's and its sender's name are worth a label. Never its arguments: those may be secrets.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Mapping

from seawall.cache.command import SLOW_MAX, Word
from seawall.cache.link import Reply
from seawall.cache.setting import Settings
from seawall.guard import Heart
from seawall.guard.breaker import Breaker, State
from seawall.kernel.clock import Clock
from seawall.kernel.error import Unavailable
from seawall.kernel.log import fields, logger
from seawall.kernel.metric import Counter, Gauge, Metrics

log = logger("cache")

BEAT_S = 1.0
PAIRS_MAX = 50
"""Commands and clients that have a line of their own; others are counted as "other"."""

SECTIONS = ("clients", "memory", "stats")


class Meter:
    """Reads them, one command at a time.

    Args:
        ask: Sends one command (cache.client.Client.ask).
        breaker: Unless it is closed, nothing is read.
    """

    def __init__(
        self, ask: Callable[..., Awaitable[Reply]], breaker: Breaker, settings: Settings, *, clock: Clock,
        metrics: Metrics,
    ) -> None:  # fmt: skip
        self._ask = ask
        self._breaker = breaker
        self._settings = settings
        self._clock = clock
        self._metrics = metrics
        self._newest = -1  # id of the newest entry of the slow log that was counted
        self._pairs: dict[tuple[str, str], tuple[Counter, Counter]] = {}
        self._gauges: Mapping[str, Gauge] = {
            "connected_clients": metrics.gauge("seawall_redis_clients_count", "Clients of Redis."),
            "blocked_clients": metrics.gauge("seawall_redis_blocked_clients_count", "Clients that wait in Redis."),
            "used_memory": metrics.gauge("seawall_redis_memory_bytes", "What Redis holds."),
            "maxmemory": metrics.gauge("seawall_redis_memory_max_bytes", "What Redis may hold; 0: no limit."),
            "evicted_keys": metrics.gauge("seawall_redis_evicted_count", "Keys that Redis threw away for room."),
            "rejected_connections": metrics.gauge(
                "seawall_redis_rejected_connections_count", "Connections over Redis' maxclients."
            ),
            "instantaneous_ops_per_sec": metrics.gauge("seawall_redis_commands_rate_count", "Commands a second."),
        }
        self._failed = metrics.counter("seawall_redis_polls_failed_total", "Times that Redis' figures weren't read.")

    async def run(self, heart: Heart) -> None:
        """Read every ``poll_s``; for a supervisor."""
        due = self._clock.monotonic()
        while True:
            if self._clock.monotonic() >= due:
                due = self._clock.monotonic() + self._settings.poll_s
                if self._breaker.state in (State.CLOSED, State.FORCED_CLOSED):
                    await self._poll()
            await heart.beat()
            await asyncio.sleep(min(BEAT_S, self._settings.poll_s))

    async def _poll(self) -> None:
        try:
            for section in SECTIONS:
                for name, value in info(await self._told("INFO", section)).items():
                    if (gauge := self._gauges.get(name)) is not None and value.isdigit():
                        gauge.value = int(value)
            self._count(await self._told("SLOWLOG", "GET", SLOW_MAX))
        except (Unavailable, OSError, TimeoutError) as error:
            # Managed servers forbid some of it. The breaker is for those whose answer matters: not told.
            self._failed.value += 1
            log.debug("Redis' figures can't be read", extra=fields(cause=str(error)))

    async def _told(self, *command: Word) -> Reply:
        async with asyncio.timeout(self._settings.timeout_s):
            return await self._ask(*command)

    def _count(self, reply: Reply) -> None:
        entries = list(slow(reply))
        newest = max((number for number, *_ in entries), default=-1)
        if newest < self._newest:
            self._newest = -1  # it was started anew, and counts from 0
        for number, spent_us, command, client in entries:
            if number > self._newest:
                count, time = self._pair(command, client)
                count.value += 1
                time.value += spent_us / 1_000_000
        self._newest = max(self._newest, newest)

    def _pair(self, command: str, client: str) -> tuple[Counter, Counter]:
        key = (command, client)
        if key not in self._pairs and len(self._pairs) >= PAIRS_MAX:
            key = ("other", "other")
        if key not in self._pairs:
            command, client = key
            self._pairs[key] = (
                self._metrics.counter(
                    "seawall_redis_slow_total", "Commands in Redis' slow log.", command=command, client=client
                ),
                self._metrics.counter(
                    "seawall_redis_slow_seconds_total",
                    "Time that commands in Redis' slow log took.",
                    command=command,
                    client=client,
                ),
            )
        return self._pairs[key]


def info(reply: Reply) -> dict[str, str]:
    """INFO's text as names and values."""
    text = reply.decode("utf-8", "replace") if isinstance(reply, bytes) else ""
    pairs = (line.partition(":") for line in text.splitlines())
    return {name: value for name, colon, value in pairs if colon}


def slow(reply: Reply) -> Iterator[tuple[int, int, str, str]]:
    """SLOWLOG's entries: (id, microseconds, command, client). A client without a name has its address, without port."""
    for entry in reply if isinstance(reply, list) else []:
        match entry:
            case [int(number), int(), int(spent_us), [bytes(command), *_], *who]:
                address, name = (_text(each) for each in (*who, b"", b"")[:2])
                client = name or address.rpartition(":")[0] or "unknown"
                yield number, spent_us, _text(command).upper(), client


def _text(word: object) -> str:
    return word.decode("utf-8", "replace")[:64] if isinstance(word, bytes) else ""
