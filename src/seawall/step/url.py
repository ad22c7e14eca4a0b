"""One reading of a URL. What is sent and where it is sent to are both made from these parts, never from the text again:
two readers that differ on one character are how a check is walked around.

Stricter than any browser: ASCII only (write a name as ``xn--…`` and a path percent-encoded), no user or password, no
zone of an address, and an IPv4 address in its one canonical form: ``0x7f.1``, ``0177.0.0.1``, ``127.1`` and
``2130706433`` are all loopback to a resolver, and names to a check that is lenient.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address

from seawall.kernel import limit

PORTS = {"http": 80, "https": 443}

_URL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://([^/?#]*)([^#]*)(#.*)?")
_LABEL = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?")
_NUMBER = re.compile(r"[0-9]+|0[xX][0-9A-Fa-f]*")
_PRINTABLE = re.compile(r"[\x21-\x7e]+")


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """Where a request goes."""

    tls: bool
    host: str  # a name in lower case without a final dot, or an address
    address: IPv4Address | IPv6Address | None  # what the host is, unless it is a name
    port: int
    path: str  # with the query; at least "/"

    @property
    def place(self) -> str:
        """Host and port, which may be said aloud; a path or a query may hold a secret."""
        return f"{self.shown_host}:{self.port}"

    @property
    def shown_host(self) -> str:
        return f"[{self.host}]" if isinstance(self.address, IPv6Address) else self.host

    @property
    def host_header(self) -> str:
        return self.shown_host if self.port == PORTS["https" if self.tls else "http"] else self.place


def parse(url: object) -> Target | str:
    """A URL in parts, or what is wrong with it, in words that quote nothing of it."""
    if not isinstance(url, str) or len(url) > limit.TARGET_BYTES_MAX:
        return f"a URL is a text of at most {limit.TARGET_BYTES_MAX} characters"
    if not _PRINTABLE.fullmatch(url) or "\\" in url:
        return "a URL has printable ASCII characters only, no spaces and no backslash: percent-encode others"
    match = _URL.fullmatch(url)
    if match is None or match[1].lower() not in PORTS:
        return "only http:// and https:// are called"
    scheme, authority, path = match[1].lower(), match[2], match[3]
    if "@" in authority:
        return "a user or password in a URL is refused: pass headers={'authorization': secret(…)}"
    parts = re.fullmatch(r"(\[[^\[\]]*\]|[^\[\]:]*)(?::([0-9]{1,5}))?", authority)
    if parts is None:
        return "its host or port can't be read"
    port = int(parts[2]) if parts[2] else PORTS[scheme]
    host = _host(parts[1])
    if host is None or not 0 < port < 65536:
        return "its host must be a name, an IPv4 address as 192.0.2.1, or an IPv6 address in brackets without a zone"
    name, address = host
    path = path if path.startswith("/") else f"/{path}"
    return Target(tls=scheme == "https", host=name, address=address, port=port, path=path)


def _host(text: str) -> tuple[str, IPv4Address | IPv6Address | None] | None:
    try:
        if text.startswith("["):
            v6 = IPv6Address(text[1:-1])
            return (str(v6), v6) if v6.scope_id is None and "%" not in text else None
        name = text.lower().removesuffix(".")
        labels = name.split(".")
        if _NUMBER.fullmatch(labels[-1]):
            v4 = IPv4Address(name)  # canonical form only: four numbers, none with a leading zero
            return str(v4), v4
    except ValueError:
        return None
    fine = 0 < len(name) <= 253 and all(_LABEL.fullmatch(label) for label in labels)
    return (name, None) if fine else None
