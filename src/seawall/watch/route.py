"""The health server: HTTP/1.1 without bodies, one request a connection, with a bound on everything. POST is taken on
the unix socket alone, where the file's mode says who may.

It is our own since every role process needs one, at no cost of start or memory, and since it must answer while the role
is in trouble: it takes no lock, no pool and no thread.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import Callable
from http import HTTPStatus
from pathlib import Path
from types import TracebackType
from typing import Final

from seawall.guard import Supervisor
from seawall.guard.panel import Panel
from seawall.kernel.alert import Alerts
from seawall.kernel.log import fields, logger
from seawall.kernel.metric import Metrics
from seawall.watch.health import TEXT, Extra, Page, Vitals
from seawall.watch.local import identity_of, listen_local, remove_local

log = logger("watch")

HEAD_BYTES_MAX: Final = 8 * 1024
REQUEST_S: Final = 2.0
"""From the connection's first moment to its last byte out."""

CONNECTIONS_MAX: Final = 32

_REQUEST: Final = re.compile(r"([A-Z]{1,16}) (/[!-~]*) HTTP/1\.([01])")
_HEADER: Final = re.compile(r"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*([^\x00-\x08\x0a-\x1f\x7f]*)")


class HealthServer:
    """Serves a process' ``Vitals`` on a unix socket, on an address, or on both.

    Args:
        unix_path: Where to make the socket (mode 0600; a leftover is replaced, a live one is not).
        host, port: An address to listen on as well; port 0 picks one, see ``port``.

    Raises (on entering):
        OSError: The path or the address is taken.
    """

    def __init__(
        self,
        supervisor: Supervisor,
        metrics: Metrics,
        *,
        role: str,
        unix_path: Path | None = None,
        host: str | None = None,
        port: int | None = None,
        extra: Extra | None = None,
        alerts: Alerts | None = None,
        panel: Panel | None = None,
    ) -> None:
        self.vitals = Vitals(supervisor, metrics, role=role, extra=extra, alerts=alerts, panel=panel)
        self.port = port
        self._unix_path = unix_path
        self._host = host
        self._identity = (0, 0)
        self._servers: list[asyncio.Server] = []
        self._open: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> HealthServer:
        try:
            if self._unix_path is not None:
                own = listen_local(self._unix_path)
                self._identity = identity_of(self._unix_path)
                self._servers.append(await asyncio.start_unix_server(self._trust, sock=own, limit=HEAD_BYTES_MAX))
            if self._host is not None:
                server = await asyncio.start_server(self._serve, self._host, self.port or 0, limit=HEAD_BYTES_MAX)
                self.port = server.sockets[0].getsockname()[1]
                self._servers.append(server)
        except OSError:
            await self.close()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Stop listening and cut what is open. Harmless when called twice."""
        for server in self._servers:
            server.close()
        for task in self._open:
            task.cancel()
        if self._open:
            await asyncio.wait(self._open, timeout=1.0)
        self._servers.clear()
        if self._unix_path is not None:
            remove_local(self._unix_path, self._identity)

    async def _trust(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await self._serve(reader, writer, self._act)

    async def _serve(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, act: Callable[[str], Page] | None = None
    ) -> None:
        """One connection. Streams own this task and would only log its death, so it ends here in every case."""
        task = asyncio.current_task()
        assert task is not None
        if len(self._open) >= CONNECTIONS_MAX:
            writer.write(_encoded(Page(503, TEXT, b"too many connections\n")))
            writer.close()
            return
        self._open.add(task)
        try:
            with contextlib.suppress(TimeoutError, OSError):
                async with asyncio.timeout(REQUEST_S):
                    await self._talk(reader, writer, act)
        except asyncio.CancelledError:
            pass  # only ``close`` cancels: the server is going away
        finally:
            self._open.discard(task)
            writer.close()

    async def _talk(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, act: Callable[[str], Page] | None
    ) -> None:
        try:
            head = await reader.readuntil(b"\r\n\r\n")
        except asyncio.IncompleteReadError:
            return
        except asyncio.LimitOverrunError:
            page = Page(431, TEXT, b"the head of a request may have 8 KiB\n")
        else:
            page = answered(head, self._page, act)
        writer.write(_encoded(page))
        await writer.drain()
        # Half-close and let the peer finish: closing with bytes unread would reset the connection and lose our answer.
        if writer.can_write_eof():
            writer.write_eof()
        while await reader.read(HEAD_BYTES_MAX):
            pass

    def _page(self, path: str) -> Page:
        try:
            return self.vitals.answer(path) or Page(404, TEXT, b"/livez /readyz /metrics /statusz\n")
        except Exception:  # the outermost frame of a connection: a gauge that raises must not take health away
            log.exception("health page failed", extra=fields(path=path))
            return Page(500, TEXT, b"this page failed; the log says why\n")

    def _act(self, path: str) -> Page:
        return self.vitals.act(path) or Page(404, TEXT, b"/breakers/NAME/STATE /shed/NAME/STATE\n")


def answered(head: bytes, page_of: Callable[[str], Page], act: Callable[[str], Page] | None = None) -> Page:
    """The answer to a request's head (with its final empty line): strict, since nothing lenient is needed here.

    Args:
        act: What a POST does; None: it isn't taken.
    """
    lines = head[:-4].decode("latin-1").split("\r\n")
    request = _REQUEST.fullmatch(lines[0])
    if request is None:
        return Page(400, TEXT, b"not an HTTP/1.1 request\n")
    headers = [_HEADER.fullmatch(line) for line in lines[1:]]
    names = [header[1].lower() for header in headers if header is not None]
    if len(names) != len(headers) or names.count("host") > 1 or (request[3] == "1" and "host" not in names):
        return Page(400, TEXT, b"malformed headers\n")
    if "transfer-encoding" in names or any(h and h[1].lower() == "content-length" and h[2] != "0" for h in headers):
        return Page(400, TEXT, b"a body isn't expected\n")
    if request[1] == "POST" and act is not None:
        return act(request[2])
    if request[1] != "GET":
        return Page(405, TEXT, b"GET only\n")
    return page_of(request[2].partition("?")[0])


def _encoded(page: Page) -> bytes:
    head = (
        f"HTTP/1.1 {page.status} {HTTPStatus(page.status).phrase}\r\n"
        f"Content-Type: {page.content_type}\r\n"
        f"Content-Length: {len(page.body)}\r\n"
        "Cache-Control: no-store\r\n"
        "X-Content-Type-Options: nosniff\r\n"
        f"{'Allow: GET' + chr(13) + chr(10) if page.status == 405 else ''}"
        "Connection: close\r\n\r\n"
    )
    return head.encode("latin-1") + page.body
