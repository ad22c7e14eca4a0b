"""Takes events in over HTTP and answers only for what is durable. It needs no network dependency: sources come from a
snapshot of its own, and the journal is on its own disk.

In the order in which a request passes them: ``parser`` (socket, llhttp, guards) → ``route`` (paths) → ``admission``
(size, source, readiness; ``snapshot`` knows the sources) → ``intake`` (signature, journal) → ``receipt`` (our answer).
Before all of them, ``door`` lets connections in (``proxy`` and ``certificate``: what comes before HTTP) and
``reception`` counts them (``crowd``, ``network``; ``overflow`` tells those beyond a cap). ``collector`` joins all and
stops in order, ``deadline`` says who is late, ``rate``, ``share`` (of what ``backlog`` says) and ``key`` are what a
source may ask for, ``look_up`` answers reads, ``duplicate`` remembers recent keys, ``sealed`` is the snapshot's copy.
"""

from seawall.collector.collector import Collector
from seawall.collector.setting import Choice, Settings, choice, source_problems
from seawall.collector.snapshot import Snapshot

__all__ = ["Choice", "Collector", "Settings", "Snapshot", "choice", "source_problems"]
