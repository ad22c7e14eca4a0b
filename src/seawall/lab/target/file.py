"""The file that names a target: an installation of the user's own, and how each fault is applied, verified, reverted.

``verify`` looks whether the fault is there. It ends with 0 when it is, and with 1 when it isn't; with anything else, or
not in time, nobody knows. ``gone``, where there is one, ends with 0 when it isn't there: for programs that end with 1
also when they can't look (kubectl does).
"""

from __future__ import annotations

import re
import ssl
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from math import isnan
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import msgspec

from seawall.kernel.error import Misconfigured
from seawall.lab.experiment import Condition
from seawall.lab.platform import address, loopback

FILE_BYTES_MAX = 1_000_000
COMMAND_S = 15.0
COMMAND_S_MAX = 60.0
NAME = re.compile(r"[a-z0-9][a-z0-9.-]{0,62}")
WORD = re.compile(r"\{\{(\w+)\}\}|\{(\w+)\}")
"""``{ms}`` in a command is an argument of the experiment's action; ``{{ms}}`` is these braces themselves."""


class _Fields(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Strict: a field that nobody knows is a mistake, and said."""


class Command(_Fields, frozen=True, kw_only=True):
    """A program with its arguments; no shell."""

    argv: list[str]
    timeout_s: float = COMMAND_S

    @property
    def names(self) -> set[str]:
        """Of the values that it is to be filled with."""
        return {found[2] for word in self.argv for found in WORD.finditer(word) if found[2]}

    def filled(self, values: Mapping[str, str]) -> Command:
        """With its ``{word}`` filled in.

        Raises:
            KeyError: There is no such value.
        """

        def fill(found: re.Match[str]) -> str:
            return f"{{{found[1]}}}" if found[1] else values[found[2]]

        return Command(argv=[WORD.sub(fill, word) for word in self.argv], timeout_s=self.timeout_s)


class Fault(_Fields, frozen=True, kw_only=True):
    """How one fault is done there. Working folder of its commands: the file's own."""

    apply: list[str] | Command
    revert: list[str] | Command | None = None
    verify: list[str] | Command | None = None
    gone: list[str] | Command | None = None
    passing: bool = False  # it ends by itself, as a restart does: there is nothing to revert
    cuts: list[str] = []  # paths that are dead while it is there
    says: str = ""  # for whoever confirms

    def command(self, word: str) -> Command | None:
        """``apply``, ``revert``, ``verify`` or ``gone``."""
        found = getattr(self, word)
        return Command(argv=found) if isinstance(found, list) else found

    def commands(self) -> Iterator[tuple[str, Command]]:
        for word in ("apply", "revert", "verify", "gone"):
            if (found := self.command(word)) is not None:
                yield word, found


class Way(_Fields, frozen=True, kw_only=True):
    """A path from the installation to something that it needs; ``ask`` ends with 0 when it is alive, with 1 when it is
    dead."""

    ask: list[str] | Command

    @property
    def command(self) -> Command:
        return Command(argv=self.ask) if isinstance(self.ask, list) else self.ask


class SourceFile(_Fields, frozen=True, kw_only=True):
    """A source of kind ``standard`` to which the lab's own events go."""

    name: str
    secret_file: str
    url: str = ""
    url_file: str = ""  # its URL holds a token: it may stand in a file of its own
    type: str = ""  # of the events; "": the experiment's


class Limits(_Fields, frozen=True, kw_only=True):
    """What nobody wants there, whatever an experiment says."""

    seconds: float = 300.0  # the longest fault
    rate: float = 100.0  # events a second, of all of the lab's traffic
    blind_s: float = 30.0  # so long its metrics may be unreadable, then it is reverted


class TargetFile(_Fields, frozen=True, kw_only=True):
    """The file, as it stands."""

    name: str
    admin: str
    token_file: str
    source: SourceFile
    held: SourceFile | None = None  # to which held requests go: its workflow answers {"key": the request's webhook-id}
    ca_file: str = ""
    dsn_file: str = ""
    limits: Limits = Limits()
    abort: list[Condition] = []
    fault: dict[str, Fault] = {}
    path: dict[str, Way] = {}


@dataclass(frozen=True, slots=True, kw_only=True)
class Sender:
    """A source of the target, with what it takes to send to it."""

    name: str
    url: str
    secret: str = field(repr=False)
    type: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """One installation, as its file names it; all that it needs was read."""

    path: Path
    said: TargetFile
    token: str = field(repr=False)
    source: Sender
    held: Sender | None
    tls: ssl.SSLContext | None = field(repr=False)
    store: tuple[str, int] | None  # where its database answers, by the DSN; None: the file names none

    @property
    def name(self) -> str:
        return self.said.name

    @property
    def folder(self) -> Path:
        return self.path.parent

    @property
    def addresses(self) -> Mapping[str, str]:
        """What is spoken with, as ``host:port``."""
        urls = {"admin": self.said.admin, "source": self.source.url, **({"held": self.held.url} if self.held else {})}
        found = {name: "{}:{}".format(*address(url)) for name, url in urls.items()}
        return {**found, **({"store": "{}:{}".format(*self.store)} if self.store else {})}

    @property
    def hosts(self) -> frozenset[str]:
        return frozenset(each.rpartition(":")[0].strip("[]") for each in self.addresses.values())

    @property
    def here(self) -> bool:
        """Whether all of it is on this machine's loopback."""
        return all(loopback(host) for host in self.hosts)


def load(path: Path) -> Target:
    """Read a file, and the files that it names.

    Raises:
        Misconfigured: It isn't right; each problem is a line.
    """
    try:
        if path.stat().st_size > FILE_BYTES_MAX:
            raise Misconfigured([f"{path}: larger than {FILE_BYTES_MAX} bytes"])
        raw = tomllib.loads(path.read_text("utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise Misconfigured([f"{path}: {error}"]) from error
    try:
        said = msgspec.convert(raw, TargetFile)
    except msgspec.ValidationError as error:
        raise Misconfigured([f"{path}: {each}" for each in _tables(raw) or [str(error)]]) from error
    read = _Reader(path.absolute().parent)
    token = read.secret("token_file", said.token_file)
    source = read.sender("source", said.source)
    held = read.sender("held", said.held) if said.held is not None else None
    tls, store = read.tls(said), read.store(said.dsn_file)
    if problems := [f"{path}: {each}" for each in (*_problems(said), *read.problems)]:
        raise Misconfigured(problems)
    return Target(path=path.absolute(), said=said, token=token, source=source, held=held, tls=tls, store=store)


def _tables(raw: Mapping[str, Any]) -> list[str]:
    """Which of the tables that have a name of the user's own isn't right, and why."""
    found = []
    for table, kind in (("fault", Fault), ("path", Way)):
        named = raw.get(table)
        for key, each in named.items() if isinstance(named, dict) else ():
            try:
                msgspec.convert(each, kind)
            except msgspec.ValidationError as error:
                hint = "; a command is a list of words" if "`object | array" in str(error) else ""
                found.append(f'[{table}."{key}"]: {error}{hint}')
    return found


class _Reader:
    """Reads files that lie beside the one that names them; what can't be read is a problem."""

    def __init__(self, folder: Path) -> None:
        self.problems: list[str] = []
        self._folder = folder

    def secret(self, field: str, name: str) -> str:
        try:
            found = (self._folder / name).read_text("utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            self.problems.append(f"{field}: {error}")
            return ""
        if not found:
            self.problems.append(f"{field}: {name} is empty")
        return found

    def sender(self, table: str, said: SourceFile) -> Sender:
        if bool(said.url) == bool(said.url_file):
            self.problems.append(f"{table}: either url or url_file is needed, as `seawall source add` has printed it")
        url = said.url or (self.secret(f"{table}.url_file", said.url_file) if said.url_file else "")
        if url and (why := _wrong_url(url)):
            # Not the URL itself: it holds a token.
            self.problems.append(f"{table}: its URL {why}")
        secret = self.secret(f"{table}.secret_file", said.secret_file)
        return Sender(name=said.name, url=url, secret=secret, type=said.type)

    def tls(self, said: TargetFile) -> ssl.SSLContext | None:
        try:
            return ssl.create_default_context(cafile=str(self._folder / said.ca_file)) if said.ca_file else None
        except (OSError, ssl.SSLError) as error:
            self.problems.append(f"ca_file: {error}")
            return None

    def store(self, name: str) -> tuple[str, int] | None:
        if not name:
            return None
        parts = urlsplit(self.secret("dsn_file", name))
        try:
            if parts.scheme in ("postgresql", "postgres") and parts.hostname:
                return parts.hostname, parts.port or 5432
        except ValueError:
            pass
        self.problems.append(f"dsn_file: {name} holds no postgresql://HOST:PORT/…")
        return None


def _wrong_url(url: str) -> str:
    try:
        parts = urlsplit(url)
        if parts.scheme in ("http", "https") and parts.hostname and parts.port != 0:
            return ""
    except ValueError as error:
        return str(error)
    return "must be http://HOST:PORT or https://HOST"


def _problems(said: TargetFile) -> Iterator[str]:
    if not NAME.fullmatch(said.name):
        yield f"name: {said.name!r}: small letters, digits, '.' and '-'; it is typed by whoever confirms"
    if why := _wrong_url(said.admin):
        yield f"admin: {said.admin} {why}"
    for name, (least, most) in {"seconds": (1, 3600), "rate": (0.1, 2000), "blind_s": (5, 3600)}.items():
        if not least <= getattr(said.limits, name) <= most:
            yield f"limits.{name}: from {least:g} to {most:g}"
    for each in said.abort:
        if (each.above is None) == (each.below is None):
            yield f"abort: {each.claim}: either above or below is needed"
        if any(isnan(value) for value in (each.above, each.below, each.for_s) if value is not None):
            yield f"abort: {each.claim}: it is never met: a bound isn't a number"
    if not said.fault:
        yield 'fault: name at least one, such as [fault."redis.hole"]'
    for key, fault in said.fault.items():
        yield from (f'[fault."{key}"]: {why}' for why in _wrong_fault(fault, said.path))
    for key, way in said.path.items():
        yield from (f'[path."{key}"]: {why}' for why in _wrong_command("ask", way.command))


def _wrong_fault(fault: Fault, paths: Mapping[str, Any]) -> Iterator[str]:
    if fault.passing and fault.revert is not None:
        yield "passing: what ends by itself has no revert"
    if not fault.passing:
        yield from (f"{word}: missing" for word in ("revert", "verify") if fault.command(word) is None)
    for word, command in fault.commands():
        yield from _wrong_command(word, command)
    yield from (f'cuts: there is no [path."{name}"]' for name in fault.cuts if name not in paths)


def _wrong_command(word: str, command: Command) -> Iterator[str]:
    if not command.argv or not command.argv[0]:
        yield f"{word}: a list of words is needed, the program first"
    if not 0 < command.timeout_s <= COMMAND_S_MAX:
        yield f"{word}: timeout_s is more than 0, and {COMMAND_S_MAX:g} at most"
