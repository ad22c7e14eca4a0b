"""Links by which people decide approvals: made by workers, opened by whoever is asked over HTTP.

A link's token says which request of which run it is for, and for whom, and proves that we made it::

    key (2) | run (8) | request (8) | nonce (16) | expires, microseconds (8) | person (1) | HMAC-SHA256 (32)

75 bytes, whole numbers big-endian, as 100 characters of base64url. Nothing in it depends on what is decided. The key is
made of the data folder's (`DIR/key`) and a number: it lies in no database, and a number that is raised makes a new one.
"""

from __future__ import annotations

import base64
import hmac
import re
import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, NamedTuple
from urllib.parse import urlsplit

from seawall.kernel.error import Misconfigured
from seawall.kernel.setting import setting

PATH: Final = "/approve/"
ANYBODY: Final = 255
"""In the place of a person's number: whoever has the link says who he is."""

PEOPLE_MAX: Final = 20
PERSON_CHARS_MAX: Final = 100
QUESTION_CHARS_MAX: Final = 500
COMMENT_CHARS_MAX: Final = 1000

_HEAD = struct.Struct(">HQQ16sQB")
_MAC_BYTES = 32
_TOKEN = re.compile(r"[A-Za-z0-9_-]{100}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Of links of approvals."""

    url: str = setting(
        "",
        help="How people reach the collector, as https://hooks.example.com; empty: by the address that it listens on.",
    )
    key: int = setting(
        1, min=1, max=60_000, help="Number of the key that signs links; raise it, and new links have another one."
    )
    keys_kept: int = setting(1, min=0, max=60_000, help="How many of the keys before that one still open links.")

    def __post_init__(self) -> None:
        if self.url and not _is_base(self.url):
            raise Misconfigured(["approval.url: must be http(s)://HOST[:PORT][/PATH], without ? and #"])


class Claim(NamedTuple):
    """What a token says, once it is proven to be ours."""

    request: int  # the approval's number in the store
    run: int
    nonce: bytes  # 16
    expires_us: int  # by the store's clock
    person: int  # of the request's people, from 0; ANYBODY


class Links:
    """Makes links and opens them.

    Args:
        secret: The data folder's key, 32 bytes. It isn't kept: what is made of it opens links, and nothing else.
        base: Of the address, without PATH; asked for with each link, since it may be known late.
    """

    def __init__(self, settings: Settings, secret: bytes, *, base: Callable[[], str]) -> None:
        self._settings = settings
        self._root = hmac.digest(secret, b"seawall approval links", "sha256")
        self._base = base

    @property
    def number(self) -> int:
        """Of the key that signs now."""
        return self._settings.key

    def link(self, claim: Claim, *, number: int) -> str:
        """The address that a person opens: the same for the same request, person and key."""
        head = _HEAD.pack(number, claim.run, claim.request, claim.nonce, claim.expires_us, claim.person)
        token = base64.urlsafe_b64encode(head + self._mac(number, head)).decode()
        return f"{(self._settings.url or self._base()).rstrip('/')}{PATH}{token}"

    def opened(self, token: str) -> Claim | None:
        """What a token says. None: we didn't make it, or its key doesn't count any more; which of them isn't said."""
        if _TOKEN.fullmatch(token) is None:
            return None
        raw = base64.urlsafe_b64decode(token)
        head, mac = raw[:-_MAC_BYTES], raw[-_MAC_BYTES:]
        number, run, request, nonce, expires_us, person = _HEAD.unpack(head)
        if not hmac.compare_digest(mac, self._mac(number, head)):
            return None
        # A number that is higher than ours is another process's, which has been started with newer settings.
        if number < self._settings.key - self._settings.keys_kept:
            return None
        return Claim(request, run, nonce, expires_us, person)

    def _mac(self, number: int, head: bytes) -> bytes:
        key = hmac.digest(self._root, number.to_bytes(2, "big"), "sha256")
        return hmac.digest(key, head, "sha256")


def _is_base(url: str) -> bool:
    try:
        found = urlsplit(url)
        return (
            found.scheme in ("http", "https") and bool(found.hostname) and url.isascii() and url.isprintable()
            and " " not in url and not (found.query or found.fragment or "@" in found.netloc) and found.port != 0
        )  # fmt: skip
    except ValueError:
        return False
