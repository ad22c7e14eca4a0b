"""DBOS: a queue, and a workflow of two steps, all asynchronous; enqueued 32 at a time, since it takes them one by one.

It polls its queue each 0.1 s (1 s is its default), with 20 connections.
"""

import asyncio
import os
import time

from dbos import DBOS
from talk import PATIENCE_S, PAUSE_S, serve, spread

POLL_S, CONNECTIONS, AT_ONCE = 0.1, 20, 32

DBOS(config={"name": "bench", "system_database_url": os.environ["BENCH_DSN"], "log_level": "ERROR",
             "sys_db_pool_size": CONNECTIONS})  # fmt: skip
started, ended = [], []


@DBOS.step()
async def look_up(event):
    return {"country": "FR", "amount": event["amount"]}


@DBOS.step()
async def charge(found):
    return {"ok": True, "amount": found["amount"] + 1}


@DBOS.workflow()
async def two_steps(event):
    started.append(time.time() - event["t"])
    charged = await charge(await look_up(event))
    ended.append(event["amount"])
    return {"done": charged["amount"]}


DBOS.launch()
DBOS.register_queue("q", polling_interval_sec=POLL_S)
queue = DBOS.retrieve_queue("q")


async def send(count, pause_s):
    gate = asyncio.Semaphore(AT_ONCE)

    async def one(n):
        async with gate:
            await queue.enqueue_async(two_steps, {"amount": n, "t": time.time(), "note": "x" * 120})

    if pause_s:
        for n in range(count):
            await one(n)
            await asyncio.sleep(pause_s)
    else:
        await asyncio.gather(*(one(n) for n in range(count)))


def wait(count):
    until = time.time() + PATIENCE_S
    while len(ended) < count:
        if time.time() > until:
            raise TimeoutError(f"{len(ended)} of {count}")
        time.sleep(0.005)


def drain(count):
    before, begin = len(ended), time.perf_counter()
    asyncio.run(send(count, 0))
    enqueued = time.perf_counter() - begin
    wait(before + count)
    return {"runs": count, "seconds": time.perf_counter() - begin, "enqueue_s": enqueued}


def low(count):
    before = len(ended)
    asyncio.run(send(count, PAUSE_S))
    wait(before + count)
    return spread(started[-count:])


serve(f"polling each {POLL_S} s, {CONNECTIONS} connections, enqueued {AT_ONCE} at a time, asynchronous", drain, low)
os._exit(0)  # its threads don't end by themselves
