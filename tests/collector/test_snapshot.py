"""What the collector knows of sources when the store is away, slow, or newer."""

from __future__ import annotations

import asyncio
import re
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from seawall.guard import patience
from seawall.store.source import Edition, Loaded

from .rig import QUICK, SourceTable, client, request, running, until


async def status_of(rig: object, raw: bytes) -> int:
    async with client(rig) as c:  # type: ignore[arg-type]
        await c.send(raw)
        answer = await c.answer()
        assert answer is not None
        return answer.status


async def test_a_restart_with_the_store_away_still_knows_every_source(tmp_path: Path) -> None:
    sources = SourceTable()
    sources.add("tok", kind="bearer", secret=b"s3cret-s3cret")
    async with running(tmp_path, sources=sources) as rig:
        await until(lambda: "c1" in sources.heard)
        version = rig.snapshot.version
    sources.away = True
    good = request(body=b"x", headers={"Authorization": "Bearer s3cret-s3cret"})
    async with running(tmp_path, sources=sources, ready=False) as rig:
        assert rig.snapshot.version == version
        assert await status_of(rig, good) == 202
        # Refusals could be wrong by now: the source may have a newer secret, or exist.
        assert await status_of(rig, request(body=b"x")) == 503
        assert await status_of(rig, request("/in/other", b"x")) == 503
        sources.away = False
        await until(lambda: not rig.snapshot.stale)
        assert await status_of(rig, request(body=b"x")) == 401
        assert await status_of(rig, request("/in/other", b"x")) == 404


async def test_the_copy_on_disk_tells_no_secret(tmp_path: Path) -> None:
    sources = SourceTable()
    sources.add("tok-tok-tok", kind="github", secret=b"s3cret-s3cret", name="a-telling-name")
    async with running(tmp_path, sources=sources):
        await until(lambda: "c1" in sources.heard)
        copy = (tmp_path / "snapshot").read_bytes()
    assert (tmp_path / "snapshot").stat().st_mode & 0o777 == 0o600
    for word in (b"s3cret", b"tok-tok", b"telling"):
        assert word not in copy


@pytest.mark.parametrize("damage", [b"", b"\x01" + bytes(60), b"garbage"])
async def test_a_damaged_copy_is_left_out_and_replaced(
    damage: bytes, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "snapshot").write_bytes(damage)
    async with running(tmp_path) as rig:
        assert await status_of(rig, request(body=b"x")) == 202
        await until(lambda: "c1" in rig.sources.heard)
    assert any("copy can't be read" in r.getMessage() for r in caplog.records)
    assert (tmp_path / "snapshot").read_bytes() != damage


async def test_never_loaded_is_503_for_everybody_and_alive(tmp_path: Path) -> None:
    sources = SourceTable()
    sources.away = True
    async with running(tmp_path, sources=sources, ready=False) as rig:
        assert await status_of(rig, request(body=b"x")) == 503
        assert await status_of(rig, request("/livez", method="GET")) == 200


async def test_refusals_become_503_when_the_snapshot_is_stale(tmp_path: Path) -> None:
    settings = replace(QUICK, stale_s=0.3)
    sources = SourceTable()
    sources.add("tok", settings='{"body_bytes_max":3,"content_types":["a/b"]}')
    sources.add("gone", removed=True)
    refused = {
        "404": request("/in/no", b"x"), "410": request("/in/gone", b"x"), "415": request(body=b"x"),
        "413": request(body=b"xxxx", headers={"Content-Type": "a/b"}),
    }  # fmt: skip
    async with running(tmp_path, settings=settings, sources=sources) as rig:
        for status, raw in refused.items():
            assert await status_of(rig, raw) == int(status)
        sources.away = True
        await until(lambda: rig.snapshot.stale)
        for raw in refused.values():
            assert await status_of(rig, raw) == 503
        assert await status_of(rig, request(body=b"x", headers={"Content-Type": "a/b"})) == 202
        # What no configuration could change stays what it is.
        assert await status_of(rig, request(method="GET")) == 405
        assert await status_of(rig, b"POST /in/tok HTTP/1.1\r\n\r\n") == 400


