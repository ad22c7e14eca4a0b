"""One request and its answer, on a connection of its own, to an address that was checked.

The library (h11) speaks HTTP and nothing else: it opens no connection, follows no redirect, reads no proxy from the
environment and keeps nothing between two requests. The connection is made here, to the very address that ``Reach`` let
pass; TLS and the Host header go by name. Nothing is shared between two requests, so none can meet the rest of another's
answer. Everything is bounded: time, the head, the body as it comes, and the body as it is after decompression.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import IPv6Address

import h11

from seawall.guard.breaker import Cause
from seawall.step.error import StepDeclined, StepUnavailable
from seawall.step.reach import Address, Reach
from seawall.step.resolver import Resolve
from seawall.step.url import Target

HEAD_BYTES_MAX = 32 * 1024
READ_BYTES = 16 * 1024
INTERIM_MAX = 10
"""Interim answers (1xx) before the answer."""

TRIES_MAX = 4
"""Addresses of one name that are tried."""

Pairs = list[tuple[bytes, bytes]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Ask:
    """One request, whole."""

    method: str
    target: Target
    headers: Pairs  # without Host and Content-Length, which are ours
    body: bytes
    timeout_s: float  # from the first look-up to the answer's last byte
    answer_bytes_max: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What came back, decompressed."""

    status: int
    headers: Sequence[tuple[str, str]]  # names in lower case, in order
    body: bytes


Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class Wire:
    """Makes requests."""

    def __init__(self, reach: Reach, resolve: Resolve, tls: ssl.SSLContext, *, connect_s: float) -> None:
        self._reach = reach
        self._resolve = resolve
        self._tls = tls
        self._connect_s = connect_s

    async def send(self, ask: Ask) -> Answer:
        """Make one request; an answer of any status is an answer.

        Raises:
            StepRefused: Its address isn't for steps; nothing was sent.
            StepUnavailable: No whole answer came in time; ``sent`` says whether the request may have been taken.
            StepDeclined: The answer is larger than allowed, or packed in a way that wasn't asked for.

        Cancelled: the connection is cut; the request may have been taken.
        """
        place, sent = ask.target.place, False
        try:
            async with asyncio.timeout(ask.timeout_s):
                reader, writer = await self._connect(ask.target)
                try:
                    sent = True
                    return await _exchange(ask, reader, writer)
                finally:
                    writer.transport.abort()
        except TimeoutError as error:
            raise StepUnavailable(
                f"{place} didn't answer within {ask.timeout_s:g} s", cause=Cause.TIMEOUT, sent=sent
            ) from error
        except (OSError, EOFError) as error:
            raise StepUnavailable(f"{place} cut the connection", cause=Cause.RESET, sent=sent) from error

    async def _connect(self, target: Target) -> Streams:
        place = target.place
        try:
            async with asyncio.timeout(self._connect_s):
                return await self._first(target, await self._addresses(target))
        except TimeoutError as error:
            raise StepUnavailable(
                f"no connection to {place} within {self._connect_s:g} s", cause=Cause.TIMEOUT, sent=False
            ) from error
        except ssl.SSLError as error:
            why = getattr(error, "verify_message", None) or error.reason or "TLS failed"
            raise StepUnavailable(f"no TLS with {place}: {why}", cause=Cause.ERROR, sent=False) from error
        except OSError as error:
            raise StepUnavailable(f"no connection to {place}", cause=Cause.REFUSED, sent=False) from error

    async def _first(self, target: Target, addresses: Sequence[Address]) -> Streams:
        """A connection to the first address that takes one. Raises OSError: the last one's."""
        failure: OSError | None = None
        for address in addresses:
            try:
                return await self._open(target, address)
            except ssl.SSLCertVerificationError:
                raise  # somebody is there, who isn't who he should be: that is worth saying
            except OSError as error:
                failure = error
        raise failure or OSError("it has no address")

    async def _addresses(self, target: Target) -> Sequence[Address]:
        """All of them are checked before the first is tried: a name with one public and one private address is on its
        way to the private one."""
        found = [str(target.address)] if target.address is not None else await self._resolve(target.host, target.port)
        return [self._reach.check(address, target.port, target.host) for address in found][:TRIES_MAX]

    async def _open(self, target: Target, address: Address) -> Streams:
        family = socket.AF_INET6 if isinstance(address, IPv6Address) else socket.AF_INET
        return await asyncio.open_connection(
            str(address), target.port, family=family, flags=socket.AI_NUMERICHOST, limit=READ_BYTES,
            ssl=self._tls if target.tls else None, server_hostname=target.host if target.tls else None,
        )  # fmt: skip


