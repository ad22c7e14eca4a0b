"""What a hostile peer may write on the wire, beside the table of tests/collector/test_malformed.py."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest

from attack.rig import told
from collector.rig import QUICK, client, request, running

INNER = b"POST /in/tok HTTP/1.1\r\nHost: h\r\nContent-Length: 8\r\n\r\nsmuggled"
H = b"POST /in/tok HTTP/1.1\r\nHost: h\r\n"
CHUNKED = H + b"Transfer-Encoding: chunked\r\n"


def smuggled() -> dict[str, bytes]:
    """Requests that a careless proxy and a careless server would cut in different places."""
    size = len(INNER)
    return {
        "CL.TE": H + b"Content-Length: %d\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" % (size + 5) + INNER,
        "TE.CL": CHUNKED + b"Content-Length: 4\r\n\r\n%x\r\n" % size + INNER + b"\r\n0\r\n\r\n",
        "TE.TE, obscured": CHUNKED + b"Transfer-encoding: x\r\nContent-Length: 3\r\n\r\nabc" + INNER,
        "TE by tab": H + b"Transfer-Encoding:\tchunked\r\nContent-Length: 3\r\n\r\nabc" + INNER,
        "TE in capitals": H + b"TRANSFER-ENCODING: CHUNKED\r\nContent-Length: 3\r\n\r\nabc" + INNER,
        "TE after a vertical tab": H + b"Transfer-Encoding: \x0bchunked\r\nContent-Length: 3\r\n\r\nabc" + INNER,
        "TE behind a NUL": H + b"Transfer-Encoding\0: chunked\r\nContent-Length: 3\r\n\r\nabc" + INNER,
        "TE in a name with a space": H + b"Transfer Encoding: chunked\r\nContent-Length 3\r\n\r\n" + INNER,
        "two lengths": H + b"Content-Length: 3\r\nContent-Length: %d\r\n\r\nabc" % (3 + size) + INNER,
        "a folded length": H + b"X: a\r\n Content-Length: 3\r\n\r\n" + INNER,
        "a length behind a bare CR": H + b"X: a\rContent-Length: 3\r\n\r\n" + INNER,
        "a length behind a bare LF": H + b"X: a\nContent-Length: %d\r\n\r\n" % size + INNER,
        "a body that ends early by LF": CHUNKED + b"\r\n3\r\nabc\n0\r\n\r\n" + INNER,
        "a chunk size with a blank": CHUNKED + b"\r\n3 \r\nabc\r\n0 \r\n\r\n" + INNER,
        "a chunk's size that wraps": CHUNKED + b"\r\n100000000000000003\r\nabc\r\n0\r\n\r\n" + INNER,
        "a quoted extension with line ends": CHUNKED + b'\r\n3;a="\r\n' + INNER + b'"\r\nabc\r\n0\r\n\r\n',
        "HTTP/1.0 chunked": b"POST /in/tok HTTP/1.0\r\nConnection: keep-alive\r\n"
        b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + INNER,
        "a request line with a request in it": b"POST /in/tok HTTP/1.1\r\n" + INNER,
    }


@pytest.mark.parametrize("what", smuggled())
async def test_no_smuggled_request_is_taken(what: str, tmp_path: Path) -> None:
    async with running(tmp_path) as rig, client(rig) as c:
        await c.send(smuggled()[what])
        answer = await c.answer()
        assert answer is not None
        assert answer.status == 400
        assert await c.ended() == b"", "and nothing behind it is read"
        assert rig.records == []


async def test_a_length_of_zero_leaves_the_next_request_to_be_the_next(tmp_path: Path) -> None:
    """No rule tells "CL.0" from two requests: what counts is that both readings agree with the length, always."""
    async with running(tmp_path) as rig, client(rig) as c:
        await c.send(H + b"Content-Length: 0\r\n\r\n" + INNER)
        assert [a.status for a in (await c.answer(), await c.answer()) if a] == [202, 202]
        assert [r.body for r in rig.records] == [b"", b"smuggled"]


@pytest.mark.parametrize(
    "target",
    [
        "/in/%0d%0aSet-Cookie:%20a=b", "/in/tok%0d%0a%0d%0aHTTP/1.1%20200%20OK", "/in/events/%0d%0aX-Evil:%201",
        "/in/tickets/%0aX-Evil:1", "/%0d%0aX-Evil:1", "/<script>alert(1)</script>", "/in/events/<script>",
    ],
)  # fmt: skip
async def test_no_answer_carries_what_the_request_said(target: str, tmp_path: Path) -> None:
    """Response splitting, and reflected scripts."""
    async with running(tmp_path) as rig:
        for method in ("GET", "POST"):
            async with client(rig) as c:
                headers = {"Origin": "http://evil", "X-Evil": "evil", "Idempotency-Key": "evil key"}
                answer = await told(c, request(target, headers=headers, method=method))
            said = "\n".join(f"{k}: {v}" for k, v in answer.headers.items()).lower() + answer.body.decode().lower()
            assert answer.status in (400, 404, 405)
            assert "evil" not in said and "script" not in said and "set-cookie" not in said


@pytest.mark.parametrize("method", ["OPTIONS", "POST", "GET"])
async def test_no_page_of_another_origin_is_let_in(method: str, tmp_path: Path) -> None:
    """CORS: none. A browser's preflight is refused, and no answer may be read by a foreign page."""
    headers = {
        "Origin": "https://evil.example", "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "authorization",
    }  # fmt: skip
    async with running(tmp_path) as rig, client(rig) as c:
        for target in ("/in/tok", "/livez", "/in/events/x", "/v1/events"):
            answer = await told(c, request(target, headers=headers, method=method))
            assert not [name for name in answer.headers if name.startswith("access-control")], target
            assert method != "OPTIONS" or answer.status == 405 or (target, answer.status) == ("/v1/events", 405)


