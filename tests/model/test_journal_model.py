"""Random operations, crashes, rot and failing disks against the journal's own code; and proof that this finds bugs.

The mutants are the point: a model that passes says little unless it is seen to fail for each bug that it guards
against. Every one of these has lost somebody's data (docs/decisions/0001-journal-format.md).
"""

from __future__ import annotations

import errno
import random
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any
from unittest import mock

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test
from journal_world import GUESSED_SALT, Kit, World

from seawall.journal import cursor, recovery
from seawall.journal.writer import Writer
from seawall.kernel.error import Corrupt, Overloaded, Uncertain
from seawall.testing.disk import CrashFile

SIZES = st.lists(st.integers(0, 1500), min_size=1, max_size=4)
CALLS = ("sync_data", "write_at", "sync_folder", "create", "free_bytes")


def machine(kit: Kit) -> type[RuleBasedStateMachine]:
    class Machine(RuleBasedStateMachine):
        @initialize(seed=st.integers(0, 2**32))
        def begin(self, seed: int) -> None:
            self.world = World(seed, kit)

        @rule(sizes=SIZES, forged=st.booleans())
        def append(self, sizes: list[int], forged: bool) -> None:
            self.world.append([self.world.payload(size, forged=forged) for size in sizes])

        @rule(sizes=SIZES, calls=st.integers(1, 8), power=st.booleans())
        def crash_while_appending(self, sizes: list[int], calls: int, power: bool) -> None:
            world = self.world
            payloads = [world.payload(size) for size in sizes]
            world.crash_in(lambda: world.append(payloads), calls, power=power)

        @rule(calls=st.integers(1, 25), power=st.booleans())
        def crash_while_recovering(self, calls: int, power: bool) -> None:
            self.world.crash_in(self.world.start, calls, power=power)

        @rule(power=st.booleans())
        def crash(self, power: bool) -> None:
            self.world.crash(power=power)

        @rule(sizes=SIZES, call=st.sampled_from(CALLS), error=st.sampled_from([errno.EIO, errno.ENOSPC]))
        def append_to_failing_disk(self, sizes: list[int], call: str, error: int) -> None:
            self.world.fail_next(call, error)
            self.world.append([self.world.payload(size) for size in sizes])

        @rule(call=st.integers(1, 25), error=st.sampled_from([errno.EIO, errno.ENOSPC]), power=st.booleans())
        def recover_on_failing_disk(self, call: int, error: int, power: bool) -> None:
            self.world.fail_recovery(call, error, power=power)

        @rule(full=st.booleans())
        def fill_disk(self, full: bool) -> None:
            self.world.set_full(full=full)

        @rule(
            where=st.floats(0, 1, exclude_max=True),
            place=st.sampled_from(["head", "length", "body", "segment"]),
            bit=st.integers(0, 7),
        )
        def rot(self, where: float, place: str, bit: int) -> None:
            self.world.flip(where, place, bit)

        @rule(records=st.integers(1, 50))
        def read(self, records: int) -> None:
            self.world.disk.plan = None
            self.world.read(records)

        @rule()
        def forget(self) -> None:
            self.world.disk.plan = None
            self.world.forget()

        @rule()
        def wipe(self) -> None:
            self.world.wipe()

        @invariant()
        def promises_hold(self) -> None:
            if hasattr(self, "world"):
                self.world.check()

    return Machine


def explore(kit: Kit, *, examples: int, steps: int = 30, reproducible: bool = True) -> None:
    """Run the model; raises what it finds."""
    run_state_machine_as_test(
        machine(kit),
        settings=settings(
            max_examples=examples,
            stateful_step_count=steps,
            deadline=None,
            database=None,
            derandomize=reproducible,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
            print_blob=not reproducible,
        ),
    )


def test_nothing_is_lost_invented_or_silent_whatever_happens() -> None:
    explore(Kit(), examples=300)


@pytest.mark.soak
def test_nothing_is_lost_in_a_long_search() -> None:
    explore(Kit(), examples=5000, steps=60, reproducible=False)


class _AcksBeforeSync(Writer):
    def _sync(self, segment: Any) -> None:
        with suppress(OSError):  # a mutant that raises is found for that, and not for its ack
            self._filesystem.sync_folder(self._folder)


