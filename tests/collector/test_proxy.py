"""The PROXY protocol: strict, bounded, and not one byte of what follows it is lost."""

from __future__ import annotations

import asyncio
import struct
from dataclasses import replace
from ipaddress import ip_address
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from seawall.collector import proxy
from seawall.collector.proxy import NoHeader

from .authority import Authority
from .rig import QUICK, client, request, running, until

BALANCED = replace(QUICK, proxies=("127.0.0.0/8",), handshake_s=0.5, idle_s=30.0)
SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"


def v2(command: int = 0x21, family: int = 0x11, rest: bytes = b"", *, length: int | None = None) -> bytes:
    return SIGNATURE + struct.pack(">BBH", command, family, len(rest) if length is None else length) + rest


def v2_from(source: str) -> bytes:
    address = ip_address(source)
    other = ip_address("2001:db8::2" if address.version == 6 else "192.0.2.2")
    return v2(0x21, 0x21 if address.version == 6 else 0x11, address.packed + other.packed + struct.pack(">HH", 1, 2))


def read(data: bytes, *, piece_bytes: int = 1 << 30) -> tuple[str | None, bytes]:
    """The address, and what is left behind the header, when ``data`` comes in pieces."""
    so_far, at = b"", 0
    while (found := proxy.client(so_far)) is None:
        ahead = data[at : at + piece_bytes][: proxy.HEADER_BYTES_MAX]
        if not ahead:
            raise EOFError
        taken = proxy.belonging(so_far, ahead)
        assert 1 <= taken <= len(ahead)
        so_far, at = so_far + ahead[:taken], at + taken
    return found[0], data[at:]


GOOD = [
    (b"PROXY TCP4 192.0.2.1 198.51.100.1 56324 443\r\n", "192.0.2.1"),
    (b"PROXY TCP4 255.255.255.255 255.255.255.255 65535 65535\r\n", "255.255.255.255"),
    (b"PROXY TCP6 2001:db8::1 2001:db8::2 1 0\r\n", "2001:db8::1"),
    (b"PROXY TCP6 ::ffff:192.0.2.1 ::1 1 2\r\n", "192.0.2.1"),
    (
        b"PROXY TCP6 ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff 65535 65535\r\n",
        "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff",
    ),
    (b"PROXY UNKNOWN\r\n", None),
    (b"PROXY UNKNOWN ffff:f...f:ffff ffff:f...f:ffff 65535 65535\r\n", None),
    (v2_from("192.0.2.1"), "192.0.2.1"),
    (v2_from("2001:db8::7"), "2001:db8::7"),
    (v2_from("::ffff:192.0.2.9"), "192.0.2.9"),
    (v2(0x20, 0x00), None),
    (v2(0x20, 0x11, b"x" * 12), None),
    (v2(0x21, 0x00, b"tlv"), None),
    (v2(0x21, 0x31, b"/" * 216), None),
    (v2(0x21, 0x11, ip_address("192.0.2.5").packed * 2 + b"\0\1\0\2" + b"\x04\0\1\0" * 900), "192.0.2.5"),
]
BAD = [
    b"GET / HTTP/1.1\r\n", b"PROXY TCP4 192.0.2.1 198.51.100.1 56324\r\n", b"PROXY TCP4 192.0.2.1 ::1 1 2\r\n",
    b"PROXY TCP4 192.0.2.01 198.51.100.1 1 2\r\n", b"PROXY TCP4 1.2.3 198.51.100.1 1 2\r\n",
    b"PROXY TCP4 192.0.2.1 198.51.100.1 1 65536\r\n", b"PROXY TCP4 192.0.2.1 198.51.100.1 01 2\r\n",
    b"PROXY TCP4  192.0.2.1 198.51.100.1 1 2\r\n", b"PROXY TCP4 192.0.2.1 198.51.100.1 1 2 \r\n",
    b"PROXY TCP4 192.0.2.1 198.51.100.1 1 2\n", b"proxy TCP4 192.0.2.1 198.51.100.1 1 2\r\n",
    b"PROXY TCP6 192.0.2.1 198.51.100.1 1 2\r\n", b"PROXY TCP6 fe80::1%25lo ::1 1 2\r\n", b"PROXY UDP4 a b 1 2\r\n",
    b"PROXY UNKNOWN" + b"x" * 200, b"PROXY TCP4 " + b"1" * 97 + b"\r\n", b"PROXY UNKNOWNX\r\n",
    b"PROXY UNKNOWN \rx\r\n",
    b"\r\n\r\n\0\r\nQUIX\n" + b"\x21\x11\0\0", b"\r\nGET", v2(0x11, 0x11, b"x" * 12), v2(0x22, 0x11, b"x" * 12),
    v2(0x21, 0x11, b"x" * 11), v2(0x21, 0x21, b"x" * 35), v2(0x21, 0x12, b"x" * 12), v2(0x21, 0x31, b"x" * 215),
    v2(0x21, 0x11, length=0xFFFF), v2(0x20, 0x00, length=4081), b"\x16\x03\x01", b"\0",
]  # fmt: skip


