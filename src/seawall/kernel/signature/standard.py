"""Standard Webhooks (standardwebhooks.com): ``v1`` is HMAC-SHA256, ``v1a`` is ed25519, over ``id.timestamp.body``.

A ``whsec_…`` secret is base64 after its prefix, and the key is what it decodes to; ``whpk_…`` is a public key that
verifies v1a, ``whsk_…`` its private key, which only a sender has.
"""

from __future__ import annotations

import binascii
from base64 import b64decode, b64encode
from functools import lru_cache
from hmac import compare_digest

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from seawall.kernel.signature.mac import digest
from seawall.kernel.signature.scheme import (
    ID_CHARACTERS,
    SIGNATURES_MAX,
    Headers,
    Kind,
    Options,
    Refused,
    Secrets,
    Verified,
    consists_of,
    stale,
)

_PUBLIC, _PRIVATE, _SHARED = b"whpk_", b"whsk_", b"whsec_"


def verify(secrets: Secrets, headers: Headers, body: bytes, now_s: float, options: Options) -> Verified | Refused:
    id = headers.get(b"webhook-id")
    stamp = headers.get(b"webhook-timestamp")
    given = headers.get(b"webhook-signature")
    if id is None or stamp is None or given is None:
        return Refused("webhook-id, webhook-timestamp and webhook-signature are needed")
    if b", " in given:
        return Refused("webhook-signature must come once")
    # No dot in it: the signed text is joined by dots, so it could be read as another id and timestamp.
    if not consists_of(ID_CHARACTERS, id):
        return Refused("webhook-id must be 1 to 128 of the characters A-Z a-z 0-9 _ : -")
    if late := stale(stamp, now_s, options.tolerance_s):
        return Refused(late)
    signatures = given.split(b" ", SIGNATURES_MAX)
    if len(signatures) > SIGNATURES_MAX:
        return Refused("too many signatures")
    signed = b"%b.%b.%b" % (id, stamp, body)
    for key_id, secret in secrets:
        if _matches(secret, signed, signatures):
            return Verified(key_id, id.decode("ascii"), key_signed=True)
    return Refused("no signature matches a live secret of this source")


def _matches(secret: bytes, signed: bytes, signatures: list[bytes]) -> bool:
    key = _key(secret)
    if isinstance(key, bytes):
        expected = b"v1," + binascii.b2a_base64(digest(key, signed, "sha256"), newline=False)
        return True in [compare_digest(signature, expected) for signature in signatures]
    if key is None:
        return False
    return any(_matches_public(key, signed, s[4:]) for s in signatures if s[:4] == b"v1a,")


def _matches_public(key: Ed25519PublicKey, signed: bytes, given: bytes) -> bool:
    try:
        key.verify(b64decode(given, validate=True), signed)
    except (InvalidSignature, binascii.Error):
        return False
    return True


@lru_cache(maxsize=1024)
def _key(secret: bytes) -> bytes | Ed25519PublicKey | None:
    """The key in a secret as it was given, None when there is none. Cached: decoding costs more than comparing."""
    raw = _decoded(secret)
    if raw is None:
        return None
    if secret.startswith(_PUBLIC):
        return Ed25519PublicKey.from_public_bytes(raw) if len(raw) == 32 else None
    return raw


def _decoded(secret: bytes) -> bytes | None:
    text = secret
    for prefix in (_SHARED, _PUBLIC, _PRIVATE):
        text = text.removeprefix(prefix)
    try:
        return b64decode(text + b"=" * (-len(text) % 4), validate=True) or None
    except binascii.Error:
        return None


def sign(secret: bytes, body: bytes, now_s: float, id: str, options: Options) -> list[tuple[str, str]]:
    raw = _decoded(secret)
    if raw is None:
        raise ValueError(secret_problem(secret))
    stamp = str(int(now_s))
    signed = b"%b.%b.%b" % (id.encode("ascii"), stamp.encode(), body)
    if secret.startswith(_PRIVATE):
        signature = "v1a," + b64encode(Ed25519PrivateKey.from_private_bytes(raw[:32]).sign(signed)).decode()
    elif secret.startswith(_PUBLIC):
        raise ValueError("a public key (whpk_) can't sign; its private key (whsk_) can")
    else:
        signature = "v1," + b64encode(digest(raw, signed, "sha256")).decode()
    return [("webhook-id", id), ("webhook-timestamp", stamp), ("webhook-signature", signature)]


def secret_problem(secret: bytes) -> str:
    raw = _decoded(secret)
    if raw is None:
        return "a Standard Webhooks secret is whsec_ or whpk_ and then base64; this one isn't base64"
    if secret.startswith(_PRIVATE):
        return "this is a private key (whsk_), which only the sender should have; give the public one (whpk_)"
    if secret.startswith(_PUBLIC) and len(raw) != 32:
        return f"an ed25519 public key has 32 bytes; this one has {len(raw)}"
    return ""


KIND = Kind(name="standard", verify=verify, sign=sign, secret_problem=secret_problem)
