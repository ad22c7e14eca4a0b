"""A shard in this process's hands: its lease, how far it has been read, and the runs that are under way."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from seawall.kernel.made import Made
from seawall.kernel.status import DAY_SHIFT
from seawall.store.flush import Spent
from seawall.store.lease import Lease
from seawall.store.run import BEGIN, Ready

if TYPE_CHECKING:
    from seawall.worker.execution import Execution

NUMBER_MASK = (1 << DAY_SHIFT) - 1


@dataclass(slots=True, eq=False)
class Held:
    """One leased shard. There is no authoritative cursor: ``after`` only spares reading what is in hand already. It
    goes back when a hint tells of runs behind it, and ``sweep`` goes over everything again and again, since virtual
    times are not handed out in order of commit and a hint may be lost."""

    lease: Lease
    memo_below: int
    after: tuple[int, int] = BEGIN
    top: tuple[int, int] = BEGIN  # the furthest that ``after`` has been: up to there some may be in hand
    far: tuple[int, int] = BEGIN  # where ``after`` was when it went back, and returns; BEGIN: it isn't on its way
    until: int = 0  # up to which virtual time there may be something, on its way
    whole: bool = False  # all that was ready behind ``reached`` was read, when it was read last
    sweep: tuple[int, int] = BEGIN  # how far the sweep has come that is under way; BEGIN: none is
    sweep_at: float = 0.0  # monotonic; the next one begins, or goes on
    deep: tuple[int, int] = BEGIN  # how far a long one had come, while the beginning is looked at once more
    anew_at: float = 0.0  # monotonic; when that is due
    met: tuple[int, int] = BEGIN  # the last run that was read, and can't be begun here, of what is next
    begun: int = 0  # up to which virtual time, without priority, runs were begun
    refills: int = 0  # numbers used
    inflight: dict[int, Execution] = field(default_factory=dict)
    lost: bool = False
    reading: bool = False  # a refill of it is under way
    leaving_until: float | None = None  # monotonic; it is being given up, and nothing of it begins

    @property
    def reached(self) -> tuple[int, int]:
        """How far it has been read, wherever the cursor is just now."""
        return max(self.after, self.far)

    @property
    def unread(self) -> bool:
        """There may be runs that are ready and weren't read."""
        return not self.whole or self.far > BEGIN

    def back_to(self, made: Made) -> None:
        """These may be new. What is between them and where it was has been read, and there may be very much of it."""
        self.until = made.last if self.far == BEGIN else max(self.until, made.last)
        self.far = self.reached
        self.after = min(self.after, (made.first, -1))

    def come_back(self) -> None:
        """All that was new on the way was read."""
        self.after, self.far = self.reached, BEGIN

    def sweep_from(self, now: float, sweep_s: float) -> tuple[int, int]:
        """Where a sweep is to read now. One that takes long looks at the beginning now and then, where most is that
        nobody hinted at."""
        if now >= self.anew_at:
            self.anew_at = now + sweep_s
            self.deep, self.sweep = self.sweep, BEGIN
        return self.sweep

    def read_beyond(self, place: tuple[int, int]) -> None:
        """Up to here some may be in hand; the cursor stays."""
        self.top = max(self.top, place)

    def read_to(self, place: tuple[int, int]) -> None:
        """Everything up to here is in hand, or known to be unready."""
        self.after = max(self.after, place)
        self.top = max(self.top, self.after)
        if self.after >= self.far:
            self.far = BEGIN

    def may_have_memos(self, row: Ready) -> bool:
        """Whether steps of this run may be kept from before: it failed once, or waited, or existed when we took the
        lease.

        Numbers of runs only grow, unlike any clock; a run that was made later can't have been run by anybody else.
        """
        return row.attempt + row.waits > 0 or self.lease.shard < 0 or row.id & NUMBER_MASK <= self.memo_below


@dataclass(slots=True, eq=False)
class Refill:
    """Runs that were read together, and whose refill row goes with the last of them."""

    held: Held
    number: int
    left: int
    read_at: float  # monotonic

    def spent(self) -> Spent:
        lease = self.held.lease
        return Spent(lease.queue_id, lease.shard, lease.epoch, self.number)
