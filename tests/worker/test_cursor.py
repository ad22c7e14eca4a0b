"""Hints lead a worker to every run it has room for, however reading forwards and reading what goes before alternate."""

from __future__ import annotations

from collections.abc import Sequence

from hypothesis import given, settings
from hypothesis import strategies as st

from seawall.kernel.made import Made
from seawall.store.lease import Lease
from seawall.worker.cursor import Cursors, advance
from seawall.worker.shard import Held
from seawall.worker.slot import Allowed, Claims, wished, wished_next
from seawall.worker.throttle import Room

QUEUE = 1
POOR, ALONE, RICH = Claims({QUEUE}, {QUEUE}), Claims(set(), {QUEUE}), Claims(set(), set())
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("new"), st.integers(0, 50), st.integers(0, 2)),
        st.tuples(st.just("forwards"), st.integers(1, 6), st.integers(0, 1)),
        st.tuples(st.just("strange"), st.integers(0, 50), st.integers(0, 2)),
        st.tuples(st.just("new"), st.integers(0, 50), st.integers(0, 2)),
        st.tuples(st.just("sweep"), st.integers(1, 6), st.integers(0, 1)),
        st.tuples(st.just("express"), st.integers(1, 3), st.integers(0, 2)),
    ),
    max_size=60,
)


class World:
    """What is ready in three shards, and one worker's reading of it. Nothing is swept: hints alone must do."""

    def __init__(self) -> None:
        self.shards = [Held(Lease(QUEUE, n, 1), 0, sweep_at=float("inf")) for n in range(3)]
        self.cursors = Cursors()
        self.ready: dict[int, set[tuple[int, int]]] = {n: set() for n in range(3)}
        self.begun: list[tuple[int, int]] = []
        self.strange: set[tuple[int, int]] = set()  # of a version that this worker doesn't have
        self.now = 0.0
        self._id = 0

    def new(self, vt: int, shard: int, *, strange: bool = False) -> None:
        self._id += 1
        self.ready[shard].add((vt, self._id))
        self.strange |= {(vt, self._id)} if strange else set()
        self.cursors.hint(QUEUE, Made.of(vt, shard))

    def forwards(self, room: int, waits: int, *, sweep: bool = False) -> bool:
        self.now += waits
        allowed = Allowed({QUEUE: Room(0, room)}, room)
        self.cursors.go_back(self.shards, self.now)
        shards = [held for held in self.shards if held.unread or sweep]
        sweeping = {held: held.sweep_from(self.now, 3.0) for held in shards if sweep}
        more = False
        for held, rows, whole in self._read(wished(shards, sweeping, allowed), shards, room):
            more |= advance(held, rows, sweep_s=1.0 if sweep else None, whole=whole, now=self.now)  # type: ignore[arg-type]
        return more

    def express(self, room: int, claims: Claims) -> None:
        self.now += 1
        passed = self.cursors.named(self.shards, claims)
        news = self.cursors.next(passed, self.now) if passed else None
        if news is None:
            return
        allowed = Allowed({QUEUE: Room(0, room)}, room)
        read = self._read(wished_next(passed, news, allowed), passed, room)
        for (held, rows, whole), made in zip(read, news, strict=True):
            if rows:
                held.read_beyond((rows[-1].vt, rows[-1].id))
            if not whole:
                self.cursors.again(held, made, rows, self.now)

    def _read(self, wishes: Sequence, shards: Sequence[Held], room: int) -> list:  # type: ignore[type-arg]
        """As the statement does: of each shard so many, then of all so many."""
        found = [
            (place, held)
            for wish, held in zip(wishes, shards, strict=True)
            for place in sorted(p for p in self.ready[held.lease.shard] if wish.after < p <= wish.until)[: wish.most]
        ]
        taken = sorted(found, key=lambda one: one[0])[:room]
        for place, held in taken:
            self.ready[held.lease.shard] -= {place} - self.strange
        self.begun += [place for place, _ in taken if place not in self.strange]
        result = []
        for wish, held in zip(wishes, shards, strict=True):
            mine = [At(*place, place not in self.strange) for place, of in taken if of is held]
            result.append((held, mine, len(mine) < wish.most and len(taken) < room))
        return result


class At:
    def __init__(self, vt: int, id: int, known: bool) -> None:
        self.vt, self.id, self.known = vt, id, known


@settings(max_examples=400)
@given(STEPS)
def test_no_run_is_left_behind_and_none_is_read_twice(steps: list[tuple[str, int, int]]) -> None:
    world = World()
    for what, first, second in steps:
        if what in ("new", "strange"):
            world.new(first, second, strange=what == "strange")
        elif what == "forwards":
            world.forwards(first, second)
        elif what == "sweep":
            world.forwards(first, second, sweep=True)
        else:
            world.express(first, (POOR, ALONE, RICH)[second])
    for _ in range(200):
        if not world.forwards(5, 1) and not world.cursors.behind:
            break
    assert not set().union(*world.ready.values()) - world.strange
    assert len(world.begun) == len(set(world.begun))


def test_what_goes_before_is_begun_first_and_nothing_else_with_it() -> None:
    world = World()
    for n in range(40):
        world.new(100 + n, n % 3)
    world.forwards(20, 1)
    world.new(50, 1)
    world.express(5, ALONE)
    assert world.begun[20:] == [(50, 41)]


def test_a_poor_queue_of_which_all_is_read_has_its_new_runs_begun_beyond_its_cursor() -> None:
    world = World()
    world.new(10, 0)
    world.forwards(5, 1)
    world.new(20, 0)
    world.express(5, POOR)
    assert world.begun == [(10, 1), (20, 2)]
    assert world.shards[0].after == (10, 1) and world.shards[0].top == (20, 2)


def test_what_waited_first_is_not_passed_by_a_hint_of_something_newer() -> None:
    world = World()
    world.new(10, 0)
    world.express(5, POOR)  # nobody has read this shard so far: there may be more before it
    assert not world.begun
    world.new(20, 0)
    world.forwards(1, 1)
    world.new(30, 0)
    world.express(5, POOR)
    assert world.begun == [(10, 1)]


def test_hints_of_shards_that_were_not_read_so_far_are_no_news() -> None:
    world = World()
    world.new(10, 0)
    assert not world.cursors.named(world.shards, ALONE) and not world.cursors.behind
