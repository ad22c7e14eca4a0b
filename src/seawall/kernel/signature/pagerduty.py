"""PagerDuty (V3 webhooks): ``X-PagerDuty-Signature: v1=HEX[,v1=HEX]`` over the body, one for each of its live secrets.

Nothing dates it. The event's id is in the body (``event.id``), so the router finds it there.
"""

from __future__ import annotations

from hmac import compare_digest

from seawall.kernel.signature.mac import digest
from seawall.kernel.signature.scheme import (
    SIGNATURES_MAX,
    Headers,
    Kind,
    Options,
    Refused,
    Secrets,
    Verified,
    not_empty,
)


def verify(secrets: Secrets, headers: Headers, body: bytes, now_s: float, options: Options) -> Verified | Refused:
    given = headers.get(b"x-pagerduty-signature")
    if given is None:
        return Refused("X-PagerDuty-Signature is needed")
    signatures = given.split(b",", SIGNATURES_MAX)
    if len(signatures) > SIGNATURES_MAX or b" " in given:
        return Refused("X-PagerDuty-Signature must come once, with v1= and hex, by comma without spaces")
    for key_id, secret in secrets:
        expected = b"v1=" + digest(secret, body, "sha256").hex().encode()
        if True in [compare_digest(signature, expected) for signature in signatures]:
            return Verified(key_id)
    return Refused("X-PagerDuty-Signature matches no live secret of this source")


def sign(secret: bytes, body: bytes, now_s: float, id: str, options: Options) -> list[tuple[str, str]]:
    return [("X-PagerDuty-Signature", "v1=" + digest(secret, body, "sha256").hex())]


KIND = Kind(name="pagerduty", verify=verify, sign=sign, secret_problem=not_empty, key_path="/event/id")
