"""Asks an experiment's steady-state hypothesis, by Chaos Toolkit's own code, whenever we want to know."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Mapping
from typing import Any

from chaoslib import substitute
from chaoslib.activity import run_activity
from chaoslib.configuration import load_configuration
from chaoslib.exceptions import ChaosException
from chaoslib.hypothesis import within_tolerance
from chaoslib.secret import load_secrets

AGAIN_S = 0.25


class Steady:
    """One experiment's hypothesis. Its probes run in the caller's thread, without controls and without Chaos Toolkit's
    log: it is asked twice a second, for minutes."""

    def __init__(self, document: Mapping[str, Any]) -> None:
        # A copy: Chaos Toolkit writes what a probe said into a tolerance that is a probe itself, and asks meanwhile.
        self._probes = copy.deepcopy(list(document["steady-state-hypothesis"]["probes"]))
        self._configuration = load_configuration(document.get("configuration", {}))
        self._secrets = load_secrets(document.get("secrets", {}), self._configuration)

    def why_not(self) -> str:
        """The first probe that isn't within its tolerance, and what it said; "" when the steady state holds."""
        for probe in self._probes:
            try:
                found = run_activity(probe, self._configuration, self._secrets)
                tolerance = probe["tolerance"]
                if isinstance(tolerance, str):
                    tolerance = substitute(tolerance, self._configuration, self._secrets)
                held = within_tolerance(tolerance, found, configuration=self._configuration, secrets=self._secrets)
            except (ChaosException, TypeError, ValueError, ArithmeticError) as error:
                return f"{probe['name']}: {error}"
            if not held:
                return f"{probe['name']}: {found!r} isn't within {probe['tolerance']!r}"
        return ""

    def wait(self, timeout_s: float, *, given_up: Callable[[], bool], times: int = 2) -> str:
        """Until it holds so many times in a row; "" then, else why not, after ``timeout_s`` or when ``given_up``."""
        latest, met = time.monotonic() + timeout_s, 0
        while True:
            why = self.why_not()
            met = 0 if why else met + 1
            if met >= times:
                return ""
            if given_up() or time.monotonic() > latest:
                return why or "it held for a moment only"
            time.sleep(AGAIN_S)
