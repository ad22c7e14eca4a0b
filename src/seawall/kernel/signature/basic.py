"""``Authorization: Basic`` (RFC 7617); the secret is ``USER:PASSWORD``. It proves the sender, not the body."""

from __future__ import annotations

import binascii
from base64 import b64decode, b64encode
from hmac import compare_digest

from seawall.kernel.signature.scheme import Headers, Kind, Options, Refused, Secrets, Verified, generic_key


def verify(secrets: Secrets, headers: Headers, body: bytes, now_s: float, options: Options) -> Verified | Refused:
    word, _, given = headers.get(b"authorization", b"").partition(b" ")
    if word.lower() != b"basic":
        return Refused("Authorization: Basic is needed")
    try:
        pair = b64decode(given, validate=True)
    except binascii.Error:
        return Refused("Authorization: Basic must be followed by the base64 of USER:PASSWORD")
    for key_id, secret in secrets:
        if compare_digest(pair, secret):
            return generic_key(key_id, headers)
    return Refused("user and password are no live secret of this source")


def sign(secret: bytes, body: bytes, now_s: float, id: str, options: Options) -> list[tuple[str, str]]:
    return [("Authorization", "Basic " + b64encode(secret).decode()), ("Idempotency-Key", id)]


def secret_problem(secret: bytes) -> str:
    user, colon, password = secret.partition(b":")
    if not (user and colon and password):
        return "the secret of a basic source is USER:PASSWORD"
    return "" if not any(c < 0x20 or c == 0x7F for c in secret) else "user and password have no control characters"


KIND = Kind(
    name="basic", verify=verify, sign=sign, secret_problem=secret_problem, covers_body=False,
    challenge='Basic realm="seawall", charset="UTF-8"',
)  # fmt: skip
