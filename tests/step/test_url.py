"""A URL is read in one way, or not at all."""

from __future__ import annotations

import pytest

from seawall.step import StepRefused
from seawall.step.reach import Reach
from seawall.step.setting import Settings
from seawall.step.url import Target, parse


@pytest.mark.parametrize(
    "host",
    ["2130706433", "0x7f.1", "0177.0.0.1", "127.1", "0x7f000001", "0x", "127.0.0.01", "256.0.0.1", "1.2.3.4.5", "x.0",
     "[fe80::1%25lo]", "[2606:4700::1%eth0]", "[::1%25lo]", "[127.0.0.1]", "[]", "", ".", "a..b", "-a.b", "a-.b", "a b",
     "x" * 64, ".".join(["x" * 60] * 5), "a%2eb", "é.com", "a:b", "[::1]x", "x[::1]"],
)  # fmt: skip
def test_what_is_neither_a_name_nor_a_plain_address_is_no_host(host: str) -> None:
    assert isinstance(parse(f"http://{host}/"), str)


@pytest.mark.parametrize("authority", ["a@b", "a:b@c", "@c", "a@", "a@b@c"])
def test_a_user_or_password_is_refused_in_words_that_quote_nothing(authority: str) -> None:
    said = parse(f"https://{authority}/path")
    assert isinstance(said, str) and "user or password" in said and authority not in said


@pytest.mark.parametrize(
    ("url", "host", "port", "path", "header"),
    [
        ("http://Example.COM", "example.com", 80, "/", "example.com"),
        ("HTTPS://example.com.:443?a=b#c", "example.com", 443, "/?a=b", "example.com"),
        ("http://example.com:8080/a/../b", "example.com", 8080, "/a/../b", "example.com:8080"),
        ("http://[2606:4700:0:0::1]:81/", "2606:4700::1", 81, "/", "[2606:4700::1]:81"),
        ("http://192.0.2.1/", "192.0.2.1", 80, "/", "192.0.2.1"),
        ("http://_a.xn--p1ai/", "_a.xn--p1ai", 80, "/", "_a.xn--p1ai"),
    ],
)
def test_a_url_in_parts(url: str, host: str, port: int, path: str, header: str) -> None:
    found = parse(url)
    assert isinstance(found, Target)
    assert (found.host, found.port, found.path, found.host_header) == (host, port, path, header)
    assert found.tls is (found.port == 443)


def test_an_address_with_a_zone_is_refused_though_it_is_public() -> None:
    with pytest.raises(StepRefused, match="zone"):
        Reach(Settings()).check("2606:4700::1%eth0", 443, "x")
