"""Any provider that signs with an HMAC: the source says which header, algorithm, encoding, prefix and timestamp.

As it comes: ``X-Signature: HEX`` or ``X-Signature: sha256=HEX``, HMAC-SHA256 over the body.
"""

from __future__ import annotations

from base64 import b64encode
from hmac import compare_digest

from seawall.kernel.signature.mac import digest
from seawall.kernel.signature.scheme import Headers, Kind, Options, Refused, Secrets, Verified, generic_key, not_empty
from seawall.kernel.signature.scheme import stale as _stale

ALGORITHMS = ("sha256", "sha512", "sha1")
ENCODINGS = ("hex", "base64")


def verify(secrets: Secrets, headers: Headers, body: bytes, now_s: float, options: Options) -> Verified | Refused:
    given = headers.get(options.header.lower().encode("latin-1", "replace"))
    if given is None:
        return Refused(f"{options.header} is needed")
    signed = body
    if options.timestamp_header:
        stamp = headers.get(options.timestamp_header.lower().encode("latin-1", "replace"))
        if stamp is None:
            return Refused(f"{options.timestamp_header} is needed")
        if late := _stale(stamp, now_s, options.tolerance_s):
            return Refused(late)
        signed = b"%b.%b" % (stamp, body)
    given = given.removeprefix((options.prefix or f"{options.algorithm}=").encode("latin-1", "replace"))
    for key_id, secret in secrets:
        if compare_digest(given, _encoded(secret, signed, options)):
            return generic_key(key_id, headers)
    return Refused(f"{options.header} matches no live secret of this source")


def _encoded(secret: bytes, signed: bytes, options: Options) -> bytes:
    raw = digest(secret, signed, options.algorithm)
    return raw.hex().encode() if options.encoding == "hex" else b64encode(raw)


def sign(secret: bytes, body: bytes, now_s: float, id: str, options: Options) -> list[tuple[str, str]]:
    headers = [("Idempotency-Key", id)]
    signed = body
    if options.timestamp_header:
        stamp = str(int(now_s))
        headers.append((options.timestamp_header, stamp))
        signed = b"%b.%b" % (stamp.encode(), body)
    headers.append((options.header, options.prefix + _encoded(secret, signed, options).decode()))
    return headers


KIND = Kind(name="generic-hmac", verify=verify, sign=sign, secret_problem=not_empty)
