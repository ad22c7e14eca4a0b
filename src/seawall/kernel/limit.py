"""Bounds that several rooms must agree on. A bound that one room alone keeps lives in that room's settings."""

from __future__ import annotations

from typing import Final

BODY_BYTES_MAX: Final = 10 * 1024 * 1024
"""Largest body that any source may allow; the default of a source is lower (collector settings)."""

HEAD_BYTES_MAX: Final = 32 * 1024
"""Request line and headers together."""

HEADER_BYTES_MAX: Final = 16 * 1024
"""One header's name and value."""

HEADERS_MAX: Final = 100

TARGET_BYTES_MAX: Final = 8 * 1024
"""Path and query."""

RECORD_BYTES_MAX: Final = BODY_BYTES_MAX + HEAD_BYTES_MAX + 4096
"""One encoded record: a body, its headers, and our own fields."""

BATCH_RECORDS_MAX: Final = 1000
"""Records that the router stores in one transaction."""

BATCH_BYTES_MAX: Final = 16 * 1024 * 1024

TYPE_CHARS_MAX: Final = 200
"""Event type; a longer one is cut, so that an index entry is bounded."""

KEY_BYTES_MAX: Final = 512
"""Dedupe key as the sender gave it; a longer one is hashed before it is kept."""

NAME_CHARS_MAX: Final = 100
"""Names of sources, tenants, queues, workflows and steps."""

RESULT_BYTES_MAX: Final = 1024 * 1024
"""One step's or run's encoded result, and one reply's body."""

PROGRESS_BYTES_MAX: Final = 4096
"""What a long step tells of how far it has come, encoded; it is written again and again."""

WAIT_MS_MAX: Final = 25_000
"""Longest time for which a request is held (Prefer: wait); senders and proxies give up at 30 s."""

REPLAY_S_MAX: Final = 3600
"""Widest replay window that a source may have, on each side of now."""

DEDUPE_WINDOW_S_MIN: Final = 2 * REPLAY_S_MAX
"""Keys are remembered at least so long: a request whose timestamp lies ahead of now is good for longer."""
