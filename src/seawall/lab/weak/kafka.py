"""The journal of a cluster whose client waits for Kafka, for each record anew, before it goes to the local log."""

from __future__ import annotations

from dataclasses import replace
from typing import ClassVar

from seawall.guard.breaker import State
from seawall.journal.spool.joint import Joint, Means
from seawall.lab.weak.client import PATIENT_S, UNBROKEN_S

CONFIRM_S = 300.0
"""Else a topic that hasn't answered for a while would take no records any more, which is a breaker of a kind."""


class PatientJoint(Joint):
    """Waits for Kafka, whatever happened before."""

    patience_s: ClassVar[float] = PATIENT_S

    def __init__(self, means: Means) -> None:
        settings = replace(means.settings, ack_timeout_s=self.patience_s, confirm_s=CONFIRM_S)
        super().__init__(replace(means, settings=settings))
        self.spool.breaker.force(State.FORCED_CLOSED)


class UnbrokenJoint(PatientJoint):
    """Waits a moment for Kafka, each time."""

    patience_s: ClassVar[float] = UNBROKEN_S
