"""The load of bench/intake.py, in a process of its own: signed requests over kept connections.

``closed`` sends the next request as soon as one is answered, for throughput. ``paced`` sends on a fixed schedule and
counts from the scheduled moment, so that a server that stalls is charged for everybody whom it kept waiting.
"""

from __future__ import annotations

import asyncio
import json
import os
import time
from base64 import b64encode
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from hmac import digest
from multiprocessing.connection import Connection as Pipe
from typing import cast

import uvloop

KEY = bytes(range(32))
SECRET = b"whsec_" + b64encode(KEY)
BODY = json.dumps({"type": "load.tick", "pad": "x" * 985}).encode()
"""1 KiB."""

_HEAD = (
    "POST /in/{token} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n"
    "User-Agent: load/1.0\r\nAccept: */*\r\nAccept-Encoding: gzip, deflate\r\nX-Request-Id: 4a1c9f8e2b7d\r\n"
    "X-Forwarded-For: 203.0.113.7\r\nX-Forwarded-Proto: https\r\nX-Trace: 00-4bf92f3577b34da6a3ce929d0e0e4736-01\r\n"
    "webhook-timestamp: {stamp}\r\nwebhook-id: "
)
"""With ``webhook-id`` and ``webhook-signature`` 12 headers and Host."""


@dataclass(frozen=True, slots=True)
class Found:
    """What a window of load saw."""

    answers: int  # 202s
    others: int  # anything else
    seconds: float
    latencies_ms: tuple[float, ...] = ()  # sorted; paced only


class Signer:
    """Makes requests, each with an id and a signature of its own, as Standard Webhooks wants it."""

    def __init__(self, token: str) -> None:
        self._stamp = str(int(time.time())).encode()
        self._head = _HEAD.format(token=token, length=len(BODY), stamp=self._stamp.decode()).encode()
        self._signed = b".%b.%b" % (self._stamp, BODY)
        self._prefix = os.urandom(6).hex().encode()
        self._count = 0

    def next(self) -> bytes:
        self._count += 1
        id = b"%b%d" % (self._prefix, self._count)
        signature = b64encode(digest(KEY, id + self._signed, "sha256"))
        return b"%b%b\r\nwebhook-signature: v1,%b\r\n\r\n%b" % (self._head, id, signature, BODY)


Answered = Callable[["_Client", bool], None]
"""(connection, whether it was a 202)."""


class _Client(asyncio.Protocol):
    """One connection. ``answered`` is called for each answer."""

    def __init__(self, answered: Answered) -> None:
        self._answered = answered
        self._rest = b""
        self.transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)  # uvloop's aren't subclasses

    def data_received(self, data: bytes) -> None:
        data = self._rest + data
        while (end := data.find(b"\r\n\r\n")) >= 0:
            # Our answers are small and have a length; a peer's may have it in another case.
            head = data[:end].lower()
            at = head.find(b"content-length:")
            size = end + 4 + (int(head[at + 15 :].split(b"\r\n", 1)[0]) if at >= 0 else 0)
            if len(data) < size:
                break
            ok = data.startswith(b"HTTP/1.1 202")
            data = data[size:]
            self._answered(self, ok)
        self._rest = data


async def _connected(port: int, count: int, answered: Answered) -> list[_Client]:
    loop = asyncio.get_running_loop()
    made = [await loop.create_connection(lambda: _Client(answered), "127.0.0.1", port) for _ in range(count)]
    return [client for _, client in made]


async def _closed(port: int, token: str, connections: int, seconds: float) -> Found:
    signer, counts = Signer(token), [0, 0]
    running = True

    def answered(client: _Client, ok: bool) -> None:
        counts[not ok] += 1
        if running:
            client.transport.write(signer.next())

    clients = await _connected(port, connections, answered)
    begin = time.perf_counter()
    for client in clients:
        client.transport.write(signer.next())
    await asyncio.sleep(seconds)
    running = False
    found = Found(counts[0], counts[1], time.perf_counter() - begin)
    await asyncio.sleep(0.2)
    for client in clients:
        client.transport.close()
    return found


async def _paced(
    port: int, token: str, connections: int, seconds: float, rate: int, patience_s: float = 0.5
) -> Found:  # fmt: skip
    signer, counts, took = Signer(token), [0, 0], []
    due: dict[_Client, deque[float]] = {}

    def answered(client: _Client, ok: bool) -> None:
        counts[not ok] += 1
        took.append((time.perf_counter() - due[client].popleft()) * 1000)

    clients = await _connected(port, connections, answered)
    due.update((client, deque()) for client in clients)
    begin = time.perf_counter()
    for n in range(int(rate * seconds)):
        at = begin + n / rate
        while (left := at - time.perf_counter()) > 0:
            # A sleep is as coarse as a millisecond; the rest is spent turning over the loop.
            await asyncio.sleep(left - 0.0005 if left > 0.001 else 0)
        client = clients[n % connections]
        due[client].append(at)
        client.transport.write(signer.next())
    seconds = time.perf_counter() - begin
    while any(due.values()) and time.perf_counter() < begin + seconds + patience_s:
        await asyncio.sleep(0.01)
    for client in clients:
        client.transport.close()
    return Found(counts[0], counts[1], seconds, tuple(sorted(took)))


def serve(pipe: Pipe, core: int | None) -> None:
    """The load process: takes (kind, arguments) from the pipe and gives Found back, until it is told None."""
    if core is not None:
        os.sched_setaffinity(0, {core})
    kinds = {"closed": _closed, "paced": _paced}
    while (order := pipe.recv()) is not None:
        kind, arguments = order
        pipe.send(uvloop.run(kinds[kind](**arguments)))