HEAD = b"POST /in/tok HTTP/1.1\r\nHost: h\r\n"
BY_CONFIGURATION = {
    "401": request("/in/signed", b"x"),
    "404": request("/in/no", b"x"),
    "410": request("/in/gone", b"x"),
    "413": request(body=b"x" * 11),
    "413, chunked": HEAD + b"Transfer-Encoding: chunked\r\n\r\nb\r\n" + b"x" * 11 + b"\r\n0\r\n\r\n",
    "415": request("/in/typed", b"x"),
    "422 not JSON": request("/in/json", b"x"),
    "422 no key": request("/in/json", b"{}"),
    "400 no key": request("/in/keyed", b"x"),
    "429": request("/in/slow", b"x"),
}
BY_NOTHING = {
    "405": request(method="GET"),
    "405 ": request(method="PUT"),
    "400": b"POST /in/tok HTTP/1.1\r\n\r\n",
    "401": request("/v1/events", b"x"),
    "413": HEAD + b"Content-Length: 99999999\r\n\r\n",
    "414": request("/in/tok?" + "x" * 9000),
    "417": HEAD + b"Expect: tea\r\nContent-Length: 0\r\n\r\n",
    "431": request(headers={f"X-{n}": "" for n in range(200)}),
}


async def test_which_sources_are_ordered_is_known_also_after_a_restart_without_the_store(tmp_path: Path) -> None:
    sources = SourceTable()
    ledger = sources.add("ledger", settings='{"ordered":true}')
    sources.add("shop")
    async with running(tmp_path, sources=sources) as rig:
        await until(lambda: "c1" in sources.heard)
        assert rig.snapshot.ordered == {ledger.id}
    sources.away = True
    async with running(tmp_path, sources=sources, ready=False) as rig:
        assert rig.snapshot.ordered == {ledger.id}


async def test_each_refusal_that_configuration_decides_is_503_while_it_is_old(tmp_path: Path) -> None:
    settings = replace(QUICK, stale_s=0.4)
    sources = SourceTable()
    sources.add("tok", settings='{"body_bytes_max":10}')
    sources.add("signed", kind="bearer", secret=b"s3cret")
    sources.add("gone", removed=True)
    sources.add("typed", settings='{"content_types":["a/b"]}')
    sources.add("json", settings='{"require_json":true,"dedupe":{"paths":["/id"],"required":true}}')
    sources.add("keyed", settings='{"dedupe":{"header":"X-Id","required":true}}')
    sources.add("slow", settings='{"rate_per_s":0.001}')
    async with running(tmp_path, settings=settings, sources=sources) as rig:
        assert await status_of(rig, request("/in/slow", b"x")) == 202
        for table in (BY_CONFIGURATION, BY_NOTHING):
            assert {name: await status_of(rig, raw) for name, raw in table.items()} == {n: int(n[:3]) for n in table}
        sources.away = True
        await until(lambda: rig.snapshot.stale)
        for name, raw in BY_CONFIGURATION.items():
            async with client(rig) as c:
                await c.send(raw)
                answer = await c.answer()
                assert answer is not None
                assert (name, answer.status) == (name, 503)
                # Certainly nothing was stored, and the sender knows when to try again.
                assert int(answer.headers["retry-after"]) >= 1
                assert "seawall-outcome" not in answer.headers
        assert {name: await status_of(rig, raw) for name, raw in BY_NOTHING.items()} == {
            n: int(n[:3]) for n in BY_NOTHING
        }
        assert await status_of(rig, request(body=b"x")) == 202
        sources.away = False
        await until(lambda: not rig.snapshot.stale)
        assert await status_of(rig, BY_CONFIGURATION["404"]) == 404


