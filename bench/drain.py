"""The API and held requests while a backlog drains, against the same with that backlog standing still.

One ``seawall up`` with the embedded profile. 20 workflows make a run each of every `old` event, in a queue that is
paused until there are enough; then windows take turns: the queue paused, and the queue going on, so that its runs (two
steps that do nothing) take all slots and all CPU that they get. In each window requests come at a fixed rate, open
loop: held ones whose workflow of another queue answers at once, and pages of runs and queues from the API.

    python bench/drain.py             # about a minute and a half
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import uvloop

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from bench.result import Row, fdatasync_p50_ms, publish, row
from bench.whole import Platform, add_source, held, ready, running

FAN = 20
ROUNDS, SECONDS, SETTLE_S = 4, 3.0, 1.0
SYNC_RATE, API_RATE = 20, 10
FEEDERS = 20
LEFT_MIN = 200_000
"""Runs of the backlog before each window that drains: more than any machine that we have seen takes in one."""

PATIENCE_S = 300.0
PAGES = ("/v1/runs?limit=50", "/v1/queues")

APP = f"""
from seawall import App, Context, Event

app = App()
app.queue("old")


@app.workflow(on="ask")
async def ask(event: Event, ctx: Context) -> None:
    ctx.respond(event.json)


async def step() -> None:
    pass


async def old(event: Event, ctx: Context) -> None:
    await ctx.step(step)
    await ctx.step(step)


for n in range({FAN}):
    app.workflow(on="old", name=f"old{{n}}", queue="old")(old)
"""


@dataclass(frozen=True, slots=True)
class Window:
    """Milliseconds from due to answered, and how many runs of the backlog ended a second."""

    sync_ms: Sequence[float]
    api_ms: Sequence[float]
    drained: float


class Site:
    """A running platform, as its users reach it."""

    def __init__(self, platform: Platform, path: str) -> None:
        self.host, _, port = platform.place["listen"].removeprefix("http://").partition(":")
        self.port, self.path = int(port), path
        admin = urlsplit(platform.place["address"])
        self._admin = admin.hostname, admin.port
        self._token = (platform.data / "admin.token").read_text().strip()

    async def ask(self, n: int) -> None:
        body = b'{"type":"ask","n":%d}' % n
        reader, writer = await held(self.host, self.port, self.path, body, 10)
        answer = await asyncio.wait_for(reader.read(), 15)
        writer.close()
        if not answer.startswith(b"HTTP/1.1 200") or json.loads(answer.partition(b"\r\n\r\n")[2])["n"] != n:
            raise RuntimeError(answer[:300].decode("latin-1"))

    async def look(self, n: int) -> None:
        await self.api("GET", PAGES[n % len(PAGES)])

    async def api(self, method: str, path: str, body: object = None) -> Any:
        reader, writer = await asyncio.open_connection(*self._admin)
        data = b"" if body is None else json.dumps(body).encode()
        head = f"{method} {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {self._token}\r\nConnection: close\r\n"
        head += f"Content-Type: application/json\r\nContent-Length: {len(data)}\r\n\r\n"
        writer.write(head.encode() + data)
        answer = await asyncio.wait_for(reader.read(), 15)
        writer.close()
        if not answer.startswith(b"HTTP/1.1 200"):
            raise RuntimeError(answer[:300].decode("latin-1"))
        return json.loads(answer.partition(b"\r\n\r\n")[2])

    async def pause(self, paused: bool) -> None:
        await self.api("POST", "/v1/queues/old", {"paused": paused})

    async def ready(self) -> int:
        """Runs of the backlog, counted up to 100,000."""
        queues = (await self.api("GET", "/v1/queues"))["items"]
        return next(int(queue["ready"]) for queue in queues if queue["name"] == "old")

    async def feed(self, events: int) -> None:
        """So many `old` events, and their runs made."""
        left = iter(range(events))

        async def one() -> None:
            reader, writer = await asyncio.open_connection(self.host, self.port)
            for _ in left:
                body = b'{"type":"old"}'
                head = f"POST {self.path} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n"
                writer.write(head.encode() + body)
                answer = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 15)
                if not answer.startswith(b"HTTP/1.1 202"):
                    raise RuntimeError(answer.decode("latin-1"))
                length = int(answer.lower().split(b"content-length:")[1].split(b"\r\n")[0])
                await reader.readexactly(length)
            writer.close()

        await asyncio.gather(*(one() for _ in range(FEEDERS)))
        async with asyncio.timeout(PATIENCE_S):
            while await self.ready() < min(events * FAN, 100_000):
                await asyncio.sleep(0.5)


async def at_rate(rate: int, seconds: float, act: Callable[[int], Awaitable[None]]) -> list[float]:
    """Milliseconds from due to done, sorted."""
    took: list[float] = []

    async def one(n: int, due: float) -> None:
        await act(n)
        took.append((time.perf_counter() - due) * 1000)

    begin, tasks = time.perf_counter() + 0.05, []
    for n in range(int(rate * seconds)):
        due = begin + n / rate
        await asyncio.sleep(max(0.0, due - time.perf_counter()))
        tasks.append(asyncio.create_task(one(n, due)))
    await asyncio.gather(*tasks)
    return sorted(took)


async def window(site: Site, *, draining: bool, seconds: float) -> Window:
    await site.pause(not draining)
    await asyncio.sleep(2 + SETTLE_S)  # workers follow within a second or two
    before, begin = await ended(site), time.perf_counter()
    sync_ms, api_ms = await asyncio.gather(at_rate(SYNC_RATE, seconds, site.ask), at_rate(API_RATE, seconds, site.look))
    found = Window(sync_ms, api_ms, (await ended(site) - before) / (time.perf_counter() - begin))
    print(
        f"  {'drain' if draining else 'still':6} sync p50 {statistics.median(sync_ms):7.2f} most {sync_ms[-1]:6.1f} ms "
        f"/v1 p50 {statistics.median(api_ms):7.2f} ms   {found.drained:7,.0f} runs/s",
        flush=True,
    )
    return found


async def ended(site: Site) -> int:
    """Runs of the backlog that have ended, by the workers' own counters."""
    text = await metrics(site)
    lines = (line for line in text.splitlines() if line.startswith("seawall_runs_ended_total"))
    return int(sum(float(line.rpartition(" ")[2]) for line in lines))


