"""Signing and verifying requests: pure functions over bytes, one file per kind, shared by intake and by senders.

``KINDS`` maps a kind's name to its functions; ``sign`` is what ``seawall send`` and the traffic generator use.
"""

from __future__ import annotations

from seawall.kernel.signature import (
    basic,
    bearer,
    generic_hmac,
    github,
    none,
    pagerduty,
    shopify,
    slack,
    standard,
    stripe,
)
from seawall.kernel.signature.scheme import DEFAULT, Headers, Kind, Options, Refused, Secrets, Verified

KINDS: dict[str, Kind] = {
    module.KIND.name: module.KIND
    for module in (standard, github, stripe, slack, shopify, pagerduty, generic_hmac, basic, bearer, none)
}


def sign(
    kind: str, secret: bytes, body: bytes, now_s: float, *, id: str, options: Options = DEFAULT
) -> list[tuple[str, str]]:
    """Headers that make ``body`` acceptable to a source of this kind.

    Args:
        secret: As it was given to the source; for an ed25519 ``standard`` source the private key, ``whsk_…``.
        now_s: Unix seconds, where the kind signs a timestamp.
        id: Dedupe key, where the kind carries one: 1 to 128 of ``A-Z a-z 0-9 _ : -``.

    Raises:
        KeyError: An unknown kind.
        ValueError: The secret can't sign.
    """
    return KINDS[kind].sign(secret, body, now_s, id, options)


__all__ = ["DEFAULT", "KINDS", "Headers", "Kind", "Options", "Refused", "Secrets", "Verified", "sign"]
