"""Sees everything: what each role says about itself (``health``), over a small server of its own (``route``), and the
numbers in Prometheus' form (``exposition``).

Each role answers for itself over a unix socket; the console reads those sockets and answers for the whole (``fleet``).
Nothing else of that needs the store, a queue or any other part that it watches.

``watch.Watch`` lives in the console and looks for what is wrong: rules without I/O (``queue``, ``progress``,
``ledger``; ``verdict`` says when a finding becomes an alert), what was found before (``history``), and a ``webhook``
that needs no store. Escalation and capacity join here.
"""

from seawall.watch.exposition import merged, rendered
from seawall.watch.health import Page, RoleHealth, Vitals, read_health, read_metrics
from seawall.watch.route import HealthServer

__all__ = ["HealthServer", "Page", "RoleHealth", "Vitals", "merged", "read_health", "read_metrics", "rendered"]
