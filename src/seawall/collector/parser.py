"""The HTTP front: llhttp parses, and every guard sits in its callbacks, where it costs least.

One ``Connection`` per socket, one ``Exchange`` per request (exchange.py). Answers leave in the order of their requests,
whatever order they come in.

No stock server passes the table of malformed requests (tests/collector/test_malformed.py), hence this one (decision
0002). What llhttp leaves to us: one Host, sizes and counts, HTTP/0.9, chunked bodies in HTTP/1.0, chunk overhead,
trailers, and ``Connection: Upgrade``, at which it stops with the body unread: there we go on with a fresh parser that
is told only how the body is framed. Deadlines are looked at by one sweep over all connections (collector.py): a timer
for each request would cost more than parsing it.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING, cast

import httptools

from seawall.collector.exchange import ANSWERED, HELD, PARKED, RECEIVING, SUBMITTED, Exchange, Front
from seawall.collector.receipt import CONTINUE, closing, without_body
from seawall.kernel import limit
from seawall.kernel.log import logger

if TYPE_CHECKING:
    from seawall.collector.crowd import Place

log = logger("collector")

PIECE_BYTES = limit.HEADER_BYTES_MAX
"""What the parser is fed at once, so that sizes are checked and reading can stop inside a large read. As much as one
header may have: so a head that came in one piece needs no measuring."""

DISCARD_BYTES_MAX = 64 * 1024
"""Body of a refused request that is read to its end, to keep the connection; with more to come it is closed."""

CHUNK_OVERHEAD_BYTES = 48
"""Framing that one chunk may cost: 16 digits, an extension of a few bytes, line ends. (16 KiB are free for all.)"""

LINGER_BYTES_MAX = 4 * 1024 * 1024
_PLAIN_TARGET = frozenset(range(0x21, 0x7F))


class _Stop(Exception):
    """Raised in a callback to stop the parser; its connection has said why."""


class Connection(asyncio.Protocol):
    """One client. Everything runs on the event loop's thread."""

    # Size: the parser's callbacks, the order of answers and the ways of ending share one state, which is this object.

    def __init__(self, front: Front, peer: bytes = b"", place: Place | None = None) -> None:
        self.front = front
        self.peer = peer  # its address, as text; told where the socket's is a balancer's
        self.place = place  # that was kept for it while it wasn't in yet
        self.transport: asyncio.Transport | None = None
        self.queue: deque[Exchange] = deque()  # complete, in order, not yet written
        self.exchange: Exchange | None = None  # being received
        self.begun_at = front.now  # of the message being received; else of the last answer, or of the connection
        self.body_at = 0.0
        self.body_seen_bytes = 0
        self.served = 0
        self.ending = False  # reads nothing any more: the last answer is queued, or written
        self.last = False  # the exchange that ends the connection has been received
        self.lingering = False
        self.deaf = False  # the client has closed its side
        self.blocked_at: float | None = None  # since when the client doesn't read
        self.paused = False
        self._pending = b""  # read, not yet parsed: too many unanswered requests
        self._parser = httptools.HttpRequestParser(self)
        self._resuming = False
        self._upgrading = False
        self._fed_bytes = 0  # of the message being received, in whole pieces
        self._chunks = 0
        self._flat: list[bytes] = []  # headers of the message being received
        self._head_bytes = 0
        self._lingered_bytes = 0
        self._unread = False  # ended inside a request

    # ── asyncio ──────────────────────────────────────────────────────────────────────────────────────────────────

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)
        if not self.peer:
            peer = transport.get_extra_info("peername")
            self.peer = str(peer[0]).encode() if isinstance(peer, tuple) else b"local"
        if not self.front.opened(self):
            self.ending = True
            self.transport = None  # somebody else's from now on

    def connection_lost(self, exc: Exception | None) -> None:
        self.transport = None
        if self.exchange is not None:
            self._truncated(self.exchange)
        for x in self.queue:
            if x.stage != ANSWERED:
                self.front.gone(x)
                x.release()
        self.queue.clear()
        self.front.closed(self)

    def eof_received(self) -> bool:
        if self.exchange is not None:
            self._truncated(self.exchange)
            self.exchange = None
        self.last = self.ending = self.deaf = True
        self.begun_at = self.front.now
        for x in list(self.queue):
            # A held request whose client has closed its side: nobody reads the reply. The run goes on.
            if x.stage == HELD:
                self.front.gone(x)
                self.queue.remove(x)
        self.flush()  # answers that waited behind it
        # TLS has no half-open connections: its transport closes after this, whatever is still due.
        return bool(self.queue) and self.transport is not None and self.transport.can_write_eof()

    def pause_writing(self) -> None:
        self.blocked_at = self.front.now
        self._pause()

    def resume_writing(self) -> None:
        self.blocked_at = None
        self._resume()

    def data_received(self, data: bytes) -> None:
        if len(data) <= PIECE_BYTES:
            if not (self.ending or self.paused) or not self._set_aside(data):
                self._feed(data)
            return
        for start in range(0, len(data), PIECE_BYTES):
            if self._set_aside(data[start:]):
                return
            self._feed(data[start : start + PIECE_BYTES])

    def _set_aside(self, data: bytes) -> bool:
        """True: not to be parsed now, or ever."""
        if self.ending:
            self._linger(len(data))
            return True
        if self.paused:
            self._pending += data
            return True
        return False

    # ── parsing ──────────────────────────────────────────────────────────────────────────────────────────────────

    def _feed(self, piece: bytes) -> None:
        try:
            self._parser.feed_data(piece)
        except httptools.HttpParserUpgrade as error:
            self._go_on(piece[error.args[0] :])
            return
        except httptools.HttpParserCallbackError as error:
            # A _Stop's connection is ending already.
            if not isinstance(error.__context__, _Stop):
                self._broke(error.__context__)
            return
        except httptools.HttpParserError as error:
            self.fail(400, "malformed request", str(error))
            return
        x = self.exchange
        if x is not None:
            self._bound(x, len(piece))

    def _bound(self, x: Exchange, count_bytes: int) -> None:
        """Bounds of what callbacks don't see: one header that doesn't end, and chunk extensions."""
        self._fed_bytes += count_bytes
        if not x.in_body:
            if self._fed_bytes > limit.HEAD_BYTES_MAX + PIECE_BYTES:
                self.fail(431, "headers too large", f"at most {limit.HEAD_BYTES_MAX} bytes")
            elif len(self._flat) > 2 * limit.HEADERS_MAX:
                # Not only at the head's end: thousands of tiny headers take many times the memory of their bytes.
                self.fail(431, "too many headers", f"at most {limit.HEADERS_MAX}")
        elif x.chunked and not self._upgrading:
            overhead = self._fed_bytes - self.body_seen_bytes - self._head_bytes
            if overhead > PIECE_BYTES + CHUNK_OVERHEAD_BYTES * self._chunks:
                self.fail(400, "malformed request", "chunk extensions or trailers are too long")

    def _go_on(self, rest: bytes) -> None:
        """After the head of a request that asks for an upgrade: ignore the wish, and read the body as announced."""
        x = self.exchange
        if x is None or not x.in_body or x.method == b"CONNECT":
            self.fail(405, "method not allowed", "this server is no proxy")
            return
        framing = b"Transfer-Encoding: chunked\r\n" if x.chunked else b"Content-Length: %d\r\n" % x.length
        self._parser = httptools.HttpRequestParser(self)
        self._upgrading, self._resuming = False, True
        self._feed(b"POST / HTTP/1.1\r\nHost: -\r\n%b\r\n" % framing)
        self._resuming = False
        if rest and not self.ending:
            self._feed(rest)

    def on_message_begin(self) -> None:
        if self._resuming:
            return
        if self.last or self.ending:
            # Behind a request that ends the connection; after it nothing is answered, so nothing may be taken.
            self.ending = True
            raise _Stop
        self.exchange = Exchange(self)
        self.begun_at = self.front.now
        self._flat = []
        self._fed_bytes = self._chunks = 0

    def on_url(self, part: bytes) -> None:
        x = self.exchange
        if x is None or self._resuming:
            return
        x.target = x.target + part if x.target else part
        if len(x.target) > limit.TARGET_BYTES_MAX:
            self._stop(414, "target too long", f"at most {limit.TARGET_BYTES_MAX} bytes")

    def on_header(self, name: bytes, value: bytes) -> None:
        # Called a dozen times for each request, so all checks are made once, at the head's end; until then ``_bound``
        # keeps this list small. Trailers, and a resumed head, end up in a list that nobody reads.
        flat = self._flat
        flat.append(name)
        flat.append(value)

    def on_headers_complete(self) -> None:
        x = self.exchange
        if x is None or self._resuming:
            return
        flat, self._flat = self._flat, []
        self._take_headers(x, flat)
        parser, headers = self._parser, x.headers
        x.method = parser.get_method()
        x.in_body = True
        x.keep_alive = parser.should_keep_alive()
        # Only HTTP/1.1 keeps a connection without being asked to. To ask for the version costs 0.3 µs.
        version = "1.1" if x.keep_alive and b"connection" not in headers else parser.get_http_version()
        if version != "1.1":
            self._old(x, version)
        host = headers.get(b"host")
        if (host is None and version == "1.1") or (host is not None and b"," in host):
            self._stop(400, "malformed request", "exactly one Host header is needed")
        if (length := headers.get(b"content-length")) is not None:
            # llhttp has checked that these are digits, once, below 2^64, and not beside a transfer encoding.
            x.length = int(length)
        elif b"transfer-encoding" in headers:
            if headers[b"transfer-encoding"].lower() != b"chunked":
                self._stop(400, "malformed request", "the only transfer encoding taken is chunked")
            x.chunked = True
            self._head_bytes = sum(map(len, x.flat)) + 2 * len(x.flat)
        self.body_at, self.body_seen_bytes = self.front.now, 0
        self._upgrading = parser.should_upgrade()
        self._begin(x)

    def _take_headers(self, x: Exchange, flat: list[bytes]) -> None:
        count = len(flat)
        if count > 2 * limit.HEADERS_MAX:
            self._stop(431, "too many headers", f"at most {limit.HEADERS_MAX}")
        if self._fed_bytes:
            # Only a head that came in several pieces can be larger than one header may be.
            self._measure(flat)
        x.flat = flat
        x.headers = headers = {}
        parts = iter(flat)
        for name, value in zip(parts, parts):  # noqa: B905 (llhttp gives pairs; a dozen for each request)
            headers[name.lower()] = value
        if 2 * len(headers) != count:
            x.headers = _joined(flat)

    def _measure(self, flat: list[bytes]) -> None:
        size = sum(map(len, flat)) + 2 * len(flat)  # ": " and the line's end
        if size > limit.HEAD_BYTES_MAX or _longest(flat) > limit.HEADER_BYTES_MAX:
            self._stop(431, "headers too large", f"at most {limit.HEAD_BYTES_MAX} bytes in all")

    def _old(self, x: Exchange, version: str) -> None:
        if version != "1.0":
            self._stop(400, "malformed request", f"HTTP/{version} is not spoken here")
        if b"transfer-encoding" in x.headers:
            self._stop(400, "malformed request", "HTTP/1.0 has no transfer encodings")
        x.keep_alive = False

    def _begin(self, x: Exchange) -> None:
        expect = x.headers.get(b"expect")
        if expect is not None and expect.lower() != b"100-continue":
            x.refuse(self.front.receipts.problem(417, "expectation failed", "only 100-continue is understood"))
        self.front.begin(x)
        if x.refusal is not None:
            if expect is not None or x.length > DISCARD_BYTES_MAX:
                self._refuse_now(x)
        elif x.length > x.body_bytes_max:
            self._too_large(x)
        elif expect is not None and x.stage == RECEIVING:
            self.go_ahead(x)

    def judged(self, x: Exchange) -> None:
        """A parked exchange has its source, or its refusal."""
        if x is not self.exchange:
            self._completed(x)
        elif x.refusal is None and b"expect" in x.headers:
            self.go_ahead(x)
        elif x.refusal is not None and (b"expect" in x.headers or x.length > DISCARD_BYTES_MAX):
            self._close_with(x, x.refusal)

    def go_ahead(self, x: Exchange) -> None:
        """Send 100 Continue, unless answers before it are due."""
        if not x.length and not x.chunked:
            return
        if self.queue:
            x.continue_due = True
        elif self.transport is not None and x is self.exchange:
            x.continue_due = False
            self.transport.write(CONTINUE)

    def _too_large(self, x: Exchange) -> None:
        x.refuse(self.front.too_large(x))
        self._refuse_now(x)

    def _refuse_now(self, x: Exchange) -> None:
        """Answer a refused request without reading its body; the connection ends with that."""
        assert x.refusal is not None, "only a refused exchange ends early"
        self._close_with(x, x.refusal)
        raise _Stop

    def on_chunk_header(self) -> None:
        self._chunks += 1

    def on_body(self, part: bytes) -> None:
        x = self.exchange
        if x is None:
            return
        count_bytes = len(part)
        self.body_seen_bytes += count_bytes
        if x.refusal is not None:
            if self.body_seen_bytes > DISCARD_BYTES_MAX:
                self._refuse_now(x)
            return
        if self.body_seen_bytes > x.body_bytes_max:
            self._too_large(x)
        x.parts.append(part)
        if count_bytes == x.length:
            return  # whole, and at most one piece: it goes on at once, so it needs no room of its own
        if not self.front.keep(count_bytes):
            x.refuse(self.front.receipts.unavailable("too busy", "too many bodies are being received"))
            return
        x.body_bytes += count_bytes

    def on_message_complete(self) -> None:
        x = self.exchange
        if x is None or self._upgrading:
            return
        self.exchange = None
        self.queue.append(x)
        if not x.keep_alive:
            self.last = True
        if len(self.queue) >= self.front.settings.pipeline_max:
            self._pause()
        self._completed(x)

    def _completed(self, x: Exchange) -> None:
        if x.refusal is not None:
            x.answer(x.refusal)
        elif x.stage != PARKED:
            self.front.complete(x)
        elif not x.hold_body():
            x.answer(self.front.receipts.unavailable("too busy", "too many bodies are being received"))

    # ── answers, in order ────────────────────────────────────────────────────────────────────────────────────────

    def flush(self) -> None:
        """Write every answer whose turn it is."""
        queue, transport = self.queue, self.transport
        while queue and (data := queue[0].data) is not None:
            x = queue.popleft()
            if transport is None:
                continue
            front = self.front
            self.served += 1
            if self.exchange is None:
                self.begun_at = front.now
            front.count(data[9:12])
            if x.method == b"HEAD":
                data = without_body(data)
            # When the collector stops, only the last answer ends the connection: those behind it are due as well.
            if x.keep_alive and not (front.stopping and not queue):
                transport.write(data)
            else:
                transport.write(closing(data))
                self._end()
                return
        if queue or transport is None:
            return
        if self.ending and not self.lingering:
            self._end()
            return
        if self.exchange is not None and self.exchange.continue_due:
            self.go_ahead(self.exchange)
        if self.paused and self.blocked_at is None:
            self._resume()

    def leave(self) -> None:
        """The collector stops: close when nothing is due, else after the last answer that is."""
        self.last = True
        if not self.queue and self.exchange is None and not self.lingering:
            self._end()

    def cut(self, answer: bytes) -> None:
        """Out of time: give ``answer`` to what is being received, and end."""
        if self.exchange is not None and not self.ending:
            self._close_with(self.exchange, answer)

    @property
    def quiet(self) -> bool:
        """Nothing is due, and all that was written has left."""
        return not self.queue and (self.transport is None or self.transport.get_write_buffer_size() == 0)

    def abort(self) -> None:
        """Close at once."""
        if self.transport is not None:
            self.transport.abort()

    def fail(self, status: int, title: str, detail: str) -> None:
        """Answer what is being received with an error, behind the answers due before it, and end the connection."""
        if self.ending or (self.last and self.exchange is None):
            self.ending = True
            return
        x = self.exchange or Exchange(self)
        self._close_with(x, self.front.receipts.problem(status, title, detail))

    def _broke(self, why: BaseException | None) -> None:
        """A bug of ours, met in a callback. The parser can't go on, so the connection ends; no request is wrong."""
        log.error("a request can't be handled", exc_info=why)
        x = self.exchange or (self.queue[-1] if self.queue else None)
        self.ending = self.last = self._unread = True
        if x is None:
            self._end()  # it was answered before
            return
        uncertain = x.stage == SUBMITTED
        said = "this collector met a trouble of its own" if uncertain else "a trouble of our own; nothing was stored"
        answer = self.front.receipts.unavailable("trouble here", said, uncertain=uncertain)
        if x is self.exchange:
            self._close_with(x, answer)
        else:
            x.keep_alive = False
            x.answer(answer)

    def _stop(self, status: int, title: str, detail: str) -> None:
        self.fail(status, title, detail)
        raise _Stop

    def _close_with(self, x: Exchange, answer: bytes) -> None:
        self.exchange = None
        self._flat = []
        self.ending = self.last = self._unread = True
        x.keep_alive = False
        self.queue.append(x)
        x.answer(answer)

    def _end(self) -> None:
        """Half-close, then read on for a moment: closing with unread bytes would reset the connection, and the client
        might never see our answer."""
        transport = self.transport
        self.ending = self.lingering = True
        self.begun_at = self.front.now
        if transport is None or transport.is_closing():
            return
        if self.paused:
            self.paused = False
            transport.resume_reading()
        if transport.can_write_eof() and not self.deaf:
            transport.write_eof()
        elif not self._unread or self.deaf:
            transport.close()
        # Else there may be more of a refused request on the way: TLS can't say the half of good-bye, so it is only read
        # on, until the client has closed or the sweep does.

    def _linger(self, count_bytes: int) -> None:
        self._lingered_bytes += count_bytes
        if self._lingered_bytes > LINGER_BYTES_MAX and self.transport is not None and self.lingering:
            self.transport.abort()

    def _truncated(self, x: Exchange) -> None:
        """The client left inside its request: nothing of it is kept."""
        x.stage = ANSWERED
        x.release()
        self.front.truncated()

    # ── flow ─────────────────────────────────────────────────────────────────────────────────────────────────────

    def _pause(self) -> None:
        if not self.paused and self.transport is not None and not self.transport.is_closing():
            self.paused = True
            self.transport.pause_reading()

    def _resume(self) -> None:
        if not self.paused or self.transport is None or self.transport.is_closing():
            return
        if self.queue and len(self.queue) >= self.front.settings.pipeline_max:
            return
        self.paused = False
        self.begun_at = self.front.now
        self.transport.resume_reading()
        pending, self._pending = self._pending, b""
        if pending:
            self.data_received(pending)


def _longest(flat: list[bytes]) -> int:
    """Bytes of the longest header line."""
    return max((len(name) + len(value) + 4 for name, value in zip(flat[::2], flat[1::2], strict=True)), default=0)


def _joined(flat: list[bytes]) -> dict[bytes, bytes]:
    """Headers by name in lower case, the values of repeated ones joined (RFC 9110 §5.3)."""
    headers: dict[bytes, bytes] = {}
    for name, value in zip(flat[::2], flat[1::2], strict=True):
        name = name.lower()
        headers[name] = headers[name] + b", " + value if name in headers else value
    return headers
