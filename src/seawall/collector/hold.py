"""Requests that wait for a reply: senders whose event is safe, and readers of tickets. Each costs a connection and no
thread, and its end is an answer, whatever becomes of the store."""

from __future__ import annotations

from collections.abc import Callable

from seawall.collector.exchange import HELD, Exchange
from seawall.collector.receipt import Receipts
from seawall.kernel.event import id_ascii
from seawall.kernel.seam.flag import Switch, always
from seawall.kernel.seam.ticket import Reply, Waiting


class Holds:
    """Lets exchanges wait, and answers them.

    Args:
        holding: Whether anybody is held now.
        stopping: Whether this collector stops.
    """

    def __init__(
        self, waiting: Waiting, receipts: Receipts, *, stopping: Callable[[], bool], holding: Switch = always
    ) -> None:
        self._waiting = waiting
        self._receipts = receipts
        self._stopping = stopping
        self._holding = holding
        self.count = 0
        self.again = 0  # of them, those with a ticket from before

    def hold(self, x: Exchange, *, wait_ms: int) -> None:
        """The event is safe; now its sender wants to wait. Without time, its body or the journal took all of it; and
        while this collector stops nobody begins to: it would be told in the end that nothing is stored."""
        source = x.source
        assert source is not None, "only an admitted exchange was submitted"
        held = not self._stopping() and self._holding(tenant=source.tenant, source=source.name)
        self._wait(x, wait_ms=wait_ms if held else 0)

    def hold_again(self, x: Exchange, *, wait_ms: int, again_max: int) -> None:
        """Somebody with a ticket (``x.id``) wants to wait for its reply, for instance since its connection broke.
        Answered at once where nobody is held, and beyond ``again_max`` of them."""
        x.replicated = None
        there = not (self._stopping() or x.connection.deaf)
        self._wait(x, wait_ms=wait_ms if there and self._holding() and self.again < again_max else 0)

    def let_go(self, x: Exchange) -> None:
        """This collector stops: 202, and where to ask."""
        self._drop(x)
        x.answer(self._receipts.waiting(id_ascii(x.id), replicated=x.replicated))

    def gone(self, x: Exchange) -> None:
        """The client left. The run goes on."""
        self._drop(x)

    def _wait(self, x: Exchange, *, wait_ms: int) -> None:
        x.stage = HELD
        x.release()
        self._count(x, 1)

        def answer(reply: Reply | None) -> None:
            self._replied(x, reply)

        if wait_ms > 0:
            x.waiter = answer
            self._waiting.hold(x.id, wait_ms=wait_ms, answer=answer)
        else:
            answer(None)

    def _drop(self, x: Exchange) -> None:
        self._count(x, -1)
        if x.waiter is not None:
            self._waiting.drop(x.id, x.waiter)
            x.waiter = None

    def _count(self, x: Exchange, more: int) -> None:
        self.count += more
        if x.source is None:
            self.again += more

    def _replied(self, x: Exchange, reply: Reply | None) -> None:
        if x.stage != HELD:
            return
        self._count(x, -1)
        x.waiter = None
        id = id_ascii(x.id)
        if reply is not None:
            x.answer(self._receipts.reply(id, reply))
        elif x.source is not None and x.source.choice.wait_over_status == 504:
            detail = "the event is safe and its workflow goes on; its reply will be under Location"
            headers = b"Location: /in/tickets/%b\r\n" % id
            x.answer(self._receipts.problem(504, "no reply in time", detail, headers=headers))
        else:
            x.answer(self._receipts.waiting(id, replicated=x.replicated))
