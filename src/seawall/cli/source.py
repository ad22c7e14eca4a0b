"""``seawall source``."""

from __future__ import annotations

import base64
import json
import secrets
from typing import Any

import click

from seawall.cli import sender
from seawall.cli.client import Client, find, part
from seawall.cli.listing import page_options, place_options, say_page
from seawall.cli.say import FAILED, MISUSED, Failed, json_option, say, say_json
from seawall.kernel import signature

COLUMNS = ("name", "kind", "tenant", "key_ids", "created_at", "id")
SECRET_BYTES = 32


@click.group(epilog="Exit codes: 0 done, 1 refused, 2 misused, 3 no such source, 4 unreachable.")
def source() -> None:
    """Add, list, rotate, revoke and remove sources of events. Each command returns when its change is live."""


@source.command(
    epilog="""\b
Examples:
  seawall source add gh --kind github --secret-file secret.txt
  pass show stripe/webhook | seawall source add stripe --kind stripe --secret-file -
  seawall source add inner --kind standard             the secret is made, and printed once
  seawall source add form --kind none --setting wait_ms_max=10000 --remember
  seawall source add ledger --kind standard --ordered

\b
Settings of a source (--setting, values are JSON or text): body_bytes_max, accepted_status, accepted_body,
content_types, require_json, wait_ms_max, wait_over_status, signature.tolerance_s, signature.header,
dedupe.header, dedupe.paths, dedupe.required, …: see docs/sources.md."""
)
@click.argument("name")
@click.option("--kind", required=True, type=click.Choice(list(signature.KINDS)), help="How its requests are signed.")
@click.option("--secret-file", metavar="FILE", help="Its secret; - reads standard input. [default: one is made]")
@click.option("--tenant", default="default", show_default=True, metavar="NAME", help="Whose events these are.")
@click.option("--setting", "choices", multiple=True, metavar="KEY=VALUE", help="One setting; may be repeated.")
@click.option("--ordered", is_flag=True, help="Keep its events' order, across an outage of Kafka too.")
@click.option("--remember", is_flag=True, help="Keep URL and secret in DIR, so that `seawall send NAME` works.")
@place_options
@json_option
def add(
    name: str,
    kind: str,
    secret_file: str | None,
    tenant: str,
    choices: tuple[str, ...],
    ordered: bool,
    remember: bool,
    data: str | None,
    url: str | None,
    as_json: bool,
) -> None:
    """Add a source; prints its URL, which holds its token and is shown only now."""
    client = Client(find(data, url))
    secret, made = _secret_for(kind, secret_file)
    wish: dict[str, Any] = {"name": name, "kind": kind, "tenant": tenant, "settings": settings_of(choices)}
    if ordered:
        wish["settings"]["ordered"] = True
    if secret is not None:
        wish["secret"] = secret
    found = client.send("POST", "/v1/sources", wish)
    result = {key: found[key] for key in ("id", "name", "token", "url")}
    if made:
        result["secret"] = secret
    if remember:
        sender.remember(name, sender.Sender(found["url"], kind, (secret or "").encode()), data)
    if as_json:
        say_json({**result, "kind": kind, "tenant": tenant, "live": found["live"], "missing": found["missing"]})
    else:
        for key, value in result.items():
            say(f"{key:7} {value}")
        if made:
            say("The secret is shown only now: give it to the sender.", err=True)
    _live_or_fail(found)


@source.command("list", epilog="Example: seawall source list --json")
@page_options
@place_options
@json_option
def list_(data: str | None, url: str | None, as_json: bool, **query: Any) -> None:
    """List live sources by name, without tokens and secrets."""
    found = Client(find(data, url)).get("/v1/sources", **query)
    say_page(found, COLUMNS, as_json=as_json, empty="no sources")


