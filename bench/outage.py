"""A minute without a store at 300 events a second: how soon do fresh events start again, while the backlog drains?

The whole program on a PostgreSQL of this benchmark's own, which is stopped for a minute. Compared in the same run: the
median time from acceptance to the start of the run, in the five seconds before the outage, and in the five seconds that
begin five seconds after its end. Intake must have answered 2xx all the while, and the lab's ledger must balance.

    python bench/outage.py            # about two minutes
"""

from __future__ import annotations

import asyncio
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import asyncpg

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from bench.result import fdatasync_p50_ms, publish, row

from seawall.lab.checker import ledger
from seawall.lab.checker.verify import verify
from seawall.lab.platform import Platform
from seawall.lab.tree import Tree
from seawall.testing.postgres import PostgresServer

APP = Path(__file__).resolve().parents[1] / "examples" / "demo.py"
RATE = 300
OUTAGE_S = 60
WINDOW_S = 5


async def starts_ms(dsn: str, begin: float) -> list[float]:
    """Milliseconds from acceptance to start, of each event accepted in the window from ``begin``."""
    connection = await asyncpg.connect(dsn)
    try:
        rows = await connection.fetch(
            "select extract(epoch from d.started_at - e.received_at) * 1000 from event e"
            " join run_done d on d.event_id = e.id"
            " where e.received_at >= to_timestamp($1) and e.received_at < to_timestamp($2)",
            begin,
            begin + WINDOW_S,
        )
    finally:
        await connection.close()
    return [float(r[0]) for r in rows]


def main() -> None:
    with tempfile.TemporaryDirectory() as name, PostgresServer() as server:
        folder = Path(name)
        (folder / "dsn").write_text(server.dsn())
        (folder / "dsn").chmod(0o600)
        options = ("--dsn-file", str(folder / "dsn"))
        with Tree(folder / "data", app=APP, log=folder / "log", options=options) as tree:
            tree.start()
            tree.wait_ready(90)
            command = [
                sys.executable, "-m", "seawall", "lab", "traffic", "--rate", str(RATE), "--seconds", "3000",
                "--ledger", str(folder / "ledger"), "--data", str(tree.data), "--json",
            ]  # fmt: skip
            with subprocess.Popen(command, stdout=subprocess.DEVNULL) as sender:
                time.sleep(8)
                healthy = time.time()
                time.sleep(WINDOW_S + 1)
                server.stop()
                time.sleep(OUTAGE_S)
                server.start()
                fresh = time.time() + 5
                time.sleep(5 + WINDOW_S + 2)
                sender.terminate()
                sender.wait(60)
            book = ledger.read(folder / "ledger")
            refused = sum(1 for run in book.runs for a in run.attempts if not a.acked)
            with Platform(tree.place) as platform:
                verdict = verify(platform, book, timeout_s=120, workflows=("weigh",))
            healthy_ms = statistics.median(asyncio.run(starts_ms(server.dsn(), healthy)))
            fresh_ms = statistics.median(asyncio.run(starts_ms(server.dsn(), fresh)))
    counts = verdict.counts()
    publish(
        [
            row("outage: fdatasync p50 (machine)", fdatasync_p50_ms(), "ms"),
            row("outage: healthy, accepted to started, p50", healthy_ms, "ms"),
            row("outage: fresh after a minute without a store, p50", fresh_ms, "ms"),
            row("outage: fresh / healthy", fresh_ms / healthy_ms, "ratio", at_most=2.0),
            row("outage: requests not answered 2xx", refused, "requests", at_most=0),
            row("outage: lost", counts["lost"] + counts["unknown"], "events", at_most=0),
            row("outage: invented or corrupted", counts["invented"] + counts["corrupted"], "events", at_most=0),
        ]
    )


if __name__ == "__main__":
    main()
