"""Restate: one server, and a service of two steps in this process (its Python SDK, served by hypercorn over HTTP/2).

Sent to its ingress over 64 connections that stay open, without waiting for results; accepted is durable in its log.
"""

import asyncio
import json
import os
import subprocess
import threading
import time
import urllib.error
import urllib.request

import restate
from hypercorn.asyncio import serve as serve_http
from hypercorn.config import Config
from talk import PATIENCE_S, PAUSE_S, serve, spread

CONNECTIONS = 64
INGRESS, ADMIN, FABRIC, SERVICE = (int(port) for port in os.environ["BENCH_PORTS"].split(","))
started, ended = [], []
orders = restate.Service("orders")


async def look_up(event):
    return {"country": "FR", "amount": event["amount"]}


async def charge(found):
    return {"ok": True, "amount": found["amount"] + 1}


@orders.handler()
async def two_steps(ctx: restate.Context, event: dict) -> dict:
    started.append(time.time() - event["t"])
    found = await ctx.run_typed("look_up", look_up, event=event)
    charged = await ctx.run_typed("charge", charge, found=found)
    ended.append(event["amount"])
    return {"done": charged["amount"]}


def begin():
    """The service in a thread with an event loop of its own, and the server, which learns of it."""
    config = Config()
    config.bind, config.accesslog, config.errorlog = [f"127.0.0.1:{SERVICE}"], None, None

    async def forever():
        await serve_http(restate.app([orders]), config, shutdown_trigger=asyncio.Event().wait)

    threading.Thread(target=lambda: asyncio.run(forever()), daemon=True).start()
    settings = {
        "RESTATE_INGRESS__BIND_ADDRESS": f"127.0.0.1:{INGRESS}", "RESTATE_ADMIN__BIND_ADDRESS": f"127.0.0.1:{ADMIN}",
        "RESTATE_BIND_ADDRESS": f"127.0.0.1:{FABRIC}", "RESTATE_LISTEN_MODE": "tcp", "RESTATE_LOG_FILTER": "error",
        "DO_NOT_TRACK": "1",
    }  # fmt: skip
    command = [os.environ["BENCH_RESTATE"], "--no-logo", "--base-dir", os.environ["BENCH_DATA"]]
    server = subprocess.Popen(
        command, env={**os.environ, **settings}, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    body = json.dumps({"uri": f"http://127.0.0.1:{SERVICE}"}).encode()
    until = time.time() + PATIENCE_S
    while True:
        try:
            request = urllib.request.Request(
                f"http://127.0.0.1:{ADMIN}/deployments", data=body, headers={"content-type": "application/json"}
            )
            urllib.request.urlopen(request, timeout=5).read()
            return server
        except (OSError, urllib.error.HTTPError):
            if time.time() > until or server.poll() is not None:
                raise
            time.sleep(0.2)


async def send(count, pause_s, connections):
    left = iter(range(count))

    async def one():
        reader, writer = await asyncio.open_connection("127.0.0.1", INGRESS)
        for n in left:
            body = json.dumps({"amount": n, "t": time.time(), "note": "x" * 120}).encode()
            head = "POST /orders/two_steps/send HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
            writer.write(head.encode() + b"content-length: %d\r\n\r\n" % len(body) + body)
            answer = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), PATIENCE_S)
            if not answer.startswith(b"HTTP/1.1 202"):
                raise RuntimeError(answer.decode())
            length = int(answer.lower().split(b"content-length:")[1].split(b"\r\n")[0])
            await reader.readexactly(length)
            if pause_s:
                await asyncio.sleep(pause_s)
        writer.close()

    await asyncio.gather(*(one() for _ in range(connections)))


def wait(count):
    until = time.time() + PATIENCE_S
    while len(ended) < count:
        if time.time() > until:
            raise TimeoutError(f"{len(ended)} of {count}")
        time.sleep(0.005)


def drain(count):
    before, start = len(ended), time.perf_counter()
    asyncio.run(send(count, 0, CONNECTIONS))
    enqueued = time.perf_counter() - start
    wait(before + count)
    return {"runs": count, "seconds": time.perf_counter() - start, "enqueue_s": enqueued}


def low(count):
    before = len(ended)
    asyncio.run(send(count, PAUSE_S, 1))
    wait(before + count)
    return spread(started[-count:])


server = begin()
try:
    serve(f"a single node, its defaults, {CONNECTIONS} connections, the service over HTTP/2", drain, low)
finally:
    server.terminate()
    server.wait(20)
os._exit(0)
