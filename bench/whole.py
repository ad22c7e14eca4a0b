"""The whole program as a user runs it: start, the round trip of a held request, thousands held at once, and --help.

One ``seawall up`` with the embedded profile and an app of two workflows: ``empty`` answers at once, ``later`` sleeps
and then replies with the number that its sender gave, so that an answer which isn't one's own is seen. Round trips come
at a fixed rate, open loop: each counts from the moment at which it was due, so that a stall is not hidden by waiting
for it. Beside each figure stand the machine's own limits: the fdatasync median, and how long a bare Python takes to
start.

    python bench/whole.py             # about a minute
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import resource
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from bench.result import Row, cpu_s, fdatasync_p50_ms, publish, row, tree

SEAWALL = str(Path(sys.executable).parent / "seawall")
RATE = 50
SECONDS = 8
HELD = 10_000
HOLD_S = 25
LATER_S = 14
SILENT_S = 3.0
START_LIMIT_S = 60.0

APP = f"""
from seawall import App, Context, Event

app = App()


@app.workflow(on="empty")
async def empty(event: Event, ctx: Context) -> None:
    pass


@app.workflow(on="later")
async def later(event: Event, ctx: Context) -> None:
    await ctx.sleep({LATER_S})
    ctx.respond(dict(n=event.json["n"]))