async def metrics(site: Site) -> str:
    reader, writer = await asyncio.open_connection(*site._admin)
    writer.write(b"GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    answer = await asyncio.wait_for(reader.read(), 15)
    writer.close()
    return answer.decode()


async def measure(site: Site, rounds: int, seconds: float, events: int) -> list[Row]:
    await site.pause(True)
    await asyncio.sleep(2)
    await site.feed(events)
    found: dict[bool, list[Window]] = {False: [], True: []}
    for n in range(rounds):
        for draining in (False, True)[:: -1 if n % 2 else 1]:
            if draining and events * FAN - await ended(site) < LEFT_MIN:
                await site.pause(True)
                await site.feed(more := LEFT_MIN // FAN)
                events += more
            found[draining].append(await window(site, draining=draining, seconds=seconds))
            if draining and await site.ready() < FAN:
                raise RuntimeError("the backlog ended before its window: give more events")
    with suppress(RuntimeError):
        await site.pause(True)

    def ratio(what: str) -> float:
        middles = {of: [statistics.median(getattr(w, what)) for w in windows] for of, windows in found.items()}
        return statistics.median(a / b for a, b in zip(middles[True], middles[False], strict=True))

    still = statistics.median(statistics.median(w.sync_ms) for w in found[False])
    return [
        row("drain: fdatasync p50 (machine)", fdatasync_p50_ms(), "ms"),
        row("drain: runs a second while it drains", statistics.median(w.drained for w in found[True]), "/s"),
        row("drain: sync answers beside a backlog that stands still, p50", still, "ms"),
        row("drain: … while it drains, by that", ratio("sync_ms"), "ratio", at_most=2),
        row("drain: pages of /v1 while it drains, by standing still, p50", ratio("api_ms"), "ratio", at_most=2),
    ]


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--rounds", type=int, default=ROUNDS)
    arguments.add_argument("--seconds", type=float, default=SECONDS, help="of each window")
    arguments.add_argument("--events", type=int, default=12_000, help=f"that make {FAN} runs each")
    asked = arguments.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        data, app = Path(folder) / "data", Path(folder) / "app.py"
        app.write_text(APP)
        with running(data, app) as platform:
            ready(platform)
            site = Site(platform, add_source(data))
            publish(uvloop.run(measure(site, asked.rounds, asked.seconds, asked.events)))


if __name__ == "__main__":
    main()
