"""What a collector of a cluster spooled in an outage of Kafka is backed up, comes back, and is forwarded."""

from __future__ import annotations

import asyncio
import contextlib
import tempfile
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from journal.kafka_rig import Desk, opened, record, replicated, until, written
from seawall import migrate
from seawall.journal import LocalFilesystem, SyncedPublisher, discover, survey
from seawall.journal.identity import read_log_id
from seawall.journal.spool.checkpoint import Checkpoint
from seawall.kernel.error import Misconfigured
from seawall.kernel.event import decode
from seawall.machine import backup as room
from seawall.machine.backup import Manifest, backup, read_manifest, serving
from seawall.machine.folder import Folder
from seawall.machine.restore import restore
from seawall.store import embedded, pool
from seawall.store.embedded import EmbeddedPostgres
from seawall.testing.kafka import PRODUCE, TOO_LARGE, MockKafka

pytestmark = pytest.mark.parts  # the client library's own brokers, but half a minute and more
FILES = LocalFilesystem()


@pytest.fixture
def home() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="seawall-test-", ignore_cleanup_errors=True) as made:
        Path(made).chmod(0o755)
        yield Path(made)


@pytest.fixture
def mock() -> Iterator[MockKafka]:
    with MockKafka("seawall", partitions=2) as brokers:
        yield brokers


def _folder(path: Path) -> Folder:
    folder = Folder(path, FILES)
    folder.prepare()
    folder.path.chmod(0o755)
    return folder


def _postgres(folder: Folder) -> EmbeddedPostgres:
    settings = embedded.Settings(shared_buffers_mb=16)
    return EmbeddedPostgres(settings, folder.path, FILES, elsewhere=folder.path.parent / "elsewhere")


@contextlib.asynccontextmanager
async def _collecting(mock: MockKafka, folder: Folder) -> AsyncIterator[Desk]:
    """A collector's journal, published as the collector does."""
    async with opened(mock, folder.path) as desk, contextlib.AsyncExitStack() as stack:
        for log in (desk.joint.local, desk.joint.parked):
            await stack.enter_async_context(SyncedPublisher(log, folder.published(log.folder)))
        yield desk


async def _backed_up(folder: Folder, to: Path) -> Manifest:
    async with serving(_postgres(folder)) as dsn:
        await migrate.apply(pool.Settings(dsn=dsn, statement_timeout_s=30))
        programs = _postgres(folder).find_programs()
        return await backup(folder, to, dsn=dsn, programs=programs, filesystem=FILES)


def _ids(mock: MockKafka, folder: Folder) -> set[bytes]:
    """Event ids in all logs of a folder's spool."""
    return {decode(f.payload).id for log in discover(folder.spools) for f in survey.records(log, FILES)}


async def test_what_was_spooled_is_backed_up_beside_its_writer_comes_back_and_is_forwarded(
    mock: MockKafka, home: Path
) -> None:
    made = _folder(home / "D")
    async with _collecting(mock, made) as desk:
        await desk.send(record(b"before"))
        mock.down()
        sent = [record(b"%d" % n) for n in range(50)]
        # Each by itself: the newest batch is that of one record, and no later one proves it.
        for payload in sent:
            assert replicated(await desk.send(payload)) == [False]
        manifest = await _backed_up(made, home / "B")
        assert {"spool/c1/log.id", "spool/c1.parked/log.id"} <= set(manifest.files)
    new = Folder(home / "E", FILES)
    names = await restore(home / "B", new, _postgres(new), filesystem=FILES)
    assert [log.name for log in discover(new.spools)] == sorted(names)
    assert _ids(mock, new) >= {decode(payload).id for payload in sent}
    mock.up()
    async with _collecting(mock, new) as desk:
        await until(lambda: desk.joint.report()["forwarded"] >= 50, within_s=40)
        assert read_log_id(desk.joint.local.folder, FILES) != read_log_id(made.spool("c1"), FILES)
    bodies = Counter(await asyncio.to_thread(written, mock, expect=51))
    assert {b"%d" % n for n in range(50)} | {b"before"} == set(bodies), "lost 0, invented 0"
    # Also the folder that was backed up goes on: what it sends again carries the ids it was accepted under.
    async with _collecting(mock, made) as desk:
        await until(lambda: not desk.joint.forwarder.waits, within_s=40)
    found = await asyncio.to_thread(written, mock, expect=sum(bodies.values()) + 50)
    assert set(found) == set(bodies)
    async with _collecting(mock, new) as desk:
        await until(lambda: not desk.joint.leftovers.waits, within_s=20)
        assert desk.joint.report()["forwarded"] == 0, "what was forwarded once isn't sent at each start"


async def test_what_kafka_refused_comes_back_too_and_is_tried_again(mock: MockKafka, home: Path) -> None:
    made = _folder(home / "D")
    async with _collecting(mock, made) as desk:
        await desk.send(record(b"warm"))
        # A client's first record may be spooled: forwarded only then, it would be in one batch with the refused one.
        await until(lambda: not desk.joint.forwarder.waits)
        mock.fail(PRODUCE, [TOO_LARGE])
        await desk.send(record(b"large"))
        await until(lambda: desk.joint.report()["parked"] == 1)
        await _backed_up(made, home / "B")
    new = Folder(home / "E", FILES)
    await restore(home / "B", new, _postgres(new), filesystem=FILES)
    async with _collecting(mock, new) as desk:
        await until(lambda: not desk.joint.leftovers.waits, within_s=20)
    assert set(await asyncio.to_thread(written, mock, expect=2)) == {b"warm", b"large"}


async def test_a_former_name_of_the_collector_leaves_nothing_behind(mock: MockKafka, home: Path) -> None:
    made = _folder(home / "D")
    mock.down()
    async with _collecting(mock, made) as desk:
        await desk.send(record(b"one"), record(b"two"))
    made.spool("c1").rename(made.spool("old"))
    mock.up()
    async with _collecting(mock, made) as desk:
        await until(lambda: not desk.joint.leftovers.waits, within_s=30)
    assert set(await asyncio.to_thread(written, mock, expect=2)) == {b"one", b"two"}
    left = Checkpoint(made.spool("old"), FILES).load()
    assert left is not None and left.log_id == read_log_id(made.spool("old"), FILES)


async def test_a_backup_with_spooled_logs_is_refused_by_a_seawall_that_would_leave_them_out(
    mock: MockKafka, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = _folder(home / "D")
    async with _collecting(mock, made):
        await _backed_up(made, home / "B")
    monkeypatch.setattr(room, "VERSION", 1)
    with pytest.raises(Misconfigured, match="newer Seawall"):
        read_manifest(home / "B")
