"""A shared secret in ``Authorization: Bearer SECRET``. It proves the sender and nothing about the body."""

from __future__ import annotations

from hmac import compare_digest

from seawall.kernel.signature.scheme import Headers, Kind, Options, Refused, Secrets, Verified, generic_key


def verify(secrets: Secrets, headers: Headers, body: bytes, now_s: float, options: Options) -> Verified | Refused:
    given = headers.get(b"authorization")
    if given is None:
        return Refused("Authorization: Bearer is needed")
    word, _, token = given.partition(b" ")
    if word.lower() != b"bearer":
        return Refused("Authorization: Bearer is needed")
    for key_id, secret in secrets:
        if compare_digest(token, secret):
            return generic_key(key_id, headers)
    return Refused("the bearer token is no live secret of this source")


def sign(secret: bytes, body: bytes, now_s: float, id: str, options: Options) -> list[tuple[str, str]]:
    return [("Authorization", "Bearer " + secret.decode("latin-1")), ("Idempotency-Key", id)]


def secret_problem(secret: bytes) -> str:
    if not secret:
        return "the secret is empty"
    return "" if all(0x21 <= c <= 0x7E for c in secret) else "a bearer secret must be printable ASCII without spaces"


KIND = Kind(
    name="bearer", verify=verify, sign=sign, secret_problem=secret_problem, covers_body=False, challenge="Bearer"
)
