"""Joins the table of endpoints to an ordinary HTTP server (uvicorn and starlette), with bounds that it lacks.

The server runs inside our event loop, under our supervisor and without its own signal handlers. Added to it: a deadline
for a whole request, from its first byte to the last byte of its answer; a bound on connections that is kept when one is
made; and problem documents where it would answer plain text.
"""

# Size: the one place where the server and all desks are joined.

from __future__ import annotations

import asyncio
import contextlib
import hmac
import logging
import socket
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import replace
from importlib.metadata import version
from types import TracebackType
from typing import Any, Final

import uvicorn
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route
from uvicorn.protocols.http.h11_impl import H11Protocol

from seawall.console.answer import JSON, Answer, problem, problem_of
from seawall.console.approval import ApprovalDesk
from seawall.console.ask import BY_HEADER, Ask, by_of, query_of
from seawall.console.bulk import BulkDesk, LongQueries
from seawall.console.change import ChangeDesk
from seawall.console.cron import CronDesk
from seawall.console.drain import DrainDesk
from seawall.console.flag import FlagDesk
from seawall.console.health import Health
from seawall.console.host import is_ours
from seawall.console.openapi import document
from seawall.console.panel import PanelDesk
from seawall.console.queue import QueueDesk
from seawall.console.replay import ReplayDesk
from seawall.console.report import Reports
from seawall.console.run import RunDesk
from seawall.console.setting import Settings
from seawall.console.source import SourceDesk
from seawall.console.table import Endpoint, endpoints
from seawall.console.version import VersionDesk
from seawall.guard import Heart, Supervisor
from seawall.guard.declared import REGISTRY
from seawall.guard.pressure import LOOP_LAG, STORE_POOL
from seawall.guard.shed import ShedList, Signal, Wanted, declared
from seawall.kernel.clock import Clock, SystemClock
from seawall.kernel.error import Rejected, SeawallError
from seawall.kernel.log import fields, logger
from seawall.kernel.metric import Metrics
from seawall.kernel.seam.change import Note, Pending
from seawall.store import pool
from seawall.store.flag import Flags
from seawall.store.pool import Store
from seawall.store.source import Sources
from seawall.store.vault import Vault

log = logger("console")

BEAT_S: Final = 0.25
START_POLL_S: Final = 0.01
STOP_S: Final = 0.8
"""How long the server may take to let go when its loop is cancelled; below the supervisor's patience."""

HEALTH_PATHS: Final = ("/livez", "/readyz", "/metrics", "/statusz")
SECURITY: Final = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


