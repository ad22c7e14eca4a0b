"""The rig's parts, without a platform: what it makes of an order, and what it reads."""

from __future__ import annotations

import time
import tomllib
from pathlib import Path

import pytest

from seawall.kernel.error import Rejected
from seawall.lab.part.fault import Fault
from seawall.lab.part.proxy import FaultProxy
from seawall.lab.part.redis import Redis
from seawall.lab.platform import Platform
from seawall.lab.rig import current, own, supply, talk
from seawall.lab.rig.balancer import IN, OUT, Balancer
from seawall.lab.rig.flow import Recent, streams
from seawall.lab.rig.sight import _figures

from .platform_server import FakePlatform

METRICS = """# HELP seawall_breaker_state_code x
seawall_breaker_state_code{role="collector",to="redis"} 2.0
seawall_breaker_state_code{role="worker",to="redis-hints"} 0.0
seawall_router_lag_seconds{role="router",log="a"} 0.5
seawall_router_lag_seconds{role="router",log="b"} 1.5
seawall_accepted_total{role="collector"} 12
seawall_unrouted_bytes 7
other 3
"""


def test_outside_of_an_experiment_there_is_no_rig() -> None:
    with pytest.raises(Rejected, match="no rig is open"):
        current()


def test_a_folder_that_the_lab_did_not_make_is_not_touched(tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("x")
    with pytest.raises(Rejected, match="made-by-the-lab"), own.held(tmp_path):
        pass
    assert (tmp_path / "mine").exists()


def test_what_an_earlier_rig_left_is_removed_and_two_at_once_are_refused(tmp_path: Path) -> None:
    folder = tmp_path / "rig"
    with own.held(folder):
        (folder / "left").write_text("x")
        assert own.open_elsewhere(folder)
        with pytest.raises(Rejected, match="another rig"), own.held(folder):
            pass
    assert not own.open_elsewhere(folder)
    with own.held(folder):
        assert not (folder / "left").exists()


def test_a_stream_of_several_tenants_is_one_for_each_and_they_share_its_rate() -> None:
    found = streams([{"kind": "events", "rate": 9, "tenants": 3, "tenant": "customer", "type": "lab.ingest"}])
    assert [(one.tenant, one.rate, one.type) for one in found] == [
        (f"customer-{n}", 3.0, "lab.ingest") for n in (1, 2, 3)
    ]
    assert [one.tenant for one in streams([{"kind": "events", "rate": 9}])] == [""]


def test_an_experiments_settings_win_over_the_rigs_and_must_be_plain() -> None:
    told = supply.settings([], {"settings": {"worker": {"inflight_max": 8}, "pg": {"shared_buffers_mb": 64}}})
    found = tomllib.loads(told)
    assert found["worker"] == {"inflight_max": 8} and found["pg"] == {"shared_buffers_mb": 64}
    assert found["collector"]["look_up_rate_per_s"] == 0
    elsewhere = ({"cache": {"url": "redis://192.0.2.7"}}, {"kafka": {"bootstrap": "192.0.2.7:9092"}})
    for wrong in ([], {"worker": 1}, {"worker": {"inflight_max": [1]}}, *elsewhere):
        with pytest.raises(Rejected, match="settings"):
            supply.settings([], {"settings": wrong})


def test_parts_that_a_killed_runner_left_are_ended(tmp_path: Path) -> None:
    folder = tmp_path / "rig"
    with own.held(folder):
        left = Redis(folder / "redis", wheel=True)
        left.up()
    assert left.pid("r1")
    own.end(folder)
    assert left.pid("r1") is None
    own.clear(folder)
    assert not (folder / "redis").exists()


def test_streams_are_checked_and_have_connections_enough() -> None:
    events, held = streams([{"kind": "events", "rate": 80}, {"kind": "held", "rate": 20, "wait_s": 8}])
    assert events.connections == 512 and held.connections == 450
    for wrong in (
        {"kind": "tea", "rate": 1},
        {"kind": "events"},
        {"kind": "events", "rate": 0},
        {"kind": "held", "sugar": 2},
    ):
        with pytest.raises(Rejected, match="traffic"):
            streams([wrong])


def test_a_run_with_the_protections_has_no_part_that_lacks_one() -> None:
    assert supply.parts({}) == () and supply.parts({"parts": ["mortal-listener"]}) == ("mortal-listener",)
    with pytest.raises(Rejected, match="deaf-listener; what lacks nothing is mortal-listener"):
        supply.parts({"parts": ["mortal-listener", "deaf-listener"]})


def test_recent_answers_are_counted_by_sort() -> None:
    recent = Recent()
    for word in ("202", "202", "503", "503 bare", "429", "timeout", "own", "ticket", "wrong"):
        recent.seen(word, 0.1)
    window = recent.window(5.0)
    assert [window.count(sort) for sort in ("ok", "failed", "refused", "none", "own", "202")] == [5, 2, 1, 1, 1, 2]
    assert window.all == 9 and window.quantile_s(0.99) == 0.1
    assert recent.window(0.0).quantile_s(0.5) is None


def test_metrics_become_figures_and_what_is_missing_is_not_there() -> None:
    found = dict(_figures(METRICS))
    assert found["breaker.redis_code"] == 2.0 and found["breaker.redis_hints_code"] == 0.0
    assert found["router.lag_s"] == 1.5 and found["intake.accepted_total"] == 12
    assert found["journal.unrouted_bytes"] == 7
    assert "spool.lag_s" not in found


def test_lines_are_named_by_part_and_node_and_settings_name_the_proxys_ports(tmp_path: Path) -> None:
    with FaultProxy(tmp_path / "proxy") as proxy:
        made = supply.supplies(
            tmp_path, ["sentinel"], proxy, fetched=tmp_path, options={"redis": "wheel"}, say=lambda text: None
        )
        (redis,) = made
        assert [line.name for line in redis.lines] == ["redis.r1", "redis.r2"]
        hosts = ",".join(f"127.0.0.1:{line.port}" for line in redis.lines)
        assert f'url = "redis://{hosts}"' in supply.settings(made, {})
        assert supply.dsn(made) == ""
        for wrong in (["rabbit"], ["redis", "sentinel"]):
            with pytest.raises(Rejected, match="needs"):
                supply.supplies(tmp_path, wrong, proxy, fetched=tmp_path, options={}, say=lambda text: None)


def test_a_part_that_another_process_starts_again_is_the_same_program(tmp_path: Path) -> None:
    with Redis(tmp_path / "redis", wheel=True) as redis:
        redis.ask("r1", "SET", "key", "value")
        redis.kill("r1")
        Redis(tmp_path / "redis").up()
        assert Redis(tmp_path / "redis").engine == redis.engine
        assert redis.ask("r1", "GET", "key") == "value"
        redis.kill("r1")
        redis.forget("r1")
        redis.up()
        assert redis.ask("r1", "GET", "key") is None


def test_a_round_trip_tells_a_dead_line_from_one_that_is_slow_or_alive(tmp_path: Path) -> None:
    with Redis(tmp_path / "redis", wheel=True) as redis, FaultProxy(tmp_path / "proxy") as proxy:
        port = proxy.link("redis.r1", redis.port("r1"))
        assert talk.round_trip("redis", port) < 1.0
        proxy.set("redis.r1", Fault(kind="latency", way="up", ms=300))
        assert talk.round_trip("redis", port) >= 0.3
        proxy.set("redis.r1", Fault(kind="hole"))
        began = time.monotonic()
        with pytest.raises(OSError, match="timed out"):
            talk.round_trip("redis", port, 0.3)
        assert time.monotonic() - began < 5.0
        proxy.set("redis.r1", Fault(kind="refuse"))
        with pytest.raises(OSError):
            talk.round_trip("redis", port, 0.3)


def test_a_balancer_takes_a_host_out_after_some_checks_and_lets_it_in_after_some() -> None:
    def wait(*, host_in: bool) -> None:
        latest = time.monotonic() + 20
        while balancer.host_in != host_in:
            assert time.monotonic() < latest
            time.sleep(0.01)

    asked: list[str] = []
    with FakePlatform() as fake, Platform(fake.find) as platform:
        balancer = Balancer(platform, every_s=0.02)
        fake.answer = lambda key: asked.append(key) or 202
        balancer.start()
        wait(host_in=True)
        asked.clear()
        fake.answer = lambda key: asked.append(key) or 503
        wait(host_in=False)
        assert len(asked) >= OUT and balancer.sample()["balancer.in_ratio"] == 0.0
        asked.clear()
        fake.answer = lambda key: asked.append(key) or 202
        wait(host_in=True)
        assert len(asked) >= IN
        balancer.stop()
        balancer.stop()
