"""What every kind of signature shares: its values, the replay window, and the dedupe key that headers may claim.

Everything here works on bytes and is total: whatever a sender writes into a header becomes Verified or Refused, never
an exception. (The reference library for Standard Webhooks raises on some hostile headers: a server would answer 500.)
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from seawall.kernel.limit import WAIT_MS_MAX

Headers = Mapping[bytes, bytes]
"""Names in lower case. A header that came more than once has its values joined by ``b", "``, so that a doubled
signature never looks like a single one."""

Secrets = Sequence[tuple[int, bytes]]
"""(key id, secret as it was given) of every live secret of a source, newest first; at most a few."""

SIGNATURES_MAX = 16
"""Signatures that one header may carry (rotation sends two); more is an attempt to make us compute."""

TOLERANCE_S = 300
"""Replay window on both sides of now, as the Standard Webhooks libraries, Stripe and Slack keep it."""

STAMP_DIGITS_MAX = 12
KEY_BYTES_MAX = 128
ID_CHARACTERS = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_:-"
KEY_CHARACTERS = ID_CHARACTERS + b"."


class Verified(NamedTuple):
    """The request is from somebody who knows the secret ``key_id`` (0: the source has no secret)."""

    key_id: int
    key: str = ""  # dedupe key; "": none was given
    key_signed: bool = False  # False: the key lies outside the signature, so it is the sender's claim


class Refused(NamedTuple):
    """Why not. The reason may be shown to the sender: it never tells a secret, nor how near a guess was."""

    reason: str
    status: int = 401  # 400: the signature is right, but another header isn't


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What a source may choose about its signature. Only ``generic-hmac`` uses more than ``tolerance_s``."""

    tolerance_s: int = TOLERANCE_S  # 1-3600: replay window, where the kind signs a timestamp
    header: str = "x-signature"  # header that carries the signature
    algorithm: str = "sha256"  # sha256, sha512 or sha1
    encoding: str = "hex"  # hex or base64
    prefix: str = ""  # what stands before the signature; "": nothing, or the algorithm's name and "="
    timestamp_header: str = ""  # header with Unix seconds; then TIMESTAMP "." BODY is signed


DEFAULT = Options()

Verify = Callable[[Secrets, Headers, bytes, float, Options], Verified | Refused]
Sign = Callable[[bytes, bytes, float, str, Options], list[tuple[str, str]]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """One kind of source.

    ``verify(secrets, headers, body, now_s, options)`` is total and constant in time where it compares.
    ``sign(secret, body, now_s, id, options)`` gives the headers that ``verify`` accepts (ValueError: the secret can't
    sign). ``secret_problem(secret)`` says in words why a secret can't be used, "" when it can. ``handshake(body)``
    gives the answer to a verified request by which a provider only checks that somebody is there, else None.
    """

    name: str
    verify: Verify
    sign: Sign
    secret_problem: Callable[[bytes], str]
    handshake: Callable[[bytes], bytes | None] | None = None
    has_secret: bool = True
    covers_body: bool = True  # the signature proves the body too
    key_path: str = ""  # JSON Pointer of the provider's event id in the body, where no header carries one
    challenge: str = ""  # WWW-Authenticate of its 401 (RFC 9110 §11.6.1), where it is a scheme of HTTP
    wait_ms_max: int = WAIT_MS_MAX  # longest useful Prefer: wait, where the provider gives up sooner than others


def consists_of(characters: bytes, value: bytes) -> bool:
    """Whether a key has 1 to 128 bytes, all of these."""
    return 0 < len(value) <= KEY_BYTES_MAX and not value.translate(None, characters)


def stale(stamp: bytes, now_s: float, tolerance_s: int) -> str:
    """Why a timestamp header is not acceptable now, or ""."""
    if not stamp.isdigit() or len(stamp) > STAMP_DIGITS_MAX:
        return "the timestamp isn't a whole number of Unix seconds"
    if abs(now_s - int(stamp)) > tolerance_s:
        return f"the timestamp is more than {tolerance_s} s away from this server's clock"
    return ""


def claimed(key_id: int, headers: Headers, *names: bytes) -> Verified | Refused:
    """Verified with the first dedupe key found under ``names``; Refused with 400 when that key can't be one.

    A key that we can't use is an error and not ignored: the sender relies on it to have its repeats collapsed. The
    draft for Idempotency-Key has it in double quotes, most senders don't; both are taken.
    """
    for name in names:
        value = headers.get(name)
        if value is None:
            continue
        if len(value) >= 2 and value[:1] == value[-1:] == b'"':
            value = value[1:-1]
        if not consists_of(KEY_CHARACTERS, value):
            return Refused(f"{name.decode('latin-1')} must be 1 to 128 of the characters A-Z a-z 0-9 _ : . -", 400)
        return Verified(key_id, value.decode("ascii"), key_signed=False)
    return Verified(key_id)


def generic_key(key_id: int, headers: Headers) -> Verified | Refused:
    """For kinds whose provider has no delivery id of its own."""
    return claimed(key_id, headers, b"idempotency-key", b"webhook-id")


def not_empty(secret: bytes) -> str:
    """The least that a shared secret must be."""
    return "" if secret else "the secret is empty"
