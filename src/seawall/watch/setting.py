"""Settings of watch."""

from __future__ import annotations

from dataclasses import dataclass

from seawall.kernel.setting import setting


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What is watched for, and who is told."""

    latency_s: float = setting(
        60.0, min=0, max=86_400, live=True,
        help="How long runs may wait for their start in queues of which no app says it (latency=); 0: as they like.",
    )  # fmt: skip
    late_for_s: float = setting(
        60.0, min=0, max=3600,
        help="How long runs start late before it is an alert. Below 10 s queues are looked at that often, from 2 s on.",
    )  # fmt: skip
    webhook_url: str = setting(
        "",
        secret=True,  # a chat's has its token in the path
        live=True,
        help="Where alerts are sent, as POST with JSON; http:// or https://. Empty: nowhere.",
    )
    webhook_secret: str = setting(
        "", secret=True, live=True, help="Signs them (Standard Webhooks): whsec_ and base64. Empty: unsigned."
    )
    webhook_timeout_s: float = setting(5.0, min=0.1, max=60, live=True, help="One try to send an alert.")
    webhook_tries: int = setting(8, min=1, max=50, live=True, help="Tries to send an alert, over some minutes.")
