"""One way of one connection through the proxy: what comes in, held back by the faults of the moment, goes out.

A connection is two of them, crosswise. Without a fault the bytes are written in the callback that read them. With one
they wait in a queue of ``BUFFER_BYTES``, and when that is full the sender isn't read: it feels what it would feel on
such a line. So a proxy holds at most two such queues, and two transport buffers, for each connection.
"""

from __future__ import annotations

import asyncio
import os
import random
import socket
import struct
from collections import deque
from collections.abc import Callable, Sequence

from seawall.lab.part.credit import Credit
from seawall.lab.part.fault import Fault

BUFFER_BYTES = 256 * 1024
SLICES_S = 20
"""A limited line hands on twenty slices a second, so that a second's worth doesn't come at once."""


CLOSE_S = 10.0
"""How long what was written may take to leave before a closed socket is dropped."""


class Close:
    """Ends a connection, once: by FIN after what was written, or (True) by RST, now."""

    def __init__(self, ends: Sequence[End], done: Callable[[], None]) -> None:
        self._ends = ends
        self._done = done
        self.called = False

    def __call__(self, reset: bool, /) -> None:
        if self.called:
            return
        self.called = True
        for end in self._ends:
            for pipe in (end.out, end.into):
                if pipe is not None:
                    pipe.stop()
            end.close(reset=reset)
        self._done()


class End(asyncio.Protocol):
    """One of a connection's two sockets. ``out`` is the pipe that it feeds, ``into`` the one that writes to it."""

    def __init__(self) -> None:
        self.transport: asyncio.Transport | None = None
        self.out: Pipe | None = None
        self.into: Pipe | None = None
        self._reading = True

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        transport.set_write_buffer_limits(high=BUFFER_BYTES)

    def data_received(self, data: bytes) -> None:
        if self.out is not None:
            self.out.feed(data)

    def eof_received(self) -> bool:
        """A half-closed connection goes on the other way."""
        if self.out is not None:
            self.out.finish()
        return True

    def connection_lost(self, error: Exception | None) -> None:
        self.transport = None
        for pipe in (self.out, self.into):
            if pipe is not None:
                pipe.lost(error)

    def pause_writing(self) -> None:
        if self.into is not None:
            self.into.block(blocked=True)

    def resume_writing(self) -> None:
        if self.into is not None:
            self.into.block(blocked=False)

    def close(self, *, reset: bool) -> None:
        """Close the socket. Harmless when it is gone."""
        if self.transport is None:
            return
        if reset:
            abort(self.transport)
        else:
            self.transport.close()
            # A peer that reads nothing would keep what was written, and the socket, for ever.
            asyncio.get_running_loop().call_later(CLOSE_S, self.transport.abort)

    def read(self, *, wanted: bool) -> None:
        """Read from the socket, or leave what comes in the kernel."""
        if self.transport is not None and wanted != self._reading and not self.transport.is_closing():
            self._reading = wanted
            if self.out is None:
                # Still inside connection_made: asyncio before 3.11.3 begins to read after it, whatever was said in it.
                asyncio.get_running_loop().call_soon(self._apply)
            else:
                self._apply()

    def _apply(self) -> None:
        if self.transport is not None and not self.transport.is_closing():
            (self.transport.resume_reading if self._reading else self.transport.pause_reading)()


