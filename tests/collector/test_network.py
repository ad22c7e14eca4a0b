"""Whom a request comes from, as trusted forwarders say it, and never as a client says it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from seawall.collector.network import Forwarders, Networks, parsed
from seawall.kernel.error import Misconfigured

from .rig import QUICK, client, request, running, until

TRUSTED = Networks(("10.0.0.0/8", "2001:db8:ffff::/48", "127.0.0.1/32"))
XFF = Forwarders(TRUSTED, "x-forwarded-for")
RFC = Forwarders(TRUSTED, "forwarded")


@pytest.mark.parametrize(
    ("text", "client"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("1.1.1.1, 192.0.2.1", "192.0.2.1"),
        ("1.1.1.1, 192.0.2.1, 10.0.0.7", "192.0.2.1"),
        ("192.0.2.1:4711", "192.0.2.1"),
        ("2001:db8::1", "2001:db8::1"),
        ("[2001:db8::1]:443,2001:db8:ffff::7", "2001:db8::1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("10.0.0.9", "10.0.0.9"),
        ("1.1.1.1, unknown", "10.0.0.1"),
        ("1.1.1.1, garbage, 10.0.0.9", "10.0.0.9"),
        ("192.0.2.1, ", "10.0.0.1"),
        ("", "10.0.0.1"),
        ("fe80::1%eth0", "10.0.0.1"),
        ("1.1.1.1," * 200 + "192.0.2.1", "192.0.2.1"),
    ],
)
def test_x_forwarded_for_is_read_from_its_trusted_end(text: str, client: str) -> None:
    assert XFF.client(b"10.0.0.1", {b"x-forwarded-for": text.encode()}) == client.encode()


@pytest.mark.parametrize(
    ("text", "client"),
    [
        ("for=192.0.2.60;proto=http;by=203.0.113.43", "192.0.2.60"),
        ('For="[2001:db8:cafe::17]:4711"', "2001:db8:cafe::17"),
        ("for=192.0.2.43, for=10.1.1.1", "192.0.2.43"),
        ('for="1.1.1.1, for=192.0.2.43', "192.0.2.43"),
        ("proto=https; for=192.0.2.43", "192.0.2.43"),
        ("for=unknown", "10.0.0.1"),
        ("for=_hidden", "10.0.0.1"),
        ("by=192.0.2.1", "10.0.0.1"),
        ("notfor=192.0.2.1", "10.0.0.1"),
    ],
)
def test_forwarded_is_read_alike(text: str, client: str) -> None:
    assert RFC.client(b"10.0.0.1", {b"forwarded": text.encode()}) == client.encode()
    assert RFC.client(b"10.0.0.1", {b"x-forwarded-for": b"192.0.2.1"}) == b"10.0.0.1"


WRITTEN = st.text('for=192.0:[]";\\, ', max_size=60).map(str.encode) | st.binary(max_size=200)
"""Letters of which these headers are made, in any order; of any bytes at all, hardly any mean something."""


@given(text=WRITTEN, header=st.sampled_from([XFF, RFC]))
def test_whatever_stands_there_the_client_is_an_address(text: bytes, header: Forwarders) -> None:
    found = header.client(b"10.0.0.1", {b"x-forwarded-for": text, b"forwarded": text})
    assert parsed(found.decode()) is not None


@given(forged=WRITTEN)
@example(forged=b'for="')
@example(forged=b'for="\\')
def test_nothing_that_a_client_writes_hides_it(forged: bytes) -> None:
    assert XFF.client(b"10.0.0.1", {b"x-forwarded-for": forged + b", 192.0.2.1"}) == b"192.0.2.1"
    assert RFC.client(b"10.0.0.1", {b"forwarded": forged + b", for=192.0.2.1"}) == b"192.0.2.1"


async def test_only_a_trusted_peer_is_believed(tmp_path: Path) -> None:
    raw = request(body=b"x", headers={"X-Forwarded-For": "192.0.2.1", "Forwarded": "for=192.0.2.2"})
    for forwarders, header, peer in (
        ((), "x-forwarded-for", "127.0.0.1"),
        (("192.0.2.0/24",), "x-forwarded-for", "127.0.0.1"),
        (("127.0.0.1",), "x-forwarded-for", "192.0.2.1"),
        (("127.0.0.1",), "forwarded", "192.0.2.2"),
    ):
        settings = replace(QUICK, forwarders=forwarders, forwarded_header=header)
        async with running(tmp_path, settings=settings) as rig, client(rig) as c:
            await c.send(raw)
            assert (await c.answer()).status == 202  # type: ignore[union-attr]
            assert rig.records[0].peer == peer


async def test_requests_of_one_connection_each_have_their_own_client(tmp_path: Path) -> None:
    settings = replace(QUICK, forwarders=("127.0.0.1",))
    async with running(tmp_path, settings=settings) as rig, client(rig) as c:
        for n in (1, 2):
            await c.send(request(body=b"x", headers={"X-Forwarded-For": f"192.0.2.{n}"}))
        await c.send(request(body=b"x"))
        for _ in range(3):
            assert (await c.answer()).status == 202  # type: ignore[union-attr]
        assert [r.peer for r in rig.records] == ["192.0.2.1", "192.0.2.2", "127.0.0.1"]


async def test_the_cap_counts_a_forwarders_clients(tmp_path: Path) -> None:
    settings = replace(QUICK, forwarders=("127.0.0.1",), connections_per_ip_max=2, idle_s=30.0)
    one, other = (request(body=b"x", headers={"X-Forwarded-For": f"192.0.2.{n}"}) for n in (1, 2))
    async with running(tmp_path, settings=settings) as rig:
        async with client(rig) as a, client(rig) as b, client(rig) as c, client(rig) as d:
            told = []
            for connection, raw in (
                (a, one),
                (a, one),
                (b, one),
                (c, one),
                (c, other),
                (d, other),
                (a, other),
                (c, one),
            ):
                await connection.send(raw)
                told.append((await connection.answer()).status)  # type: ignore[union-attr]
            # The last two: that client has two already; and so has this one.
            assert told == [202, 202, 202, 503, 202, 202, 503, 503]
        await until(lambda: rig.metrics.gauge("seawall_connections_count", "").now() == 0)
        async with client(rig) as c:
            await c.send(one)
            assert (await c.answer()).status == 202  # type: ignore[union-attr]


@pytest.mark.parametrize(
    "settings", [{"proxies": ("nowhere",)}, {"forwarders": ("10.0.0.1/8",)}, {"forwarded_header": "x-real-ip"}]
)
def test_networks_that_can_not_be_meant_are_refused(settings: dict[str, object]) -> None:
    with pytest.raises(Misconfigured):
        replace(QUICK, **settings)  # type: ignore[arg-type]