@source.command(
    epilog="""\b
Example: seawall source rotate gh --kind github --secret-file new.txt
The old secret stays valid until `seawall source revoke gh --key 1`. `seawall send gh`, where the source is remembered,
signs with the new one at once."""
)
@click.argument("name")
@click.option("--kind", type=click.Choice(list(signature.KINDS)), help="Its kind, for a secret that is made here.")
@click.option("--secret-file", metavar="FILE", help="The new secret; - reads standard input. [default: one is made]")
@place_options
@json_option
def rotate(
    name: str, kind: str | None, secret_file: str | None, data: str | None, url: str | None, as_json: bool
) -> None:
    """Give a source one more secret. Senders may use either, until you revoke the old one."""
    secret, made = _secret_for(kind or "standard", secret_file)
    if secret is None:
        raise Failed(MISUSED, "a source of kind none has no secret")
    found = Client(find(data, url)).send("POST", f"/v1/sources/{part(name)}/rotate", {"secret": secret})
    result = {"name": name, "key_id": found["key_id"], **({"secret": secret} if made else {})}
    try:
        _say(result, found, as_json=as_json)
    finally:  # after it was said: no trouble with our file may lose a secret that is shown only now
        if url is None:
            sender.renew(name, secret.encode(), data)


@source.command(epilog="Example: seawall source revoke gh --key 1")
@click.argument("name")
@click.option(
    "--key", "key_id", required=True, type=click.IntRange(1), metavar="N", help="Number of the secret to end."
)
@place_options
@json_option
def revoke(name: str, key_id: int, data: str | None, url: str | None, as_json: bool) -> None:
    """End one secret of a source: what is signed with it is refused from now on."""
    found = Client(find(data, url)).send("POST", f"/v1/sources/{part(name)}/revoke", {"key_id": key_id})
    _say({"name": name, "revoked": key_id}, found, as_json=as_json)


@source.command(epilog="Example: seawall source remove gh")
@click.argument("name")
@place_options
@json_option
def remove(name: str, data: str | None, url: str | None, as_json: bool) -> None:
    """End a source: its URL answers 410 from now on. Its events stay."""
    found = Client(find(data, url)).send("DELETE", f"/v1/sources/{part(name)}")
    if url is None:
        sender.forget(name, data)
    _say({"name": name, "removed": True}, found, as_json=as_json)


def _secret_for(kind: str, file: str | None) -> tuple[str | None, bool]:
    """The secret as text, and whether it was made here."""
    if not signature.KINDS[kind].has_secret:
        if file is not None:
            raise Failed(MISUSED, f"kind {kind} has no secret: leave --secret-file out")
        return None, False
    if file is None:
        return _made_secret(kind, secrets.token_bytes(SECRET_BYTES)), True
    try:
        return sender.read_secret(file).decode(), False
    except UnicodeDecodeError as error:
        raise Failed(MISUSED, f"--secret-file {file}: is not text (UTF-8)") from error


def _made_secret(kind: str, raw: bytes) -> str:
    if kind == "standard":
        return f"whsec_{base64.b64encode(raw).decode()}"
    return f"seawall:{raw.hex()}" if kind == "basic" else raw.hex()


def settings_of(choices: tuple[str, ...]) -> dict[str, Any]:
    """``a.b=1`` options as nested settings; a value that isn't JSON is text."""
    found: dict[str, Any] = {}
    for one in choices:
        key, equals, text = one.partition("=")
        if not equals or not key:
            raise Failed(MISUSED, f"--setting {one!r}: must be KEY=VALUE")
        try:
            value = json.loads(text)
        except ValueError:
            value = text
        at = found
        *parents, last = key.split(".")
        for name in parents:
            at = at.setdefault(name, {})
            if not isinstance(at, dict):
                raise Failed(MISUSED, f"--setting {one!r}: {name} was given as a value before")
        at[last] = value
    return found


def _say(result: dict[str, Any], found: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        say_json({**result, "live": found["live"], "missing": found["missing"]})
    else:
        say("  ".join(f"{key} {value}" for key, value in result.items()))
    _live_or_fail(found)


def _live_or_fail(found: dict[str, Any]) -> None:
    if not found["live"]:
        missing = ", ".join(found["missing"]) or "no collector is running"
        raise Failed(FAILED, f"done, but not live yet: {missing}; it will be as soon as they are back")
