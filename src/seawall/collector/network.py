"""Addresses of clients: which are trusted to speak for others, and for whom they say that they speak.

X-Forwarded-For and Forwarded (RFC 7239) are lists to which each proxy appends whom it heard from. So they are read from
their end: what the last trusted proxy wrote there is true, and everything before it is whatever the client had sent.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

HOPS_MAX = 32
"""Proxies that one request may have come through; entries before the last so many aren't looked at."""

HEADERS = ("x-forwarded-for", "forwarded")
_PORT = re.compile(r":[0-9]{1,5}$")
_FOR = re.compile(r'(?:^|;)[ \t]*for="?([^";]*)"?', re.IGNORECASE)
_REMEMBERED_MAX = 4096


class Networks:
    """A set of addresses, given as ``10.0.0.0/8`` or ``::1``.

    Raises:
        ValueError: One isn't a network, or has bits beyond its prefix.
    """

    def __init__(self, texts: Iterable[str]) -> None:
        self._networks = [ip_network(text) for text in texts]
        self.holds = lru_cache(_REMEMBERED_MAX)(self._holds)

    def __bool__(self) -> bool:
        return bool(self._networks)

    def _holds(self, address: str) -> bool:
        """Whether an address is one of them. False for what is no address."""
        found = parsed(address)
        return found is not None and any(found in network for network in self._networks)


def parsed(text: str) -> IPv4Address | IPv6Address | None:
    """The address that a text is; an IPv4 one also where it is written as IPv6 (``::ffff:192.0.2.1``)."""
    try:
        found = ip_address(text)
    except ValueError:
        return None
    if isinstance(found, IPv6Address):
        return None if found.scope_id else found.ipv4_mapped or found
    return found


class Forwarders:
    """Trusted proxies, and the one header that they write.

    Only one: a proxy that sets the one lets through what a client wrote into the other.
    """

    def __init__(self, networks: Networks, header: str) -> None:
        assert header in HEADERS, header
        self._networks = networks
        self._header = header.encode()

    def trusts(self, peer: bytes) -> bool:
        return self._networks.holds(peer.decode())

    def client(self, peer: bytes, headers: Mapping[bytes, bytes]) -> bytes:
        """Whom a request comes from that a trusted ``peer`` handed on: the nearest address that isn't trusted; where
        there is none, or what stands there is no address, the farthest one that is."""
        text = headers.get(self._header, b"").decode("latin-1")
        found = peer
        for entry in reversed(text.split(",")[-HOPS_MAX:]):
            address = parsed(self._address_in(entry))
            if address is None:
                break
            found = str(address).encode()
            if not self._networks.holds(str(address)):
                break
        return found

    def _address_in(self, entry: str) -> str:
        """An entry's address without its port."""
        # Commas inside quotes are not looked for: those of the trusted end have none, and one that a client wrote must
        # not be able to swallow what stands behind it.
        if self._header == b"forwarded":
            found = _FOR.search(entry)
            entry = found[1] if found is not None else ""
        entry = entry.strip(" \t")
        if entry.startswith("["):
            address, _, port = entry[1:].partition("]")
            return address if not port or _PORT.match(port) else ""
        return _PORT.sub("", entry) if entry.count(":") == 1 else entry