@pytest.mark.parametrize("path", ["/in/../v1/events", "/in/tok/../../etc/passwd", "/..%2f..%2fetc/passwd",
                                  "//etc/passwd", "/in/events/..%2f..%2fsnapshot", "/in/tickets/../../key",
                                  "/livez/../readyz",
                                  "\\..\\key", "/in/events/%2e%2e/key"])  # fmt: skip
async def test_a_path_leads_to_no_file(path: str, tmp_path: Path) -> None:
    async with running(tmp_path) as rig, client(rig) as c:
        answer = await told(c, request(path, method="GET"))
        assert answer.status in (400, 404, 405)
        assert answer.headers["content-type"] == "application/problem+json"


# ── Slow peers ───────────────────────────────────────────────────────────────────────────────────────────────────────

SLOW = {
    "a request line, byte by byte": (b"", b"POST /in/tok"),
    "headers without an end": (H, b"X-A: a\r\n"),
    "one header without an end": (H + b"X-A: ", b"a"),
    "empty lines before a request": (b"", b"\r\n"),
    "a body below its rate": (H + b"Content-Length: 100000\r\n\r\n", b"a"),
    "chunks of one byte": (CHUNKED + b"\r\n", b"1\r\na\r\n"),
    "a chunk's size without an end": (CHUNKED + b"\r\n", b"0"),
    "a chunk extension without an end": (CHUNKED + b"\r\n1;", b"e"),
    "trailers without an end": (CHUNKED + b"\r\n0\r\n", b"X-A: a\r\n"),
    "a body after 100 Continue": (H + b"Expect: 100-continue\r\nContent-Length: 9000\r\n\r\n", b"a"),
    "a body that a refusal waits for": (b"POST /in/no HTTP/1.1\r\nHost: h\r\nContent-Length: 9000\r\n\r\n", b"a"),
}


@pytest.mark.parametrize("what", SLOW)
async def test_a_slow_peer_is_cut_while_it_still_sends(what: str, tmp_path: Path) -> None:
    first, more = SLOW[what]
    async with running(tmp_path) as rig, client(rig) as c:
        await c.send(first)

        async def drip() -> None:
            while True:
                for byte in more:
                    await c.send(bytes((byte,)))
                    await asyncio.sleep(0.02)

        sending = asyncio.create_task(drip())
        try:
            await c.ended(within_s=5.0)  # raises TimeoutError if it is never cut
            async with client(rig) as healthy:
                assert (await told(healthy, request(body=b"x"))).status == 202
        finally:
            sending.cancel()
            await asyncio.gather(sending, return_exceptions=True)
        assert [r.body for r in rig.records] == [b"x"]


async def test_one_client_can_not_take_every_connection(tmp_path: Path) -> None:
    settings = replace(QUICK, connections_max=100, connections_per_ip_max=5, idle_s=5.0)
    async with running(tmp_path, settings=settings) as rig:
        held = [await asyncio.open_connection("127.0.0.1", rig.port) for _ in range(5)]
        try:
            async with client(rig) as c:
                answer = await told(c, request(body=b"x"))
                assert answer.status == 503
                assert "retry-after" in answer.headers
        finally:
            for _, writer in held:
                writer.close()
        assert rig.records == []


async def test_what_a_client_says_of_its_address_is_not_believed(tmp_path: Path) -> None:
    claims = {
        "X-Forwarded-For": "10.9.8.7", "Forwarded": "for=10.9.8.7", "X-Real-IP": "10.9.8.7",
        "True-Client-IP": "10.9.8.7",
        "CF-Connecting-IP": "10.9.8.7", "X-Forwarded-Host": "evil",
        "X-Original-URL": "/in/other", "X-HTTP-Method-Override": "GET",
    }  # fmt: skip
    async with running(tmp_path) as rig, client(rig) as c:
        assert (await told(c, request(body=b"x", headers=claims))).status == 202
        assert [r.peer for r in rig.records] == ["127.0.0.1"]


async def test_a_credential_that_came_is_never_kept(tmp_path: Path) -> None:
    headers = {"Authorization": "Bearer canary-1", "Cookie": "sid=canary-2", "Proxy-Authorization": "Basic canary-3"}
    async with running(tmp_path) as rig, client(rig) as c:
        assert (await told(c, request(body=b"x", headers=headers))).status == 202
        assert b"canary" not in b"".join(rig.journal.payloads)
