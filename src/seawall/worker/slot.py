"""Slots: how many runs each queue may begin now.

A slot is a run in hand; nothing is counted anywhere but in the shards that this process holds, so nothing can leak. A
queue's `reserved` slots are kept free for it while others flood. What isn't reserved is anybody's who has work, up to
the queue's `max`, so no capacity is stranded; who wants it at the same time is known to the refill alone, which shares
it evenly. A queue whose shards are spread over several processes has its numbers spread with them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence, Set
from dataclasses import dataclass
from math import inf
from typing import NamedTuple

from seawall.kernel.clock import Clock
from seawall.kernel.made import Made
from seawall.store.queue import Rule
from seawall.store.run import BEGIN, END, Ready, Wish
from seawall.worker.settings import Settings
from seawall.worker.shard import Held
from seawall.worker.throttle import Room, Throttles

GATHER_S = 0.02
"""For so long slots that become free are gathered for one statement, however few they are then: where runs take
minutes, hundreds of slots would stand idle beside work that waits (bench/queues.py)."""


EXPRESS = 64
"""One of so many slots that aren't reserved, rounded down, begins only runs that go before some in hand: somebody who
comes while another's flood has all other slots, for minutes maybe, waits for nobody's end."""


@dataclass(slots=True)
class Line:
    """One queue, as this process has it."""

    reserved: int
    most: int
    in_hand: int = 0
    shards: Sequence[Held] = ()

    def count(self) -> None:
        """See how many runs are in hand now."""
        self.in_hand = sum(len(held.inflight) for held in self.shards)

    @property
    def full(self) -> bool:
        """By its own bound, or a pause."""
        return self.in_hand >= self.most

    @property
    def unread(self) -> bool:
        """Whether more of it may be ready than is in hand."""
        return any(held.unread for held in self.shards)

    @property
    def kept(self) -> int:
        """Slots that nobody else may take."""
        return max(0, min(self.reserved, self.most) - self.in_hand)

    @property
    def wanted_least(self) -> int:
        """Fewer free slots than this aren't worth a statement; an empty queue's first ones always are."""
        return max(1, min(self.reserved if self.kept else self.most, self.most) // 2)


class Allowed(NamedTuple):
    """What one refill may begin."""

    rooms: Mapping[int, Room]  # by queue id; a queue that may begin none worth a statement isn't there
    shared: int  # runs of all queues together beyond those kept for each

    def kept(self) -> Allowed:
        """Without what is shared."""
        return Allowed({id: Room(room.kept, room.kept) for id, room in self.rooms.items() if room.kept}, 0)


class Claims(NamedTuple):
    """Queues that may begin more than what is gathered for all."""

    poor: Set[int]  # with less than their part of all slots, where several have work
    express: Set[int]  # those of them that want some now; all, while none of them does


def lines(shards: Iterable[Held], rules: Mapping[int, Rule], *, slots: int) -> dict[int, Line]:
    """By queue id, those whose shards are held and that aren't paused."""
    found: dict[int, Line] = {}
    counts: dict[int, list[Held]] = {}
    for shard in shards:
        counts.setdefault(shard.lease.queue_id, []).append(shard)
    for queue_id, held in counts.items():
        rule = rules.get(queue_id) or Rule()
        numbers = [shard.lease.shard for shard in held]
        most = slots if rule.most is None else min(slots, _share(rule.most, numbers, rule.shards))
        found[queue_id] = Line(
            reserved=0 if rule.paused else _share(rule.reserved, numbers, rule.shards), most=0 if rule.paused else most,
            shards=held,
        )  # fmt: skip
        found[queue_id].count()
    return found