class _RetriesSync(Writer):
    def _sync(self, segment: Any) -> None:
        with suppress(OSError):
            segment.file.sync_data()
        super()._sync(segment)


class _SyncsNoFolder(Writer):
    def _sync(self, segment: Any) -> None:
        segment.named = True
        super()._sync(segment)


class _CallsHalfWrittenRefused(Writer):
    def _write(self, segment: Any, batch: bytes) -> None:
        try:
            super()._write(segment, batch)
        except Uncertain as error:
            raise Overloaded("the disk is full") from error


class _ReusesNewestSegment(Writer):
    def _create(self) -> Any:
        if self._last_id:
            self._filesystem.remove(self._folder / f"{self._last_id:020d}.seg")
            self._last_id -= 1
        return super()._create()


@contextmanager
def stops_at_first_bad() -> Iterator[None]:
    """A reader for which damage is the end, as Kafka's and others' recovery has it."""
    true_scan = recovery.scan

    def scan(file: Any, codec: Any, start: int, limit: int, **bounds: Any) -> Any:
        found = true_scan(file, codec, start, limit, **bounds)
        if found.damage:
            found.frames = [frame for frame in found.frames if frame.end <= found.damage[0].start]
            found.next = limit
        return found

    with mock.patch.object(recovery, "scan", scan), mock.patch.object(cursor, "scan", scan):
        yield


def recover_without_sync(folder: Any, *, filesystem: Any, entropy: Any) -> Any:
    """What a killed process left is read as it stands in the cache."""
    with mock.patch.object(CrashFile, "sync_data", lambda self: None):
        return recovery.recover(folder, filesystem=filesystem, entropy=entropy)


@contextmanager
def trusts_the_cache() -> Iterator[None]:
    with mock.patch.object(CrashFile, "drop_cached", lambda self: None):
        yield


MUTANTS = {
    "ack before fsync": Kit(writer=_AcksBeforeSync),
    "retried fsync": Kit(writer=_RetriesSync),
    "no folder sync": Kit(writer=_SyncsNoFolder),
    "half-written batch called refused": Kit(writer=_CallsHalfWrittenRefused),
    "spent segment overwritten": Kit(writer=_ReusesNewestSegment),
    "fixed marker and salt": Kit(salt=GUESSED_SALT),
    "position without log id": Kit(log_id=b"the same for all"),
    "recovery without sync": Kit(recover=recover_without_sync),
}
BUGS = {
    "stop at first bad record": stops_at_first_bad,
    "cache trusted after a failed sync": trusts_the_cache,
}


def fail_then_crash(kit: Kit, call: str, error: int) -> None:
    """What a long search would meet at last: a failing call, a kill, a reader that acts, a power cut; 300 times."""
    for seed in range(300):
        world = World(seed, kit)
        world.append([world.payload(600)])
        world.fail_next(call, error)
        world.append([world.payload(700), world.payload(100)])
        world.crash(power=False)
        world.read(10)
        world.crash(power=True)


@pytest.mark.parametrize("name", MUTANTS)
def test_model_catches_a_journal_with(name: str) -> None:
    with pytest.raises((AssertionError, Corrupt)) as caught:
        fail_then_crash(MUTANTS[name], "write_at", errno.ENOSPC)
        explore(MUTANTS[name], examples=2000)
    print(name, "->", caught.value)


@pytest.mark.parametrize("name", BUGS)
def test_model_catches_a_reader_with(name: str) -> None:
    with BUGS[name](), pytest.raises(AssertionError) as caught:
        fail_then_crash(Kit(), "sync_data", errno.EIO)
        explore(Kit(), examples=2000)
    print(name, "->", caught.value)


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("error", [errno.EIO, errno.ENOSPC])
def test_what_a_reader_got_outlives_a_failing_disk_and_a_power_cut(call: str, error: int) -> None:
    fail_then_crash(Kit(), call, error)


def test_model_is_repeatable() -> None:
    def run() -> list[int]:
        world = World(7)
        rng = random.Random(7)
        for _ in range(30):
            world.append([world.payload(rng.randint(0, 900))])
            world.crash(power=rng.random() < 0.5)
        return [end.offset_bytes for end in world.acked]

    assert run() == run()
