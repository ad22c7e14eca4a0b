"""What may be chosen for shipped steps. All of it is the installation's: no tenant, event or workflow can widen it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network, ip_network

from seawall.kernel.error import Misconfigured
from seawall.kernel.setting import setting
from seawall.step.url import Target, parse

Network = IPv4Network | IPv6Network


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """This room's."""

    allow: tuple[str, ...] = setting(
        (), help="Private networks that steps may call all the same, as 10.1.2.0/24; of this whole installation."
    )
    deny: tuple[str, ...] = setting(
        (), help="Further networks that steps never call: public ones of your own, your NAT64 prefix."
    )
    ports: tuple[str, ...] = setting(
        ("80", "443", "8080", "8443"), help="Ports that steps may call, each a number or a range as 9000-9010."
    )
    secrets: str = setting("", help="A folder with a file (0600 or less) for each secret that steps name; empty: none.")
    ca_file: str = setting("", help="Certificates (PEM) that steps trust beside the system's; empty: none.")
    connect_s: float = setting(5.0, min=0.05, max=30, help="Longest wait for a name, a connection and its TLS.")
    response_bytes_max: int = setting(
        512 << 10, min=1 << 10, max=1 << 20, help="Largest answer that is kept, after decompression."
    )
    inflight_max: int = setting(
        64, min=1, max=10_000, help="Calls of one step to one host at once, for each worker; one more is tried later."
    )
    slow_s: float = setting(15.0, min=0.1, max=60, help="A call that takes longer counts towards opening a breaker.")
    github_url: str = setting("https://api.github.com", help="GitHub's API, for `github_issue`; yours, if you host it.")
    slack_url: str = setting("https://slack.com/api", help="Slack's API, for `slack_channel`.")
    sql_connections_max: int = setting(
        8, min=1, max=1000, help="Connections of `sql` at once, for each worker; further calls wait."
    )
    sql_rows_max: int = setting(1000, min=1, max=100_000, help="Rows that `sql` gives back, at most.")

    def __post_init__(self) -> None:
        problems = [*_wrong_networks("allow", self.allow), *_wrong_networks("deny", self.deny)]
        if not self.ports:
            problems.append("step.ports: name at least one port")
        problems += [f"step.ports: {text!r} is no port and no range" for text in self.ports if _range(text) is None]
        for name in ("github_url", "slack_url"):
            if not isinstance(parse(getattr(self, name)), Target):
                problems.append(f"step.{name}: must be http(s)://HOST[:PORT][/PATH]")
        if problems:
            raise Misconfigured(problems)

    @property
    def allowed(self) -> tuple[Network, ...]:
        return tuple(ip_network(text) for text in self.allow)

    @property
    def denied(self) -> tuple[Network, ...]:
        return tuple(ip_network(text) for text in self.deny)

    @property
    def port_ranges(self) -> tuple[range, ...]:
        return tuple(found for text in self.ports if (found := _range(text)) is not None)


def _wrong_networks(name: str, texts: tuple[str, ...]) -> list[str]:
    found = []
    for text in texts:
        try:
            ip_network(text)
        except ValueError as error:
            found.append(f"step.{name}: {text!r} is no network: {error}")
    return found


def _range(text: str) -> range | None:
    match = re.fullmatch(r"([0-9]{1,5})(?:-([0-9]{1,5}))?", text)
    if match is None:
        return None
    first, last = int(match[1]), int(match[2] or match[1])
    return range(first, last + 1) if 0 < first <= last < 65536 else None
