"""The log on real files: group commit, and what each failure of the disk is answered with."""

from __future__ import annotations

import asyncio
import errno
import os
from pathlib import Path

import pytest
from desk import NO_SOCKET, SMALL, answered, opened, payloads_in, segments, until

from seawall.guard import Supervisor
from seawall.journal import Log, LogReader, Settings
from seawall.kernel.error import Misconfigured, Overloaded, Unavailable, Uncertain
from seawall.kernel.metric import Metrics
from seawall.kernel.seam.journal import Outcome, Position


async def test_what_comes_during_a_sync_is_one_batch(tmp_path: Path) -> None:
    async with opened(tmp_path / "c1") as desk:
        desk.disk.hang("sync_data")
        first = desk.submit(b"first")
        await until(desk.disk.hung.is_set)
        rest = desk.submit(*(b"%d" % n for n in range(100)))
        await asyncio.sleep(0)
        assert not first and not rest
        desk.disk.release()
        await answered(rest, 100)
        assert desk.count("seawall_journal_syncs_total") == 2
        assert desk.count("seawall_journal_records_total") == 101


async def test_a_batch_is_bounded_and_a_larger_record_is_one_by_itself(tmp_path: Path) -> None:
    settings = Settings(segment_bytes=1 << 20, fill_bytes=4096, batch_bytes_max=4096, reserve_bytes=0)
    async with opened(tmp_path / "c1", settings) as desk:
        answers = desk.submit(*[b"x" * 1000] * 8, b"y" * 10_000, b"z")
        await answered(answers, 10)
        assert desk.count("seawall_journal_syncs_total") == 4
    assert await payloads_in(tmp_path / "c1") == [*[b"x" * 1000] * 8, b"y" * 10_000, b"z"]


@pytest.mark.parametrize("call", ["sync_data", "write_at", "sync_folder"])
async def test_the_first_failure_is_final_and_says_what_may_be_kept(tmp_path: Path, call: str) -> None:
    async with opened(tmp_path / "c1") as desk:
        if call != "sync_folder":
            await desk.keep(b"before")
        desk.disk.hang("sync_data" if call != "write_at" else "write_at")
        writing = desk.submit(b"in the batch")
        await until(desk.disk.hung.is_set)
        queued = desk.submit(b"in the queue")
        # The hanging call has been counted already: the plan must hit it itself, or the next one of that name.
        desk.disk.fail(call, errno.EIO, after=-1)
        desk.disk.release()
        await answered(queued, 1)
        assert isinstance(writing[0], Uncertain)
        assert isinstance(queued[0], Unavailable)
        assert isinstance(desk.log.refusal, Unavailable)
        desk.disk.heal()
        syncs = desk.disk.counts["sync_data"]
        with pytest.raises(Unavailable):
            desk.submit(b"later")
        desk.log.tick()
        await asyncio.sleep(0.01)
        assert len(desk.failures) == 1
        assert "errno 5" in desk.failures[0]
    assert desk.disk.counts["sync_data"] == syncs, "a failed sync was tried again"
    assert b"in the queue" not in await payloads_in(tmp_path / "c1")


async def test_a_restart_after_a_failure_takes_records_again(tmp_path: Path) -> None:
    async with opened(tmp_path / "c1") as desk:
        await desk.keep(b"one")
        desk.disk.fail("sync_data", errno.EIO)
        await answered(desk.submit(b"unsure"), 1)
    async with opened(tmp_path / "c1") as desk:
        await desk.keep(b"two")
    kept = await payloads_in(tmp_path / "c1")
    assert [payload for payload in kept if payload != b"unsure"] == [b"one", b"two"]


@pytest.mark.parametrize("call", ["free_bytes", "write_at", "create"])
async def test_a_full_disk_refuses_with_nothing_kept_and_recovers_by_itself(tmp_path: Path, call: str) -> None:
    async with opened(tmp_path / "c1") as desk:
        desk.disk.fail(call, errno.ENOSPC)
        (outcome,) = await answered(desk.submit(b"x" * 5000), 1)
        assert isinstance(outcome, Overloaded)
        assert outcome.retry_after_s == SMALL.full_retry_after_s
        assert isinstance(desk.log.refusal, Overloaded)
        with pytest.raises(Overloaded):
            desk.submit(b"later")
        assert desk.alerts() == {"journal-full"}
        desk.disk.heal()
        async with Supervisor(desk.metrics) as supervisor:
            desk.log.register(supervisor)
            await until(lambda: desk.log.refusal is None)
        assert not desk.alerts()
        await desk.keep(b"again")
        assert not desk.failures
    assert await payloads_in(tmp_path / "c1") == [b"again"]