class Pipe:
    """Bytes from ``source`` to ``target``, one way ("up" or "down").

    Args:
        close: Called once when the connection must end: the faults say so, or an end of it is gone. With True by a RST.
    """

    def __init__(self, way: str, source: End, target: End, close: Close) -> None:
        self.way = way
        self.passed = 0  # bytes handed on, in all
        self._source = source
        self._target = target
        self._close = close
        self._queue: deque[tuple[float, memoryview]] = deque()
        self.held = 0  # bytes that wait
        self._eof = False
        self._finished = False
        self._blocked = False
        self._timer: asyncio.TimerHandle | None = None
        self._free_at = 0.0  # when a limited line has room again
        self._due = 0.0
        self._loop = asyncio.get_running_loop()
        self._latency: Sequence[Fault] = ()
        self._bytes_s = 0
        self._left: int | None = None
        self._hole = False
        self._plain = True
        self._credit: Credit | None = None
        source.out = self
        target.into = self

    @property
    def done(self) -> bool:
        """Its end came, and was handed on."""
        return self._finished

    def change(self, faults: Sequence[Fault], credit: Credit | None = None) -> None:
        """These faults are there now, and these credits, which the line's other connections use too.

        What waits goes by the new ones, except for a latency that it has already."""
        mine = [fault for fault in faults if fault.on(self.way)]
        cuts = [fault.bytes for fault in mine if fault.kind == "cut"]
        self._latency = [fault for fault in mine if fault.kind == "latency"]
        self._bytes_s = min((fault.bytes_s for fault in mine if fault.kind == "bandwidth"), default=0)
        self._hole = any(fault.kind == "hole" for fault in mine)
        self._left = min(cuts) if cuts else None
        self._credit = credit if self.way == "up" else None
        self._plain = not (self._latency or self._bytes_s or self._hole or cuts or self._credit)
        if not self._latency and not self._credit:
            self._queue = deque((0.0, data) for _, data in self._queue)
            self._due = 0.0
        self._free_at = 0.0
        self._move()

    def feed(self, data: bytes) -> None:
        """Bytes came in."""
        if self._plain and not self._queue and not self._blocked:
            self._write(data)
            return
        self._queue.append((self._when(len(data)), memoryview(data)))
        self.held += len(data)
        self._move()

    def finish(self) -> None:
        """No more will come: said to the other side when all that waits is handed on."""
        self._eof = True
        self._move()

    def block(self, *, blocked: bool) -> None:
        """The target takes no more at the moment, or takes again."""
        self._blocked = blocked
        self._move()

    def lost(self, error: Exception | None) -> None:
        """One of the two sockets is gone: so goes the other, in the same manner."""
        self.stop()
        self._close(error is not None)

    def stop(self) -> None:
        """Nothing moves any more."""
        self._finished = True
        self._queue.clear()
        self.held = 0
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    # ── Inside ─────────────────────────────────────────────────────────────────────────────────────────────────────
    def _when(self, count: int) -> float:
        """When bytes that came now are due: never before those that came earlier."""
        if not self._latency and self._credit is None:
            return 0.0
        now = self._loop.time()
        due = now if self._credit is None else self._credit.due(count, now)
        late_s = sum(one.ms + random.uniform(-one.jitter_ms, one.jitter_ms) for one in self._latency) / 1000
        self._due = max(self._due, due + late_s)
        return self._due

    def _move(self) -> None:
        """Hand on what is due, then set the timer, and read on or don't."""
        if self._finished:
            return
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        while self._queue and not self._hole and not self._blocked and not self._finished:
            now = self._loop.time()
            moment = max(self._queue[0][0], self._free_at)
            if moment > now:
                self._timer = self._loop.call_at(moment, self._move)
                break
            self._write(self._next(now))
        if self._eof and not self._queue and not self._hole and not self._finished:
            self._end()
        # In a hole not even the end of a connection is seen: it would be told to nobody.
        self._source.read(wanted=not self._hole and not self._blocked and self.held < BUFFER_BYTES)

    def _next(self, now: float) -> memoryview:
        """The next slice of the queue."""
        due, data = self._queue.popleft()
        if self._bytes_s:
            slice_bytes = max(1, self._bytes_s // SLICES_S)
            if len(data) > slice_bytes:
                self._queue.appendleft((due, data[slice_bytes:]))
                data = data[:slice_bytes]
            self._free_at = max(now, self._free_at) + len(data) / self._bytes_s
        self.held -= len(data)
        return data

    def _write(self, data: bytes | memoryview) -> None:
        cut = self._left is not None and len(data) >= self._left
        if self._left is not None:
            data = data[: self._left]
            self._left -= len(data)
        if self._target.transport is not None and not self._target.transport.is_closing():
            self._target.transport.write(data)
            self.passed += len(data)
        if cut:
            self.stop()
            self._close(False)

    def _end(self) -> None:
        self._finished = True
        transport = self._target.transport
        if transport is not None and not transport.is_closing():
            if transport.can_write_eof():
                transport.write_eof()
            assert self._target.out is not None
            if self._target.out.done:
                self._close(False)


def abort(transport: asyncio.Transport) -> None:
    """Close with a RST: what waits in either direction is lost, as when a peer's machine has restarted."""
    found = transport.get_extra_info("socket")
    if found is not None:
        # A second descriptor of the same socket: an event loop's own stand-in for it doesn't offer every option.
        with socket.socket(fileno=os.dup(found.fileno())) as real:
            real.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    transport.abort()
