"""Writes small files in MaxMind's format (IPv4 only, records of 24 bits)."""

from __future__ import annotations

from ipaddress import IPv4Network

Value = str | int | list["Value"] | dict[str, "Value"]
MARKER = b"\xab\xcd\xefMaxMind.com"


def _field(kind: int, size: int) -> bytes:
    assert size < 285
    head = (kind << 5 if kind < 8 else 0) | min(size, 29)
    return bytes([head, *([kind - 7] if kind > 7 else []), *([size - 29] if size >= 29 else [])])


def _encoded(value: Value) -> bytes:
    match value:
        case str():
            return _field(2, len(value.encode())) + value.encode()
        case int():
            return _field(6, 4) + value.to_bytes(4, "big")
        case list():
            return _field(11, len(value)) + b"".join(map(_encoded, value))
        case dict():
            return _field(7, len(value)) + b"".join(_encoded(k) + _encoded(v) for k, v in value.items())


def written(networks: dict[str, Value]) -> bytes:
    """A whole file. Networks must not overlap."""
    tree: list[list[int | bytes | None]] = [[None, None]]
    for network, value in networks.items():
        parsed, node = IPv4Network(network), 0
        for depth in range(parsed.prefixlen):
            bit = int(parsed.network_address) >> (31 - depth) & 1
            if depth == parsed.prefixlen - 1:
                tree[node][bit] = _encoded(value)
            else:
                if tree[node][bit] is None:
                    tree.append([None, None])
                    tree[node][bit] = len(tree) - 1
                below = tree[node][bit]
                assert isinstance(below, int)
                node = below
    data, nodes = b"", b""
    for pair in tree:
        for record in pair:
            number = len(tree) if record is None else record
            if isinstance(number, bytes):
                number, data = len(tree) + 16 + len(data), data + number
            nodes += number.to_bytes(3, "big")
    about: Value = {
        "node_count": len(tree), "record_size": 24, "ip_version": 4, "database_type": "Test", "languages": ["en"],
        "binary_format_major_version": 2, "binary_format_minor_version": 0, "build_epoch": 1_700_000_000,
        "description": {"en": "of a test"},
    }  # fmt: skip
    return nodes + bytes(16) + data + MARKER + _encoded(about)