async def test_a_disk_that_fills_up_in_mid_write_is_uncertain_and_recovers_by_itself(tmp_path: Path) -> None:
    async with opened(tmp_path / "c1") as desk:
        await desk.keep(b"before")
        desk.disk.fail("write_at", errno.ENOSPC)
        (outcome,) = await answered(desk.submit(b"half"), 1)
        assert isinstance(outcome, Uncertain)
        desk.disk.heal()
        desk.log.tick()
        await until(lambda: desk.log.refusal is None)
        await desk.keep(b"after")
        assert not desk.failures
    assert await payloads_in(tmp_path / "c1") == [b"before", b"after"]
    assert len(segments(tmp_path / "c1")) == 2


async def test_a_segment_whose_first_write_filled_the_disk_has_no_records(tmp_path: Path) -> None:
    async with opened(tmp_path / "c1") as desk:
        (before,) = await desk.keep(b"x" * SMALL.segment_bytes)
        desk.disk.fail("write_at", errno.ENOSPC, after=2)  # the next segment's header and zeros
        (outcome,) = await answered(desk.submit(b"half"), 1)
        assert isinstance(outcome, Uncertain)
        desk.disk.heal()
        desk.log.tick()
        await until(lambda: desk.log.refusal is None)
        (after,) = await desk.keep(b"after")
        assert (before.segment_id, after.segment_id) == (1, 3)
    async with LogReader(tmp_path / "c1", NO_SOCKET) as reader:
        chunk = reader.read(reader.start(), records_max=10, bytes_max=1 << 20)
    assert [frame.end.segment_id for frame in chunk.frames] == [1, 3]
    assert not chunk.damage


async def test_space_is_kept_back_for_others(tmp_path: Path) -> None:
    status = os.statvfs(tmp_path)
    free = status.f_bavail * status.f_frsize
    settings = Settings(reserve_bytes=2 * free, resume_bytes=3 * free)
    async with opened(tmp_path / "c1", settings) as desk:
        (outcome,) = await answered(desk.submit(b"x"), 1)
        assert isinstance(outcome, Overloaded)
        desk.log.tick()
        await asyncio.sleep(0.05)
        assert isinstance(desk.log.refusal, Overloaded)
    assert not segments(tmp_path / "c1")


async def test_a_hanging_disk_is_answered_in_time_while_the_event_loop_goes_on(tmp_path: Path) -> None:
    async with opened(tmp_path / "c1") as desk, Supervisor(desk.metrics) as supervisor:
        desk.log.register(supervisor)
        desk.disk.hang("sync_data")
        writing = desk.submit(b"in the batch")
        await until(desk.disk.hung.is_set)
        queued = desk.submit(b"in the queue")
        await answered(queued, 1)
        assert isinstance(writing[0], Uncertain)
        assert isinstance(queued[0], Overloaded)
        assert isinstance(desk.log.refusal, Overloaded)
        await until(lambda: "doesn't answer" in supervisor.health()[0].reason)
        assert desk.alerts() == {"journal-hangs"}
        desk.disk.release()
        await until(lambda: desk.log.refusal is None)
        assert not desk.alerts()
        await desk.keep(b"after")
        await until(lambda: supervisor.health()[0].ready)
        assert len(writing) == 1
    assert await payloads_in(tmp_path / "c1") == [b"in the batch", b"after"]


async def test_stopping_writes_what_was_submitted_and_refuses_the_rest(tmp_path: Path) -> None:
    async with opened(tmp_path / "c1") as desk:
        answers = desk.submit(b"one", b"two")
        stopping = asyncio.create_task(desk.log.stop())
        await asyncio.sleep(0)
        with pytest.raises(Overloaded):
            desk.submit(b"late")
        await stopping
        assert [type(answer) for answer in answers] == [Position, Position]
        await desk.log.stop()
    assert await payloads_in(tmp_path / "c1") == [b"one", b"two"]


