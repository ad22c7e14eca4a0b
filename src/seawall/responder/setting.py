"""What an operator may set about held requests."""

from __future__ import annotations

from dataclasses import dataclass

from seawall.kernel.setting import setting


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """How held requests are answered. Times are of one process."""

    held_max: int = setting(
        10_000, min=0, max=100_000, live=True, help="Requests held at once; more are answered 202 at once."
    )
    first_look_ms: int = setting(
        150, min=10, max=1_000, live=True, help="A ticket is first re-read so long after its request was held."
    )
    look_ms_max: int = setting(
        2_000, min=100, max=10_000, live=True, help="Longest pause between two re-reads of a ticket."
    )
    last_look_ms: int = setting(
        200, min=20, max=1_000, live=True, help="A ticket is re-read so long before its deadline."
    )
    batch_tickets: int = setting(500, min=1, max=500, live=True, help="Tickets re-read in one query.")
    read_timeout_ms: int = setting(1_000, min=50, max=2_000, help="Longest time for a query.")
    echo_ms: int = setting(
        1_000, min=50, max=1_000, live=True, help="How often each channel of hints is proven by an echo through it."
    )
    backoff_ms_max: int = setting(
        1_000, min=50, max=10_000, live=True, help="Longest pause between two tries to reach the store."
    )
    connections_max: int = setting(2, min=1, max=10, help="Connections for answering requests for status and tickets.")
    hints_max: int = setting(
        20_000, min=100, max=1_000_000, live=True, help="Hints remembered that name no held ticket (yet)."
    )
    hint_keep_ms: int = setting(
        5_000, min=100, max=60_000, live=True, help="How long a hint that names no held ticket is remembered."
    )
