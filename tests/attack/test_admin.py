"""The admin API against whoever has no token: a neighbour on the network, and a web page in an operator's browser."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from console.test_console import TOKEN, Api, api, is_problem
from seawall.console.host import is_ours
from seawall.console.setting import Settings
from seawall.testing.postgres import Database

REBOUND = ["evil.example", "evil.example:8081", "127.0.0.1.evil.example", "localhost.evil.example", "EVIL.example.",
           "169.254.169.254.nip.io", "[::1].evil.example", "0x7f.1", "127.1"]  # fmt: skip
OURS = ["127.0.0.1", "127.0.0.1:8081", "[::1]:8081", "[::1]", "10.0.0.7:80", "localhost:8081", "LOCALHOST",
        "seawall:80", "admin.localhost", "", "localhost."]  # fmt: skip


@pytest.mark.parametrize("host", REBOUND)
def test_a_name_that_was_rebound_to_us_is_not_ours(host: str) -> None:
    assert not is_ours(host, ())


@pytest.mark.parametrize("host", OURS)
def test_an_address_or_a_plain_name_is_ours(host: str) -> None:
    assert is_ours(host, ())


def test_a_name_with_a_dot_is_ours_when_it_is_listed() -> None:
    assert is_ours("Metrics.Example.com:9090", ("metrics.example.com",))
    assert not is_ours("a.metrics.example.com", ("metrics.example.com",))


async def asked(it: Api, lines: list[str], *, method: str = "GET", body: bytes = b"") -> tuple[int, str, bytes]:
    """Status, head and body of one request, its headers exactly as given."""
    head = "\r\n".join([lines[0], *lines[1:], "Connection: close", f"Content-Length: {len(body)}"])
    raw = await it.raw(head.encode("latin-1") + b"\r\n\r\n" + body)
    top, _, rest = raw.partition(b"\r\n\r\n")
    return int(top.split(b" ")[1]), top.decode("latin-1").lower(), rest


async def test_a_page_whose_name_was_rebound_to_us_reads_nothing(database: Database, tmp_path: Path) -> None:
    async with api(database.dsn, tmp_path, Settings(hosts=("ok.example",))) as it:
        for path in ("/livez", "/readyz", "/metrics", "/statusz"):
            for host, expected in (("evil.example", 421), ("127.0.0.1", 0), ("ok.example", 0)):
                status, _, said = await asked(it, [f"GET {path} HTTP/1.1", f"Host: {host}"])
                assert status == expected or (not expected and status in (200, 503)), (path, host)
                assert expected != 421 or b"seawall_" not in said
        # The rest wants the token, which such a page doesn't have.
        assert (await asked(it, ["GET /v1/events HTTP/1.1", "Host: evil.example"]))[0] == 401
        token = f"Authorization: Bearer {TOKEN}"
        assert (await asked(it, ["GET /v1/events HTTP/1.1", "Host: admin.example.com", token]))[0] == 200


@pytest.mark.parametrize(
    "headers",
    [
        ["Content-Type: text/plain"],  # what a form of a foreign page may send without asking first
        ["Content-Type: application/x-www-form-urlencoded"],
        ["Content-Type: multipart/form-data; boundary=x"],
        ["Content-Type: application/json", f"Cookie: token={TOKEN}"],
        ["Content-Type: application/json", f"X-Authorization: Bearer {TOKEN}"],
        ["Content-Type: application/json", f"Authorization: Basic {TOKEN}"],
    ],
)
async def test_a_post_from_a_foreign_page_changes_nothing(
    database: Database, tmp_path: Path, headers: list[str]
) -> None:
    """CSRF: nothing that a browser adds by itself is a right here."""
    body = json.dumps({"name": "forged", "kind": "none"}).encode()
    async with api(database.dsn, tmp_path) as it:
        origin = ["Origin: https://evil.example", "Sec-Fetch-Site: cross-site", "Host: 127.0.0.1", *headers]
        for target in ("/v1/sources", f"/v1/sources?token={TOKEN}", f"/v1/sources?authorization=Bearer%20{TOKEN}"):
            status, head, _ = await asked(it, [f"POST {target} HTTP/1.1", *origin], body=body)
            assert status == 401 and "access-control" not in head and "set-cookie" not in head
        assert (await it.get("/v1/sources")).json["items"] == []


async def test_a_preflight_of_a_foreign_page_is_refused(database: Database, tmp_path: Path) -> None:
    lines = ["Host: 127.0.0.1", "Origin: https://evil.example", "Access-Control-Request-Method: DELETE",
             "Access-Control-Request-Headers: authorization"]  # fmt: skip
    async with api(database.dsn, tmp_path) as it:
        for path in ("/v1/sources", "/v1/sources/x", "/v1/events", "/metrics", "/openapi.json"):
            status, head, _ = await asked(it, [f"OPTIONS {path} HTTP/1.1", *lines])
            assert status == 405 and "access-control" not in head, path
            status, head, _ = await asked(it, [f"GET {path} HTTP/1.1", *lines])
            assert "access-control" not in head, path


@pytest.mark.parametrize(
    "path",
    ["/v1/../admin.token", "/v1/events/..%2f..%2fadmin.token/raw", "/v1/sources/..", "/v1/sources/%2e%2e%2fkey/rotate",
     "/v1/events/%00/raw", "//etc/passwd", "/v1/sources/a%0d%0aX-Evil:1/rotate", "/static/../key",
     "/v1/runs/../../key"],
)  # fmt: skip
async def test_a_path_leads_to_no_file_and_no_header(database: Database, tmp_path: Path, path: str) -> None:
    async with api(database.dsn, tmp_path) as it:
        for method in ("GET", "POST"):
            got = await it.call(method, path, data=b"{}" if method == "POST" else None)
            assert got.status in (404, 405, 422) and is_problem(got, got.status)
            assert "x-evil" not in got.headers


async def test_a_hostile_body_is_refused_in_words(database: Database, tmp_path: Path) -> None:
    hostile = [
        b"[" * 30_000, b'{"name":' + b'"a' * 20_000, b'{"name":"a","kind":"none","tenant_id":"x","role":"admin"}',
        b'{"name":"\\u0000","kind":"none"}', b'{"name":"\\ud800","kind":"none"}', b"\xff\xfe", b"NaN", b"1e999",
        b'{"name":"' + b"9" * 50_000 + b'","kind":"none"}', b'{"name":"a","name":"b","kind":"x"}', b"",
        b'{"name":"a","kind":"none","settings":{"body_bytes_max":1e400}}',
        b'{"name":"a","kind":"none","settings":' + b'{"a":' * 5000 + b"1" + b"}" * 5000 + b"}",
        b'{"name":"a","kind":"github","secret":"\\ud800"}', b'{"name":"../a","kind":"none"}',
    ]  # fmt: skip
    async with api(database.dsn, tmp_path) as it:
        for body in hostile:
            got = await it.call("POST", "/v1/sources", data=body)
            assert 400 <= got.status < 500 or (got.status == 201 and b"ud800" in body), body[:60]
            assert got.status == 201 or is_problem(got, got.status)
            assert b"Traceback" not in got.body and b"/src/" not in got.body
        assert len((await it.get("/v1/sources")).json["items"]) <= 1


async def test_pages_forbid_what_a_browser_would_guess(database: Database, tmp_path: Path) -> None:
    async with api(database.dsn, tmp_path) as it:
        for got in (
            await it.get("/v1/events"),
            await it.get("/nowhere"),
            await it.call("GET", "/v1/events", token=None),
        ):
            assert got.headers["x-content-type-options"] == "nosniff"
            assert got.headers["cache-control"] == "no-store"
            assert "default-src 'none'" in got.headers["content-security-policy"]
            assert "server" not in got.headers
