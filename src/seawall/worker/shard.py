"""A shard in this process's hands: its lease, how far it has been read, and the runs that are under way."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

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
    whole: bool = False  # all that was ready behind ``after`` was read, when it was read last
    sweep: tuple[int, int] = BEGIN
    sweep_at: float = 0.0  # monotonic
    refills: int = 0  # numbers used
    inflight: dict[int, Execution] = field(default_factory=dict)
    lost: bool = False
    reading: bool = False  # a refill of it is under way
    leaving_until: float | None = None  # monotonic; it is being given up, and nothing of it begins

    def back_to(self, vt: int) -> None:
        """Runs of this virtual time or later may be new."""
        self.after = min(self.after, (vt, -1))

    def read_beyond(self, place: tuple[int, int]) -> None:
        """Up to here some may be in hand; the cursor stays."""
        self.top = max(self.top, place)

    def read_to(self, place: tuple[int, int]) -> None:
        """Everything up to here is in hand, or known to be unready."""
        self.after = max(self.after, place)
        self.top = max(self.top, self.after)

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
