"""What `seawall demo` runs: a workflow for each of three providers, one that answers, one for the lab's traffic."""

from __future__ import annotations

import hashlib
from typing import Any

from seawall import App, Context, Event, Retry

app = App()


@app.workflow(on="github.push", retry=Retry(attempts=5, first_s=0.2))
async def announce_push(event: Event, ctx: Context) -> dict[str, Any]:
    """GitHub: who pushed what, in words."""
    push = event.json
    files = await ctx.step(changed_files, push["commits"])
    return await ctx.step(announcement, push["pusher"]["name"], push["repository"]["full_name"], files)


@app.workflow(on="stripe.invoice.*", retry=Retry(attempts=5, first_s=0.2))
async def book_invoice(event: Event, ctx: Context) -> dict[str, Any]:
    """Stripe: book an invoice once. A step repeated after a crash has the same key, so a copy can be refused."""
    invoice = event.json["data"]["object"]
    total = await ctx.step(total_of, invoice["lines"]["data"])
    return await ctx.step(booking, invoice["id"], total, invoice["currency"], ctx.idempotency_key("booking"))


@app.workflow(on="contact.created")
async def greet(event: Event, ctx: Context) -> dict[str, Any]:
    """Standard Webhooks: greet a new contact."""
    return await ctx.step(greeting, event.json["data"]["first_name"])


@app.workflow(on="quote.requested")
async def quote(event: Event, ctx: Context) -> None:
    """Answers the request itself: the sender waits (Prefer: wait=10) while this runs."""
    asked = event.json["data"]
    price = await ctx.step(price_of, asked["item"], asked["count"])
    ctx.respond({"item": asked["item"], "count": asked["count"], "price_cents": price})


@app.workflow(on="lab.event", retry=Retry(attempts=20, first_s=0.2, max_s=2))
async def weigh(event: Event, ctx: Context) -> dict[str, Any]:
    """The lab's traffic: two durable steps over whatever bytes came."""
    size = await ctx.step(count_bytes, event.body.hex())
    return {"bytes": size, "sha256": await ctx.step(checksum, event.body.hex())}


# Steps. Plain functions run in threads; these are quick, so they are written as coroutines.


async def changed_files(commits: list[dict[str, Any]]) -> list[str]:
    return sorted({name for c in commits for kind in ("added", "modified", "removed") for name in c.get(kind, [])})


async def announcement(who: str, repository: str, files: list[str]) -> dict[str, Any]:
    return {"text": f"{who} changed {len(files)} files in {repository}", "files": files}


async def total_of(lines: list[dict[str, Any]]) -> int:
    return sum(int(line["amount"]) for line in lines)


async def booking(invoice: str, cents: int, currency: str, key: str) -> dict[str, Any]:
    return {"invoice": invoice, "cents": cents, "currency": currency, "key": key}


async def greeting(name: str) -> dict[str, Any]:
    return {"text": f"Welcome, {name}!"}


async def price_of(item: str, count: int) -> int:
    per_item = 100 + len(item) * 10
    return per_item * count * (90 if count >= 10 else 100) // 100


async def count_bytes(data: str) -> int:
    return len(data) // 2


async def checksum(data: str) -> str:
    return hashlib.sha256(bytes.fromhex(data)).hexdigest()
