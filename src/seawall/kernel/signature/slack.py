"""Slack: ``X-Slack-Signature: v0=HEX`` over ``v0:timestamp:body``; the event's id is in the body.

When an endpoint is set up, Slack sends a signed ``url_verification`` and wants its challenge back.
"""

from __future__ import annotations

import json
from hmac import compare_digest

from seawall.kernel.signature.mac import digest
from seawall.kernel.signature.scheme import Headers, Kind, Options, Refused, Secrets, Verified, not_empty, stale

CHALLENGE_BODY_BYTES_MAX = 8 * 1024


def verify(secrets: Secrets, headers: Headers, body: bytes, now_s: float, options: Options) -> Verified | Refused:
    given = headers.get(b"x-slack-signature")
    stamp = headers.get(b"x-slack-request-timestamp")
    if given is None or stamp is None:
        return Refused("X-Slack-Signature and X-Slack-Request-Timestamp are needed")
    if late := stale(stamp, now_s, options.tolerance_s):
        return Refused(late)
    signed = b"v0:%b:%b" % (stamp, body)
    for key_id, secret in secrets:
        if compare_digest(given, b"v0=" + digest(secret, signed, "sha256").hex().encode()):
            return Verified(key_id)
    return Refused("X-Slack-Signature matches no live secret of this source")


def sign(secret: bytes, body: bytes, now_s: float, id: str, options: Options) -> list[tuple[str, str]]:
    stamp = str(int(now_s))
    signature = digest(secret, b"v0:%b:%b" % (stamp.encode(), body), "sha256").hex()
    return [("X-Slack-Request-Timestamp", stamp), ("X-Slack-Signature", "v0=" + signature)]


def handshake(body: bytes) -> bytes | None:
    """The challenge of a ``url_verification``, or None for everything else."""
    if b"url_verification" not in body or len(body) > CHALLENGE_BODY_BYTES_MAX:
        return None
    try:
        parsed = json.loads(body)
    except (ValueError, RecursionError):
        return None
    if not isinstance(parsed, dict) or parsed.get("type") != "url_verification":
        return None
    challenge = parsed.get("challenge")
    return challenge.encode("utf-8", "replace") if isinstance(challenge, str) else None


KIND = Kind(
    name="slack", verify=verify, sign=sign, secret_problem=not_empty, handshake=handshake, key_path="/event_id",
    wait_ms_max=2_500,  # it gives up at 3 s
)  # fmt: skip
