"""No signature: whoever knows the URL may send. Chosen by name, never by leaving something out."""

from __future__ import annotations

from seawall.kernel.signature.scheme import Headers, Kind, Options, Refused, Secrets, Verified, generic_key


def verify(secrets: Secrets, headers: Headers, body: bytes, now_s: float, options: Options) -> Verified | Refused:
    return generic_key(0, headers)


def sign(secret: bytes, body: bytes, now_s: float, id: str, options: Options) -> list[tuple[str, str]]:
    return [("Idempotency-Key", id)]


def secret_problem(secret: bytes) -> str:
    return "a source of kind none has no secret" if secret else ""


KIND = Kind(name="none", verify=verify, sign=sign, secret_problem=secret_problem, has_secret=False, covers_body=False)
