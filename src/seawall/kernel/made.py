"""What workers are told of new runs: of each queue between which virtual times they are, and in which shards.

A hint says "look", and may be lost or come twice. Anybody with the store's password can send one, so what it says is
bounded and nothing about it is sure.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

ALL_SHARDS = -1
"""Every bit of it is set."""

SHARDS_MAX = 64
"""Shards beyond aren't named one by one."""

VT_MAX = 10**18 - 1
TEXTS_MAX = 120
"""Queues in one payload: 7,320 bytes at most."""

_TEXT = re.compile(r"(\d{1,5}):(\d{1,18})(?:-(\d{1,18}))?(?:@([0-9a-f]{1,16}))?(?:,|$)")


class Made(NamedTuple):
    """New runs of one queue."""

    first: int  # the smallest virtual time among them
    last: int = VT_MAX  # the largest
    shards: int = ALL_SHARDS  # a bit for each shard that has some

    @classmethod
    def of(cls, vt: int, shard: int | None = None) -> Made:
        """One run.

        Args:
            shard: None: it isn't known.
        """
        return cls(vt, vt, ALL_SHARDS if shard is None or not 0 <= shard < SHARDS_MAX else 1 << shard)

    def and_(self, other: Made | None) -> Made:
        """Both."""
        if other is None:
            return self
        return Made(min(self.first, other.first), max(self.last, other.last), self.shards | other.shards)

    def has(self, shard: int) -> bool:
        """Whether some may be in this one; suspects' may always."""
        return shard < 0 or bool(self.shards >> shard & 1)

    def text(self, queue_id: int) -> str:
        return f"{queue_id}:{self.first}-{self.last}" + (f"@{self.shards:x}" if self.shards >= 0 else "")


class News:
    """New runs, by queue."""

    def __init__(self) -> None:
        self._made: dict[int, Made] = {}

    def add(self, queue_id: int, vt: int, shard: int | None = None) -> None:
        """There is a new run; see ``Made.of``."""
        self._made[queue_id] = Made.of(vt, shard).and_(self._made.get(queue_id))

    def payloads(self) -> list[str]:
        """Comma-separated ``QUEUE_ID:FIRST-LAST@SHARDS``, the shards as a bit set in hexadecimal. Without ``@``: any
        shard; without ``-``: any time from the first on."""
        texts = [made.text(id) for id, made in sorted(self._made.items())]
        return [",".join(texts[start : start + TEXTS_MAX]) for start in range(0, len(texts), TEXTS_MAX)]


def heard(payload: str) -> Iterator[tuple[int, Made]]:
    """Queues and what is new of them; what can't be read is passed over."""
    for queue_id, first, last, shards in _TEXT.findall(payload):
        yield int(queue_id), Made(int(first), int(last) if last else VT_MAX, int(shards, 16) if shards else ALL_SHARDS)
