"""A pytest plugin: the closing count that ``make test`` promises, and honest words about what was left out.

Loaded with ``-p closing``. Tests marked ``root`` are skipped by name unless ``SEAWALL_TEST_ROOT=1`` is set and we are
root: skipped tests are counted and named, deselected ones would vanish. The count comes after everything that pytest
prints, alone on the last line.
"""

from __future__ import annotations

import os
import sys
import threading
import time

import pytest

LIMIT_S = float(os.environ.get("SEAWALL_TEST_LIMIT_S", "1500"))
"""A run that hangs ends by itself, says which tests it was in, and fails."""


class Closing:
    """Counts in the process that reports (with xdist, the controller)."""

    def __init__(self) -> None:
        self.passed: set[str] = set()
        self.failed: set[str] = set()
        self.skipped: set[str] = set()
        self.running: dict[str, float] = {}
        self._timer = threading.Timer(LIMIT_S, self._give_up)
        self._timer.daemon = True
        self._timer.start()

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        self.running[nodeid] = time.monotonic()

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed:
            self.failed.add(report.nodeid)
        elif report.skipped:
            self.skipped.add(report.nodeid)
        elif report.when == "call":
            self.passed.add(report.nodeid)
        if report.when == "teardown":
            self.running.pop(report.nodeid, None)

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if report.failed:
            self.failed.add(report.nodeid or "collection")

    @pytest.hookimpl(trylast=True)
    def pytest_unconfigure(self) -> None:
        self._timer.cancel()
        self.print_count()

    def print_count(self) -> None:
        passed = self.passed - self.failed
        line = f"{len(passed)} passed, {len(self.failed)} failed"
        if self.skipped:
            line += f", {len(self.skipped)} skipped"
        print(f"\n{line}", flush=True)

    def _give_up(self) -> None:
        """Called on the timer's thread: the main one may be blocked for good."""
        for nodeid, since in self.running.items():
            print(f"\nstill running after {time.monotonic() - since:.0f} s: {nodeid}", file=sys.stderr)
            self.failed.add(nodeid)
        if not self.running:
            self.failed.add("nothing was running, and nothing ended")
        self.print_count()
        # xdist's workers leave when their channel to us closes.
        os._exit(1)


def pytest_configure(config: pytest.Config) -> None:
    if not hasattr(config, "workerinput"):
        config.pluginmanager.register(Closing(), "seawall-closing")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if os.environ.get("SEAWALL_TEST_ROOT") == "1" and os.geteuid() == 0:
        return
    for item in items:
        if item.get_closest_marker("root") is not None:
            item.add_marker(pytest.mark.skip(reason="needs root: make test-parts runs it"))
