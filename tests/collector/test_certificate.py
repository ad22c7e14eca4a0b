"""TLS on the listen address: what is spoken, who can't stop whom, and certificates that change while it runs."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import ssl
import threading
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_pem_private_key,
)

from seawall.collector import Settings, certificate
from seawall.kernel.error import Misconfigured
from stall import Stopwatch

from .authority import Authority
from .rig import QUICK, Client, Rig, client, request, running, until
from .test_malformed import TABLE, Row, met

AUTHORITY = Authority()
TRUSTING = AUTHORITY.client()


def settings_of(folder: Path, **more: object) -> Settings:
    public, key = AUTHORITY.put(folder)
    more = {"idle_s": 30.0, "handshake_s": 1.0, **more}
    return replace(QUICK, tls_certificate=str(public), tls_key=str(key), **more)  # type: ignore[arg-type]


@pytest.fixture(autouse=True)
def _looks_often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(certificate, "LOOK_S", 0.05)


async def accepted(c: Client) -> None:
    await c.send(request(body=b"over tls"))
    answer = await c.answer()
    assert answer is not None
    assert answer.status == 202


def name_of(c: Client) -> str:
    """The certificate's common name that a connection was shown."""
    subject = c.writer.get_extra_info("peercert")["subject"]
    return str(dict(pair for line in subject for pair in line)["commonName"])


async def shown(rig: Rig) -> str:
    async with client(rig, tls=TRUSTING) as c:
        return name_of(c)


async def test_an_event_comes_in_over_tls_and_its_peer_is_known(tmp_path: Path) -> None:
    async with running(tmp_path, settings=settings_of(tmp_path)) as rig, client(rig, tls=TRUSTING) as c:
        for _ in range(3):
            await accepted(c)
        assert [r.peer for r in rig.records] == ["127.0.0.1"] * 3
        assert c.writer.get_extra_info("ssl_object").selected_alpn_protocol() == "http/1.1"


SAMPLE = [r for r in TABLE if r.name.split(" ")[0] in {"1", "4", "7", "10", "17", "18", "19", "20", "21", "25", "42"}]


@pytest.mark.parametrize("row", SAMPLE, ids=lambda row: row.name)
async def test_a_malformed_request_gets_the_same_answer_over_tls(row: Row, tmp_path: Path) -> None:
    async with running(tmp_path, settings=settings_of(tmp_path)) as rig:
        await met(rig, row, piece_bytes=1 << 30, tls=TRUSTING)


async def test_a_large_refused_body_still_gets_its_answer_over_tls(tmp_path: Path) -> None:
    async with running(tmp_path, settings=settings_of(tmp_path)) as rig, client(rig, tls=TRUSTING) as c:
        head = b"POST /in/tok HTTP/1.1\r\nHost: h\r\nContent-Length: 3000000\r\n\r\n"
        send = asyncio.create_task(c.send(head + b"x" * 3_000_000))
        answer = await c.answer()
        assert answer is not None
        assert answer.status == 413
        await send


async def test_a_client_that_wants_to_end_is_let_go_at_once(tmp_path: Path) -> None:
    settings = settings_of(tmp_path, linger_s=20.0)
    async with running(tmp_path, settings=settings) as rig, client(rig, tls=TRUSTING) as c:
        await c.send(request(headers={"Connection": "close"}))
        assert (await c.answer()).status == 202  # type: ignore[union-attr]
        assert await c.ended() == b""


@pytest.mark.parametrize(
    ("highest", "welcome"),
    [(ssl.TLSVersion.TLSv1_1, False), (ssl.TLSVersion.TLSv1_2, True), (ssl.TLSVersion.TLSv1_3, True)],
)
@pytest.mark.filterwarnings("ignore:ssl.TLSVersion.TLSv1_1 is deprecated:DeprecationWarning")
async def test_nothing_older_than_tls_1_2_is_spoken(highest: ssl.TLSVersion, welcome: bool, tmp_path: Path) -> None:
    old = AUTHORITY.client()
    old.set_ciphers("ALL:@SECLEVEL=0")
    old.minimum_version = old.maximum_version = highest
    async with running(tmp_path, settings=settings_of(tmp_path)) as rig:
        if welcome:
            async with client(rig, tls=old) as c:
                await accepted(c)
            return
        with pytest.raises((ssl.SSLError, ConnectionError)):
            async with client(rig, tls=old):
                pass
        await until(lambda: rig.count("seawall_connections_not_let_in_total", why="handshake") == 1)


async def test_plain_http_and_garbage_are_turned_away(tmp_path: Path) -> None:
    async with running(tmp_path, settings=settings_of(tmp_path)) as rig:
        for raw in (request(body=b"x"), os.urandom(3000), b"\x16\x03\x01\xff\xff" + b"\0" * 3000):
            async with client(rig) as c:
                await c.send(raw)
                assert b"HTTP" not in await c.ended(within_s=3.0)
        assert rig.records == []
        async with client(rig, tls=TRUSTING) as c:
            await accepted(c)


async def test_a_handshake_that_stops_is_ended_and_its_place_is_free_again(tmp_path: Path) -> None:
    settings = settings_of(tmp_path, connections_per_ip_max=5)
    settings = replace(settings, handshake_s=1.2)
    async with running(tmp_path, settings=settings) as rig, contextlib.AsyncExitStack() as stack:
        silent = [await stack.enter_async_context(client(rig)) for _ in range(4)]
        await silent[0].send(b"\x16\x03\x01\x02\x00\x01")
        async with client(rig, tls=TRUSTING) as c:
            await accepted(c)
            # Five are there, four of which have said nothing yet: they count.
            sixth = await stack.enter_async_context(client(rig))
            assert await sixth.ended() == b""
            assert rig.count("seawall_connections_refused_total") == 1
            watch = Stopwatch()
            for one in silent:
                assert await one.ended(within_s=3.0) == b""
            assert watch.s < 2.0
            await until(lambda: rig.count("seawall_connections_not_let_in_total", why="handshake") == 4)
            await accepted(c)
        async with client(rig, tls=TRUSTING) as c:
            await accepted(c)


