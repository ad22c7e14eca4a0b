"""Numbers in Prometheus' text form: of one process, and of several processes merged into one page.

``prometheus_client`` is imported when somebody first looks: it costs 40 ms of CPU or more, which a process that is only
starting shouldn't pay.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import groupby
from typing import TYPE_CHECKING

from seawall.kernel.metric import Sample

if TYPE_CHECKING:
    from prometheus_client.metrics_core import Metric

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


def rendered(samples: Iterable[Sample], *, role: str) -> bytes:
    """One process' numbers, each with the label ``role``, so that pages of several roles can be merged."""
    return _text(_families(samples, role))


def merged(pages: Iterable[bytes]) -> bytes:
    """Several pages as one: each name's help and type once, then everybody's lines.

    A page that isn't Prometheus text is left out: a role that answers such a thing doesn't answer its health either,
    and shows as not ready.
    """
    from prometheus_client.parser import text_string_to_metric_families

    families: dict[str, Metric] = {}
    for page in pages:
        try:
            found = list(text_string_to_metric_families(page.decode()))
        except ValueError:
            continue
        for family in found:
            known = families.setdefault(family.name, family)
            if known is not family:
                known.samples.extend(family.samples)
    return _text(families[name] for name in sorted(families))


def _families(samples: Iterable[Sample], role: str) -> Iterator[Metric]:
    from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily

    for (name, kind), group in groupby(samples, key=lambda sample: (sample.name, sample.kind)):
        members = list(group)
        make = CounterMetricFamily if kind == "counter" else GaugeMetricFamily
        family: Metric = make(name, members[0].help)
        for sample in members:
            family.add_sample(name, {**dict(sample.labels), "role": role}, sample.value)
        yield family


class _Families:
    """What ``generate_latest`` asks of a registry."""

    def __init__(self, families: Iterable[Metric]) -> None:
        self._families = families

    def collect(self) -> Iterable[Metric]:
        return self._families


def _text(families: Iterable[Metric]) -> bytes:
    from prometheus_client.exposition import generate_latest

    text: bytes = generate_latest(_Families(families))
    return text
