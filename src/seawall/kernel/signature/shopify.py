"""Shopify: ``X-Shopify-Hmac-Sha256: BASE64`` over the body. Nothing dates it, and its headers are not signed.

One event of a shop may come under several topics, each a webhook of its own with another body; so its dedupe key is the
topic and ``X-Shopify-Event-Id`` together, as in ``orders.paid:98880550-…``.
"""

from __future__ import annotations

import binascii
from hmac import compare_digest

from seawall.kernel.signature.mac import digest
from seawall.kernel.signature.scheme import Headers, Kind, Options, Refused, Secrets, Verified, claimed, not_empty

EVENT_ID, TOPIC = b"x-shopify-event-id", b"x-shopify-topic"


def verify(secrets: Secrets, headers: Headers, body: bytes, now_s: float, options: Options) -> Verified | Refused:
    given = headers.get(b"x-shopify-hmac-sha256")
    if given is None:
        return Refused("X-Shopify-Hmac-Sha256 is needed")
    for key_id, secret in secrets:
        if compare_digest(given, binascii.b2a_base64(digest(secret, body, "sha256"), newline=False)):
            return _key(key_id, headers)
    return Refused("X-Shopify-Hmac-Sha256 matches no live secret of this source")


def _key(key_id: int, headers: Headers) -> Verified | Refused:
    id = headers.get(EVENT_ID)
    if id is None:
        return claimed(key_id, headers, b"idempotency-key")
    topic = headers.get(TOPIC, b"").replace(b"/", b".")
    return claimed(key_id, {EVENT_ID: b"%b:%b" % (topic, id) if topic else id}, EVENT_ID)


def sign(secret: bytes, body: bytes, now_s: float, id: str, options: Options) -> list[tuple[str, str]]:
    signature = binascii.b2a_base64(digest(secret, body, "sha256"), newline=False).decode()
    return [("X-Shopify-Event-Id", id), ("X-Shopify-Hmac-Sha256", signature)]


KIND = Kind(name="shopify", verify=verify, sign=sign, secret_problem=not_empty, wait_ms_max=4_000)  # it gives up at 5 s
