"""A running platform as the lab sees it from outside: where it is now, its sources, its events and runs.

Everything may be killed at any moment, so each call finds the platform anew after a failure (it may have moved to other
ports) and is repeated within its deadline. Only what changes nothing, or may be done twice, is repeated.
"""

from __future__ import annotations

import http.client
import ipaddress
import itertools
import json
import ssl
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any
from urllib.parse import quote, urlsplit

from seawall.kernel.error import Rejected, Unavailable

CALL_TIMEOUT_S = 10.0
RETRY_S = 0.2
PAGE = 500
"""Rows asked for at once; the API caps it at what it allows."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where a platform is, this time."""

    admin: str  # http://HOST:PORT
    token: str = field(repr=False)
    listen: str = ""  # http://HOST:PORT; "": not known, the source's URL says it
    tls: ssl.SSLContext | None = None  # for https; None: whom this machine trusts


Find = Callable[[], Place]
"""Raises Unavailable while there is none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """A source that the lab made."""

    id: str
    name: str
    token: str
    url: str

    @property
    def path(self) -> str:
        return urlsplit(self.url).path


class Platform:
    """Calls to one platform's admin API.

    Args:
        find: Says where it is; asked at first use and after each failure.
        patience_s: How long a call is repeated while the platform is away.
        timeout_s: For one try of a call.
    """

    def __init__(self, find: Find, *, patience_s: float = 30.0, timeout_s: float = CALL_TIMEOUT_S) -> None:
        self._find = find
        self._patience_s = patience_s
        self._timeout_s = timeout_s
        self._place: Place | None = None
        self._connection: http.client.HTTPConnection | None = None

    def __enter__(self) -> Platform:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def listen(self, source: Source) -> tuple[str, int]:
        """Address at which events are taken, read anew: a platform that was started again may have moved. While there
        is none, where it was when the source was made."""
        try:
            url = self._find().listen or source.url
        except Unavailable:
            url = source.url
        return address(url)

    def add_source(
        self, name: str, *, kind: str, secret: str, settings: Mapping[str, object] = {}, tenant: str = ""
    ) -> Source:
        """Make a source; on return every live collector knows it.

        Args:
            tenant: Whose it is; "": the usual one's.

        Raises:
            Rejected: The name is taken (also by a first try that was cut off: choose another), or a wrong value.
            Unavailable: The platform can't be reached, or a collector doesn't know the source in time.
        """
        asked: dict[str, object] = {"name": name, "kind": kind, "secret": secret, "settings": dict(settings)}
        if tenant:
            asked["tenant"] = tenant
        made = self.call("POST", "/v1/sources", asked)
        if made.get("missing"):
            raise Unavailable("collector " + ", ".join(made["missing"]), f"source {name} isn't live yet")
        return Source(id=str(made["id"]), name=name, token=str(made["token"]), url=str(made["url"]))

    def own_source(
        self, prefix: str, *, kind: str, secret: str, settings: Mapping[str, object] = {}, tenant: str = ""
    ) -> Source:
        """Make a source of a name of our own. A platform that is killed in the middle of it is given `patience_s` to
        come back; a half-made source of an earlier try is removed then.

        Raises:
            Rejected: A wrong value.
            Unavailable: As ``add_source``, for longer than that.
        """
        latest = time.monotonic() + self._patience_s
        for attempt in itertools.count():
            name = f"{prefix}-{attempt}" if attempt else prefix
            try:
                return self.add_source(name, kind=kind, secret=secret, settings=settings, tenant=tenant)
            except Rejected as error:
                # 409: a try that was cut off did make it, but its token went with the answer.
                if error.status != 409 or time.monotonic() > latest:
                    raise
            except Unavailable:
                if time.monotonic() > latest:
                    raise
                time.sleep(RETRY_S)
            self.remove_source(name)
        raise AssertionError("counted to the end")

    def remove_source(self, name: str) -> None:
        """End a source; fine when it is gone already."""
        try:
            self.call("DELETE", f"/v1/sources/{quote(name, safe='')}")
        except Rejected as error:
            if error.status != 404:
                raise

    def items(self, path: str, **query: str | int) -> Iterator[Mapping[str, Any]]:
        """All rows of a list, page by page."""
        cursor: str | None = None
        while True:
            asked = {**query, "limit": PAGE} | ({"cursor": cursor} if cursor else {})
            page = self.call("GET", path + "?" + "&".join(f"{k}={quote(str(v), safe='')}" for k, v in asked.items()))
            yield from page["items"]
            cursor = page.get("next")
            if not cursor:
                return

    def call(self, method: str, path: str, body: object = None) -> Any:
        """One call's JSON answer, None when it has no body.

        Raises:
            Rejected: 4xx.
            Unavailable: It can't be reached, or answers 5xx, for longer than ``patience_s``.
        """
        data = self.raw(method, path, body)
        return json.loads(data) if data else None

    def raw(self, method: str, path: str, body: object = None) -> bytes:
        """One call's answer, byte for byte. Raises as ``call``."""
        latest = time.monotonic() + self._patience_s
        while True:
            try:
                return self._once(method, path, body)
            except Unavailable:
                self.close()
                if time.monotonic() > latest:
                    raise
                time.sleep(RETRY_S)

    def public(self, path: str, timeout_s: float = CALL_TIMEOUT_S) -> tuple[int, bytes]:
        """(status, body) of a page that the collector serves to anybody; nothing is repeated.

        Raises:
            Unavailable: It can't be reached.
        """
        place = self._find()
        connection = _connection(place.listen, place, timeout_s)
        try:
            connection.request("GET", path)
            answer = connection.getresponse()
            return answer.status, answer.read()
        except (OSError, http.client.HTTPException) as error:
            raise Unavailable("the collector", f"{type(error).__name__}: {error}") from error
        finally:
            connection.close()

    def close(self) -> None:
        """Harmless when nothing is open."""
        if self._connection is not None:
            self._connection.close()
        self._connection = self._place = None

    def _once(self, method: str, path: str, body: object) -> bytes:
        place, connection = self._open()
        headers = {"authorization": f"Bearer {place.token}"}
        data = None
        if body is not None:
            data = json.dumps(body).encode()
            headers["content-type"] = "application/json"
        try:
            connection.request(method, path, data, headers)
            answer = connection.getresponse()
            said = answer.read()
        except (OSError, http.client.HTTPException) as error:
            raise Unavailable("the admin API", f"{type(error).__name__}: {error}") from error
        if answer.status >= 500 or answer.status == 429:
            raise Unavailable("the admin API", f"{method} {path.partition('?')[0]} answered {answer.status}")
        if answer.status >= 400:
            raise Rejected(answer.status, f"{method} {path.partition('?')[0]}", said[:500].decode("utf-8", "replace"))
        return said

    def _open(self) -> tuple[Place, http.client.HTTPConnection]:
        if self._place is None or self._connection is None:
            self._place = self._find()
            self._connection = _connection(self._place.admin, self._place, self._timeout_s)
        return self._place, self._connection


def loopback(host: str) -> bool:
    """Whether this host, by its name or number, is this machine and nothing else."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def address(url: str) -> tuple[str, int]:
    """Host and port of a URL."""
    parts = urlsplit(url)
    return parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)


def _connection(url: str, place: Place, timeout_s: float) -> http.client.HTTPConnection:
    if url.startswith("https:"):
        return http.client.HTTPSConnection(*address(url), timeout=timeout_s, context=place.tls)
    return http.client.HTTPConnection(*address(url), timeout=timeout_s)
