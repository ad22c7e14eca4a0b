"""Which addresses a step may connect to. Asked about the address itself, when its connection is made: that a name was
checked a moment ago means nothing, since whoever owns it may answer otherwise the second time (DNS rebinding).

Addresses are public unless they are listed here, as IANA's registries of special addresses have them, and IPv6 is
refused outside of 2000::/3 altogether. Addresses that carry another one inside are refused as a whole (NAT64, 6to4,
Teredo: what is inside would be reached through somebody's gateway); only ``::ffff:a.b.c.d`` is the IPv4 address itself
to the kernel, and is judged as that.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Final

from seawall.step.error import StepRefused
from seawall.step.setting import Settings

Address = IPv4Address | IPv6Address

SPECIAL: Final = tuple(
    (ip_network(network), what)
    for network, what in (
        ("0.0.0.0/8", "this host"),
        ("10.0.0.0/8", "private"),
        ("100.64.0.0/10", "a carrier's private"),
        ("127.0.0.0/8", "loopback"),
        ("169.254.0.0/16", "link-local, where clouds keep credentials"),
        ("172.16.0.0/12", "private"),
        ("192.0.0.0/24", "reserved for protocols"),
        ("192.0.2.0/24", "for documentation"),
        ("192.88.99.0/24", "a 6to4 relay"),
        ("192.168.0.0/16", "private"),
        ("198.18.0.0/15", "for benchmarks"),
        ("198.51.100.0/24", "for documentation"),
        ("203.0.113.0/24", "for documentation"),
        ("224.0.0.0/4", "multicast"),
        ("240.0.0.0/4", "reserved or broadcast"),
        ("::/128", "this host"),
        ("::1/128", "loopback"),
        ("::/96", "an IPv4 address in disguise"),
        ("::ffff:0:0:0/96", "an IPv4 address in disguise"),
        ("64:ff9b::/96", "NAT64"),
        ("64:ff9b:1::/48", "NAT64"),
        ("100::/64", "discard-only"),
        ("2001::/23", "reserved for protocols, Teredo among them"),
        ("2001:db8::/32", "for documentation"),
        ("2002::/16", "6to4"),
        ("3fff::/20", "for documentation"),
        ("5f00::/16", "segment routing"),
        ("fc00::/7", "private"),
        ("fe80::/10", "link-local"),
        ("fec0::/10", "site-local"),
        ("ff00::/8", "multicast"),
    )
)
PUBLIC_V6: Final = IPv6Network("2000::/3")


def special(address: Address) -> str | None:
    """What an address is, when it isn't simply a public one."""
    for network, what in SPECIAL:
        if address.version == network.version and address in network:
            return what
    if isinstance(address, IPv6Address) and address not in PUBLIC_V6:
        return "not assigned"
    return None


class Reach:
    """What this installation lets steps connect to.

    Args:
        own_ports: Of Seawall's own listeners. Opening a private network to steps (`step.allow`) doesn't open the admin
            address with it.
    """

    def __init__(self, settings: Settings, *, own_ports: Callable[[], Collection[int]] = tuple) -> None:
        self._allowed = settings.allowed
        self._denied = settings.denied
        self._ports = settings.port_ranges
        self._own_ports = own_ports

    def check(self, address: str, port: int, host: str) -> Address:
        """The address to connect to.

        Args:
            address: As the resolver, or the URL, has it.
            host: For the message: as the caller wrote it.

        Raises:
            StepRefused: It isn't for steps.
        """
        if not any(port in ports for ports in self._ports):
            raise StepRefused(f"port {port} of {host} isn't among step.ports")
        try:
            found = ip_address(address)
        except ValueError:
            raise StepRefused(f"{host} has no address that can be checked") from None
        if isinstance(found, IPv6Address):
            if found.scope_id is not None:
                raise StepRefused(f"the address of {host} has a zone")
            found = found.ipv4_mapped or found
        what = special(found)
        if _within(found, self._denied):
            what = "denied here"
        elif what is not None and _within(found, self._allowed):
            what = "Seawall's own" if port in self._own_ports() else None
        if what is not None:
            raise StepRefused(f"{host} has the address {found}, which is {what}: steps don't call it")
        return found


def _within(address: Address, networks: Collection[IPv4Network | IPv6Network]) -> bool:
    return any(address.version == network.version and address in network for network in networks)
