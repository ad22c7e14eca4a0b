"""Who may come in: connections below their caps, clients that trusted forwarders name, and room for bodies."""

from __future__ import annotations

from collections.abc import Callable

from seawall.collector.crowd import Crowd
from seawall.collector.exchange import Exchange, Front
from seawall.collector.network import Forwarders, Networks
from seawall.collector.overflow import Overflow
from seawall.collector.parser import Connection
from seawall.kernel.metric import Metrics

Begin = Callable[[Exchange], None]


class Reception:
    """The part of ``Front`` that keeps count.

    Args:
        begin: Judges a head; ``begin`` here finds out before whom a forwarder speaks for.
    """

    def __init__(self, front: Front, *, begin: Begin, metrics: Metrics) -> None:
        self._front = front
        self.crowd = Crowd()
        self.overflow = Overflow(front.count)
        self._bodies_bytes = 0
        self._judge = begin
        settings = front.settings
        self._forwarders = Forwarders(Networks(settings.forwarders), settings.forwarded_header)
        self._forwarded = bool(settings.forwarders)
        self.begin = self._begin if self._forwarded else begin  # whoever has none doesn't pay for the question
        self._refused = metrics.counter("seawall_connections_refused_total", "Connections over a cap.")
        self._not_let_in = {
            why: metrics.counter(
                "seawall_connections_not_let_in_total", "Connections that ended before their first request.", why=why
            )
            for why in ("header", "handshake")
        }
        metrics.gauge("seawall_connections_count", "Open connections.").read = lambda: len(self.crowd)
        metrics.gauge("seawall_bodies_bytes", "Bodies being received.").read = lambda: self._bodies_bytes

    def opened(self, connection: Connection) -> bool:
        limits, peer = self._front.settings, connection.peer
        address = None if self._forwarded and self._forwarders.trusts(peer) else peer
        welcome = not self._front.stopping and self.crowd.enter(
            connection, address, all_max=limits.connections_max, each_max=limits.connections_per_ip_max
        )
        if not welcome:
            self._refused.value += 1
            assert connection.transport is not None, "it was just made"
            self.overflow.take(connection.transport)
        return welcome

    def turned_away(self, why: str) -> None:
        """A connection ended at the door: ``full``, in its PROXY ``header``, or in its ``handshake``."""
        (self._refused if why == "full" else self._not_let_in[why]).value += 1

    def keep(self, count_bytes: int) -> bool:
        total = self._bodies_bytes + count_bytes
        if count_bytes > 0 and total > self._front.settings.bodies_bytes_max:
            return False
        self._bodies_bytes = total
        return True

    def _begin(self, x: Exchange) -> None:
        peer = x.connection.peer
        if self._forwarders.trusts(peer):
            x.peer = self._forwarders.client(peer, x.headers)
            each_max = self._front.settings.connections_per_ip_max
            if x.peer != peer and not self.crowd.carries(x.connection, x.peer, each_max=each_max):
                self._refused.value += 1
                said = "there are too many of this client now; nothing was stored"
                x.refuse(self._front.receipts.unavailable("too many connections", said))
                return
        self._judge(x)