async def test_a_new_certificate_serves_within_seconds_and_drops_nobody(tmp_path: Path) -> None:
    async with running(tmp_path, settings=settings_of(tmp_path)) as rig, client(rig, tls=TRUSTING) as old:
        await accepted(old)
        assert name_of(old) == "first"
        AUTHORITY.put(tmp_path, name="second", days=30)
        async with asyncio.timeout(5):
            while await shown(rig) != "second":
                await asyncio.sleep(0.05)
        await accepted(old)
        assert rig.count("seawall_tls_certificate_loads_total") == 2
        left_s = rig.metrics.gauge("seawall_tls_certificate_expiry_seconds", "").now()
        assert 29.9 * 86_400 < left_s < 30 * 86_400
        assert rig.alerts.active() == []


@pytest.mark.parametrize("damage", ["garbage", "cut", "another's key", "gone", "encrypted"])
async def test_a_bad_file_keeps_the_old_certificate_and_says_so(damage: str, tmp_path: Path) -> None:
    async with running(tmp_path, settings=settings_of(tmp_path)) as rig:
        key = tmp_path / "key.pem"
        if damage == "garbage":
            key.write_bytes(os.urandom(500))
        elif damage == "cut":
            public = tmp_path / "cert.pem"
            public.write_bytes(public.read_bytes()[:200])
        elif damage == "gone":
            key.unlink()
        elif damage == "encrypted":
            plain = load_pem_private_key(key.read_bytes(), None)
            key.write_bytes(plain.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"pass")))
        else:
            kept = (tmp_path / "cert.pem").read_bytes()
            AUTHORITY.put(tmp_path, name="other")
            (tmp_path / "cert.pem").write_bytes(kept)
        await until(rig.alerts.active)
        [alert] = rig.alerts.active()
        assert alert.name == "tls-certificate-unusable"
        assert "key.pem" in alert.summary
        assert await shown(rig) == "first"
        AUTHORITY.put(tmp_path, name="good")
        await until(lambda: not rig.alerts.active())
        assert await shown(rig) == "good"


async def test_sighup_loads_it_again_though_its_files_look_the_same(tmp_path: Path) -> None:
    settings = settings_of(tmp_path)
    async with running(tmp_path, settings=settings) as rig:
        rig.collector.reload(settings)
        await until(lambda: rig.count("seawall_tls_certificate_loads_total") == 2)


async def test_a_disk_that_hangs_during_a_renewal_has_one_thread_and_delays_it_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(certificate, "DISK_S", 0.1)
    hangs, goes_on, reads = threading.Event(), threading.Event(), 0
    read = certificate.Certificate._read

    def slowly(self: certificate.Certificate) -> tuple[ssl.SSLContext, float]:
        nonlocal reads
        if hangs.is_set():
            reads += 1
            goes_on.wait(10)
        return read(self)

    monkeypatch.setattr(certificate.Certificate, "_read", slowly)
    async with running(tmp_path, settings=settings_of(tmp_path)) as rig:
        before = await shown(rig)
        hangs.set()
        AUTHORITY.put(tmp_path, name="next")
        await until(lambda: reads == 1)
        await until(lambda: "too long" in reason(rig))
        await asyncio.sleep(0.5)
        assert (reads, await shown(rig)) == (1, before), "nobody is without a certificate meanwhile"
        goes_on.set()
        await until(lambda: reason(rig) == "")
        assert await shown(rig) == "next", "its files haven't changed since, and it is in use"


def reason(rig: Rig) -> str:
    return next(h.reason for h in rig.supervisor.health() if h.name == "collector.certificate")


async def test_one_about_to_expire_is_told(tmp_path: Path) -> None:
    settings = settings_of(tmp_path)
    AUTHORITY.put(tmp_path, days=-1)
    async with running(tmp_path, settings=settings) as rig:
        await until(rig.alerts.active)
        assert "has expired" in rig.alerts.active()[0].summary
        AUTHORITY.put(tmp_path, days=3)
        await until(lambda: "expires in 3.0 days" in rig.alerts.active()[0].summary)
        AUTHORITY.put(tmp_path, days=90)
        await until(lambda: not rig.alerts.active())


async def test_a_start_without_a_usable_certificate_is_refused(tmp_path: Path) -> None:
    settings = settings_of(tmp_path)
    (tmp_path / "key.pem").write_text("nothing")
    with pytest.raises(Misconfigured, match=r"tls_key"):
        async with running(tmp_path, settings=settings):
            pass
    with pytest.raises(Misconfigured, match="belong together"):
        replace(QUICK, tls_certificate="a")


async def test_stopping_leaves_no_handshake_behind(tmp_path: Path) -> None:
    async with running(tmp_path, settings=replace(settings_of(tmp_path), handshake_s=30.0)) as rig:
        waiting = socket.create_connection(("127.0.0.1", rig.port))
        async with client(rig, tls=TRUSTING) as c:
            await accepted(c)
            watch = Stopwatch()
            await rig.collector.stop(3.0)
            assert watch.s < 2.5
        waiting.close()
