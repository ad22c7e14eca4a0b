"""Storms: many faults one after another and two at a time, drawn from a seed, and the ledger's verdict after them.

``row`` is what may be broken, ``schedule`` what a seed makes of it (pure), ``document`` the same as a Chaos Toolkit
experiment, ``play`` its actions. It is run, reverted, measured and kept as every experiment is (``lab/run``).
"""

from seawall.lab.storm.document import storm
from seawall.lab.storm.schedule import Blow, Storm, schedule

__all__ = ["Blow", "Storm", "schedule", "storm"]
