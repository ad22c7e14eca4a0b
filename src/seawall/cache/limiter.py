"""Rate limits that all collectors share, decided in Redis (kernel/seam/limiter.py).

Questions of one turn of the event loop go together, in one call of a script. Until its word comes a request waits, at
most ``ASK_S``; then, and at once while the breaker isn't closed, this process decides alone. Neither going alone nor
returning is a jump: what Redis says is noted here, and what was let through here is told to Redis with each question
about a key, as a distance from now, and there as here the later of the two counts.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from seawall.cache.command import GCRA_SHA, KEYS_MAX, Word
from seawall.cache.link import Reply
from seawall.guard.breaker import Breaker, Cause, State
from seawall.guard.dependency import Dependency, cause_of
from seawall.guard.limiter import LocalLimiter
from seawall.guard.shed import Wanted
from seawall.guard.throttle import decide
from seawall.kernel.clock import Clock
from seawall.kernel.error import Unavailable
from seawall.kernel.log import logger
from seawall.kernel.metric import Metrics
from seawall.kernel.seam import limiter as seam
from seawall.kernel.seam.flag import Switch, always
from seawall.kernel.seam.limiter import ASK_S, SECOND_US, Allowance, Decided, Rate

log = logger("cache")

QUESTIONS_MAX = KEYS_MAX // seam.KEYS_MAX
"""In one call."""

CALLS_MAX = 8
"""On their way at once. More questions gather meanwhile and go together with the next."""

WAITING_MAX = 4096
"""Questions that gather. Whoever comes beyond is decided here, like all when Redis can't keep up."""

WINDOW_US_MAX = 1 << 50
"""Longer ones (36 years) are decided here: a script's numbers are exact up to 2^53."""

LEFT_MIN_S = 0.02
"""Of a question's time; one with less isn't sent any more."""

PREFIX = b"seawall:rate:"
PROBE = b"probe"
PROBE_RATE = Rate(1000)
CLOSED = (State.CLOSED, State.FORCED_CLOSED)


@dataclass(frozen=True, slots=True)
class _Question:
    limits: Sequence[tuple[bytes, Rate]]
    decided: Decided
    latest: float  # monotonic


