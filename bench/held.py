"""Requests that are held for a reply: 50, 200 and 1,000 at a time, whose workflow has one step of 50 ms.

One ``seawall up`` with the embedded profile. Each client keeps one connection, and sends its next request as soon as
it has its answer, so that as many are held as there are clients. The floor is a server that keeps nothing: it answers
50 ms after it has read a request, on one event loop, with as little parsing as can be. Windows of the two take turns;
clients are in a process of their own.

    python bench/held.py              # about a minute and a half
"""

from __future__ import annotations

import argparse
import asyncio
import multiprocessing
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection as Pipe
from pathlib import Path
from typing import cast

import uvloop

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from bench.result import Row, fdatasync_p50_ms, publish, row, tree_cpu_s
from bench.whole import add_source, ready, running

WORK_S = 0.05
ROUNDS, SECONDS, WARM_S = 5, 3.0, 1.0
OVER_MS = {50: 25, 200: 40, 1000: 250}
"""By how many are held: how much longer than the floor the median may take."""

APP = f"""
import asyncio
from seawall import App, Context, Event

app = App()


async def work() -> None:
    await asyncio.sleep({WORK_S})


@app.workflow(on="ask")
async def ask(event: Event, ctx: Context) -> None:
    await ctx.step(work)
    ctx.respond({{"n": event.json["n"]}})
"""


@dataclass(frozen=True, slots=True)
class Server:
    """A server under load."""

    port: int
    path: str
    pid: int


@dataclass(frozen=True, slots=True)
class Window:
    """What the clients saw."""

    latencies_ms: tuple[float, ...]  # sorted, of answers of one's own
    others: int  # anything else: refusals, tickets, somebody else's reply
    seconds: float
    cpu_s: float = 0.0  # of the server and all below it, over the window and its warming up and down
    answers: int = 0  # over the same time

    @property
    def p50(self) -> float:
        return statistics.median(self.latencies_ms)

    @property
    def p99(self) -> float:
        return self.latencies_ms[int(len(self.latencies_ms) * 0.99)]

    @property
    def rate(self) -> float:
        return len(self.latencies_ms) / self.seconds

    @property
    def cpu_us(self) -> float:
        return self.cpu_s / self.answers * 1e6


# ── The clients, in a process of their own ───────────────────────────────────────────────────────────────────────────


class Client(asyncio.Protocol):
    """One connection with one request under way."""

    def __init__(self, path: str, number: int, took: list[float], others: list[bytes]) -> None:
        self._head = f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nPrefer: wait=20\r\nContent-Type: application/json\r\n"
        self._head += "Content-Length: "
        self._number = number << 32
        self._took, self._others = took, others
        self._answer, self._body, self._sent = b"", b"", 0.0
        self.going = True
        self.transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)  # uvloop's aren't subclasses

    def send(self) -> None:
        self._number += 1
        self._body = b'{"type":"ask","n":%d}' % self._number
        self._sent = time.perf_counter()
        self.transport.write(f"{self._head}{len(self._body)}\r\n\r\n".encode() + self._body)

    def data_received(self, data: bytes) -> None:
        self._answer += data
        head, end, body = self._answer.partition(b"\r\n\r\n")
        at = head.lower().find(b"content-length:")
        if not end or at < 0 or len(body) < int(head[at + 15 :].split(b"\r\n", 1)[0]):
            return
        if head.startswith(b"HTTP/1.1 200") and body == b'{"n":%d}' % self._number:
            self._took.append((time.perf_counter() - self._sent) * 1000)
        else:
            self._others.append(self._answer)
        self._answer = b""
        if self.going:
            self.send()

    def connection_lost(self, error: Exception | None) -> None:
        if self.going:
            self._others.append(b"the connection was closed")


async def _hold(port: int, path: str, count: int, seconds: float) -> Window:
    loop = asyncio.get_running_loop()
    took: list[float] = []
    others: list[bytes] = []
    clients = []
    for n in range(count):
        _, client = await loop.create_connection(lambda n=n: Client(path, n, took, others), "127.0.0.1", port)
        clients.append(client)
    for client in clients:
        client.send()
    await asyncio.sleep(WARM_S)
    warm = len(took)
    took.clear()
    begin = time.perf_counter()
    await asyncio.sleep(seconds)
    latencies, seconds = tuple(sorted(took)), time.perf_counter() - begin
    if others:
        print(f"  not one's own reply, the first of {len(others)}: {others[0][:300]!r}")
    for client in clients:
        client.going = False
    # The last answers come, so that the next window begins without them.
    await asyncio.sleep(WARM_S)
    for client in clients:
        client.transport.close()
    return Window(latencies, len(others), seconds, answers=warm + len(took))


def _clients(pipe: Pipe) -> None:
    while (order := pipe.recv()) is not None:
        pipe.send(uvloop.run(_hold(*order)))


