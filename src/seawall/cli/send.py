"""``seawall send``: an event as a provider would send it."""

from __future__ import annotations

import json
import secrets
import sys
import time
from pathlib import Path
from typing import Any

import click

from seawall.cli import request, sender, way
from seawall.cli.client import Client, find
from seawall.cli.client import request as exchange
from seawall.cli.say import FAILED, MISUSED, Failed, data_option, json_option, json_text, say, say_json, say_text
from seawall.kernel import signature

ANSWER_S = 30.0
WAIT_MAX_S = 25


@click.command(
    epilog="""\b
Examples:
  seawall send http://127.0.0.1:8080/in/TOKEN --kind github --secret-file s --event push --body '{"ref": "x"}'
  seawall send gh --event push --body @payload.json    a source that was added with --remember
  seawall send URL --kind none --body hello --wait 10  hold the request until a workflow answers
  seawall send URL --file saved.http                   a saved request, byte for byte
  seawall send gh --body '{}' --explain                then show the event's way, stage by stage

\b
A saved request has headers, an empty line, and the body; with --kind it is signed anew.
Exit codes: 0 answered 2xx, 1 answered otherwise, 2 misused, 4 nobody answers, 5 --explain: not finished in time."""
)
@click.argument("target", metavar="NAME_OR_URL")
@click.option(
    "--kind", type=click.Choice(list(signature.KINDS)), help="How to sign. [default: as remembered, else none]"
)
@click.option("--body", metavar="TEXT", help="The body; @FILE reads a file, - reads standard input.")
@click.option("--file", "saved", metavar="FILE", help="Replay a saved request.")
@click.option("--secret-file", metavar="FILE", help="The source's secret; - reads standard input.")
@click.option("--header", "headers", multiple=True, metavar="'NAME: VALUE'", help="One more header; may be repeated.")
@click.option("--event", metavar="NAME", help="GitHub's event name (X-GitHub-Event).")
@click.option("--key", metavar="ID", help="Dedupe key, where the kind carries one. [default: a new one]")
@click.option("--wait", type=click.IntRange(1, WAIT_MAX_S), metavar="SECONDS", help="Wait for a workflow's answer.")
@click.option("--explain", is_flag=True, help="Show the event's way through the platform, with times.")
@data_option
@click.option("--url", metavar="URL", help="The admin address, for --explain.")
@json_option
def send(
    target: str,
    kind: str | None,
    body: str | None,
    saved: str | None,
    secret_file: str | None,
    headers: tuple[str, ...],
    event: str | None,
    key: str | None,
    wait: int | None,
    explain: bool,
    data: str | None,
    url: str | None,
    as_json: bool,
) -> None:
    """Send one event to a source, signed as any kind of source signs."""
    to = sender.find(target, data)
    if (body is None) == (saved is None):
        raise Failed(MISUSED, "give the body with --body, or a saved request with --file")
    told = request.Request([("Content-Type", "application/json")], _body(body)) if body is not None else _saved(saved)
    if kind is None and not told.signed:
        kind = to.kind
    extra = request.given(headers)
    if event is not None:
        extra.append(("X-GitHub-Event", event))
    if wait is not None:
        extra.append(("Prefer", f"wait={wait}"))
    if kind is not None:
        told = request.Request([(n, v) for n, v in told.headers if n.lower() not in request.SIGNED], told.body)
        extra += _signed(kind, _secret(secret_file, to.secret), told.body, key)
    began = time.monotonic()
    status, answered, text = exchange(
        to.url, "POST", "", request.merged(told.headers, extra), told.body, timeout_s=ANSWER_S + (wait or 0)
    )
    result: dict[str, Any] = {
        "status": status,
        "took_ms": round((time.monotonic() - began) * 1000, 1),
        "headers": answered,
        "body": _readable(text),
    }
    if not (as_json and explain and status < 300):
        _say(result, as_json=as_json)
    if status >= 300:
        # A request that was held is answered by its workflow: whatever that says, the event is safe (docs/replies.md).
        held = answered.get("location", "").startswith("/in/tickets/")
        said = f"accepted, and answered HTTP {status} for its workflow" if held else f"not accepted: HTTP {status}"
        raise Failed(FAILED, said)
    if explain:
        _explain(result, Client(find(data, url)), as_json=as_json)


def _body(text: str) -> bytes:
    if text == "-":
        return sys.stdin.buffer.read()
    return _read(text[1:]) if text.startswith("@") else text.encode()


def _saved(path: str | None) -> request.Request:
    assert path is not None, "one of the two was given"
    return request.parse(sys.stdin.buffer.read() if path == "-" else _read(path))


def _read(path: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise Failed(MISUSED, f"{path}: can't be read: {error.strerror}") from error


def _secret(file: str | None, remembered: bytes) -> bytes:
    return sender.read_secret(file) if file is not None else remembered


def _signed(kind: str, secret: bytes, body: bytes, key: str | None) -> list[tuple[str, str]]:
    if signature.KINDS[kind].has_secret and not secret:
        raise Failed(MISUSED, f"kind {kind} signs: give the secret with --secret-file")
    try:
        return signature.sign(kind, secret, body, time.time(), id=key or f"send-{secrets.token_hex(12)}")
    except ValueError as error:
        raise Failed(MISUSED, f"the secret can't sign as {kind}: {error}") from error


def _readable(text: bytes) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text.decode("utf-8", "replace")


def _say(result: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        say_json(result)
        return
    body = result["body"]
    say(f"HTTP {result['status']} in {result['took_ms']:g} ms")
    for name in ("location", "seawall-durability", "seawall-outcome", "retry-after"):
        if name in result["headers"]:
            say(f"{name}: {result['headers'][name]}")
    say_text(body if isinstance(body, str) else json_text(body, indent=2))


def _explain(result: dict[str, Any], client: Client, *, as_json: bool) -> None:
    """The way of what we have just sent: its id is in the answer, or in the Location of a held one."""
    body = result["body"]
    id = body.get("id") if isinstance(body, dict) else None
    id = id or result["headers"].get("location", "").rpartition("/")[2]
    if not id:
        raise Failed(FAILED, "the answer names no event, so its way can't be shown (a handshake?)")
    found = way.follow(client, str(id))
    if as_json:
        say_json({**result, "way": found})
    else:
        way.say(found)
