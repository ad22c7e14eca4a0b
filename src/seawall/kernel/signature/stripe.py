"""Stripe: ``Stripe-Signature: t=SECONDS,v1=HEX[,v1=HEX]`` over ``t.body``. The event's id is in the body, so the
router finds it there. The secret's ``whsec_`` is part of the key: it is not decoded, unlike Standard Webhooks'."""

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
    stale,
)


def verify(secrets: Secrets, headers: Headers, body: bytes, now_s: float, options: Options) -> Verified | Refused:
    given = headers.get(b"stripe-signature")
    if given is None:
        return Refused("Stripe-Signature is needed")
    items = given.split(b",", SIGNATURES_MAX)
    stamps = [item[2:] for item in items if item[:2] == b"t="]
    signatures = [item[3:] for item in items if item[:3] == b"v1="]
    if len(items) > SIGNATURES_MAX or len(stamps) != 1 or not signatures or b" " in given:
        return Refused("Stripe-Signature must carry one t= and one or more v1=")
    # Stripe's own library refuses only the past; a timestamp from the future could be replayed until it has passed.
    if late := stale(stamps[0], now_s, options.tolerance_s):
        return Refused(late)
    signed = b"%b.%b" % (stamps[0], body)
    for key_id, secret in secrets:
        expected = digest(secret, signed, "sha256").hex().encode()
        if any(compare_digest(s, expected) for s in signatures):
            return Verified(key_id)
    return Refused("Stripe-Signature matches no live secret of this source")


def sign(secret: bytes, body: bytes, now_s: float, id: str, options: Options) -> list[tuple[str, str]]:
    stamp = str(int(now_s))
    signature = digest(secret, b"%b.%b" % (stamp.encode(), body), "sha256").hex()
    return [("Stripe-Signature", f"t={stamp},v1={signature}")]


KIND = Kind(name="stripe", verify=verify, sign=sign, secret_problem=not_empty, key_path="/id")
