"""Talks to the admin API of a running platform: one request, one answer, a deadline."""

from __future__ import annotations

import http.client
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode, urlsplit

from seawall.cli.place import folder_of
from seawall.cli.say import FAILED, MISUSED, NOT_FOUND, UNREACHABLE, Failed
from seawall.machine.person import person
from seawall.settings import environ

TIMEOUT_S = 30.0
ANSWER_BYTES_MAX = 64 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Place:
    """Where the admin API is, and the right to use it."""

    url: str
    token: str


def find(data: str | None, url: str | None) -> Place:
    """The platform that a command means: ``--url`` with SEAWALL_TOKEN_FILE, else the one that runs on the data folder.

    Raises:
        Failed: 2 when ``--url`` is no URL or has no token, 4 when nothing runs on the folder.
    """
    if url is None and data is None and environ("SEAWALL_DATA") is None:
        url = environ("SEAWALL_URL")
    if url is not None:
        file = environ("SEAWALL_TOKEN_FILE")
        if file is None:
            raise Failed(MISUSED, "--url needs SEAWALL_TOKEN_FILE, a file that holds the admin token")
        _address(url)
        try:
            return Place(url.rstrip("/"), Path(file).read_text("ascii").strip())
        except (OSError, UnicodeDecodeError) as error:
            raise Failed(MISUSED, f"SEAWALL_TOKEN_FILE {file}: can't be read: {error}") from error
    folder = folder_of(data)
    try:
        found = json.loads(folder.admin_file.read_text("utf-8"))
        return Place(str(found["address"]), str(found["token"]))
    except FileNotFoundError:
        raise Failed(
            UNREACHABLE,
            f"nothing is running in {folder.path}; start it: seawall up --data {folder.path}, or name it with --data",
        ) from None
    except (OSError, ValueError, KeyError) as error:
        raise Failed(UNREACHABLE, f"{folder.admin_file}: can't be read: {error}") from error


class Client:
    """The admin API. Each call is a connection of its own: a command makes one or two."""

    def __init__(self, place: Place, *, timeout_s: float = TIMEOUT_S) -> None:
        self._place = place
        self._timeout_s = timeout_s

    def get(self, path: str, **query: object) -> Any:
        """The JSON answer to a GET; parameters that are None are left out."""
        return _json(self.call("GET", path, query=query)[1])

    def raw(self, path: str) -> bytes:
        """An answer's bytes."""
        return self.call("GET", path)[1]

    def send(self, method: str, path: str, body: object = None) -> Any:
        """The JSON answer to a request that changes something; None when it has no body."""
        answer = self.call(method, path, body=json.dumps(body).encode() if body is not None else b"")[1]
        return _json(answer) if answer else None

    def call(
        self, method: str, path: str, *, query: dict[str, object] | None = None, body: bytes = b""
    ) -> tuple[int, bytes]:
        """Status and body of a 2xx answer.

        Raises:
            Failed: 3 for 404, and for 412 (it isn't as was expected: nothing was done); 4 when nobody answers in time;
                1 for any other refusal, with what it says.
        """
        kept = {name: str(value) for name, value in (query or {}).items() if value is not None}
        target = path + ("?" + urlencode(kept) if kept else "")
        headers = {"Authorization": f"Bearer {self._place.token}", "Accept": "application/json", "Seawall-By": _by()}
        if body:
            headers["Content-Type"] = "application/json"
        status, _, answer = request(self._place.url, method, target, headers, body, timeout_s=self._timeout_s)
        if 200 <= status < 300:
            return status, answer
        raise Failed(NOT_FOUND if status in (404, 412) else FAILED, f"{_said(answer)} (HTTP {status})")


def request(
    url: str, method: str, target: str, headers: dict[str, str], body: bytes, *, timeout_s: float
) -> tuple[int, dict[str, str], bytes]:
    """Status, headers (names in lower case) and body of one exchange.

    Raises:
        Failed: 2, no URL, or what no request can carry; 4, nobody answered in time.
    """
    kind, host, port, path = _address(url)
    connection = kind(host, port, timeout=timeout_s)
    try:
        connection.request(method, path + target, body=body or None, headers=headers)
        answer = connection.getresponse()
        found = answer.read(ANSWER_BYTES_MAX)
    except http.client.InvalidURL as error:
        raise Failed(MISUSED, f"{url}: {error}") from error
    except (OSError, http.client.HTTPException) as error:
        said = str(error) or type(error).__name__
        raise Failed(UNREACHABLE, f"{url} doesn't answer: {said}; is the platform running?") from error
    except ValueError as error:
        # Not which: a header may be the token. (A certificate that is refused is one of these too, and caught above.)
        raise Failed(MISUSED, f"{url}: its path, or a header, has characters that no request can carry") from error
    finally:
        connection.close()
    return answer.status, {name.lower(): value for name, value in answer.getheaders()}, found


def _address(url: str) -> tuple[type[http.client.HTTPConnection], str, int | None, str]:
    """What connects, host, port and path of a URL. Raises Failed (2)."""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError as error:
        raise Failed(MISUSED, f"{url}: {error}") from error
    if parts.scheme not in ("http", "https") or not host:
        raise Failed(MISUSED, f"{url}: must begin with http:// or https://")
    kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
    return kind, host, port, parts.path.rstrip("/")


def part(text: str) -> str:
    """One segment of a path, with everything that isn't plain escaped."""
    return quote(text, safe="")


def _by() -> str:
    """Who uses this command, for the timeline of changes; in characters that a header may have."""
    return person().encode("ascii", "replace").decode()


def _json(body: bytes) -> Any:
    try:
        return json.loads(body)
    except ValueError as error:
        raise Failed(UNREACHABLE, "the answer isn't JSON: is this the admin address of a Seawall?") from error


def _said(body: bytes) -> str:
    """What a problem document says; never more than a line."""
    try:
        found = json.loads(body)
        parts = [str(found[k]) for k in ("title", "detail") if found.get(k)]
    except (ValueError, AttributeError, TypeError):
        return body[:200].decode("utf-8", "replace").strip() or "refused"
    return ": ".join(parts) or "refused"
