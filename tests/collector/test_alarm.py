"""People are told what senders only feel: sources that are old, unknown, not on disk, or of no use."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from seawall.collector import alarm

from .rig import QUICK, Rig, SourceTable, client, request, running, until

SOON = replace(QUICK, stale_s=0.3)


@pytest.fixture(autouse=True)
def _often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(alarm, "EVERY_S", 0.02)


def names(rig: Rig) -> list[str]:
    return sorted(alert.name for alert in rig.alerts.active())


async def readyz(rig: Rig) -> tuple[int, list[str]]:
    async with client(rig) as c:
        await c.send(request("/readyz", method="GET"))
        answer = await c.answer()
    assert answer is not None
    return answer.status, json.loads(answer.body)["reasons"]


async def status_of(rig: Rig) -> int:
    async with client(rig) as c:
        await c.send(request(body=b"x"))
        answer = await c.answer()
    assert answer is not None
    return answer.status


async def test_sources_that_the_store_does_not_confirm_any_more_are_an_alert_and_no_reason_to_be_unready(
    tmp_path: Path,
) -> None:
    async with running(tmp_path, settings=SOON) as rig:
        rig.sources.away = True
        await until(lambda: names(rig) == ["snapshot-stale"])
        assert (await readyz(rig))[0] == 200
        assert await status_of(rig) == 202
        rig.sources.away = False
        await until(lambda: not names(rig))


async def test_a_copy_that_can_not_be_read_while_the_store_is_away_is_an_alert_and_unready(tmp_path: Path) -> None:
    sources = SourceTable()
    sources.add("tok")
    async with running(tmp_path, sources=sources):
        await until(lambda: "c1" in sources.heard)
    copy = tmp_path / "snapshot"
    copy.write_bytes(copy.read_bytes()[:-1])
    sources.away = True
    async with running(tmp_path, sources=sources, ready=False) as rig:
        await until(lambda: names(rig) == ["snapshot-unreadable"])
        assert await status_of(rig) == 503
        status, reasons = await readyz(rig)
        assert status == 503 and "no source is known" in reasons[0]
        sources.away = False
        await until(lambda: not names(rig))
        assert (await readyz(rig))[0] == 200


async def test_a_first_start_without_the_store_is_unready_at_once_and_an_alert_when_it_lasts(tmp_path: Path) -> None:
    sources = SourceTable()
    sources.away = True
    async with running(tmp_path, settings=SOON, sources=sources, ready=False) as rig:
        assert (await readyz(rig))[0] == 503
        await until(lambda: names(rig) == ["snapshot-stale"])
        (alert,) = rig.alerts.active()
        assert "no source is known" in alert.summary and not alert.unaffected


async def test_a_start_that_waits_for_the_store_for_a_moment_is_no_alert(tmp_path: Path) -> None:
    sources = SourceTable()
    sources.away = True
    async with running(tmp_path, sources=sources, ready=False) as rig:
        await until(lambda: any(loop.name == "collector.alarm" and loop.ready for loop in rig.supervisor.health()))
        assert rig.snapshot.stale and not names(rig)


async def test_a_copy_that_the_disk_does_not_take_is_an_alert_until_it_does(tmp_path: Path) -> None:
    (tmp_path / "snapshot.new").mkdir()
    (tmp_path / "snapshot.new" / "x").touch()
    async with running(tmp_path) as rig:
        await until(lambda: names(rig) == ["snapshot-unwritten"])
        (tmp_path / "snapshot.new" / "x").unlink()
        (tmp_path / "snapshot.new").rmdir()
        await until(lambda: not names(rig))


async def test_a_source_that_can_not_be_served_is_an_alert_of_its_own_until_it_can(tmp_path: Path) -> None:
    sources = SourceTable()
    sources.add("tok")
    broken = sources.add("bad", trouble="secret 1: it was sealed under another key")
    sources.add("gone", trouble="secret 1: it was sealed under another key", removed=True)
    async with running(tmp_path, sources=sources) as rig:
        await until(lambda: names(rig) == ["source-unservable"])
        (alert,) = rig.alerts.active()
        assert alert.labels == {"source": "bad"} and "another key" in alert.summary
        assert (await readyz(rig))[0] == 200
        sources.now += 1
        sources.rows[broken.token_hash] = replace(broken, trouble="")
        await until(lambda: not names(rig))


async def test_sources_that_can_not_be_served_are_told_up_to_a_bound(tmp_path: Path) -> None:
    sources = SourceTable()
    for n in range(alarm.SOURCES_MAX + 20):
        sources.add(f"bad{n:03}", trouble="secret 1: it was sealed under another key")
    async with running(tmp_path, sources=sources) as rig:
        await until(lambda: len(names(rig)) == alarm.SOURCES_MAX)
        assert {alert.labels["source"] for alert in rig.alerts.active()} == {
            f"bad{n:03}" for n in range(alarm.SOURCES_MAX)
        }
