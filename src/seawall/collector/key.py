"""The dedupe key that a source's settings ask for, in place of the one that its kind carries.

``dedupe.header`` names a header, ``dedupe.paths`` places in a JSON body (JSON Pointers, all of which are needed); the
header is looked at first. With ``dedupe.required`` an event without a key is refused: 400 for a missing header, 422 for
a missing place. A key from the body is as good as the signature over it; one from a header is the sender's claim.
"""

from __future__ import annotations

from hashlib import sha256

import msgspec

from seawall.kernel import json, pointer
from seawall.kernel.signature import Headers, Kind, Refused, Verified
from seawall.kernel.signature.scheme import ID_CHARACTERS, KEY_CHARACTERS, claimed, consists_of

PATHS_MAX = 8


class DedupeChoice(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A source's ``dedupe`` settings."""

    header: str = ""  # that carries the key
    paths: tuple[str, ...] = ()  # at most PATHS_MAX JSON Pointers, whose values together are the key
    required: bool = False  # refuse what has none; of the kind's own key, where neither of the others is given

    @property
    def given(self) -> bool:
        return bool(self.header or self.paths or self.required)


class KeyRule:
    """Finds the key of one source's events. Total: whatever comes, it is a key, no key, or a refusal."""

    def __init__(self, wish: DedupeChoice, kind: Kind) -> None:
        self._header = wish.header.lower().encode("latin-1", "replace")
        self._named = wish.header
        # A kind whose key is in the body leaves it to the router to find, unless it must be there.
        own = (kind.key_path,) if kind.key_path and not wish.header else ()
        self._paths = wish.paths or (own if wish.required else ())
        self._ways = [pointer.steps(path) for path in self._paths]
        self._replaces = bool(wish.header or self._paths)
        self._required = wish.required
        self._covered = kind.covers_body

    def judge(self, verdict: Verified, headers: Headers, body: bytes) -> Verified | Refused:
        """The verdict on an event with the key that this rule finds, or why it can't be taken."""
        if self._header and self._header in headers:
            return claimed(verdict.key_id, headers, self._header)
        if self._ways and (key := _joined(body, self._ways)):
            return Verified(verdict.key_id, key, key_signed=self._covered and verdict.key_id != 0)
        if not self._replaces and verdict.key:
            return verdict
        if self._required:
            return self._missing()
        return Verified(verdict.key_id) if self._replaces else verdict

    def _missing(self) -> Refused:
        if self._ways:
            places = " and ".join(self._paths)
            return Refused(f"this source needs a dedupe key: text or a whole number at {places} of a JSON body", 422)
        return Refused(f"this source needs a dedupe key in the header {self._named or 'Idempotency-Key'}", 400)


def _joined(body: bytes, ways: list[pointer.Steps]) -> str:
    """The values at all places as one key; "" when one isn't text or a whole number, or the body isn't JSON."""
    value, _ = json.parse(body)
    found = [pointer.find(value, way) for way in ways]
    parts = [str(one) for one in found if isinstance(one, str | int) and not isinstance(one, bool) and one != ""]
    if len(parts) != len(ways):
        return ""
    # Joined by a character that none of the parts has, so that two lists of parts never make one key.
    characters = KEY_CHARACTERS if len(parts) == 1 else ID_CHARACTERS
    written = ".".join(parts)
    if all(consists_of(characters, part.encode("utf-8", "surrogatepass")) for part in parts) and len(written) <= 128:
        return written
    return "sha256:" + sha256(msgspec.json.encode(parts)).hexdigest()
