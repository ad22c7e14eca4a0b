"""Bounds of the admin API."""

from __future__ import annotations

from dataclasses import dataclass

from seawall.kernel.setting import setting


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """How the console serves."""

    connections_max: int = setting(
        128, min=4, max=10_000, live=True, help="Open connections; more are answered 503 at once."
    )
    request_s: float = setting(
        30.0, min=0.1, max=600, live=True, help="A whole request, from its first byte to the answer's last."
    )
    keep_alive_s: int = setting(5, min=1, max=600, live=True, help="How long a connection is kept between requests.")
    head_bytes_max: int = setting(16 * 1024, min=1024, max=64 * 1024, help="Request line and headers together.")
    body_bytes_max: int = setting(64 * 1024, min=1024, max=1024 * 1024, live=True, help="Body of a request.")
    query_s: float = setting(
        2.0, min=0.1, max=2.5, help="How long the store may take for a query or a change; then 503."
    )
    hosts: tuple[str, ...] = setting(
        (),
        help="Names with a dot by which /readyz, /metrics and other pages without a token may be asked for.",
    )  # fmt: skip
    live_s: float = setting(5.0, min=0.0, max=20, help="How long a change of a source waits for every collector.")
