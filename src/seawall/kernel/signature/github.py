"""GitHub: ``X-Hub-Signature-256: sha256=HEX`` over the body. The delivery's id is not signed, and nothing dates it."""

from __future__ import annotations

from hmac import compare_digest

from seawall.kernel.signature.mac import digest
from seawall.kernel.signature.scheme import Headers, Kind, Options, Refused, Secrets, Verified, claimed, not_empty


def verify(secrets: Secrets, headers: Headers, body: bytes, now_s: float, options: Options) -> Verified | Refused:
    given = headers.get(b"x-hub-signature-256")
    if given is None:
        return Refused("X-Hub-Signature-256 is needed")
    for key_id, secret in secrets:
        if compare_digest(given, b"sha256=" + digest(secret, body, "sha256").hex().encode()):
            return claimed(key_id, headers, b"x-github-delivery", b"idempotency-key")
    return Refused("X-Hub-Signature-256 matches no live secret of this source")


def sign(secret: bytes, body: bytes, now_s: float, id: str, options: Options) -> list[tuple[str, str]]:
    return [("X-GitHub-Delivery", id), ("X-Hub-Signature-256", "sha256=" + digest(secret, body, "sha256").hex())]


KIND = Kind(name="github", verify=verify, sign=sign, secret_problem=not_empty, wait_ms_max=8_000)  # it gives up at 10 s