class SharedLimiter:
    """Counts in Redis.

    Args:
        evaluate: Sends one command (cache.client.Client.ask).
        redis: Bounds and counts the calls, and says when there is no use in them.
        local: Decides without Redis.
        wanted: Whether Redis is to be asked at all.
        on: The same, as a flag says it.
        ask_s: Longest time from a question to its answer.
    """

    def __init__(
        self, evaluate: Callable[..., Awaitable[Reply]], redis: Dependency[list[int]], local: LocalLimiter, *,
        clock: Clock, metrics: Metrics, wanted: Wanted = lambda: True, on: Switch = always, ask_s: float = ASK_S,
    ) -> None:  # fmt: skip
        self._ask_s = ask_s
        self._on = on
        self._evaluate = evaluate
        self._redis = redis
        self._breaker: Breaker = redis.breaker
        self._local = local
        self._clock = clock
        self._wanted = wanted
        self._waiting: deque[_Question] = deque()
        self._calls: set[asyncio.Task[None]] = set()
        self._due = False
        self._closed = False
        self.asked_at = float("-inf")  # when Redis was last asked
        self.heard = False  # it has answered, in this process' life
        self._shared = metrics.counter("seawall_limiter_shared_total", "Questions that Redis decided.")
        self._alone = {
            cause: metrics.counter(
                "seawall_limiter_local_total", "Questions that were decided without Redis, by cause.", cause=cause.value
            )
            for cause in Cause
        }
        metrics.gauge("seawall_limiter_waiting_count", "Questions that wait for Redis.").read = lambda: len(
            self._waiting
        )

    def look(self, key: bytes, rate: Rate) -> Allowance:
        return self._local.look(key, rate)

    def decide(self, key: bytes, rate: Rate) -> Allowance:
        """Here alone; told to Redis with the next question about the key."""
        return self._local.decide(key, rate)

    def ask(self, limits: Sequence[tuple[bytes, Rate]], decided: Decided) -> None:
        assert len(limits) <= seam.KEYS_MAX, limits
        if not limits or any(rate.window_us > WINDOW_US_MAX for _, rate in limits):
            self._local.ask(limits, decided)
        elif self._away() or not self._on() or not self._wanted():
            self._alone[Cause.REJECTED].value += 1
            self._local.ask(limits, decided)
        else:
            self._waiting.append(_Question(limits, decided, self._clock.monotonic() + self._ask_s))
            if not self._due:
                self._due = True
                asyncio.get_running_loop().call_soon(self._send)

    def _away(self) -> bool:
        return self._closed or self._breaker.state not in CLOSED or len(self._waiting) >= WAITING_MAX

    async def probe(self) -> bool:
        """Ask about a key of our own, the way events' questions are asked, so that neither the first event in an outage
        nor the trials after one are a sender's. False: no answer."""
        question = _Question([(PROBE, PROBE_RATE)], lambda found: None, self._clock.monotonic() + self._ask_s)
        try:
            await self._ask([question])
        except Unavailable:
            return False  # counted, and the breaker knows
        return True

    def close(self) -> None:
        """Decide what waits, here. Harmless when called twice."""
        self._closed = True
        for call in self._calls:
            call.cancel()
        self._alone_for(self._waiting, Cause.REJECTED)

    def _send(self) -> None:
        self._due = False
        while self._waiting and len(self._calls) < CALLS_MAX:
            batch = [self._waiting.popleft() for _ in range(min(QUESTIONS_MAX, len(self._waiting)))]
            call = asyncio.create_task(self._call(batch), name="cache.limiter")
            self._calls.add(call)
            call.add_done_callback(self._called)

    def _called(self, call: asyncio.Task[None]) -> None:
        self._calls.discard(call)
        if not call.cancelled() and (error := call.exception()) is not None:
            log.error("the shared limiter has a bug; this process decided alone", exc_info=error)
        self._send()

    async def _call(self, batch: Sequence[_Question]) -> None:
        left = deque(batch)
        try:
            for found in await self._ask(batch):
                self._shared.value += 1
                left.popleft().decided(found)
        except Unavailable as error:
            cause = (error.__cause__ and cause_of(error.__cause__)) or Cause.REJECTED
            self._alone_for(left, cause)
            # Whoever gathered behind it has waited as long: nobody waits for a second call after one that failed.
            self._alone_for(self._waiting, cause)
        finally:
            self._alone_for(left, Cause.REJECTED)  # cancelled, or a bug: still everybody is answered

    def _alone_for(self, questions: deque[_Question], cause: Cause) -> None:
        while questions:
            question = questions.popleft()
            self._alone[cause].value += 1
            self._local.ask(question.limits, question.decided)

    async def _ask(self, batch: Sequence[_Question]) -> list[list[Allowance]]:
        """What Redis says, per question; noted here too."""
        began = self.asked_at = self._clock.monotonic()
        left_s = batch[0].latest - began
        if left_s < LEFT_MIN_S:
            raise Unavailable("redis", "no time is left to ask it")
        rates = {key: rate for question in batch for key, rate in question.limits}
        command = _command(batch, rates, self._local)

        async def work() -> list[int]:
            async with asyncio.timeout(left_s):
                return _numbers(await self._evaluate(*command), batch)

        numbers = await self._redis.attempt(work)
        self.heard = True
        age_us = int((self._clock.monotonic() - began) * SECOND_US)
        found, at = [], 0
        for question in batch:
            found.append(self._heard(question, numbers[at : at + 1 + len(question.limits)], age_us))
            at += 1 + len(question.limits)
        return found

    def _heard(self, question: _Question, numbers: Sequence[int], age_us: int) -> list[Allowance]:
        """One question's answer. It is taken for as old as the call, so that a distance can't grow by being told to and
        fro: it would grow by the way's time with each question."""
        passed, *aheads = numbers
        found = []
        for ahead, (key, rate) in zip(aheads, question.limits, strict=True):
            found.append(decide(ahead, 0, rate))
            self._local.note(key, ahead + passed * rate.interval_us, age_us=age_us)
        return found


def _command(batch: Sequence[_Question], rates: dict[bytes, Rate], local: LocalLimiter) -> list[Word]:
    """The script's call (its head says what it takes)."""
    numbers = {key: str(number) for number, key in enumerate(rates, 1)}
    command: list[Word] = ["EVALSHA", GCRA_SHA, len(rates), *[PREFIX + key for key in rates]]
    for key, rate in rates.items():
        command += [rate.interval_us, rate.window_us, local.ahead_us(key)]
    for question in batch:
        command += [len(question.limits), *[numbers[key] for key, _ in question.limits]]
    return command


def _numbers(reply: Reply, batch: Sequence[_Question]) -> list[int]:
    """The script's answer as it must be.

    Raises:
        Unavailable: It is something else.
    """
    wanted = sum(1 + len(question.limits) for question in batch)
    if not isinstance(reply, list) or len(reply) != wanted:
        raise Unavailable("redis", "it answered the script with something else")
    numbers = [number for number in reply if isinstance(number, int)]
    if len(numbers) != wanted:
        raise Unavailable("redis", "it answered the script with something else")
    return numbers