class Console:
    """The admin API.

    Args:
        listening: A bound, listening socket; ours to close.
        store: How to reach the store; the time bound of a statement is replaced by the room's own.
        vault: Seals the secrets of sources.
        token: The admin token.
        listen: The collector's base URL as it is now; "": unknown.
        note: Notes a change that isn't made in the store.
        pending: What was noted on this machine and isn't in the store yet.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        listening: socket.socket,
        store: pool.Settings,
        vault: Vault,
        token: str,
        listen: Callable[[], str],
        health: Health,
        metrics: Metrics,
        note: Note,
        pending: Pending,
        clock: Clock | None = None,
        shed: ShedList | None = None,
    ) -> None:
        self._settings = settings
        self._listening = listening
        self._token = token.encode()
        self._health = health
        self._store = Store(replace(store, statement_timeout_s=settings.query_s), role="console")
        sources, clock = Sources(self._store, vault), clock or SystemClock()
        desk = SourceDesk(self._store, sources, listen=listen, clock=clock, live_s=settings.live_s)
        reports = Reports(self._store, clock=clock, query_s=settings.query_s, checksums=self._checksums(shed))
        flags = FlagDesk(
            REGISTRY, Flags(self._store), health, clock=clock, query_s=settings.query_s, live_s=settings.live_s
        )
        changes = ChangeDesk(self._store, pending, clock=clock, query_s=settings.query_s)
        panels = PanelDesk(health, note=note, clock=clock, store=self._store, query_s=settings.query_s)
        queues = QueueDesk(self._store, clock=clock, query_s=settings.query_s)
        drains = DrainDesk(self._store, clock=clock, query_s=settings.query_s)
        crons = CronDesk(self._store, clock=clock, query_s=settings.query_s)
        approvals = ApprovalDesk(self._store, clock=clock, query_s=settings.query_s)
        runs = RunDesk(self._store, clock=clock, query_s=settings.query_s)
        versions = VersionDesk(self._store, clock=clock, query_s=settings.query_s)
        long = LongQueries()
        bulk = BulkDesk(self._store, long, clock=clock, query_s=settings.query_s)
        replays = ReplayDesk(self._store, long, clock=clock, query_s=settings.query_s)
        desks = (desk, panels, flags, changes, queues, bulk, replays, drains, runs, versions, crons, approvals)
        self._table = endpoints(reports, *desks)
        self._openapi = Answer(200, JSON, document(self._table, version=version("seawall")))
        self._answers = metrics.counter("seawall_admin_answers_total", "Answers of the admin API.", result="ok")
        self._refusals = metrics.counter("seawall_admin_answers_total", "Answers of the admin API.", result="refused")
        self._failures = metrics.counter("seawall_admin_answers_total", "Answers of the admin API.", result="failed")
        self._server: _Server | None = None
        self._draining = False

    def _checksums(self, shed: ShedList | None) -> Wanted:
        if shed is not None:
            shed.watch(Signal(name=STORE_POOL, read=lambda: self._store.waiting / self._store.size, high=1.0, low=0.0))
        without = "lists of events have no body_sha256"
        return declared(shed, "checksums", rank=20, without=without, eases=(STORE_POOL, LOOP_LAG))

    async def __aenter__(self) -> Console:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._listening.close()
        await self._store.close()

    def reload(self, settings: Settings) -> None:
        """Go on with other bounds, for requests and connections that come from now on."""
        self._settings = settings
        if self._server is not None:
            self._server.config.bound(settings)

    def register(self, supervisor: Supervisor) -> None:
        """Add the server's loop."""
        supervisor.add("console.http", self._run)

    async def drain(self, hurry: asyncio.Event) -> None:
        """Take no more connections, and answer what is in hand (or stop waiting when told to hurry)."""
        self._draining = True
        # Whoever connects now waits in the parent's copy of the socket for the next console, or is refused at once.
        self._listening.close()
        if self._server is not None:
            self._server.should_exit = True
            while self._server.busy and not hurry.is_set():
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(BEAT_S):
                        await hurry.wait()

    async def _run(self, heart: Heart) -> None:
        """The supervised loop: a server of its own for each start, on a copy of the one listening socket."""
        while not self._draining:
            await self._serve(heart)
        while True:
            await heart.beat()
            await asyncio.sleep(BEAT_S)

    async def _serve(self, heart: Heart) -> None:
        self._server = server = _Server(_config(self._application(), self._settings))
        task = asyncio.create_task(server.serve(sockets=[self._listening.dup()]), name="console.uvicorn")
        try:
            while not task.done():
                if server.started:
                    await heart.beat()
                await asyncio.wait([task], timeout=BEAT_S if server.started else START_POLL_S)
            await task
        finally:
            server.should_exit = server.force_exit = True
            await asyncio.wait([task], timeout=STOP_S)
            task.cancel()

    def _application(self) -> Starlette:
        routes = [Route(path, self._health_endpoint, methods=["GET"]) for path in HEALTH_PATHS]
        routes.append(Route("/openapi.json", self._openapi_endpoint, methods=["GET"]))
        paths = dict.fromkeys(endpoint.path for endpoint in self._table)
        for path in paths:
            by_method = {e.method: e for e in self._table if e.path == path}
            routes.append(Route(path, self._endpoint(by_method), methods=list(by_method)))
        return Starlette(routes=routes, exception_handlers={HTTPException: _refused})

    async def _health_endpoint(self, request: Request) -> Response:
        async def answered() -> Answer:
            if not is_ours(request.headers.get("host", ""), self._settings.hosts):
                return problem(421, "Unknown host", "ask by address, or list this name in [console] hosts")
            page = await self._health.answer(request.url.path)
            assert page is not None, "only paths of health are routed here"
            return Answer(page.status, page.content_type, page.body)

        return await self._safely(request, answered)

    async def _openapi_endpoint(self, request: Request) -> Response:
        return _response(self._openapi)

    def _endpoint(self, by_method: dict[str, Endpoint]) -> Callable[[Request], Awaitable[Response]]:
        async def endpoint(request: Request) -> Response:
            # Starlette answers HEAD wherever it answers GET.
            found = by_method["GET" if request.method == "HEAD" else request.method]
            return await self._safely(request, lambda: self._answered(request, found))

        return endpoint

    async def _answered(self, request: Request, endpoint: Endpoint) -> Answer:
        if not self._may(request):
            return problem(
                401, "Unauthorized", "send Authorization: Bearer TOKEN, with the token of DIR/admin.token",
                {"WWW-Authenticate": "Bearer"},
            )  # fmt: skip
        query = query_of(request.query_params.multi_items(), endpoint.query)
        body = await self._body(request)
        if body and endpoint.takes is None:
            raise Rejected(422, "Bad body", "a body isn't taken here")
        ask = Ask(path=request.path_params, query=query, body=body, by=by_of(request.headers.get(BY_HEADER, "")))
        return await endpoint.handler(ask)

    def _may(self, request: Request) -> bool:
        """Whether the request has the token; the time that it takes says nothing about how much of it is right."""
        given = request.headers.getlist("authorization")
        scheme, _, token = given[0].partition(" ") if len(given) == 1 else ("", "", "")
        right = hmac.compare_digest(token.strip().encode("utf-8", "replace"), self._token)
        return right and scheme.lower() == "bearer"

    async def _body(self, request: Request) -> bytes:
        parts: list[bytes] = []
        count = 0
        async for part in request.stream():
            count += len(part)
            if count > self._settings.body_bytes_max:
                raise Rejected(413, "Body too large", f"at most {self._settings.body_bytes_max} bytes")
            parts.append(part)
        return b"".join(parts)

    async def _safely(self, request: Request, answered: Callable[[], Awaitable[Answer]]) -> Response:
        try:
            answer = await answered()
        except SeawallError as error:
            answer = problem_of(error)
        except ClientDisconnect:
            return Response(status_code=400)  # nobody reads it
        except Exception:  # the outermost frame of a request: logged and told as ours, and the server goes on
            log.exception("request failed", extra=fields(method=request.method, path=request.url.path))
            answer = problem(500, "Internal error", "this is a fault of Seawall; its log says more")
        counter = self._answers if answer.status < 400 else self._refusals if answer.status < 500 else self._failures
        counter.value += 1
        return _response(answer)


