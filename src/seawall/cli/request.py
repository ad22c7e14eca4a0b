"""A saved request, and the headers of a new one.

A saved request is what went over the wire, as `curl --trace`, proxies and `seawall events raw --request` write it::

    POST /in/TOKEN HTTP/1.1          (this line may be missing)
    X-GitHub-Event: push
    X-Hub-Signature-256: sha256=…

    {"ref": "refs/heads/main"}

Lines of the head end in LF or CRLF; after the first empty line every byte belongs to the body.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from seawall.cli.say import MISUSED, Failed

FRAMING = frozenset({"host", "content-length", "connection", "transfer-encoding", "keep-alive", "expect", "upgrade"})
"""Headers of the connection that it was saved from: they are made anew."""

SIGNATURES = frozenset(
    {
        "x-hub-signature-256", "stripe-signature", "x-slack-signature", "x-shopify-hmac-sha256",
        "x-pagerduty-signature", "webhook-signature", "x-signature", "authorization",
    }
)  # fmt: skip
SIGNED = SIGNATURES | {
    "x-github-delivery", "x-slack-request-timestamp", "x-shopify-event-id", "webhook-id", "webhook-timestamp",
}  # fmt: skip
"""Headers that signing makes anew."""

_LINE = re.compile(r"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*(.*?)[ \t]*")
_START = re.compile(r"[A-Z]+ \S+ HTTP/\d(\.\d)?")


@dataclass(frozen=True, slots=True)
class Request:
    """Headers in order, and the body's exact bytes."""

    headers: list[tuple[str, str]]
    body: bytes

    @property
    def signed(self) -> bool:
        """Whether it carries what proves its sender."""
        return any(name.lower() in SIGNATURES for name, _ in self.headers)


def parse(saved: bytes) -> Request:
    """A saved request.

    Raises:
        Failed: 2, there is no empty line, or a line of the head is no header.
    """
    found = re.search(rb"\r?\n\r?\n", saved)
    if found is None:
        raise Failed(MISUSED, "--file: no empty line between headers and body (see seawall send --help)")
    lines = saved[: found.start()].decode("latin-1").replace("\r\n", "\n").split("\n")
    if _START.fullmatch(lines[0]):
        del lines[0]
    headers: list[tuple[str, str]] = []
    for number, line in enumerate(lines, 1):
        match = _LINE.fullmatch(line)
        if match is None:
            raise Failed(MISUSED, f"--file: header {number} is not NAME: VALUE")
        headers.append((match[1], match[2]))
    return Request([(n, v) for n, v in headers if n.lower() not in FRAMING], saved[found.end() :])


def given(lines: tuple[str, ...]) -> list[tuple[str, str]]:
    """Headers out of ``--header "Name: value"`` options."""
    headers: list[tuple[str, str]] = []
    for line in lines:
        match = _LINE.fullmatch(line)
        if match is None:
            raise Failed(MISUSED, f"--header {line!r}: must be 'Name: value'")
        headers.append((match[1], match[2]))
    return headers


def merged(*groups: list[tuple[str, str]]) -> dict[str, str]:
    """Headers by name, a later group's value instead of an earlier one's, whatever the case of the name."""
    found: dict[str, tuple[str, str]] = {}
    for group in groups:
        for name, value in group:
            found[name.lower()] = (name, value)
    return dict(found.values())
