"""Shipped steps can't be turned against the inside (server-side request forgery). A canary listens on loopback, and on
every way to it that has been used elsewhere it must see no connection at all."""

from __future__ import annotations

import asyncio
import gzip
import sys
import tracemalloc
import zlib
from collections.abc import AsyncIterator, Iterator, Sequence
from ipaddress import ip_address, ip_network

import pytest

from seawall.kernel.error import Misconfigured
from seawall.step import Settings, StepDeclined, StepRefused, StepUnavailable, http_request
from seawall.step.reach import Reach
from step.rig import Request, Server, Write, answer, has_v6, serving, toolbox

PUBLIC = "198.41.0.4"  # never connected to: each test that names it is refused before
CONNECTED: list[object] = []


def _heard(event: str, args: tuple[object, ...]) -> None:
    if event == "socket.connect":
        CONNECTED.append(args[1])


sys.addaudithook(_heard)


@pytest.fixture
def connected() -> Iterator[list[object]]:
    """Every address that this process connects to, as Python's own audit says it."""
    CONNECTED.clear()
    yield CONNECTED
    CONNECTED.clear()


@pytest.fixture
async def canary() -> AsyncIterator[Server]:
    """Nobody may come here."""
    async with serving(hosts=("127.0.0.1", "::1") if has_v6() else ("127.0.0.1",)) as made:
        yield made


HOSTS = [
    "127.0.0.1", "2130706433", "0x7f.1", "0177.0.0.1", "127.1", "0x7f000001", "017700000001", "0x7f.0x0.0x0.0x1",
    "127.0.1", "0", "0.0.0.0", "127.000.000.001", "127.255.255.254", "[::1]", "[::]", "[0:0:0:0:0:0:0:1]",
    "[::ffff:127.0.0.1]", "[::ffff:7f00:1]", "[::127.0.0.1]", "[::ffff:0:7f00:1]", "[64:ff9b::7f00:1]",
    "[64:ff9b::127.0.0.1]", "[64:ff9b:1::7f00:1]", "[2002:7f00:1::]", "[2001::7f00:1]", "[fe80::1%25lo]",
    "[fe80::1%lo]", "[fe80::1]", "[::1%25lo]", "localhost", "LOCALHOST", "localhost.", "①②⑦.0.0.1",
    "127。0。0。1", "１２７.0.0.1",
    "a@127.0.0.1", "a:b@127.0.0.1", "example.com@127.0.0.1", "127.0.0.1%2f", "127.0.0.1%00", "127.0.0.1\\@example.com",
    "169.254.169.254", "[fd00:ec2::254]", "10.0.0.1", "172.16.0.1", "192.168.0.1", "100.64.0.1", "[fc00::1]",
    "[ff02::1]", "255.255.255.255", "224.0.0.1", "192.0.0.192", "198.18.0.1", "[100::1]", "[5f00::1]", "[2001:db8::1]",
    "[3fff::1]",
]  # fmt: skip


@pytest.mark.parametrize("host", HOSTS)
async def test_no_spelling_of_an_inner_address_is_connected_to(
    host: str, canary: Server, connected: list[object]
) -> None:
    async with toolbox(allow=()):
        for url in (f"http://{host}:{canary.port}/latest", f"https://{host}:{canary.port}/"):
            with pytest.raises(StepRefused):
                await http_request("GET", url)
    assert canary.connections == 0 and connected == []


@pytest.mark.parametrize(
    "url",
    ["unix:///run/x.sock", "file:///etc/passwd", "gopher://127.0.0.1:{}/_GET", "ftp://127.0.0.1:{}/", "dict://127.0.0.1:{}/",
     "//127.0.0.1:{}/", "127.0.0.1:{}", "http:127.0.0.1:{}", "http:/127.0.0.1:{}/", "http:///127.0.0.1:{}/",
     "http://\t127.0.0.1:{}/", " http://127.0.0.1:{}/", "http://127.0.0.1:{}\r\nHost: x/", "http+unix://x/",
     "http://x:{}#@127.0.0.1/", "http://127.0.0.1:0/", "http://127.0.0.1:99999/", "http://[::1/", "http://::1:{}/", ""],
)  # fmt: skip
async def test_only_whole_http_urls_are_read(url: str, canary: Server, connected: list[object]) -> None:
    async def resolve(host: str, port: int) -> Sequence[str]:
        return ["127.0.0.1"]

    async with toolbox(allow=(), resolve=resolve):
        with pytest.raises(StepRefused):
            await http_request("GET", url.format(canary.port))
    assert canary.connections == 0 and connected == []