def _response(answer: Answer) -> Response:
    headers = {**SECURITY, **answer.headers, "Content-Type": answer.content_type}
    return Response(answer.body, status_code=answer.status, headers=headers)


async def _refused(request: Request, error: Exception) -> Response:
    """Starlette's own refusals: no such path, or not this method."""
    assert isinstance(error, HTTPException)
    detail = "see /openapi.json for what there is" if error.status_code == 404 else ""
    return _response(problem(error.status_code, error.detail, detail, dict(error.headers or {})))


# ── The server ───────────────────────────────────────────────────────────────────────────────────────────────────────


class _Protocol(H11Protocol):
    """One connection, with a deadline for each whole request. Settings come with the configuration."""

    config: _Config
    _deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        if len(self.connections) > self.config.connections_max:
            self._last_words(problem(503, "Too many connections", headers={"Retry-After": "1"}))
            return
        self._arm()

    def connection_lost(self, exc: Exception | None) -> None:
        self._disarm()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self.transport.is_closing():
            return
        if self._deadline is None:
            self._arm()
        super().data_received(data)

    def on_response_complete(self) -> None:
        self._disarm()
        super().on_response_complete()
        # A request that came pipelined behind this one has begun already.
        if not self.transport.is_closing() and not self.cycle.response_complete:
            self._arm()

    def send_400_response(self, msg: str) -> None:
        self._last_words(problem(400, "Bad request", msg))

    def _arm(self) -> None:
        self._disarm()
        self._deadline = self.loop.call_later(self.config.request_s, self._too_late)

    def _disarm(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _too_late(self) -> None:
        self._deadline = None
        if self.cycle is None or self.cycle.response_complete:
            self._last_words(problem(408, "Request timeout"))
        else:
            # Part of the answer may be out: cutting is the only honest end.
            self.transport.abort()

    def _last_words(self, answer: Answer) -> None:
        """Answer beside h11, whose state may be anything, and close."""
        headers = {"Content-Type": answer.content_type, **SECURITY, **answer.headers, "Connection": "close"}
        lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        head = f"HTTP/1.1 {answer.status} {PHRASES[answer.status]}\r\n{lines}Content-Length: {len(answer.body)}\r\n\r\n"
        self.transport.write(head.encode("latin-1") + answer.body)
        self.transport.close()


PHRASES: Final = {400: "Bad Request", 408: "Request Timeout", 503: "Service Unavailable"}


class _Config(uvicorn.Config):
    """uvicorn's configuration with our two bounds."""

    connections_max: int
    request_s: float

    def bound(self, settings: Settings) -> None:
        """What each new connection reads."""
        self.connections_max = settings.connections_max
        self.request_s = settings.request_s
        self.timeout_keep_alive = settings.keep_alive_s


class _Server(uvicorn.Server):
    """uvicorn's server without its signal handlers: signals are ``guard.Lifecycle``'s."""

    config: _Config

    @property
    def busy(self) -> bool:
        """Whether a request is in hand."""
        return bool(self.server_state.tasks)

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


class _Forward(logging.Handler):
    """Passes uvicorn's warnings on as our log lines: it would print them without form."""

    def emit(self, record: logging.LogRecord) -> None:
        log.log(record.levelno, "http server: %s", record.getMessage(), exc_info=record.exc_info)


def _config(application: Any, settings: Settings) -> _Config:
    theirs = logging.getLogger("uvicorn")
    theirs.handlers[:] = [_Forward(logging.WARNING)]
    theirs.propagate = False
    config = _Config(
        application,
        http=_Protocol,
        ws="none",
        lifespan="off",
        interface="asgi3",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        timeout_graceful_shutdown=int(settings.request_s) or 1,
        h11_max_incomplete_event_size=settings.head_bytes_max,
    )
    config.bound(settings)
    return config
