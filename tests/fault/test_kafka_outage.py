"""Incident I4's second half: a collector that was restarted in mid-outage lost what it had spooled. Here it is killed
with -9 in mid-outage, and each event that was answered is in Kafka at the end.

The brokers in memory are the client library's own; `test_kafka_parts.py` does the same with real ones.
"""

from __future__ import annotations

import signal
from pathlib import Path

import pytest
from kafka_feeder import Feeder, verdict

from seawall.testing.kafka import MockKafka

pytestmark = pytest.mark.parts  # the client library's own brokers, but half a minute and more

PARTITIONS = 3


def test_killed_in_mid_outage_again_and_again_nothing_answered_is_lost(tmp_path: Path) -> None:
    with MockKafka("seawall", partitions=PARTITIONS) as mock:
        facts = {key: value for key, value in mock.facts().items() if key not in ("id", "retention_s")}
        feeder = Feeder(tmp_path, mock.bootstrap, facts)
        feeder.start()
        feeder.goes_on("replicated", 100)
        mock.down()
        feeder.goes_on("fsync", 100)
        feeder.end(signal.SIGKILL)
        feeder.start()
        feeder.goes_on("fsync", 100)
        feeder.end(signal.SIGKILL)
        mock.up()
        feeder.start()
        feeder.goes_on("replicated", 100)
        feeder.end(signal.SIGKILL)  # while it forwards, or just after
        feeder.start()
        feeder.goes_on("replicated", 100)
        found = verdict(feeder, mock.bootstrap, "seawall", PARTITIONS)
        assert feeder.end(signal.SIGTERM) == 0
        assert found["lost"] == found["two_ids"] == found["invented"] == 0, found
        assert set(feeder.kinds()) == {"replicated", "fsync"}
        assert feeder.report["durable"] == feeder.report["replicated"] + feeder.report["spooled"]
