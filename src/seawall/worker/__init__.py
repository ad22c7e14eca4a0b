"""Runs workflows: leases shards of queues, reads what is ready, calls the user's code and keeps what came of it.

``lease`` owns shards, ``refill`` reads runs, ``execution`` is one run's life, ``flush`` commits the outcomes of many in
one statement, ``deadline`` ends what takes too long, ``solo`` runs suspects in processes of their own, ``timer`` wakes
what waits, ``hint`` makes it quick. ``Worker`` joins them. Nothing outside this process is written except by ``flush``,
and never without a lease.
"""

from seawall.worker.settings import Settings
from seawall.worker.worker import Worker, fewer_collections

__all__ = ["Settings", "Worker", "fewer_collections"]
