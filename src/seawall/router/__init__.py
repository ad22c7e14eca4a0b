"""Decides what an event starts. Tails every journal; a batch of records becomes events, runs, tickets and the log's new
position in one transaction, so that whatever is killed, and whenever, each record counts exactly once.

``drain`` reads a log, ``range`` knows what is left of it, ``batch`` and ``match`` judge records, ``placement`` orders
runs, ``lane`` finds the record that can't be stored; ``router`` joins them. The SQL is in ``store/router.py`` and
``store/position.py``.
"""

from seawall.router.router import Logs, Router
from seawall.router.settings import Settings

__all__ = ["Logs", "Router", "Settings"]
