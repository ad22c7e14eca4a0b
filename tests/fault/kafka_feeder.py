"""Runs `kafka_collector.py` one life after another and keeps the ledger of its answers."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from confluent_kafka import Consumer, TopicPartition

from seawall.kernel.event import decode

CHILD = Path(__file__).with_name("kafka_collector.py")
LIFE = 1_000_000
"""Numbers of one life."""


class Feeder:
    """One folder's collector. ``answers`` has every answer that was given, by number."""

    def __init__(self, folder: Path, bootstrap: str, facts: dict[str, object] | None = None) -> None:
        self._folder = folder
        self._bootstrap = bootstrap
        self._facts = json.dumps(facts) if facts else ""
        self._lives = 0
        self.answers: dict[int, str] = {}
        self.report: dict[str, int] = {}

    def start(self) -> None:
        self._lives += 1
        self._child = subprocess.Popen(
            [sys.executable, str(CHILD), str(self._folder), self._bootstrap, str(self._lives * LIFE), self._facts],
            stdout=subprocess.PIPE,
        )  # fmt: skip
        self._reader = threading.Thread(target=self._read, args=(self._child,))
        self._reader.start()

    def end(self, number: signal.Signals) -> int:
        """Kill or stop it; its exit status."""
        self._child.send_signal(number)
        status = self._child.wait(20)
        self._reader.join(20)
        return status

    def kinds(self) -> Counter[str]:
        return Counter(self.answers.values())

    def until(self, check: Callable[[], bool], *, within_s: float) -> None:
        end = time.monotonic() + within_s
        while not check():
            assert self._child.poll() is None, "the collector died"
            assert time.monotonic() < end, self.kinds()
            time.sleep(0.05)

    def goes_on(self, kind: str, count: int = 50, *, within_s: float = 30.0) -> None:
        """Until so many more answers of a kind were given."""
        before = self.kinds()[kind]
        self.until(lambda: self.kinds()[kind] >= before + count, within_s=within_s)

    def _read(self, child: subprocess.Popen[bytes]) -> None:
        assert child.stdout is not None
        for line in child.stdout:
            first, _, rest = line.decode().rstrip("\n").partition(" ")
            if first == "report":
                self.report = json.loads(rest)
            else:
                self.answers[int(first)] = rest
        child.stdout.close()


def verdict(feeder: Feeder, bootstrap: str, topic: str, partitions: int, *, within_s: float = 60.0) -> dict[str, int]:
    """What the topic has against what was answered. Waits until nothing is lost, or the time is over."""
    consumer = Consumer({
        "bootstrap.servers": bootstrap, "group.id": "ledger", "enable.auto.commit": False, "log_level": 0,
        "auto.offset.reset": "earliest", "error_cb": lambda error: None,
    })  # fmt: skip
    consumer.assign([TopicPartition(topic, n, 0) for n in range(partitions)])
    ids: dict[int, set[bytes]] = {}
    copies = 0
    accepted = {number for number, kind in feeder.answers.items() if kind in ("fsync", "replicated")}
    end = time.monotonic() + within_s
    while time.monotonic() < end and not accepted <= ids.keys():
        found = [decode(m.value()) for m in consumer.consume(1000, 0.5) if not m.error()]
        for record in found:
            copies += 1
            ids.setdefault(int(record.body), set()).add(record.id)
    consumer.close()
    return {
        "accepted": len(accepted), "lost": len(accepted - ids.keys()),
        "two_ids": sum(len(each) > 1 for each in ids.values()), "copies": copies - len(ids),
        "invented": sum(number // LIFE not in range(1, feeder._lives + 1) for number in ids),
    }  # fmt: skip
