"""Our answers as bytes: what they promise is said here, in the README and in docs/replies.md.

A 202 says that the event is on stable storage. A 4xx says that certainly nothing was stored. A 503 says that nothing
was stored, except with ``Seawall-Outcome: uncertain``: then it may have been, and the sender should repeat it with the
same key.
"""

from __future__ import annotations

import json
from email.utils import formatdate
from http import HTTPStatus
from random import Random

from seawall.collector.snapshot import Source
from seawall.kernel.clock import Clock
from seawall.kernel.seam.ticket import Reply

CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
_JSON = b"Content-Type: application/json\r\n"
_NOSNIFF = b"X-Content-Type-Options: nosniff\r\n"  # where a sender or a workflow has a word in the body
_FSYNC = b"Seawall-Durability: fsync\r\n"
_REPLICATED = b"Seawall-Durability: replicated\r\n"
_STATUS_LINES = {s.value: b"HTTP/1.1 %d %b\r\n" % (s.value, s.phrase.encode()) for s in HTTPStatus}
_ACCEPTED_BYTES = len(b'{"id":"","status":"accepted"}') + 36


class Receipts:
    """Makes answers. All are complete: status line, headers with their length, body.

    Args:
        random: For the jitter of Retry-After, so that refused senders don't come back as one wave.
    """

    def __init__(self, clock: Clock, random: Random) -> None:
        self._clock = clock
        self._random = random
        self._date = b""
        self._second = -1
        self._accepted = self._accepted_by_many = b""
        self.tick()

    def tick(self) -> None:
        """Bring the Date header up to date; called several times a second, so that no answer formats a date."""
        second = self._clock.wall_us() // 1_000_000
        if second != self._second:
            self._second = second
            self._date = b"Date: %b\r\n" % formatdate(second, usegmt=True).encode()
            self._accepted, self._accepted_by_many = (
                b"%b%b%b%bContent-Length: %d\r\nLocation: /in/events/" % (
                    _STATUS_LINES[202], self._date, _JSON, durability, _ACCEPTED_BYTES,
                )
                for durability in (_FSYNC, _REPLICATED)
            )  # fmt: skip

    def accepted(self, id: bytes, source: Source, *, replicated: bool = False) -> bytes:
        """The event is durable: on our disk, or ``replicated``. ``id`` is its text form."""
        choice = source.choice
        if choice.accepted_status == 202 and choice.accepted_body is None:
            start = self._accepted_by_many if replicated else self._accepted
            return b'%b%b\r\n\r\n{"id":"%b","status":"accepted"}' % (start, id, id)
        headers = b"%bLocation: /in/events/%b\r\n" % (_REPLICATED if replicated else _FSYNC, id)
        if choice.accepted_status == 204:
            return self.whole(204, headers, b"")
        if choice.accepted_body is None:
            return self.whole(choice.accepted_status, _JSON + headers, b'{"id":"%b","status":"accepted"}' % id)
        kind = b"Content-Type: %b\r\n" % choice.accepted_content_type.encode("ascii")
        return self.whole(choice.accepted_status, kind + headers, choice.accepted_body.encode())

    def duplicate(self, first: bytes, *, replicated: bool = False) -> bytes:
        """The same key with the same body is durable already, as ``first`` (text form)."""
        headers = b"%b%bLocation: /in/events/%b\r\n" % (_JSON, _REPLICATED if replicated else _FSYNC, first)
        return self.whole(200, headers, b'{"id":"%b","status":"accepted","duplicate":true}' % first)

    def waiting(self, id: bytes, *, replicated: bool | None = None) -> bytes:
        """No reply (yet): here is where to ask for it. ``replicated``: how the event was kept, if that is known."""
        durability = b"" if replicated is None else _REPLICATED if replicated else _FSYNC
        headers = b"%b%bLocation: /in/tickets/%b\r\nRetry-After: 1\r\n" % (_JSON, durability, id)
        return self.whole(202, headers, b'{"id":"%b","status":"accepted","reply":"pending"}' % id)

    def reply(self, id: bytes, reply: Reply) -> bytes:
        """What the workflow answered."""
        content_type = reply.content_type.translate(_NO_CONTROLS).encode("latin-1", "replace")
        headers = b"Content-Type: %b\r\n%bLocation: /in/tickets/%b\r\n" % (content_type, _NOSNIFF, id)
        return self.whole(reply.status, headers, reply.body)

    def json(self, status: int, value: object, *, headers: bytes = b"") -> bytes:
        return self.whole(status, _JSON + headers, json.dumps(value, separators=(",", ":")).encode())

    def plain(self, status: int, body: bytes) -> bytes:
        return self.whole(status, b"Content-Type: text/plain; charset=utf-8\r\n" + _NOSNIFF, body)

    def problem(self, status: int, title: str, detail: str = "", *, headers: bytes = b"") -> bytes:
        """A refusal as problem+json (RFC 9457). ``type`` is stable and made of the title."""
        value = {"type": f"urn:seawall:problem:{title.replace(' ', '-')}", "title": title, "status": status}
        if detail:
            value["detail"] = detail
        body = json.dumps(value, separators=(",", ":")).encode()
        return self.whole(status, b"Content-Type: application/problem+json\r\n" + headers, body)

    def unavailable(
        self, title: str, detail: str = "", *, retry_after_s: float = 1.0, uncertain: bool = False
    ) -> bytes:
        """503: our trouble, never the sender's. Retry-After is what is asked for, up to twice that and one more."""
        after = max(1, round(retry_after_s * (1 + self._random.random()) + self._random.random()))
        headers = b"Retry-After: %d\r\n" % after
        if uncertain:
            headers += b"Seawall-Outcome: uncertain\r\n"
        return self.problem(503, title, detail, headers=headers)

    def stale(self, status: int, title: str) -> bytes:
        """503 in place of a refusal that a newer configuration might take back, while ours is old."""
        said = f"it would be {status} {title}, but the store hasn't confirmed the configuration for a while"
        return self.unavailable("configuration is stale", said, retry_after_s=5.0)

    def whole(self, status: int, headers: bytes, body: bytes) -> bytes:
        """An answer out of its parts; ``headers`` are lines, each with its end. 204 and 304 have no body."""
        line = _STATUS_LINES.get(status) or b"HTTP/1.1 %d Status\r\n" % status
        if status in (204, 304):
            return b"%b%b%b\r\n" % (line, self._date, headers)
        return b"%b%b%bContent-Length: %d\r\n\r\n%b" % (line, self._date, headers, len(body), body)


_NO_CONTROLS = dict.fromkeys((*range(0x20), 0x7F))


def without_body(answer: bytes) -> bytes:
    """What HEAD is answered: a body would be read as the next answer."""
    return answer[: answer.index(b"\r\n\r\n") + 4]


def closing(answer: bytes) -> bytes:
    """The same answer, saying that the connection ends with it."""
    line, _, rest = answer.partition(b"\r\n")
    return b"%b\r\nConnection: close\r\n%b" % (line, rest)
