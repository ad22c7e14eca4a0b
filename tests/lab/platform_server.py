"""A small real HTTP server that answers as the admin API and intake do, with whatever a test wants done wrong."""

from __future__ import annotations

import hashlib
import json
import ssl
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from seawall.lab.platform import Place


class FakePlatform:
    """Keeps what it is sent, and tells it back; tests change ``events``, ``runs`` and ``answer`` as they like."""

    def __init__(self, tls: tuple[Path, Path] | None = None) -> None:
        self.events: list[dict[str, Any]] = []
        self.runs: list[dict[str, Any]] = []
        self.bodies: dict[str, bytes] = {}
        self.sources: dict[str, dict[str, Any]] = {}
        self.removed: list[str] = []
        self.half_made: list[str] = []  # what the next sources meet: "cut" (made, but no answer) or "missing"
        self.page = 3  # small, so that every list has several pages
        self.answer: Callable[[str], int] = lambda key: 202
        self.reply: Callable[[str], str] = lambda key: key  # whom the answer to a held request names; "": a ticket
        self.tickets: dict[str, tuple[int, bytes]] = {}  # by event id; what isn't there is pending
        self.asked: list[str] = []
        self.pause: Callable[[str], None] = lambda path: None  # before the answer to a GET
        self.alerts: list[dict[str, Any]] = []
        self.metrics = "seawall_alerts_active_count 0\n"
        self._keeping = threading.Lock()  # a thread for each connection: two events may not get one id
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True
        self._scheme = "http" if tls is None else "https"
        if tls is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(*tls)
            self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))
        self._thread.start()

    def __enter__(self) -> FakePlatform:
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    @property
    def url(self) -> str:
        return f"{self._scheme}://127.0.0.1:{self._server.server_port}"

    def find(self) -> Place:
        return Place(admin=self.url, token="secret", listen=self.url)

    def keep(self, key: str, body: bytes, *, source_id: str = "s1") -> str:
        """Take an event in and run it, as a platform that works would."""
        sha = hashlib.sha256(body).hexdigest()
        with self._keeping:
            id = f"event-{len(self.events)}"
            self.bodies[id] = body
            self.runs.append({"id": f"run-{id}", "event": id, "workflow": "w", "status": "succeeded"})
            self.events.append(
                {"id": id, "source_id": source_id, "dedupe_key": key, "status": "routed", "body_sha256": sha}
            )
        return id

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        platform = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True

            def do_GET(self) -> None:
                parts = urlsplit(self.path)
                platform.asked.append(parts.path)
                platform.pause(parts.path)
                if parts.path.startswith("/in/tickets/"):
                    self._say(*platform.tickets.get(parts.path.rpartition("/")[2], (202, b"{}")))
                    return
                if parts.path == "/readyz":
                    self._say(200, b"{}")
                    return
                if self.headers["authorization"] != "Bearer secret":
                    self._say(401, b"{}")
                    return
                if parts.path.endswith("/raw"):
                    self._say(200, platform.bodies[parts.path.split("/")[3]])
                    return
                if parts.path == "/metrics":
                    self._say(200, platform.metrics.encode())
                    return
                if parts.path == "/v1/alerts":
                    self._say(200, json.dumps({"items": platform.alerts}).encode())
                    return
                query = {name: values[0] for name, values in parse_qs(parts.query).items()}
                sources = [{"id": "s1", **each} for each in platform.sources.values()]
                rows = {"/v1/events": platform.events, "/v1/runs": platform.runs, "/v1/sources": sources}[parts.path]
                at = int(query.get("cursor", 0))
                size = min(int(query["limit"]), platform.page)
                following = str(at + size) if at + size < len(rows) else None
                self._say(200, json.dumps({"items": rows[at : at + size], "next": following}).encode())

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                if self.path == "/v1/sources":
                    self._make_source(json.loads(body))
                    return
                key = self.headers["webhook-id"]
                status = platform.answer(key)
                if status == 0:
                    self.close_connection = True
                    return
                id = platform.keep(key, body) if status == 202 else ""
                if status == 202 and self.headers["prefer"]:
                    self._reply(id, platform.reply(key))
                    return
                self._say(status, json.dumps({"id": id, "status": "accepted"}).encode())

            def _reply(self, id: str, named: str) -> None:
                body = json.dumps({"key": named} if named else {"id": id, "reply": "pending"}).encode()
                self._say(200 if named else 202, body, location=f"/in/tickets/{id}")

            def _make_source(self, asked: dict[str, Any]) -> None:
                if asked["name"] in platform.sources:
                    self._say(409, b"{}")
                    return
                platform.sources[asked["name"]] = asked
                trouble = platform.half_made.pop(0) if platform.half_made else ""
                if trouble == "cut":
                    self.close_connection = True
                    return
                made = {"id": "s1", "name": asked["name"], "token": "t", "url": f"{platform.url}/in/t"}
                self._say(201, json.dumps(made | {"missing": ["c1"] if trouble else []}).encode())

            def do_DELETE(self) -> None:
                platform.removed.append(self.path.rpartition("/")[2])
                self._say(204, b"")

            def _say(self, status: int, body: bytes, *, location: str = "") -> None:
                self.send_response(status)
                if location:
                    self.send_header("location", location)
                if status != 204:
                    self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: Any) -> None:
                """Tests print what they want to say themselves."""

        return Handler
