"""Runs PostgreSQL's own programs, and keeps passwords out of what everybody on the machine can read of them."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from urllib.parse import unquote, unquote_plus, urlsplit

from seawall.kernel.error import Misconfigured, Unavailable
from seawall.settings import postgres_environment

Progress = Callable[[str], None]
"""Called now and then with one sentence for a person."""

SAY_S = 1.0
_PASSWORD = "password"  # noqa: S105 - a keyword's name
_HIDDEN = "sslpassword"  # neither an argument, which all can read, nor a variable of libpq can carry it
_WORD = re.compile(
    r"\s*(?P<key>\w+)\s*=\s*(?P<value>'(?:[^'\\]|\\.)*'|(?:[^\s'\\]|\\.)(?:[^\s\\]|\\.)*|)(?=\s|$)", re.S
)


async def run_program(
    command: list[str], dsn: str, progress: Progress, said: Callable[[], str], *, timeout_s: float
) -> None:
    """Run pg_dump or pg_restore against ``dsn``, with libpq's own variables as they are (PGPASSFILE, PGSSLROOTCERT, …).

    Raises:
        Misconfigured: The DSN can't be understood, or has a secret that can't be handed on unseen.
        Unavailable: It failed or took too long; what it said last is in the message.
    """
    address, secrets = split_secrets(dsn)
    process = await asyncio.create_subprocess_exec(
        *command, "--dbname", address, stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE, env={**postgres_environment(), **secrets}, start_new_session=True,
    )  # fmt: skip
    assert process.stderr is not None
    reading = asyncio.create_task(_tail(process.stderr))
    try:
        async with asyncio.timeout(timeout_s):
            while not reading.done():
                await asyncio.wait([reading], timeout=SAY_S)
                progress(said())
            status = await process.wait()
    except TimeoutError as error:
        raise Unavailable(Path(command[0]).name, f"not done in {timeout_s:g} s") from error
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
        reading.cancel()
    if status != 0:
        raise Unavailable(Path(command[0]).name, f"exit status {status}: {reading.result()}")


def split_secrets(dsn: str) -> tuple[str, Mapping[str, str]]:
    """A DSN without its password, as libpq reads it, and the variables that carry the password instead.

    Both forms: ``postgresql://user:password@host/name?password=…`` and ``host=… password='…'``.

    Raises:
        Misconfigured: It has neither form, or a passphrase of a key, which only an argument could carry.
    """
    if dsn.startswith(("postgresql://", "postgres://")):
        address, found = _of_url(dsn)
    else:
        address, found = _of_words(dsn)
    if found.get(_HIDDEN):
        raise Misconfigured(
            [f"dsn: {_HIDDEN} would stand in an argument of pg_dump that everybody can read; use a key without one"]
        )
    return address, {"PGPASSWORD": found[_PASSWORD]} if found.get(_PASSWORD) else {}


def _of_url(dsn: str) -> tuple[str, dict[str, str]]:
    parts = urlsplit(dsn)
    found: dict[str, str] = {}
    kept = []
    for item in parts.query.split("&") if parts.query else []:
        key, _, value = item.partition("=")
        if unquote(key) in (_PASSWORD, _HIDDEN):
            found[unquote(key)] = unquote_plus(value)  # as the driver reads it that the platform connects with
        else:
            kept.append(item)
    user, at, hosts = parts.netloc.rpartition("@")
    user, colon, password = user.partition(":")
    if colon:
        found[_PASSWORD] = unquote(password) or found.get(_PASSWORD, "")
    # By hand: urlunsplit drops the slashes before an empty host.
    query = f"?{'&'.join(kept)}" if kept else ""
    return f"{parts.scheme}://{user}{at}{hosts}{parts.path}{query}", found


def _of_words(dsn: str) -> tuple[str, dict[str, str]]:
    found: dict[str, str] = {}
    kept = []
    at = 0
    while dsn[at:].strip():
        word = _WORD.match(dsn, at)
        if word is None:
            raise Misconfigured(["dsn: neither postgresql://… nor a list of keyword=value"])
        value = word["value"]
        if word["key"] in (_PASSWORD, _HIDDEN):
            found[word["key"]] = re.sub(r"\\(.)", r"\1", value[1:-1] if value.startswith("'") else value, flags=re.S)
        else:
            kept.append(word[0].strip())
        at = word.end()
    return " ".join(kept), found


async def _tail(stream: asyncio.StreamReader) -> str:
    """The last bytes of what a program says; all of it is read, so that it never waits for us."""
    last = b""
    while data := await stream.read(65536):
        last = (last + data)[-2000:]
    return last.decode("utf-8", "replace").strip()