"""


class Platform:
    """A running ``seawall up``."""

    def __init__(self, process: subprocess.Popen[bytes], data: Path) -> None:
        self.process = process
        self.data = data

    @property
    def place(self) -> dict[str, str]:
        found: dict[str, str] = json.loads((self.data / "run" / "admin.json").read_text())
        return found

    def role(self, name: str) -> int:
        """Process id of one role."""
        for pid in tree(self.process.pid):
            words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
            if name.encode() in words:
                return pid
        raise LookupError(name)

    def named(self, program: str) -> list[int]:
        """Process ids of one program that live on: those of a connection end with it."""
        return [pid for pid in tree(self.process.pid) if Path(f"/proc/{pid}/comm").read_text().strip() == program]


@contextlib.contextmanager
def running(data: Path, app: Path) -> Iterator[Platform]:
    """``seawall up`` until the block ends; yields before it is ready."""
    arguments = ["up", "--data", str(data), "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--app", str(app)]
    # All clients of this benchmark come from one address; the product's limit for one address is for strangers.
    more = {f"SEAWALL_COLLECTOR_CONNECTIONS{which}_MAX": str(HELD + 500) for which in ("", "_PER_IP")}
    environment = {**os.environ, **more}
    process = subprocess.Popen(
        [SEAWALL, *arguments], env=environment, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL
    )
    os.set_blocking(process.stderr.fileno(), False)  # type: ignore[union-attr]
    try:
        yield Platform(process, data)
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.communicate(timeout=60)
        except subprocess.TimeoutExpired:
            process.kill()
            raise


def post(url: str, body: bytes, headers: dict[str, str] | None = None) -> int:
    request = urllib.request.Request(url, data=body, headers=headers or {})
    try:
        with urllib.request.urlopen(request, timeout=5) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code
    except OSError:
        return 0


def first_answer_s(platform: Platform, path: str, begin: float) -> float:
    """Seconds from ``begin`` until the first event is acknowledged."""
    while time.perf_counter() - begin < START_LIMIT_S:
        try:
            if post(platform.place["listen"] + path, b'{"type":"nobody"}') == 202:
                return time.perf_counter() - begin
        except (FileNotFoundError, json.JSONDecodeError, KeyError):
            pass
        time.sleep(0.01)
    raise TimeoutError("seawall up didn't answer")


def ready(platform: Platform) -> None:
    begin = time.perf_counter()
    while time.perf_counter() - begin < START_LIMIT_S:
        with (
            contextlib.suppress(OSError, KeyError, json.JSONDecodeError, urllib.error.HTTPError),
            urllib.request.urlopen(platform.place["address"] + "/readyz", timeout=5) as answer,
        ):
            if answer.status == 200:
                return
        time.sleep(0.02)
    raise TimeoutError("seawall up didn't become ready")


def add_source(data: Path) -> str:
    """Path of a source without signature whose requests may be held."""
    command = [SEAWALL, "source", "add", "bench", "--kind", "none", "--setting", "wait_ms_max=25000",
               "--data", str(data), "--json"]  # fmt: skip
    said = subprocess.run(command, check=True, capture_output=True).stdout
    url: str = json.loads(said)["url"]
    return "/" + url.split("/", 3)[3]


async def held(
    host: str, port: int, path: str, body: bytes, wait_s: int
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Send one request that wants to wait; returns before its answer."""
    reader, writer = await asyncio.open_connection(host, port)
    head = f"POST {path} HTTP/1.1\r\nHost: {host}\r\nPrefer: wait={wait_s}\r\nConnection: close\r\n"
    writer.write(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
    return reader, writer


async def round_trips(host: str, port: int, path: str) -> list[float]:
    """Milliseconds from due to answered, at ``RATE`` a second, open loop."""
    took: list[float] = []

    async def one(due: float) -> None:
        reader, writer = await held(host, port, path, b'{"type":"empty"}', 10)
        answer = await asyncio.wait_for(reader.read(), 15)
        if not answer.startswith(b"HTTP/1.1 200"):
            raise RuntimeError(answer[:300].decode("latin-1"))
        took.append((time.perf_counter() - due) * 1000)
        writer.close()

    begin = time.perf_counter() + 0.2
    tasks = []
    for n in range(RATE * SECONDS):
        due = begin + n / RATE
        await asyncio.sleep(max(0.0, due - time.perf_counter()))
        tasks.append(asyncio.create_task(one(due)))
    await asyncio.gather(*tasks)
    return took[RATE:]  # the first second warms up


async def hold_many(host: str, port: int, path: str, collector: int, store: list[int]) -> list[Row]:
    """``HELD`` requests at once, and what they cost the collector while nothing happens."""
    gate = asyncio.Semaphore(100)

    async def one(n: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        async with gate:
            return await held(host, port, path, b'{"type":"later","n":%d}' % n, HOLD_S)

    clients = await asyncio.gather(*(one(n) for n in range(HELD)))
    await asyncio.sleep(1)
    before, store_before = cpu_s(collector), sum(map(cpu_s, store))
    await asyncio.sleep(SILENT_S)
    load, store_load = cpu_s(collector) - before, sum(map(cpu_s, store)) - store_before
    status = Path(f"/proc/{collector}/status").read_text()
    threads = int(status.split("Threads:")[1].split()[0])
    rss_mb = int(status.split("VmRSS:")[1].split()[0]) / 1024
    silent = sum(1 for reader, _ in clients if not reader.at_eof() and not reader._buffer)  # type: ignore[attr-defined]
    answers = await asyncio.gather(*(asyncio.wait_for(reader.read(), HOLD_S + 15) for reader, _ in clients))
    own = sum(a.startswith(b"HTTP/1.1 200") and a.endswith(b'{"n":%d}' % n) for n, a in enumerate(answers))
    place = sum(a.startswith(b"HTTP/1.1 202") and b"/in/tickets/" in a for a in answers)
    for _, writer in clients:
        writer.close()
    return [
        row("whole: requests held at once", silent, "requests", at_least=HELD),
        row("whole: … of them answered with their own reply", own, "requests"),
        row("whole: … with the place of their ticket", place, "requests"),
        row("whole: … with anything else", HELD - own - place, "requests", at_most=0),
        row("whole: threads of the collector meanwhile", threads, "threads", at_most=20),
        row("whole: memory of the collector meanwhile", rss_mb, "MiB"),
        row("whole: CPU of the collector meanwhile", load / SILENT_S * 100, "% of a core"),
        row("whole: CPU of PostgreSQL meanwhile", store_load / SILENT_S * 100, "% of a core"),
    ]


def cpu_of(command: list[str], *, times: int = 5) -> float:
    """Median CPU milliseconds of a command."""
    took = []
    for _ in range(times):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        took.append((after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime) * 1000)
    return statistics.median(took)


def main() -> None:
    resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
    rows = [
        row("whole: fdatasync p50 (machine)", fdatasync_p50_ms(), "ms"),
        row("whole: bare python start, CPU (machine)", cpu_of([sys.executable, "-c", ""]), "ms"),
        row("whole: seawall --help, CPU", cpu_of([SEAWALL, "--help"]), "ms", at_most=150),
    ]
    with tempfile.TemporaryDirectory() as folder:
        data, app = Path(folder) / "data", Path(folder) / "app.py"
        app.write_text(APP)
        with running(data, app) as platform:
            ready(platform)
            path = add_source(data)
        starts = []
        for _ in range(3):
            begin = time.perf_counter()
            with running(data, app) as platform:
                starts.append(first_answer_s(platform, path, begin))
                ready(platform)
        rows.append(row("whole: warm start to first event answered", statistics.median(starts), "s", at_most=2.0))
        with running(data, app) as platform:
            ready(platform)
            host, _, port = platform.place["listen"].removeprefix("http://").partition(":")
            took = asyncio.run(round_trips(host, int(port), path))
            rows.append(row("whole: sync round trip at 50/s, p50", statistics.median(took), "ms", at_most=20))
            rows.append(row("whole: sync round trip at 50/s, p99", sorted(took)[int(len(took) * 0.99)], "ms"))
            rows += asyncio.run(
                hold_many(host, int(port), path, platform.role("collector"), platform.named("postgres"))
            )
    publish(rows)


if __name__ == "__main__":
    main()