async def test_a_body_that_only_its_new_source_allows_is_not_413(tmp_path: Path) -> None:
    settings = replace(QUICK, refresh_s=0.5, body_bytes_max=1000)
    async with running(tmp_path, settings=settings) as rig:
        rig.snapshot._tried_at = float("-inf")
        rig.sources.add("fresh", settings='{"body_bytes_max":5000}')
        assert await status_of(rig, request("/in/fresh", b"x" * 4000)) == 202
        assert await status_of(rig, request("/in/fresh", b"x" * 5001)) == 413
        rig.snapshot._tried_at = float("-inf")
        assert await status_of(rig, request("/in/none", b"x" * 4000)) == 404


async def test_a_new_source_is_known_within_a_refresh_and_said_to_be_live(tmp_path: Path) -> None:
    async with running(tmp_path) as rig:
        added = rig.sources.add("fresh")
        await until(lambda: rig.sources.heard.get("c1", 0) >= added.version)
        assert await status_of(rig, request("/in/fresh", b"x")) == 202
        rig.sources.add("tok", removed=True)
        await until(lambda: rig.sources.heard["c1"] == rig.sources.now)
        assert await status_of(rig, request(body=b"x")) == 410
    assert rig.sources.heard == {}, "a stopped collector is waited for"


async def test_one_whose_answer_breaks_costs_no_other_that_waits_its_own(tmp_path: Path) -> None:
    async with running(tmp_path) as rig:
        heard = list[int]()
        for number in range(3):
            rig.snapshot.ask(lambda number=number: heard.append(1 // number))  # type: ignore[misc]
        await until(lambda: len(heard) == 2)
        assert all(loop.restarts == 0 for loop in rig.supervisor.health())


async def test_an_unknown_token_asks_the_store_once(tmp_path: Path) -> None:
    settings = replace(QUICK, refresh_s=0.5)
    async with running(tmp_path, settings=settings) as rig:
        await asyncio.sleep(0.05)
        rig.snapshot._tried_at = float("-inf")
        rig.sources.add("fresh")
        before = rig.sources.versions
        # Its body is here before the store has answered, and the client asked for leave to send it.
        async with client(rig) as c:
            await c.send(b"POST /in/fresh HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: 1\r\n\r\n")
            answer = await c.answer()
            assert answer is not None
            assert answer.status == 100
            await c.send(b"x")
            answer = await c.answer()
            assert answer is not None
            assert answer.status == 202
        assert rig.sources.versions == before + 1
        # A flood of unknown tokens is no flood of queries.
        statuses = await asyncio.gather(*(status_of(rig, request(f"/in/no{n}", b"x")) for n in range(30)))
        assert set(statuses) == {404}
        assert rig.sources.versions <= before + 3, "the look that is due anyhow, and one more at most"


async def test_a_look_that_began_before_a_source_was_added_refuses_nobody(tmp_path: Path) -> None:
    settings = replace(QUICK, refresh_s=0.3)
    under_way, go_on = asyncio.Event(), asyncio.Event()

    class Slow(SourceTable):
        async def edition(self, *, timeout_s: float) -> Edition:
            found = await super().edition(timeout_s=timeout_s)
            if self.loads:
                under_way.set()
                await go_on.wait()
            return found

    slow = Slow()
    slow.add("tok")
    async with running(tmp_path, settings=replace(settings, store_timeout_s=2.0), sources=slow) as rig:
        await under_way.wait()
        slow.add("fresh")
        asked = asyncio.create_task(status_of(rig, request("/in/fresh", b"x")))
        await until(lambda: len(rig.snapshot._asked) == 1)
        go_on.set()
        assert await asked == 202


async def test_a_parked_request_is_answered_when_the_store_fails(tmp_path: Path) -> None:
    settings = replace(QUICK, refresh_s=0.5)
    async with running(tmp_path, settings=settings) as rig:
        rig.snapshot._tried_at = float("-inf")
        rig.sources.away = True
        assert await status_of(rig, request("/in/no", b"x")) == 404
        assert rig.count("seawall_snapshot_refresh_failures_total") >= 1


async def test_the_snapshot_says_why_it_is_not_fresh(tmp_path: Path) -> None:
    async with running(tmp_path) as rig:
        rig.sources.away = True
        await until(lambda: "away" in rig.supervisor.health()[1].reason)
        health = rig.supervisor.health()[1]
        assert (health.name, health.essential, health.ready) == ("collector.snapshot", False, False)


async def test_a_store_that_takes_its_time_makes_no_loop_look_dead(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(patience, "SAY_EVERY_S", 0.05)
    monkeypatch.setattr(patience, "QUIET_S", 0.1)
    asked, go_on = asyncio.Event(), asyncio.Event()

    class Slow(SourceTable):
        async def edition(self, *, timeout_s: float) -> Edition:
            if self.loads:
                asked.set()
                await go_on.wait()
            return await super().edition(timeout_s=timeout_s)

    async with running(tmp_path, sources=Slow()) as rig:
        (loop,) = [one for one in rig.supervisor._loops if one.name == "collector.snapshot"]
        await asked.wait()
        loop.stall_s = 0.6
        await until(lambda: re.search(r"no answer for (1\.[2-9]|[2-9])", loop.reason))
        assert loop.restarts == 0 and "PostgreSQL" in loop.reason
        go_on.set()
        await until(lambda: loop.ready)


async def test_a_store_that_lost_its_newest_change_is_read_again_under_the_same_number(tmp_path: Path) -> None:
    sources = SourceTable()
    sources.add("first")
    lost = sources.add("lost")
    async with running(tmp_path, sources=sources) as rig:
        assert await status_of(rig, request("/in/lost", b"x")) == 202
        # A replica took over which hadn't got the last change, and the next one took its number.
        del sources.rows[lost.token_hash]
        sources.now -= 1
        sources.add("next")
        sources.stamp = "other"
        assert sources.now == rig.snapshot.version
        await until(lambda: rig.snapshot.find(b"next") is not None)
        assert await status_of(rig, request("/in/next", b"x")) == 202
        assert await status_of(rig, request("/in/lost", b"x")) == 404


async def test_nothing_is_called_live_before_it_is_in_the_copy(tmp_path: Path) -> None:
    sources = SourceTable()
    sources.add("old")
    async with running(tmp_path, sources=sources) as rig:
        await until(lambda: sources.heard.get("c1") == sources.now)
        (tmp_path / "snapshot.new").mkdir()  # the copy is made under this name
        sources.add("new")
        await until(lambda: rig.snapshot.copy.trouble)
        assert await status_of(rig, request("/in/new", b"x")) == 202, "it is served all the same"
        looks = sources.versions
        await until(lambda: sources.versions > looks + 3)
        assert sources.heard["c1"] == sources.now - 1
        (tmp_path / "snapshot.new").rmdir()
        await until(lambda: sources.heard["c1"] == sources.now)
        assert not rig.snapshot.copy.trouble
    sources.away = True
    async with running(tmp_path, sources=sources, ready=False) as rig:
        assert await status_of(rig, request("/in/new", b"x")) == 202


async def test_a_copy_that_hangs_has_one_thread_and_is_written_after_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sources = SourceTable()
    sources.add("old")
    go_on, began = threading.Event(), []
    async with running(tmp_path, sources=sources, settings=replace(QUICK, store_timeout_s=0.1)) as rig:
        await until(lambda: sources.heard.get("c1") == sources.now)
        write = rig.snapshot.copy._copy.write

        def hang(version: int, rows: list[Loaded]) -> None:
            began.append(version)
            assert go_on.wait(20)
            write(version, rows)

        monkeypatch.setattr(rig.snapshot.copy._copy, "write", hang)
        for token in ("one", "two", "three"):
            sources.add(token)
            looks = sources.versions
            await until(lambda looks=looks: sources.versions > looks + 1)
        assert len(began) == 1
        assert rig.snapshot.copy.trouble == "the disk took too long"
        go_on.set()
        await until(lambda: sources.heard["c1"] == sources.now)
    assert began == [began[0], sources.now]
