"""Every row of the table of malformed requests, over the real server on a real socket.

What is required of each row: its answers in order, how many events are kept, and whether the connection ends. Framing
errors are 400 and the end; everything that is framed well and within limits is kept byte for byte.
"""

from __future__ import annotations

import asyncio
import gzip
import ssl
from dataclasses import dataclass
from pathlib import Path

import pytest

from seawall.kernel import limit

from .rig import Rig, client, request, running, until

H = b"POST /in/tok HTTP/1.1\r\nHost: h\r\n"
CHUNKED = H + b"Transfer-Encoding: chunked\r\n\r\n"
BOMB = gzip.compress(bytes(8 * 1024 * 1024))


@dataclass(frozen=True)
class Row:
    """One malformed request."""

    name: str
    raw: bytes
    answers: tuple[int, ...]  # () : none, only the end
    kept: tuple[bytes, ...] = ()
    ends: bool = True
    half_close: bool = False


TABLE = [
    Row("1 length and chunked", H + b"Content-Length: 6\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nG", (400,)),
    Row("2 xchunked", H + b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n", (400,)),
    Row("2 chunked, identity", H + b"Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n", (400,)),
    Row("2 gzip, chunked", H + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", (400,)),
    Row("2 twice", H + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\n", (400,)),
    Row("2 chunked twice", H + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", (400,)),
    Row("2 space before colon", H + b"Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n", (400,)),
    Row("3 lengths differ", H + b"Content-Length: 3\r\nContent-Length: 5\r\n\r\nabcde", (400,)),
    *(
        Row(f"3 length {text}", H + f"Content-Length: {text}\r\n\r\nabc".encode(), (400,))
        for text in ("+3", "0x3", "-1", "1_0", "", "3 3", "٣")
    ),
    Row("4 length twice", H + b"Content-Length: 3\r\nContent-Length: 3\r\n\r\nabc", (400,)),
    Row("4 length 3, 3", H + b"Content-Length: 3, 3\r\n\r\nabc", (400,)),
    Row("5 length 2^64", H + b"Content-Length: 18446744073709551616\r\n\r\nabc", (400,)),
    Row("5 length 2^63", H + b"Content-Length: 9223372036854775808\r\n\r\nabc", (413,)),
    Row("6 body cut", H + b"Content-Length: 10\r\n\r\nabc", (), half_close=True),
    Row("6 chunk cut", CHUNKED + b"5\r\nab", (), half_close=True),
    Row("6 no last chunk", CHUNKED + b"3\r\nabc\r\n", (), half_close=True),
    Row("6 no end after the last chunk", CHUNKED + b"3\r\nabc\r\n0\r\n", (), half_close=True),
    Row("6 head cut", H + b"Content-Le", (), half_close=True),
    Row("7 junk behind", H + b"Content-Length: 3\r\n\r\nabcJUNK\r\n\r\n", (202, 400), (b"abc",)),
    Row("7 junk behind a chunked one", CHUNKED + b"3\r\nabc\r\n0\r\n\r\nJUNK\r\n\r\n", (202, 400), (b"abc",)),
    Row("8 chunk size +3", CHUNKED + b"+3\r\nabc\r\n0\r\n\r\n", (400,)),
    Row("8 chunk size 0x3", CHUNKED + b"0x3\r\nabc\r\n0\r\n\r\n", (400,)),
    Row("8 chunk size 2^64", CHUNKED + b"10000000000000000\r\nabc\r\n0\r\n\r\n", (400,)),
    Row("8 chunk longer than said", CHUNKED + b"3\r\nabcdef\r\n0\r\n\r\n", (400,)),
    Row("9 bare line feeds in chunks", CHUNKED + b"3\nabc\n0\n\n", (400,)),
    Row("10 chunk extension of 100 KiB", CHUNKED + b"3;" + b"a" * 102400 + b"\r\nabc\r\n0\r\n\r\n", (400,)),
    Row("10 many long extensions", CHUNKED + (b"1;" + b"e" * 400 + b"\r\na\r\n") * 256 + b"0\r\n\r\n", (400,)),
    Row("11 trailer X-Sig", CHUNKED + b"3\r\nabc\r\n0\r\nX-Sig: evil\r\n\r\n", (202,), (b"abc",), ends=False),
    Row("11 trailer Content-Length", CHUNKED + b"3\r\nabc\r\n0\r\nX-Sig: e\r\nContent-Length: 99\r\n\r\n", (400,)),
    Row("12 HTTP/1.0", b"POST /in/tok HTTP/1.0\r\nContent-Length: 3\r\n\r\nabc", (202,), (b"abc",)),
    Row("12 HTTP/1.0 without headers", b"GET /livez HTTP/1.0\r\n\r\n", (200,), ends=True),
    Row(
        "12 HTTP/1.0 keep-alive", b"POST /in/tok HTTP/1.0\r\nConnection: keep-alive\r\nContent-Length: 3\r\n\r\nabc",
        (202,), (b"abc",),
    ),
    Row(
        "13 HTTP/1.0 chunked",
        b"POST /in/tok HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n", (400,),
    ),
    Row("14 no Host", b"POST /in/tok HTTP/1.1\r\nContent-Length: 3\r\n\r\nabc", (400,)),
    Row("14 two Hosts", b"POST /in/tok HTTP/1.1\r\nHost: a\r\nHost: b\r\nContent-Length: 3\r\n\r\nabc", (400,)),
    Row("14 two Hosts alike", b"POST /in/tok HTTP/1.1\r\nHost: a\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc", (400,)),
    Row("15 bare line feeds", b"POST /in/tok HTTP/1.1\nHost: h\nContent-Length: 3\n\nabc", (400,)),
    Row("15 HTTP/9.9", b"POST /in/tok HTTP/9.9\r\nHost: h\r\nContent-Length: 3\r\n\r\nabc", (400,)),
    Row("15 HTTP/2 preface", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", (400,)),
    Row("15 HTTP/0.9", b"GET /livez\r\n\r\n", (400,)),
    Row("15 folded header", H + b"X-A: a\r\n b\r\nContent-Length: 3\r\n\r\nabc", (400,)),
    Row("16 NUL in a header", H + b"X-A: a\0b\r\nContent-Length: 3\r\n\r\nabc", (400,)),
    Row("16 bare CR in a header", H + b"X-A: a\rb\r\nContent-Length: 3\r\n\r\nabc", (400,)),
    Row("16 raw 0xff in the path", b"POST /in/\xff HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n\r\nabc", (400,)),
    Row("16 TLS hello", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\0" * 200, (400,)),
    Row("17 a header of 100 KiB", H + b"X-A: " + b"a" * 102400 + b"\r\nContent-Length: 3\r\n\r\nabc", (431,)),
    Row("17 a header of 17 KiB", H + b"X-A: " + b"a" * 17408 + b"\r\nContent-Length: 3\r\n\r\nabc", (431,)),
    Row("17 a header's name of 100 KiB", H + b"a" * 102400 + b": v\r\nContent-Length: 3\r\n\r\nabc", (431,)),
    Row("17 three of 12 KiB", H + 3 * (b"X-A: " + b"a" * 12288 + b"\r\n") + b"Content-Length: 3\r\n\r\nabc", (431,)),
    Row(
        "18 5,000 headers", H + b"".join(b"X-%d: a\r\n" % i for i in range(5000)) + b"Content-Length: 3\r\n\r\nabc",
        (431,),
    ),
    Row("19 a path of 64 KiB", b"POST /" + b"a" * 65536 + b" HTTP/1.1\r\nHost: h\r\n\r\n", (414,)),
    Row("19 a query of 9 KiB", b"POST /in/tok?" + b"a" * 9216 + b" HTTP/1.1\r\nHost: h\r\n\r\n", (414,)),
    *(
        Row(
            f"20 upgrade to {to.decode()}",
            H + b"Connection: Upgrade\r\nUpgrade: %b\r\nContent-Length: 3\r\n\r\nabc" % to,
            (202,), (b"abc",), ends=False,
        )
        for to in (b"h2c", b"websocket")
    ),
    Row(
        "20 upgrade, chunked", H
        + b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n"
        b"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n", (202,), (b"abcde",), ends=False,
    ),
    Row(
        "20 upgrade, another behind", H + b"Connection: Upgrade\r\nUpgrade: h2c\r\nContent-Length: 3\r\n\r\nabc"
        + H + b"Content-Length: 2\r\n\r\nde", (202, 202), (b"abc", b"de"), ends=False,
    ),
    Row("20 CONNECT", b"CONNECT h:1 HTTP/1.1\r\nHost: h\r\n\r\n", (405,)),
    Row("21 expect", H + b"Expect: 100-continue\r\nContent-Length: 3\r\n\r\nabc", (100, 202), (b"abc",), ends=False),
    Row("21 expect, too large", H + b"Expect: 100-continue\r\nContent-Length: 99999999\r\n\r\n", (413,)),
    Row("21 expect, unknown source",
        b"POST /in/no HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n", (404,)),
    Row("21 expect something else", H + b"Expect: 200-maybe\r\nContent-Length: 3\r\n\r\nabc", (417,)),
    Row("23 gzip", request(body=gzip.compress(b"abc", mtime=0), headers={"Content-Encoding": "gzip"}), (202,),
        (gzip.compress(b"abc", mtime=0),), ends=False),
    Row("24 no gzip", request(body=b"abc", headers={"Content-Encoding": "gzip"}), (202,), (b"abc",), ends=False),
    Row("25 gzip bomb", request(body=BOMB, headers={"Content-Encoding": "gzip"}), (202,), (BOMB,), ends=False),
    Row("26 %00 in the path", request("/in/tok%00y"), (404,), ends=False),
    Row("26 dots in the path", request("/in/../../etc"), (404,), ends=False),
    Row("26 dots after the token are the sender's", request("/in/tok/../../etc"), (202,), (b"",), ends=False),
    Row("26 absolute form", request("http://evil/in/tok"), (400,), ends=False),
    Row("26 lower case method", request(method="post"), (400,)),
    Row("26 unknown method", request(method="FROB"), (400,)),
    Row("26 another method", request(method="DELETE"), (405,), ends=False),
    Row("38 empty body", request(), (202,), (b"",), ends=False),
    Row("38 neither length nor chunked", H + b"\r\n", (202,), (b"",), ends=False),
    Row("42 body of exactly the limit", request(body=b"x" * 1048576), (202,), (b"x" * 1048576,), ends=False),
    Row("42 one byte more", request(body=b"x" * 1048577), (413,)),
    Row("42 one byte more, chunked", CHUNKED + b"100001\r\n" + b"x" * 1048577 + b"\r\n0\r\n\r\n", (413,)),
    Row("35 invalid UTF-8", request(body=b"\xff\xc0\xaf"), (202,), (b"\xff\xc0\xaf",), ends=False),
    Row("27 very deep JSON", request(body=b"[" * 100_000), (202,), (b"[" * 100_000,), ends=False),
    Row("44 multipart without boundary", request(body=b"--x", headers={"Content-Type": "multipart/form-data"}), (202,),
        (b"--x",), ends=False),
    Row("46 a key that can't be one", request(headers={"Idempotency-Key": "a'b;--"}), (400,), ends=False),
    Row("46 a key of 10 KB", request(headers={"Idempotency-Key": "a" * 10_000}), (400,), ends=False),
    Row("46 latin-1 in a header", request(body=b"x", headers={"X-Name": "Grüße"}), (202,), (b"x",), ends=False),
]  # fmt: skip


async def met(rig: Rig, row: Row, *, piece_bytes: int, tls: ssl.SSLContext | None = None) -> None:
    async with client(rig, tls=tls) as c:
        for start in range(0, len(row.raw), piece_bytes):
            await c.send(row.raw[start : start + piece_bytes])
        if row.half_close:
            c.writer.write_eof()
        for status in row.answers:
            answer = await c.answer()
            assert answer is not None, f"the connection ended before {status}"
            assert answer.status == status
        last = row.answers[-1] if row.answers else 0
        if row.ends:
            assert await c.ended() == b""
        elif last < 400 or last in (400, 404, 405):
            await c.send(request(body=b"still here"))
            answer = await c.answer()
            assert answer is not None
            assert answer.status == 202
    still = () if row.ends else (b"still here",)
    assert tuple(r.body for r in rig.records) == row.kept + still


@pytest.mark.parametrize("row", TABLE, ids=lambda row: row.name)
async def test_row_gets_its_required_answer(row: Row, tmp_path: Path) -> None:
    async with running(tmp_path) as rig:
        await met(rig, row, piece_bytes=1 << 30)


@pytest.mark.parametrize("row", [r for r in TABLE if len(r.raw) < 2000], ids=lambda row: row.name)
async def test_row_gets_the_same_answer_byte_by_byte(row: Row, tmp_path: Path) -> None:
    async with running(tmp_path) as rig, client(rig) as c:
        c.writer.get_extra_info("socket").setsockopt(6, 1, 1)  # TCP_NODELAY
        for byte in row.raw:
            await c.send(bytes((byte,)))
            await asyncio.sleep(0)
        if row.half_close:
            c.writer.write_eof()
        for status in row.answers:
            answer = await c.answer()
            assert answer is not None
            assert answer.status == status
        await until(lambda: tuple(r.body for r in rig.records) == row.kept)


async def test_trailers_are_never_merged_into_headers(tmp_path: Path) -> None:
    async with running(tmp_path) as rig, client(rig) as c:
        await c.send(CHUNKED + b"3\r\nabc\r\n0\r\nX-Sig: evil\r\n\r\n" + request(body=b"next"))
        assert (await c.answer(), await c.answer()) != (None, None)
        assert [b"evil" in r.headers for r in rig.records] == [False, False]


async def test_an_upgrade_keeps_its_headers_and_body(tmp_path: Path) -> None:
    raw = H + b"X-Thing: t\r\nConnection: Upgrade\r\nUpgrade: h2c\r\nContent-Length: 3\r\n\r\n"
    async with running(tmp_path) as rig, client(rig) as c:
        await c.send(raw)
        await asyncio.sleep(0.01)
        await c.send(b"abc")
        answer = await c.answer()
        assert answer is not None
        assert answer.status == 202
        [record] = rig.records
        assert record.body == b"abc"
        assert b"X-Thing\0t" in record.headers


@pytest.mark.parametrize("raw", [r.raw for r in TABLE if r.half_close], ids=[r.name for r in TABLE if r.half_close])
async def test_a_truncated_request_is_counted_and_not_kept(raw: bytes, tmp_path: Path) -> None:
    async with running(tmp_path) as rig, client(rig) as c:
        await c.send(raw)
        await c.close()
        await until(lambda: rig.count("seawall_truncated_total") == 1)
        assert rig.records == []


async def test_limits_are_met_exactly(tmp_path: Path) -> None:
    def headed(count: int) -> bytes:
        return H + b"".join(b"X-%d: a\r\n" % i for i in range(count - 2)) + b"Content-Length: 0\r\n\r\n"

    longest = b"a" * (limit.HEADER_BYTES_MAX - len("X-A") - 4)
    async with running(tmp_path) as rig, client(rig) as c:
        await c.send(H + b"X-A: " + longest + b"\r\nContent-Length: 0\r\n\r\n" + headed(limit.HEADERS_MAX))
        for _ in range(2):
            answer = await c.answer()
            assert answer is not None
            assert answer.status == 202
        await c.send(headed(limit.HEADERS_MAX + 1))
        answer = await c.answer()
        assert answer is not None
        assert answer.status == 431
        assert len(rig.records) == 2
