"""A collector whose clock stands still, with a source of each kind, and requests signed for them."""

from __future__ import annotations

import contextlib
from base64 import b64encode
from collections.abc import AsyncIterator
from pathlib import Path

from collector.rig import Answered, Client, Rig, SourceTable, client, running
from seawall.kernel import signature
from seawall.kernel.clock import SystemClock
from seawall.kernel.signature import KINDS

NOW_S = 1_700_000_000

SECRETS = {
    "standard": b"whsec_" + b64encode(b"twenty-four bytes or more"), "basic": b"user:password",
    "bearer": b"a-bearer-token",
}  # fmt: skip
SIGNED = [kind for kind in KINDS if KINDS[kind].has_secret]
DATED = ["standard", "stripe", "slack"]
SIGNATURE_HEADER = {
    "standard": "webhook-signature", "github": "X-Hub-Signature-256", "stripe": "Stripe-Signature",
    "slack": "X-Slack-Signature", "shopify": "X-Shopify-Hmac-Sha256", "pagerduty": "X-PagerDuty-Signature",
    "generic-hmac": "x-signature", "basic": "Authorization", "bearer": "Authorization",
}  # fmt: skip


class Still(SystemClock):
    """Wall clock at ``wall_s``; monotonic time goes on, for deadlines."""

    wall_s: float = NOW_S

    def wall_us(self) -> int:
        return int(self.wall_s * 1_000_000)


def secret(kind: str) -> bytes:
    return SECRETS.get(kind, b"a secret of this source")


def signed(
    kind: str, body: bytes, *, at_s: float = NOW_S, id: str = "id-1", key: bytes | None = None
) -> dict[str, str]:
    """Headers that a provider would send."""
    return dict(signature.sign(kind, key if key is not None else secret(kind), body, at_s, id=id))


def post(token: str, body: bytes, headers: dict[str, str] | list[tuple[str, str]]) -> bytes:
    """A request, headers as latin-1."""
    pairs = headers.items() if isinstance(headers, dict) else headers
    lines = [f"POST /in/{token} HTTP/1.1", "Host: h", f"Content-Length: {len(body)}", *(f"{k}: {v}" for k, v in pairs)]
    return "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + body


@contextlib.asynccontextmanager
async def attacked(folder: Path, *, sources: SourceTable | None = None) -> AsyncIterator[tuple[Rig, Still]]:
    """A collector with a source of each kind, whose token is the kind's name."""
    table = sources or SourceTable()
    for kind in KINDS:
        table.add(kind, kind=kind, secret=secret(kind) if KINDS[kind].has_secret else None)
    clock = Still()
    async with running(folder, sources=table, clock=clock) as rig:
        yield rig, clock


async def told(c: Client, raw: bytes) -> Answered:
    """The answer to one request on a connection that stays."""
    await c.send(raw)
    answer = await c.answer()
    assert answer is not None, "the connection ended without an answer"
    return answer


async def status(rig: Rig, raw: bytes) -> int:
    """The answer's status, on a connection of its own."""
    async with client(rig) as c:
        return (await told(c, raw)).status
