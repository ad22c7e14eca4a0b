"""429: for a source, for a tenant, and for who reads too much; what it says, and who is not harmed by it."""

from __future__ import annotations

import json
import re
import time
from dataclasses import replace
from pathlib import Path

import pytest

from seawall.collector.setting import choice
from seawall.kernel import signature
from seawall.kernel.error import Misconfigured
from seawall.kernel.event import id_text

from .rig import QUICK, Answered, Client, SourceTable, client, request, running, until

SLOW = '{"rate_per_s":0.01,"burst":2}'


async def ask(c: Client, raw: bytes) -> Answered:
    await c.send(raw)
    answer = await c.answer()
    assert answer is not None
    return answer


def limited(settings: str = SLOW, **row: object) -> SourceTable:
    sources = SourceTable()
    sources.add("tok", settings=settings, **row)  # type: ignore[arg-type]
    sources.add("free")
    return sources


async def test_a_source_over_its_rate_is_429_and_others_are_not(tmp_path: Path) -> None:
    async with running(tmp_path, sources=limited()) as rig, client(rig) as c:
        assert [(await ask(c, request(body=b"x"))).status for _ in range(3)] == [202, 202, 429]
        assert (await ask(c, request("/in/free", b"x"))).status == 202
        assert len(rig.records) == 3
        assert rig.count("seawall_rate_limited_total", by="source") == 1


async def test_what_a_429_says(tmp_path: Path) -> None:
    settings = replace(QUICK, tenant_rate_per_s=100.0, tenant_burst=200)
    async with running(tmp_path, sources=limited(), settings=settings) as rig, client(rig) as c:
        for _ in range(2):
            await ask(c, request(body=b"x"))
        answer = await ask(c, request(body=b"x"))
        assert answer.headers["ratelimit-policy"] == '"source";q=2;w=200, "tenant";q=200;w=2'
        [(left, t)] = re.findall(r'"source";r=(\d+);t=(\d+)', answer.headers["ratelimit"])
        assert (left, 98 <= int(t) <= 100) == ("0", True)
        # Nobody who follows the one comes before the other.
        assert int(t) <= int(answer.headers["retry-after"]) <= 151
        assert answer.headers["content-type"] == "application/problem+json"
        assert json.loads(answer.body)["status"] == 429


async def test_a_tenants_sources_share_its_rate(tmp_path: Path) -> None:
    settings = replace(QUICK, tenant_rate_per_s=0.01, tenant_burst=3)
    sources = SourceTable()
    sources.add("a")
    sources.add("b")
    async with running(tmp_path, sources=sources, settings=settings) as rig, client(rig) as c:
        told = [(await ask(c, request(f"/in/{t}", b"x"))).status for t in "aabb"]
        assert told == [202, 202, 202, 429]
        assert rig.count("seawall_rate_limited_total", by="tenant") == 1
        rig.collector.reload(replace(settings, tenant_rate_per_s=0.0, tenant_burst=0))
        assert (await ask(c, request("/in/b", b"x"))).status == 202
        rig.collector.reload(settings)
        assert (await ask(c, request("/in/b", b"x"))).status == 429


async def test_only_verified_events_spend_an_allowance(tmp_path: Path) -> None:
    def signed(body: bytes) -> bytes:
        return request(
            body=body, headers=dict(signature.sign("standard", secret, body, time.time(), id=f"id-{body!r:.9}"))
        )

    secret = b"whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
    async with running(tmp_path, sources=limited(kind="standard", secret=secret)) as rig, client(rig) as c:
        for _ in range(5):
            assert (await ask(c, request(body=b"forged"))).status == 401
        one = request(body=b"1", headers=dict(signature.sign("standard", secret, b"1", time.time(), id="one")))
        assert [(await ask(c, one)).status for _ in range(4)] == [202, 200, 200, 200]
        two, three = (
            request(body=b, headers=dict(signature.sign("standard", secret, b, time.time(), id=f"id-{b.decode()}")))
            for b in (b"2", b"3")
        )
        assert [(await ask(c, two)).status, (await ask(c, three)).status] == [202, 429]


async def test_a_body_that_would_be_refused_is_not_asked_for(tmp_path: Path) -> None:
    async with running(tmp_path, sources=limited()) as rig, client(rig) as c:
        for _ in range(2):
            await ask(c, request(body=b"x"))
        raw = b"POST /in/tok HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: 1000\r\n\r\n"
        assert (await ask(c, raw)).status == 429


async def test_a_sources_429_is_503_while_its_rate_may_have_been_raised(tmp_path: Path) -> None:
    settings = replace(QUICK, stale_s=0.3, tenant_rate_per_s=0.01, tenant_burst=4)
    async with running(tmp_path, sources=limited(), settings=settings) as rig, client(rig) as c:
        assert [(await ask(c, request(body=b"x"))).status for _ in range(3)] == [202, 202, 429]
        rig.sources.away = True
        await until(lambda: rig.snapshot.stale)
        assert (await ask(c, request(body=b"x"))).status == 503
        # A tenant's rate is a setting of this process: nothing about it can be old.
        assert [(await ask(c, request("/in/free", b"x"))).status for _ in range(3)] == [202, 202, 429]


async def test_reads_of_one_address_are_bounded(tmp_path: Path) -> None:
    settings = replace(QUICK, look_up_rate_per_s=0.01, look_up_burst=3)
    async with running(tmp_path, settings=settings) as rig, client(rig) as c:
        await ask(c, request(body=b"x"))
        path = f"/in/events/{id_text(rig.records[0].id)}"
        told = [(await ask(c, request(path, method="GET"))).status for _ in range(2)]
        told += [(await ask(c, request("/in/tickets/guess", method="GET"))).status for _ in range(2)]
        assert told == [202, 202, 404, 429]
        answer = await ask(c, request(path, method="GET"))
        assert answer.headers["ratelimit"].startswith('"address";r=0;t=')
        assert (await ask(c, request(body=b"x"))).status == 202
        rig.collector.reload(replace(settings, look_up_rate_per_s=0.0))
        assert (await ask(c, request(path, method="GET"))).status == 202


@pytest.mark.parametrize(
    "settings",
    ['{"rate_per_s":-1}', '{"burst":5}', '{"rate_per_s":2000000}', '{"rate_per_s":1,"burst":-1}',
     '{"rate_per_s":1e-300}', '{"rate_per_s":1e-5}'],
)  # fmt: skip
def test_rates_that_can_not_be_meant_are_refused(settings: str) -> None:
    with pytest.raises(ValueError, match=r"rate_per_s|burst"):
        choice(settings)


def test_a_rate_of_less_than_one_a_day_is_refused_in_the_collectors_settings_too() -> None:
    with pytest.raises(Misconfigured, match=r"look_up_rate_per_s.*tenant_rate_per_s"):
        replace(QUICK, tenant_rate_per_s=1e-300, look_up_rate_per_s=1e-5)


async def test_the_slowest_rate_tells_a_moment_that_senders_can_keep(tmp_path: Path) -> None:
    sources = SourceTable()
    sources.add("tok", settings='{"rate_per_s":0.0000116}')
    async with running(tmp_path, sources=sources) as rig, client(rig) as c:
        told = [await ask(c, request(body=b"x")) for _ in range(2)]
        assert [one.status for one in told] == [202, 429]
        assert 86_000 < int(told[-1].headers["retry-after"]) <= 1.5 * 86_400