@pytest.mark.parametrize("piece_bytes", [1, 7, 1 << 30])
@pytest.mark.parametrize(("header", "address"), GOOD)
def test_a_header_names_its_client_and_nothing_behind_it_is_taken(
    header: bytes, address: str | None, piece_bytes: int
) -> None:
    assert read(header + b"POST \r\n\n rest", piece_bytes=piece_bytes) == (address, b"POST \r\n\n rest")


@pytest.mark.parametrize("piece_bytes", [1, 7, 1 << 30])
@pytest.mark.parametrize("header", BAD)
def test_what_is_no_header_is_refused(header: bytes, piece_bytes: int) -> None:
    with pytest.raises(NoHeader):
        read(header + b"x" * 5000, piece_bytes=piece_bytes)


PARTS = st.sampled_from(
    [b"PROXY ", b"TCP4 ", b"TCP6 ", b"UNKNOWN", b"1.2.3.4 ", b"::1 ", b"80 ", b"443\r\n", b"\r\n", b"\n", SIGNATURE]
)


@given(
    data=st.one_of(
        st.lists(st.one_of(PARTS, st.binary(max_size=8)), max_size=9).map(b"".join),
        st.builds(v2, st.integers(0, 255), st.integers(0, 255), st.binary(max_size=300)),
        st.builds(lambda a, b: a[0] + b, st.sampled_from(GOOD), st.binary(max_size=50)),
    ),
    piece_bytes=st.integers(1, 600),
)
@example(data=b"PROXY " + b"x" * 200, piece_bytes=100)
@example(data=SIGNATURE[:5], piece_bytes=3)
def test_no_bytes_make_it_fail_otherwise_or_read_on(data: bytes, piece_bytes: int) -> None:
    try:
        address, rest = read(data, piece_bytes=piece_bytes)
    except (NoHeader, EOFError):
        return
    assert address is None or ip_address(address)
    assert data.endswith(rest)
    assert len(data) - len(rest) <= proxy.HEADER_BYTES_MAX
    # The same, however it was cut.
    assert read(data) == (address, rest)


@given(source=st.ip_addresses(), binary=st.booleans(), behind=st.binary(max_size=100), piece_bytes=st.integers(1, 80))
def test_every_address_comes_through(source: object, binary: bool, behind: bytes, piece_bytes: int) -> None:
    address = ip_address(str(source))
    mapped = getattr(address, "ipv4_mapped", None)
    line = f"PROXY TCP{address.version} {address} {address} 1 2\r\n".encode()
    header = v2_from(str(address)) if binary else line
    assert read(header + behind, piece_bytes=piece_bytes) == (str(mapped or address), behind)


