"""Seawall takes events in over HTTP, runs durable Python workflows on them, and never loses an event that it accepted.

The rooms, in the order in which an event passes them: ``collector`` (socket) → ``journal`` (disk) → ``router`` →
``store`` (PostgreSQL) → ``worker`` → ``responder``. ``workflow`` is what users import, from here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from seawall.workflow import (
        App,
        Approval,
        ApprovalRequest,
        Context,
        Event,
        Limit,
        NonRetryable,
        NotJSON,
        Rate,
        Retry,
        RunFailed,
        StepFailed,
    )

__version__ = "0.1.0"
__all__ = [
    "App", "Approval", "ApprovalRequest", "Context", "Event", "Limit", "NonRetryable", "NotJSON", "Rate", "Retry",
    "RunFailed", "StepFailed",
]  # fmt: skip


def __getattr__(name: str) -> object:
    """Found when first asked for: ``seawall --help`` must not pay for what only workflows need."""
    if name in __all__:
        from seawall import workflow

        return getattr(workflow, name)
    raise AttributeError(f"module 'seawall' has no attribute {name!r}")