def _share(whole: int, numbers: Sequence[int], shards: int) -> int:
    """This process's part of a number, by its shards: all parts together are the number. At least one of one, though:
    where more processes share a queue than it has slots, each has one, or runs in its shards would never begin."""
    if numbers[0] < 0:
        return whole
    return min(whole, max(1, sum(whole * (n + 1) // shards - whole * n // shards for n in numbers)))


def most(rule: Rule | None, shards: Sequence[Held]) -> float:
    """How many runs of these shards, of one queue, its `max` allows, paused or not."""
    if rule is None or rule.most is None:
        return inf
    return _share(rule.most, [held.lease.shard for held in shards], rule.shards) if shards else 0


def share(lines: Mapping[int, Line], *, free: int, apart: int = 0) -> Allowed:
    """What may begin now.

    Args:
        free: Slots of this process that hold no run.
        apart: How many of them are shared by nobody now.
    """
    left, kept = max(0, free), {}
    for id, line in lines.items():
        kept[id] = min(line.kept, left)
        left -= kept[id]
    left = max(0, left - apart)
    return Allowed(
        {id: Room(kept[id], max(0, min(line.most - line.in_hand, kept[id] + left))) for id, line in lines.items()}, left
    )


def full(allowed: Allowed, began: Mapping[int, int]) -> set[int]:
    """Queues that may have more which there was no room for. What is shared goes to queues by turns, so one that had
    fewer turns than others by two has no more.

    Args:
        began: By queue id, how many runs of it a refill gave.
    """
    cut = {id for id, room in allowed.rooms.items() if began.get(id, 0) >= room.most}
    turns = {id: began.get(id, 0) - room.kept for id, room in allowed.rooms.items()}
    if sum(max(0, count) for count in turns.values()) >= allowed.shared:
        most = max(turns.values(), default=0)
        cut |= {id for id, count in turns.items() if count >= max(0, most - 1)}
    return cut


def wished_next(shards: Sequence[Held], news: Sequence[Made], allowed: Allowed) -> list[Wish]:
    """What a refill asks for each shard of which only what is next is to be read: up to its cursor, and beyond where
    nothing else is.

    Args:
        news: What each is to be read for.
    """
    found = []
    for held, made in zip(shards, news, strict=True):
        held.refills += 1
        room, last = allowed.rooms[held.lease.queue_id], (made.last, END[1])
        found.append(
            Wish(
                lease=held.lease, number=held.refills, most=room.most, kept=room.kept, room=room.most,
                after=held.met if held.met[0] == made.first else (made.first, -1),
                until=last if held.whole else min(held.reached, last),
            )
        )  # fmt: skip
    return found


def wished(shards: Sequence[Held], sweeping: Mapping[Held, tuple[int, int]], allowed: Allowed) -> list[Wish]:
    """What a refill asks for each shard; each is the next of its shard's refills.

    Args:
        sweeping: Those that are read from here, where their sweep is, not from where reading is.
    """
    counts = Counter(held.lease.queue_id for held in shards)
    found = []
    for held in shards:
        held.refills += 1
        room = allowed.rooms[held.lease.queue_id]
        found.append(
            Wish(
                lease=held.lease, number=held.refills, after=sweeping.get(held, held.after),
                most=-(-room.most // counts[held.lease.queue_id]),  # work is spread evenly over shards, mostly
                kept=room.kept, room=room.most,
                until=(held.until, END[1]) if held.far > BEGIN and held not in sweeping else END,
            )
        )  # fmt: skip
    return found


class Slots:
    """The slots of one process.

    Args:
        rules: Of queues, by id.
    """

    def __init__(self, rules: Callable[[], Mapping[int, Rule]], clock: Clock) -> None:
        self._rules = rules
        self._throttles = Throttles(rules, clock)
        self._clock = clock
        self._given_at = clock.monotonic()  # when slots were given out last
        self._need = 0  # runs that have to leave before some queue has room that it lacks; 0: none lacks any
        self._freed = 0  # that have left since
        self._of: tuple[Sequence[Held], Mapping[int, Rule], int] = ([], {}, 0)
        self._lines: dict[int, Line] = {}

    def allowed(self, shards: Sequence[Held], *, free: int, slots: int, settings: Settings) -> Allowed:
        """What the next refill of these shards may begin: the beginning of a round.

        Args:
            free: Slots that hold no run; below 0: more are in hand than should be.
            slots: How many there are now.
        """
        queues = self._stand(shards, settings)
        self._throttles.look(shards)
        worth = 1 if self._gathered else max(1, min(settings.refill_runs, slots // 2))
        least = {id: min(worth, line.wanted_least) for id, line in queues.items()}
        apart = self._apart
        most = settings.refill_runs + sum(line.kept for line in queues.values()) + apart
        all, shared = share(queues, free=min(free, most), apart=apart)
        hungry = {id for id in self._poor() if queues[id].unread}
        if hungry:  # they have more than what a hint names, and less than their part
            spared, shared = share(queues, free=min(free, most))
            all = {id: spared[id] if id in hungry else room for id, room in all.items()}
            least.update(dict.fromkeys(hungry, 1))
        lacking = [least[id] - room.most for id, room in all.items() if room.most < least[id] and queues[id].most]
        self.wait_for(min(lacking, default=0))
        rooms = {id: room for id, room in all.items() if room.most >= least[id]}
        if rooms and (self._gathered or not lacking):  # what one queue begins is no reason for another to wait anew
            self._given_at = self._clock.monotonic()
        return Allowed(self._throttles.cap(rooms), shared)

    def claims(self, hinted: Collection[int]) -> Claims:
        """Who may have what is next begun in the last slots, later in the round. Where several queues have work, those
        with less than their part come first: others would take each slot as it becomes free, and leave none to be
        shared.

        Args:
            hinted: Queues with new runs.
        """
        self._recount()
        poor = self._poor()
        return Claims(poor, {id for id in poor if id in hinted or self._lines[id].unread} or self._lines.keys())

    def express(self, asking: Collection[int], claims: Claims, *, free: int, settings: Settings) -> Allowed:
        """What runs that are next may begin: in any slot, and in the first that becomes free. Half of the last slots
        stay for queues that have less than their part and don't ask now.

        Args:
            asking: Queues.
            free: Slots that hold no run.
        """
        queues, rich = self._lines, not claims.poor & set(asking)
        if rich and any(not queues[id].kept for id in claims.poor):
            free -= -(-self._apart // 2)
        all, shared = share(queues, free=min(free, settings.refill_runs + sum(line.kept for line in queues.values())))
        # A queue's own bound is no reason to look at each end of others' runs.
        if any(not all[id].most and not queues[id].full for id in queues.keys() & set(asking)):
            self.wait_for(1)
        return Allowed(self._throttles.cap({id: room for id, room in all.items() if room.most}), shared)

    def _stand(self, shards: Sequence[Held], settings: Settings) -> Mapping[int, Line]:
        """The queues as they stand. Who has which shards, and under which rules, changes seldom."""
        now = (shards, self._rules(), settings.inflight_max)
        if now == self._of:
            self._recount()
        else:
            self._of, self._lines = now, lines(shards, now[1], slots=now[2])
        return self._lines

    def _recount(self) -> None:
        for line in self._lines.values():
            line.count()

    @property
    def _apart(self) -> int:
        """The last slots: of those that aren't reserved, for whoever has none would have no other."""
        reserved = sum(min(line.reserved, line.most) for line in self._lines.values())
        return max(0, self._of[2] - reserved) // EXPRESS

    def _poor(self) -> set[int]:
        """Queues that may begin some and have less than an even part of all slots, where several have work. What is
        paused, full or has to wait for its rate has no use for slots, and others needn't leave it any."""
        able = {id for id, line in self._lines.items() if not line.full and not self._throttles.waits(id)}
        active = {id for id, line in self._lines.items() if line.in_hand or (id in able and line.unread)}
        part = self._of[2] / max(1, len(active))
        return {id for id in able if len(active | {id}) > 1 and self._lines[id].in_hand < part}

    @property
    def _gathered(self) -> bool:
        return self._clock.monotonic() - self._given_at >= GATHER_S

    def took(self, allowed: Allowed, rows: Sequence[Ready]) -> set[int]:
        """A refill gave these; returns queues that may have more which there was no room for."""
        self._throttles.began(Counter(row.queue_id for row in rows if row.known))
        return full(allowed, Counter(row.queue_id for row in rows))

    @property
    def wait_s(self) -> float | None:
        """Until a throttled queue may begin some; None: none waits for that."""
        return self._throttles.wait_s

    def wait_for(self, count: int) -> None:
        """Have ``freed`` say when so many runs have left; 0: never."""
        self._freed, self._need = 0, count

    def freed(self) -> bool:
        """A run has left. True when there is room now that was lacking."""
        self._freed += 1
        if not self._need or (self._freed < self._need and not self._gathered):
            return False
        self._need = 0
        return True