@pytest.mark.parametrize(
    "addresses",
    [["127.0.0.1"], [PUBLIC, "127.0.0.1"], ["127.0.0.1", PUBLIC], [PUBLIC, "::1"], [PUBLIC, "::ffff:127.0.0.1"],
     [PUBLIC, "64:ff9b::7f00:1"], [PUBLIC, "fe80::1%lo"], [PUBLIC, "10.0.0.1"], [PUBLIC] * 9 + ["127.0.0.1"], ["no"]],
    ids=str,
)  # fmt: skip
async def test_a_name_with_any_inner_address_is_refused_as_a_whole(
    addresses: list[str], canary: Server, connected: list[object]
) -> None:
    async def resolve(host: str, port: int) -> Sequence[str]:  # as a CNAME to an inner name ends, too
        return addresses

    async with toolbox(allow=(), resolve=resolve):
        with pytest.raises(StepRefused):
            await http_request("GET", f"http://rebound.example:{canary.port}/")
    assert canary.connections == 0 and connected == []


async def test_a_name_that_is_rebound_between_check_and_use_leads_nowhere(connected: list[object]) -> None:
    """127.0.0.2 stands for a public address, opened by the installation; 127.0.0.1 is the inside."""
    answers = [["127.0.0.2"], ["127.0.0.1"]]
    asked = []

    async def resolve(host: str, port: int) -> Sequence[str]:  # TTL 0: another answer each time
        asked.append(host)
        return answers[len(asked) - 1]

    async with serving() as canary, serving(hosts=("127.0.0.2",), port=canary.port) as outside:
        async with toolbox(allow=("127.0.0.2/32",), resolve=resolve):
            url = f"http://rebound.example:{canary.port}/"
            assert (await http_request("GET", url))["status"] == 200
            assert asked == ["rebound.example"], "it was looked up once, and that very address was connected to"
            assert connected == [("127.0.0.2", canary.port)]
            with pytest.raises(StepRefused):
                await http_request("GET", url)
        assert (canary.connections, outside.connections) == (0, 1)
        assert outside.requests[0].headers["host"] == f"rebound.example:{canary.port}"


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_no_redirect_is_followed(status: int, canary: Server) -> None:
    said = answer(status, location=canary.url())
    async with serving(said, hosts=("127.0.0.2",)) as outside, toolbox(allow=("127.0.0.2/32",)):
        url = outside.url(host="127.0.0.2")
        with pytest.raises(StepDeclined, match=r"redirects aren't followed") as caught:
            await http_request("GET", url)
        assert caught.value.status == status
        assert (await http_request("GET", url, accept=(status,)))["status"] == status, "it is a result when asked for"
    assert canary.connections == 0