async def test_stopping_does_not_wait_for_a_dead_disk(tmp_path: Path) -> None:
    settings = Settings(fill_bytes=4096, reserve_bytes=0, stop_timeout_s=0.1)
    async with opened(tmp_path / "c1", settings) as desk:
        desk.disk.hang("sync_data")
        writing = desk.submit(b"in the batch")
        await until(desk.disk.hung.is_set)
        queued = desk.submit(b"in the queue")
        await desk.log.stop()
        assert isinstance(writing[0], Uncertain)
        assert isinstance(queued[0], Overloaded)
        with pytest.raises(Misconfigured):
            # Its thread may still write: the folder stays locked.
            await Log(
                tmp_path / "c1", Settings(lock_timeout_s=0), metrics=Metrics(), on_failure=pytest.fail
            ).__aenter__()
        desk.disk.release()


async def test_a_second_opener_is_told_who_holds_the_folder(tmp_path: Path) -> None:
    async with opened(tmp_path / "c1"):
        second = Log(tmp_path / "c1", Settings(lock_timeout_s=0.1), metrics=Metrics(), on_failure=pytest.fail)
        with pytest.raises(Misconfigured, match=f"in use by process {os.getpid()}"):
            await second.__aenter__()
        await second.stop()


async def test_a_restart_begins_a_new_segment_and_never_writes_in_an_old_one(tmp_path: Path) -> None:
    for n in range(3):
        async with opened(tmp_path / "c1") as desk:
            await desk.keep(b"%d" % n)
        before = [segment.read_bytes() for segment in segments(tmp_path / "c1")]
        assert len(before) == n + 1
    assert await payloads_in(tmp_path / "c1") == [b"0", b"1", b"2"]
    assert [segment.read_bytes() for segment in segments(tmp_path / "c1")][:2] == before[:2]


async def test_a_crash_loop_leaves_no_empty_segments(tmp_path: Path) -> None:
    for _ in range(5):
        async with opened(tmp_path / "c1"):
            pass
    assert not segments(tmp_path / "c1")


async def test_a_waiter_that_breaks_leaves_no_other_unanswered(tmp_path: Path) -> None:
    told: list[dict[str, object]] = []
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: told.append(context))

    def breaks(outcome: Outcome) -> None:
        raise ZeroDivisionError

    async with opened(tmp_path / "c1") as desk:
        answers = desk.submit(b"one")
        desk.log.submit(b"two", breaks)
        desk.log.submit(b"three", answers.append)
        await answered(answers, 2)
        await desk.keep(b"four")
    assert [type(context["exception"]) for context in told] == [ZeroDivisionError]


async def test_a_bug_in_the_writer_is_a_failure_and_no_silence(tmp_path: Path) -> None:
    async with opened(tmp_path / "c1") as desk:
        desk.disk.plan = lambda call, number: ZeroDivisionError("a bug") if call == "sync_data" else None
        (outcome,) = await answered(desk.submit(b"x"), 1)
        assert isinstance(outcome, Uncertain)
        assert len(desk.failures) == 1


async def test_a_folder_that_cannot_be_used_is_unavailable(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(Unavailable):
        await Log(tmp_path / "file" / "c1", SMALL, metrics=Metrics(), on_failure=pytest.fail).__aenter__()


def test_settings_that_contradict_each_other_are_refused() -> None:
    with pytest.raises(Misconfigured, match="resume_bytes"):
        Settings(reserve_bytes=1 << 30)


async def test_a_callback_that_raises_neither_silences_the_others_nor_stops_the_log(tmp_path: Path) -> None:
    async with opened(tmp_path / "c1") as desk:
        said: list[dict[str, object]] = []
        asyncio.get_running_loop().set_exception_handler(lambda _loop, context: said.append(context))
        answers: list[Outcome] = []

        def broken(_: Outcome) -> None:
            raise RuntimeError("a bug of another room")

        desk.log.submit(b"one", answers.append)
        desk.log.submit(b"two", broken)
        desk.log.submit(b"three", answers.append)
        await answered(answers, 2)
        await desk.keep(b"four")
        assert [str(c["exception"]) for c in said] == ["a bug of another room"]
    assert await payloads_in(tmp_path / "c1") == [b"one", b"two", b"three", b"four"]
