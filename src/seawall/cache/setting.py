"""What may be chosen for what is shared through Redis, and for countries of addresses."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import unquote, urlsplit

from seawall.kernel.error import Misconfigured
from seawall.kernel.setting import setting

TIMEOUT_S_MAX = 0.15
"""Longest wait for an optional dependency on an event's way (incident I4: a second was too long)."""

DEFAULT_DATA = "default"
"""The data set of the package iptocc, instead of a file."""

CHANNELS = ("notify", "redis")

HOSTS_MAX = 8
PORT = 6379
_HOST = re.compile(r"\[([0-9A-Fa-f:.%]+)\](?::(\d{1,5}))?|([^\[\]:,/\s]+)(?::(\d{1,5}))?")


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """This room's."""

    url: str = setting(
        "",
        secret=True,
        help="Redis for shared rate limits and hints: redis://[USER:PASSWORD@]HOST[:PORT][,HOST…][/DB]; empty: none.",
    )
    url_file: str = setting("", help="A file that holds `url`, so that no secret stands in a command or environment.")
    timeout_s: float = setting(
        TIMEOUT_S_MAX,
        min=0.005,
        max=TIMEOUT_S_MAX,
        help="Longest wait for Redis' word; then this process decides alone.",
    )
    connect_s: float = setting(
        0.1, min=0.005, max=TIMEOUT_S_MAX, help="Part of `timeout_s` that making a connection to Redis may take."
    )
    hints: str = setting(
        "notify",
        help="What hints of replies go through: notify (PostgreSQL), or redis, and notify while that is away.",
    )
    geo: str = setting(
        "",
        help="Where countries of addresses are from: a file in MaxMind's format, or default; empty: they aren't known.",
    )
    poll_s: float = setting(10.0, min=0.1, max=600, help="How often Redis' slow log and its figures are read.")

    def __post_init__(self) -> None:
        if self.url:
            target(self.url)
        if self.hints not in CHANNELS:
            raise Misconfigured([f"cache.hints = {self.hints!r}: must be one of {', '.join(CHANNELS)}"])
        if self.hints == "redis" and not self.url:
            raise Misconfigured(["cache.hints = 'redis': needs cache.url"])


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """Where Redis is, as the URL says it."""

    hosts: Sequence[tuple[str, int]]  # tried in order until one takes writes
    user: str
    password: str
    database: int
    tls: bool

    @property
    def shown(self) -> str:
        """Without its secret."""
        return ",".join(f"{host}:{port}" for host, port in self.hosts) + f"/{self.database}"


def target(url: str) -> Target:
    """A URL in parts.

    Raises:
        Misconfigured: It is none that we understand. The message holds nothing of it: it may carry a password.
    """
    wanted = "cache.url: must be redis://[USER:PASSWORD@]HOST[:PORT][,HOST[:PORT]…][/DB], or rediss:// for TLS"
    try:
        parts = urlsplit(url)
        credentials, _, places = parts.netloc.rpartition("@")
        user, _, password = credentials.partition(":")
        database = int(parts.path.removeprefix("/") or 0)
    except ValueError:
        raise Misconfigured([wanted]) from None
    hosts = [_HOST.fullmatch(place) for place in places.split(",")]
    found = [(m[1] or m[3], int(m[2] or m[4] or PORT)) for m in hosts if m is not None]
    sound = parts.scheme in ("redis", "rediss") and not parts.query and not parts.fragment and 0 <= database < 10_000
    if not sound or len(found) != len(hosts) or len(found) > HOSTS_MAX or not all(0 < p < 65536 for _, p in found):
        raise Misconfigured([wanted])
    return Target(
        hosts=found, user=unquote(user), password=unquote(password), database=database, tls=parts.scheme == "rediss"
    )