async def test_no_proxy_of_the_environment_is_used(canary: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.setenv(name, canary.url())
        monkeypatch.setenv(name.upper(), canary.url())
    async with serving(hosts=("127.0.0.2",)) as outside, toolbox(allow=("127.0.0.2/32",)):
        assert (await http_request("GET", outside.url(host="127.0.0.2")))["status"] == 200
    assert canary.connections == 0


async def test_our_own_listeners_stay_closed_when_their_network_is_opened(
    canary: Server, connected: list[object]
) -> None:
    async with toolbox(own_ports=lambda: {canary.port}):
        for host in ("127.0.0.1", "localhost", "[::ffff:127.0.0.1]"):
            with pytest.raises(StepRefused):
                await http_request("POST", canary.url("/v1/sources", host=host))
    assert canary.connections == 0 and connected == []


async def test_only_the_listed_ports_are_called(canary: Server, connected: list[object]) -> None:
    async with toolbox(ports=("443", "9000-9010")):
        with pytest.raises(StepRefused, match=r"step\.ports"):
            await http_request("GET", canary.url())
    assert canary.connections == 0 and connected == []


def test_every_special_network_is_refused_at_both_of_its_ends() -> None:
    """The list of the design, held beside the code's own."""
    reach = Reach(Settings())
    for text in (
        "0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12", "192.0.0.0/24",
        "192.0.2.0/24", "192.88.99.0/24", "192.168.0.0/16", "198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24",
        "224.0.0.0/4", "240.0.0.0/4", "255.255.255.255/32", "::/128", "::1/128", "fe80::/10", "fc00::/7", "ff00::/8",
        "2001:db8::/32", "3fff::/20", "100::/64", "5f00::/16", "2002::/16", "64:ff9b::/96", "64:ff9b:1::/48",
        "::ffff:10.0.0.0/104", "fd00:ec2::254/128", "2001::/32", "::/96", "fec0::/10", "4000::/3",
    ):  # fmt: skip
        network = ip_network(text)
        for address in (network[0], network[-1]):
            with pytest.raises(StepRefused):
                reach.check(str(address), 443, "x.example")
    for address in (PUBLIC, "2606:4700::1111", "172.32.0.1", "100.128.0.1", "::ffff:198.41.0.4"):
        found = reach.check(address, 443, "x.example")
        assert found == (getattr(ip_address(address), "ipv4_mapped", None) or ip_address(address))


def test_an_opened_network_opens_no_other_spelling_and_a_denied_one_wins() -> None:
    reach = Reach(Settings(allow=("127.0.0.0/8", "10.1.0.0/16"), deny=("10.1.9.0/24", "198.41.0.0/24")))
    assert str(reach.check("::ffff:10.1.2.3", 443, "x")) == "10.1.2.3"
    for address in ("64:ff9b::a01:203", "10.2.0.1", "10.1.9.1", PUBLIC, "2002:7f00:1::", "::127.0.0.1"):
        with pytest.raises(StepRefused):
            reach.check(address, 443, "x")


def test_networks_and_ports_that_are_none_are_refused_at_the_start() -> None:
    with pytest.raises(Misconfigured) as caught:
        Settings(allow=("10.0.0.1/8", "inner"), deny=("x",), ports=("0", "9-8", "http"), slack_url="ftp://x")
    assert len(caught.value.problems) == 7


# ── What comes back ──────────────────────────────────────────────────────────────────────────────────────────────────


def bomb(bytes_: int) -> bytes:
    packer = zlib.compressobj(9, wbits=31)
    block = b"\0" * (1 << 20)
    return b"".join([*(packer.compress(block) for _ in range(bytes_ >> 20)), packer.flush()])


async def endless(request: Request, write: Write) -> None:
    await write(b"HTTP/1.1 200 OK\r\nContent-Length: 10000000000\r\n\r\n")
    while True:
        await write(b"x" * 65536)


async def chunks(request: Request, write: Write) -> None:
    await write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    while True:
        await write(b"1000\r\n" + b"x" * 4096 + b"\r\n")


async def empties(request: Request, write: Write) -> None:
    """Packed parts that hold nothing, without end."""
    await write(b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\n\r\n")
    while True:
        await write(gzip.compress(b"") * 1000)


async def test_a_body_of_any_length_is_cut_at_the_limit() -> None:
    packed = bomb(256 << 20)
    for says in (
        endless,
        chunks,
        answer(200, packed, content_encoding="gzip"),
        answer(200, gzip.compress(b"x" * 40_000) * 30, content_encoding="gzip"),
        empties,
    ):
        async with serving(says) as server, toolbox(response_bytes_max=1 << 20):
            tracemalloc.start()
            with pytest.raises(StepDeclined, match="larger than 1048576 bytes"):
                await http_request("GET", server.url())
            _, most = tracemalloc.get_traced_memory()
            tracemalloc.stop()
            assert most < 8 << 20, "no more than a few times the limit is ever in memory"


async def head_without_end(request: Request, write: Write) -> None:
    await write(b"HTTP/1.1 200 OK\r\n")
    while True:
        await write(b"x-more: " + b"y" * 4000 + b"\r\n")


async def interim_without_end(request: Request, write: Write) -> None:
    while True:
        await write(b"HTTP/1.1 103 Early\r\nlink: x\r\n\r\n")


@pytest.mark.parametrize("says", [head_without_end, interim_without_end])
async def test_a_head_without_end_is_cut_long_before_the_deadline(says: object) -> None:
    async with serving(says) as server, toolbox():  # type: ignore[arg-type]
        tracemalloc.start()
        with pytest.raises(StepUnavailable, match="is no HTTP answer"):
            await http_request("GET", server.url(), timeout_s=20)
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert most < 4 << 20


@pytest.mark.parametrize(
    "says",
    [b"", b"\0" * 1000, b"HTTP/1.1 200 OK\r\n", b"HTTP/x 200\r\n\r\n",
     b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
     b"HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\nhello", b"HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\nhello",
     b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", b"HTTP/1.1 101 Switch\r\nupgrade: x\r\n\r\n",
     b"HTTP/1.1 200 OK\r\nx: a\0b\r\n\r\n", answer(200, b"junk", content_encoding="gzip"),
     answer(200, gzip.compress(b"x" * 999)[:-9], content_encoding="gzip")],
    ids=lambda says: getattr(says, "__name__", repr(says)[:30]),
)  # fmt: skip
async def test_what_is_no_whole_answer_is_a_failure_that_says_it_may_have_happened(says: object) -> None:
    async with serving(says) as server, toolbox():  # type: ignore[arg-type]
        with pytest.raises(StepUnavailable) as caught:
            await http_request("POST", server.url(), timeout_s=5)
        assert caught.value.sent and "127.0.0.1" in str(caught.value)


async def drip(request: Request, write: Write) -> None:
    await write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
    while True:
        await write(b"x")
        await asyncio.sleep(0.01)


async def silence(request: Request, write: Write) -> None:
    await asyncio.Event().wait()


@pytest.mark.parametrize("says", [drip, silence])
async def test_an_answer_that_never_ends_is_cut_at_the_deadline(says: object) -> None:
    async with serving(says) as server, toolbox():  # type: ignore[arg-type]
        with pytest.raises(StepUnavailable, match=r"didn't answer within 1 s"):
            await http_request("GET", server.url(), timeout_s=1.0)


async def test_a_name_server_that_never_answers_costs_the_connection_deadline_and_nobody_else() -> None:
    async def resolve(host: str, port: int) -> Sequence[str]:
        if host.startswith("slow"):
            await asyncio.Event().wait()
        return ["127.0.0.1"]

    async with serving() as server, toolbox(resolve=resolve, connect_s=1.5):
        slow = asyncio.create_task(http_request("GET", server.url(host="slow.example")))
        assert (await http_request("GET", server.url(host="quick.example")))["status"] == 200
        with pytest.raises(StepUnavailable, match="no connection"):
            await slow


@pytest.mark.parametrize(
    "headers",
    [{"x": "a\r\nHost: inside"}, {"x": "a\nb"}, {"x": "a\0b"}, {"x: y\r\nz": "1"}, {"": "x"}, {"x": "é€"}, {"x": " a"},
     {"Host": "inside"}, {"Content-Length": "0"}, {"Transfer-Encoding": "chunked"}, {"Connection": "keep-alive"},
     {"Expect": "100-continue"}, {"Upgrade": "h2c"}, {"x": "y" * 9000}, {"x": 7}],
    ids=str,
)  # fmt: skip
async def test_no_header_can_frame_or_split_a_request(headers: dict[str, str], connected: list[object]) -> None:
    async with serving() as server, toolbox():
        with pytest.raises(StepRefused):
            await http_request("GET", server.url(), headers=headers)
    assert server.connections == 0 and connected == []


@pytest.mark.parametrize("method", ["CONNECT", "TRACE", "get", "GET / HTTP/1.1\r\nx: y\r\n\r\nGET", ""])
async def test_only_plain_methods_are_sent(method: str) -> None:
    async with serving() as server, toolbox():
        with pytest.raises(StepRefused):
            await http_request(method, server.url())
    assert server.connections == 0
