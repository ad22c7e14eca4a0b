"""Answers held requests. A request that waits is a row, and a reply is a row: the store is read for both, and whatever
channel says "look now" is only a hint. A dead channel costs latency, never an answer (incident I1).

The room lives in the collector's process and must never slow intake: it has its own connections, bounded in number and
time, and with the store away every request still gets its answer at its deadline.
"""

from seawall.responder.responder import Responder
from seawall.responder.setting import Settings

__all__ = ["Responder", "Settings"]
