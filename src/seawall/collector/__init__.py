"""Takes events in over HTTP and answers only for what is durable. It needs no network dependency: sources come from a
snapshot of its own, and the journal is on its own disk.

In the order in which a request passes them: ``parser`` (socket, llhttp, guards) → ``route`` (paths) → ``admission``
(size, source, readiness; ``snapshot`` knows the sources) → ``intake`` (signature, journal) → ``receipt`` (our answer).
``collector`` holds the socket and stops in order, ``crowd`` counts connections, ``deadline`` says who is late,
``overflow`` tells those beyond a cap, ``look_up`` answers reads, ``duplicate`` remembers recent keys, ``sealed`` is the
snapshot's copy on disk.
"""

from seawall.collector.collector import Collector
from seawall.collector.setting import Choice, Settings, choice, source_problems
from seawall.collector.snapshot import Snapshot

__all__ = ["Choice", "Collector", "Settings", "Snapshot", "choice", "source_problems"]