# ── On a socket ──────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("header", [GOOD[0][0], v2_from("192.0.2.1")])
@pytest.mark.parametrize("cut", [0, 1, 20])
async def test_a_records_peer_is_the_balancers_client(header: bytes, cut: int, tmp_path: Path) -> None:
    async with running(tmp_path, settings=BALANCED) as rig, client(rig) as c:
        raw = header + request(body=b"1") + request(body=b"2")
        await c.send(raw[: cut or len(raw)])
        await asyncio.sleep(0.02)
        await c.send(raw[cut:] if cut else b"")
        for _ in range(2):
            assert (await c.answer()).status == 202  # type: ignore[union-attr]
        assert [(r.peer, r.body) for r in rig.records] == [("192.0.2.1", b"1"), ("192.0.2.1", b"2")]


async def test_a_balancers_own_look_is_answered(tmp_path: Path) -> None:
    async with running(tmp_path, settings=BALANCED) as rig, client(rig) as c:
        await c.send(v2(0x20, 0x00) + request("/livez", method="GET") + request(body=b"x"))
        assert [(await c.answer()).status for _ in range(2)] == [200, 202]  # type: ignore[union-attr]
        assert rig.records[0].peer == "127.0.0.1"


@pytest.mark.parametrize("raw", [request(body=b"x"), b"PROXY TCP4 x", b"PROX", b"", v2(0x21, 0x11, b"x" * 3)])
async def test_a_trusted_peer_without_a_header_is_closed_in_time(raw: bytes, tmp_path: Path) -> None:
    async with running(tmp_path, settings=BALANCED) as rig, client(rig) as c:
        await c.send(raw)
        assert await c.ended() == b""
        await until(lambda: rig.count("seawall_connections_not_let_in_total", why="header") == 1)
        assert rig.records == []


async def test_nobody_else_may_send_one(tmp_path: Path) -> None:
    for proxies in ((), ("192.0.2.0/24",)):
        async with running(tmp_path, settings=replace(BALANCED, proxies=proxies)) as rig, client(rig) as c:
            await c.send(GOOD[0][0] + request(body=b"x"))
            assert (await c.answer()).status == 400  # type: ignore[union-attr]
            assert rig.records == []
        async with running(tmp_path, settings=replace(BALANCED, proxies=proxies)) as rig, client(rig) as c:
            await c.send(request(body=b"x"))
            assert (await c.answer()).status == 202  # type: ignore[union-attr]


async def test_the_cap_counts_clients_and_not_their_balancer(tmp_path: Path) -> None:
    settings = replace(BALANCED, connections_per_ip_max=2)
    async with running(tmp_path, settings=settings) as rig:
        async with client(rig) as a, client(rig) as b, client(rig) as c, client(rig) as d:
            told = []
            for one, source in ((a, "192.0.2.1"), (b, "192.0.2.1"), (c, "192.0.2.1"), (d, "192.0.2.2")):
                await one.send(v2_from(source) + request(body=b"x"))
                told.append((await one.answer()).status)  # type: ignore[union-attr]
            assert told == [202, 202, 503, 202]
        await until(lambda: rig.metrics.gauge("seawall_connections_count", "").now() == 0)
        async with client(rig) as c:
            await c.send(v2_from("192.0.2.1") + request(body=b"x"))
            assert (await c.answer()).status == 202  # type: ignore[union-attr]


async def test_a_header_comes_before_tls(tmp_path: Path) -> None:
    authority = Authority()
    certificate, key = authority.put(tmp_path)
    settings = replace(BALANCED, tls_certificate=str(certificate), tls_key=str(key), handshake_s=2.0)
    async with (
        running(tmp_path, settings=settings) as rig,
        client(rig, tls=authority.client(), hello=v2_from("2001:db8::9")) as c,
    ):
        await c.send(request(body=b"x"))
        assert (await c.answer()).status == 202  # type: ignore[union-attr]
        assert rig.records[0].peer == "2001:db8::9"