async def _exchange(ask: Ask, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> Answer:
    http = h11.Connection(h11.CLIENT, max_incomplete_event_size=HEAD_BYTES_MAX)
    head = h11.Request(method=ask.method, target=ask.target.path, headers=_headers(ask))
    parts = [http.send(head), http.send(h11.Data(data=ask.body)), http.send(h11.EndOfMessage())]
    # Not drained: the whole request is in memory already, and a server that answers before it has read all of it must
    # be heard. The deadline bounds both.
    writer.write(b"".join(part for part in parts if part))
    try:
        return await _answer(ask, http, reader)
    except h11.RemoteProtocolError as error:
        raise StepUnavailable(
            f"what {ask.target.place} sent is no HTTP answer", cause=Cause.ERROR, sent=True
        ) from error


def _headers(ask: Ask) -> Pairs:
    own = [(b"host", ask.target.host_header.encode()), (b"connection", b"close"), (b"accept-encoding", b"identity")]
    if ask.body or ask.method in ("POST", "PUT", "PATCH"):
        own.append((b"content-length", str(len(ask.body)).encode()))  # else the library frames by its absence
    return [*own, *ask.headers]


async def _answer(ask: Ask, http: h11.Connection, reader: asyncio.StreamReader) -> Answer:
    head: h11.Response | None = None
    body: _Body | None = None
    interim = 0
    while True:
        event = http.next_event()
        if event is h11.NEED_DATA:
            http.receive_data(await reader.read(READ_BYTES))
        elif isinstance(event, h11.InformationalResponse):
            interim += 1
            if interim > INTERIM_MAX:
                raise h11.RemoteProtocolError("interim answers without end")
        elif isinstance(event, h11.Response):
            head = event
            body = _Body(ask, _encoding(event))
        elif isinstance(event, h11.Data) and body is not None:
            body.add(bytes(event.data))
        elif isinstance(event, h11.EndOfMessage) and head is not None and body is not None:
            headers = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in head.headers]
            return Answer(status=head.status_code, headers=headers, body=body.whole())
        else:
            raise h11.RemoteProtocolError("it ended before its answer did")


def _encoding(head: h11.Response) -> bytes:
    return b",".join(value for name, value in head.headers if name == b"content-encoding").strip().lower()


class _Body:
    """An answer's body as it comes, never larger than is allowed, whatever it was packed into."""

    def __init__(self, ask: Ask, encoding: bytes) -> None:
        self._place = ask.target.place
        self._max = ask.answer_bytes_max
        self._came = 0
        self._parts: list[bytes] = []
        self._size = 0
        packed = encoding not in (b"", b"identity")
        if packed and encoding not in (b"gzip", b"x-gzip", b"deflate"):
            raise StepDeclined(f"the answer of {self._place} is packed in a way that wasn't asked for")
        self._unpack = zlib.decompressobj(47) if packed else None  # 47: gzip or zlib, by its first bytes

    def add(self, data: bytes) -> None:
        self._came += len(data)
        if self._came > self._max:
            self._too_large()
        while data:
            if self._unpack is None:
                self._keep(data)
                return
            if self._unpack.eof:  # several packed parts in a row are one body
                self._unpack = zlib.decompressobj(47)
            try:
                self._keep(self._unpack.decompress(data, self._max - self._size + 1))
            except zlib.error as error:
                raise StepUnavailable(
                    f"the packed answer of {self._place} is damaged", cause=Cause.ERROR, sent=True
                ) from error
            data = self._unpack.unused_data

    def whole(self) -> bytes:
        if self._unpack is not None and self._came and not self._unpack.eof:
            raise StepUnavailable(f"the packed answer of {self._place} is cut off", cause=Cause.ERROR, sent=True)
        return b"".join(self._parts)

    def _keep(self, data: bytes) -> None:
        self._size += len(data)
        if self._size > self._max:
            self._too_large()
        self._parts.append(data)

    def _too_large(self) -> None:
        raise StepDeclined(f"the answer of {self._place} is larger than {self._max} bytes (response_bytes_max)")
