"""The place seam: which country an address is in, as far as anybody knows.

Enrichment is worth nothing to an event's safety, so an implementation never raises, answers within ``LOOK_UP_S``, and
leaves out what it doesn't know: without a file, with a broken one, or while a disk hangs, it knows nothing.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Protocol

LOOK_UP_S = 0.15

COUNTRY_HEADER = b"seawall-country"
"""Under this name a workflow finds it among an event's headers. What a sender writes there is never kept."""


class Places(Protocol):
    """Knows addresses."""

    async def countries(self, addresses: Collection[str]) -> Mapping[str, str]:
        """ISO 3166 codes (two capital letters) by address; an address that isn't known is left out."""
