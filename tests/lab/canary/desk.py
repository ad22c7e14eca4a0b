"""What canaries share: the lab's ledger and verdict over a bare journal, and a run's record made of plain figures."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from seawall.journal import Settings
from seawall.journal.cursor import Cursor
from seawall.journal.recovery import recover
from seawall.kernel.clock import SystemClock
from seawall.kernel.error import SeawallError
from seawall.kernel.event import EventIds, Record, decode, encode, id_text
from seawall.kernel.seam.filesystem import Filesystem
from seawall.kernel.seam.journal import Journal, Outcome, Position
from seawall.lab import record
from seawall.lab.checker import ledger
from seawall.lab.checker.verdict import SeenEvent, Verdict, judge
from seawall.lab.expect import Seen
from seawall.lab.record import Fault, Sample
from seawall.lab.traffic.payload import body, sha256

CLOCK = SystemClock()
SMALL = Settings(segment_bytes=64 * 1024, fill_bytes=4096, reserve_bytes=0, resume_bytes=4096)
SOURCE = b"\x07" * 16
SEED, TYPE, BYTES_MAX = 11, "canary", 300


class Sender:
    """Sends to a journal as the lab's traffic sends to a collector: each event in the ledger before and after."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._ids = EventIds(CLOCK)
        self._sent = 0
        about = {"source_id": SOURCE.hex(), "seed": SEED, "type": TYPE, "bytes_max": BYTES_MAX}
        self._ledger = ledger.Ledger(path)
        self._ledger.begin("canary", about)

    async def send(self, journal: Journal, count: int) -> None:
        """So many events, one after the other; each is answered before the next one is sent."""
        for _ in range(count):
            self._sent += 1
            await self._send(journal, self._sent)

    async def _send(self, journal: Journal, n: int) -> None:
        data, key, id = body(SEED, n, type=TYPE, bytes_max=BYTES_MAX), f"canary-{n}", self._ids.next()
        made = Record(
            id=id, source_id=SOURCE, kind="none", tenant="acme", source="canary", received_us=CLOCK.wall_us(), key=key,
            body=data,
        )  # fmt: skip
        answered: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        self._ledger.sent(key, n=n, attempt=1, sha256=sha256(data), bytes=len(data), sent_us=CLOCK.wall_us())
        try:
            journal.submit(encode(made), answered.set_result)
            async with asyncio.timeout(10):
                outcome = await answered
        except SeawallError as error:
            outcome = error
        acked = isinstance(outcome, Position)
        self._ledger.answered(
            key, attempt=1, status=202 if acked else 503, event_id=id_text(id) if acked else "",
            answered_us=CLOCK.wall_us(),
        )  # fmt: skip

    def verdict(self, payloads: Iterable[bytes]) -> Verdict:
        """The lab's, when a journal holds these."""
        self._ledger.close()
        records = [decode(payload) for payload in payloads]
        events = [SeenEvent(id=id_text(r.id), key=r.key, sha256=sha256(r.body), status="routed") for r in records]
        return judge(ledger.read(self._path).runs, {SOURCE.hex(): events})


def payloads_in(folder: Path, filesystem: Filesystem) -> list[bytes]:
    """What a log holds that was just found, as a starting collector and a router find it."""
    end = recover(folder, filesystem=filesystem, entropy=os.urandom).end.position
    cursor = Cursor(folder, end.log_id, filesystem)
    found: list[bytes] = []
    at = cursor.start()
    while True:
        chunk = cursor.read(at, end, records_max=1000, bytes_max=1 << 30)
        found += [frame.payload for frame in chunk.frames]
        if chunk.next == at:
            return found
        at = chunk.next


def seen(
    *, verdict: Verdict | None = None, samples: Sequence[tuple[float, Mapping[str, float]]] = (), fault_s: float = 0.0
) -> Seen:
    """A run as its folder would tell it.

    Args:
        fault_s: When the one fault began that went on to the end.
    """
    made = record.Record(id="canary.on.1", name="canary", title="A canary")
    made.faults = [Fault(name="the canary's", target="canary", began_s=fault_s)]
    made.verdict = verdict.counts() if verdict is not None else {}
    return Seen(made, [Sample(at_s, values) for at_s, values in samples])