class Clients:
    """The clients' process, as this one sees it."""

    def __init__(self) -> None:
        context = multiprocessing.get_context("spawn")
        self._here, there = context.Pipe()
        self._process = context.Process(target=_clients, args=(there,), daemon=True)
        self._process.start()

    def hold(self, server: Server, count: int, *, seconds: float) -> Window:
        before = tree_cpu_s(server.pid)
        self._here.send((server.port, server.path, count, seconds))
        found: Window = self._here.recv()
        return replace(found, cpu_s=tree_cpu_s(server.pid) - before)

    def close(self) -> None:
        self._here.send(None)
        self._process.join(5)


# ── The floor ────────────────────────────────────────────────────────────────────────────────────────────────────────


class Floor(asyncio.Protocol):
    """Answers a request with the number in it, `WORK_S` after it was read. Keeps nothing."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        # Our own clients' requests: small, one at a time, in one piece.
        number = data[data.rindex(b":") + 1 : -1]
        body = b'{"n":%b}' % number
        answer = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)
        asyncio.get_running_loop().call_later(WORK_S, self._transport.write, answer)


async def _floor(pipe: Pipe) -> None:
    server = await asyncio.get_running_loop().create_server(Floor, "127.0.0.1", 0, backlog=2048)
    pipe.send(server.sockets[0].getsockname()[1])
    await asyncio.to_thread(pipe.recv)
    server.close()


def _serve_floor(pipe: Pipe) -> None:
    uvloop.run(_floor(pipe))


@contextmanager
def floor() -> Iterator[Server]:
    """The floor."""
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    process = context.Process(target=_serve_floor, args=(there,), daemon=True)
    process.start()
    try:
        assert process.pid is not None
        yield Server(here.recv(), "/", process.pid)
    finally:
        here.send(None)
        process.join(5)
        process.terminate()


# ── The measurement ──────────────────────────────────────────────────────────────────────────────────────────────────


@contextmanager
def platform() -> Iterator[Server]:
    """A running ``seawall up``, with a source whose requests may be held."""
    with tempfile.TemporaryDirectory() as folder:
        data, app = Path(folder) / "data", Path(folder) / "app.py"
        app.write_text(APP)
        with running(data, app) as up:
            ready(up)
            path = add_source(data)
            yield Server(int(up.place["listen"].rpartition(":")[2]), path, up.process.pid)


def windows(
    servers: dict[str, Server], rounds: int, seconds: float, counts: Sequence[int] = tuple(OVER_MS)
) -> dict[tuple[str, int], list[Window]]:
    """By server and number of requests held; servers take turns."""
    found: dict[tuple[str, int], list[Window]] = {}
    clients = Clients()
    for n in range(rounds):
        for count in counts:
            for name in list(servers)[:: -1 if n % 2 else 1]:
                window = clients.hold(servers[name], count, seconds=seconds)
                found.setdefault((name, count), []).append(window)
                print(
                    f"  {count:5} held  {name:8} p50 {window.p50:7.2f} ms  p99 {window.p99:7.2f} ms "
                    f" {window.rate:7,.0f}/s  {window.cpu_us:6,.0f} us of CPU each",
                    flush=True,
                )
    clients.close()
    return found


def rows(found: dict[tuple[str, int], list[Window]]) -> list[Row]:
    made = [row("held: fdatasync p50 (machine)", fdatasync_p50_ms(), "ms")]
    for count, most in OVER_MS.items():
        ours, least = found["seawall", count], found["floor", count]
        over = statistics.median(a.p50 - b.p50 for a, b in zip(ours, least, strict=True))
        made += [
            row(f"held: {count} at a time, floor's p50", statistics.median(w.p50 for w in least), "ms"),
            row(f"held: {count} at a time, p50", statistics.median(w.p50 for w in ours), "ms"),
            row(f"held: {count} at a time, p50 over the floor", over, "ms", at_most=most),
            row(f"held: {count} at a time, p99", statistics.median(w.p99 for w in ours), "ms"),
            row(f"held: {count} at a time, CPU of an answer", statistics.median(w.cpu_us for w in ours), "us"),
            row(f"held: {count} at a time, answers", statistics.median(w.rate for w in ours), "/s"),
        ]
    others = sum(w.others for windows in found.values() for w in windows)
    return [*made, row("held: answers that weren't one's own reply", others, "answers", at_most=0)]


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--rounds", type=int, default=ROUNDS)
    arguments.add_argument("--seconds", type=float, default=SECONDS, help="of each window")
    asked = arguments.parse_args()
    resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
    with floor() as least, platform() as ours:
        publish(rows(windows({"floor": least, "seawall": ours}, asked.rounds, asked.seconds)))


if __name__ == "__main__":
    main()
