"""Pages of several roles become one that Prometheus can read."""

from __future__ import annotations

from seawall.kernel.metric import Metrics
from seawall.watch import merged, rendered


def page(role: str, restarts: int) -> bytes:
    metrics = Metrics()
    metrics.counter("seawall_loop_restarts_total", "Restarts.", loop="tail").value += restarts
    metrics.gauge("seawall_loop_last_progress_seconds", "Age.", loop="tail").value = 0.5
    return rendered(metrics.samples(), role=role)


def test_a_merged_page_has_each_family_once_with_every_roles_lines() -> None:
    text = merged([page("router", 1), page("worker", 2), b"\xff not text {", b"what is this {"]).decode()
    assert text.count("# TYPE seawall_loop_restarts_total counter") == 1
    assert 'seawall_loop_restarts_total{loop="tail",role="router"} 1.0' in text
    assert 'seawall_loop_restarts_total{loop="tail",role="worker"} 2.0' in text
    assert text.count("seawall_loop_last_progress_seconds{") == 2


def test_merging_nothing_gives_an_empty_page() -> None:
    assert merged([]) == b""


def test_no_label_forges_a_line() -> None:
    """No label is a sender's word today; were one, it would stay one label."""
    evil = 'a"} 1\nseawall_forged_total{x="\\'
    metrics = Metrics()
    metrics.counter("seawall_loop_restarts_total", 'Help\nseawall_forged_total 1\n# "', loop=evil).value += 1
    page = rendered(metrics.samples(), role="router")
    for text in (page.decode(), merged([page, page]).decode()):
        lines = [line for line in text.splitlines() if not line.startswith("#")]
        assert lines
        assert all(line.startswith("seawall_loop_restarts_total{") for line in lines)
