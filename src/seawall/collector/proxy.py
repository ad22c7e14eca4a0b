"""The PROXY protocol, versions 1 and 2: what a load balancer says before the client's first byte.

Version 1 is a line, version 2 is binary::

    PROXY TCP4 192.0.2.1 198.51.100.1 56324 443\\r\\n                       at most 107 bytes
    0D0A0D0A000D0A515549540A | version, command | family | length | addresses, then TLVs

Pure functions over bytes. Strict: there is no guessing, since whoever may send a header must send one.
"""

from __future__ import annotations

import re
from ipaddress import IPv4Address, IPv6Address

from seawall.collector.network import parsed

LINE_BYTES_MAX = 107
HEADER_BYTES_MAX = 4096
"""A version 2 header with all its TLVs; the specification asks for room for 536."""

_SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
_FIXED_BYTES = 16
_WORD = b"PROXY "
_LINE = re.compile(
    rb"PROXY (?:(TCP[46]) ([0-9a-fA-F.:]+) ([0-9a-fA-F.:]+) ([0-9]{1,5}) ([0-9]{1,5})|UNKNOWN(?: [^\r\n]*)?)\r\n"
)
_LOCAL, _PROXIED = 0x20, 0x21
_UNSPECIFIED, _TCP4, _TCP6, _UNIX = 0x00, 0x11, 0x21, 0x31
_ADDRESSES_BYTES = {_UNSPECIFIED: 0, _TCP4: 12, _TCP6: 36, _UNIX: 216}


class NoHeader(Exception):
    """What came is no PROXY header; its connection must be closed."""


def belonging(so_far: bytes, ahead: bytes) -> int:
    """How many bytes of ``ahead``, which follows ``so_far``, are certainly part of the header: at least one. What comes
    behind the header must be left to whoever reads next.

    Raises:
        NoHeader: It isn't one.
    """
    assert ahead, "asked when there is something"
    data = so_far + ahead
    if data[:1] == b"\r":
        if not _SIGNATURE.startswith(data[:12]) and data[:12] != _SIGNATURE:
            raise NoHeader("a PROXY header was expected")
        end = _FIXED_BYTES if len(data) < _FIXED_BYTES else _length(data)
        return min(len(ahead), max(1, end - len(so_far)))
    if data[: len(_WORD)] != _WORD[: len(data)]:
        raise NoHeader("a PROXY header was expected")
    end = data.find(b"\n") + 1
    if (end or len(data)) > LINE_BYTES_MAX:
        raise NoHeader("the PROXY line is too long")
    return end - len(so_far) if end else len(ahead)


def client(header: bytes) -> tuple[str | None] | None:
    """The client's address that a header names, in a tuple (None: it speaks for itself, or can't say); None while the
    header isn't complete.

    Raises:
        NoHeader: It isn't one.
    """
    if header[:1] == b"\r":
        if len(header) < _FIXED_BYTES or len(header) < _length(header):
            return None
        return (_from_bytes(header),)
    if not header.endswith(b"\n"):
        return None
    return (_from_line(header),)


def _length(header: bytes) -> int:
    """Bytes of a version 2 header whose fixed part is there."""
    length = _FIXED_BYTES + int.from_bytes(header[14:16], "big")
    if length > HEADER_BYTES_MAX:
        raise NoHeader("the PROXY header is too long")
    return length


def _from_line(line: bytes) -> str | None:
    found = _LINE.fullmatch(line)
    if found is None:
        raise NoHeader("the PROXY line is malformed")
    family, *rest = found.groups()
    if family is None:
        return None
    source, destination = (parsed(text.decode()) for text in rest[:2])
    wanted = IPv4Address if family == b"TCP4" else (IPv4Address, IPv6Address)  # IPv6 may carry a mapped IPv4
    ports = all(int(text) <= 65_535 and (text == b"0" or text[:1] != b"0") for text in rest[2:])
    if not (isinstance(source, wanted) and isinstance(destination, wanted) and ports):
        raise NoHeader("the PROXY line is malformed")
    if family == b"TCP6" and not all(b":" in text for text in rest[:2]):
        raise NoHeader("the PROXY line is malformed")
    return str(source)


def _from_bytes(header: bytes) -> str | None:
    command, family = header[12], header[13]
    if command not in (_LOCAL, _PROXIED):
        raise NoHeader("the PROXY header has an unknown version or command")
    if command == _LOCAL:
        return None  # the balancer itself, asking whether we live
    if family not in _ADDRESSES_BYTES or len(header) - _FIXED_BYTES < _ADDRESSES_BYTES[family]:
        raise NoHeader("the PROXY header has an unknown family or too few addresses")
    if family == _TCP4:
        return str(IPv4Address(header[16:20]))
    if family == _TCP6:
        address = IPv6Address(header[16:32])
        return str(address.ipv4_mapped or address)
    return None
