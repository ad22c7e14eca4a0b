"""Reads seawall.toml, the environment and flags once, and builds every room's own frozen ``Settings`` from them.

The strongest origin wins: flag, then environment, then file, then the default that the room declares. Unknown keys and
values out of range are refused, all of them together, each with its place and what is allowed: nobody should have to
start five times to find five mistakes. This is the only module that reads the environment.

A room's table in the file has the room's name (``[journal]``); settings of the whole program stand above all tables.
In the environment they are ``SEAWALL_JOURNAL_…`` and ``SEAWALL_…``.
"""

from __future__ import annotations

import dataclasses
import importlib
import json
import os
import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from seawall.kernel.error import Misconfigured
from seawall.kernel.setting import HIDDEN, WRONG, Difference, Field, Value, fields_of, fitting, from_text, setting
from seawall.store.dsn import target

# Size: file, environment and flags are read and checked in one go, so that all their problems are told together.

FILE_BYTES_MAX = 1024 * 1024
TOP = ""
"""The section of settings of the whole program."""

ROOMS: dict[str, str] = {
    "store": "seawall.store.pool",
    "pg": "seawall.store.embedded",
    "housekeeping": "seawall.store.partition",
    "migrate": "seawall.migrate.runner",
    "journal": "seawall.journal.settings",
    "kafka": "seawall.journal.cluster",
    "collector": "seawall.collector.setting",
    "cache": "seawall.cache.setting",
    "responder": "seawall.responder.setting",
    "router": "seawall.router.settings",
    "worker": "seawall.worker.settings",
    "approval": "seawall.kernel.approval",
    "step": "seawall.step.setting",
    "console": "seawall.console.setting",
    "watch": "seawall.watch.setting",
}
"""Where each section's ``Settings`` is declared. By name, so that a command imports only the rooms that it needs."""

GIVEN: dict[str, frozenset[str]] = {"store": frozenset({"dsn"})}
"""Fields that Seawall itself fills in; they have no place in a file."""

LEVELS = ("debug", "info", "warning", "error")
PROFILES = ("embedded", "cluster")
T = TypeVar("T")

ALSO: dict[tuple[str, str], tuple[str, str]] = {("collector", "name"): (TOP, "collector")}
"""Another place in the file for a setting of the whole program that is called as a table: a file can't have both."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Program:
    """Settings of the whole program, above all tables."""

    listen: str = setting("127.0.0.1:8080", help="Where events come in, HOST:PORT; port 0 picks a free one.")
    admin: str = setting("127.0.0.1:8081", help="Where the admin API is, HOST:PORT; port 0 picks a free one.")
    app: str = setting("", help="The file with your workflows; empty: events are kept, and nothing runs.")
    dsn: str = setting("", secret=True, help="A PostgreSQL (15 or newer) of your own; empty: the embedded one.")
    dsn_file: str = setting("", help="A file that holds `dsn`, so that no secret stands in a command or environment.")
    worker_dsn: str = setting(
        "", secret=True, help="DSN of the same database for the role seawall_worker, which user code has; empty: `dsn`."
    )
    worker_dsn_file: str = setting("", help="A file that holds `worker_dsn`.")
    profile: str = setting(
        "embedded", help="embedded: events are kept on this machine; cluster: in Kafka, with this machine as its spool."
    )
    collector: str = setting(
        "c1",
        help="Name of the collector, and of its journal under DIR/journal; beside a table [collector]: `name` in it.",
    )
    own_queues_max: int = setting(2, min=0, max=20, help="Workers that `up` starts for one queue that reserves slots.")
    log_level: str = setting("info", live=True, help="debug, info, warning or error.")
    stop_collector_s: float = setting(8.0, min=0.5, max=120, help="Answer what is held, then stop.")
    stop_router_s: float = setting(8.0, min=0.5, max=120, help="Finish the transaction in hand, then stop.")
    stop_worker_s: float = setting(10.0, min=0.5, max=600, help="Finish or set down the steps in hand, then stop.")
    stop_console_s: float = setting(3.0, min=0.5, max=60, help="Answer the calls in hand, then stop.")
    kill_after_s: float = setting(
        0.0,
        min=0,
        max=86_400,
        help="How long your supervisor waits between SIGTERM and SIGKILL, for the doctor; 0: not said.",
    )
    stop_postgres_s: float = setting(20.0, min=1, max=600, help="Write its checkpoint, then stop.")


class Settings:
    """Every setting, checked. ``program`` is the program's own; ``of`` builds a room's."""

    def __init__(self, values: Mapping[tuple[str, str], Value]) -> None:
        self.values = dict(values)
        self.program = self.of(TOP, Program)

    def of(self, section: str, kind: type[T], **given: object) -> T:
        """The ``Settings`` object of a room, with the fields that Seawall fills in itself given by name."""
        found = {name: v.value for (s, name), v in self.values.items() if s == section}
        return kind(**found, **given)

    def tuned(self, fresh: Settings) -> Tuned:
        """What a running process makes of settings that were read again: it takes over those that may change while it
        runs and keeps all others, also for roles that are started again. So one set of settings is in force anywhere.
        """
        differences = self.differences(fresh)
        changed = [one.then for one in differences if one.live]
        values = {**self.values, **{(value.section, value.name): value for value in changed}}
        kept = [one.key for one in differences if not one.live]
        return Tuned(Settings(values), [f"{value.key} = {value.shown}" for value in changed], kept, differences)

    def differences(self, fresh: Settings) -> list[Difference]:
        """What other settings have otherwise, in their order; what is not known here (a newer one) is left out."""
        return [
            Difference(self.values[key], value)
            for key, value in fresh.values.items()
            if key in self.values and value.value != self.values[key].value
        ]

    def resolved(self, dsn: str, worker_dsn: str) -> str:
        """All values as JSON, with the store that is really used: what ``seawall up`` hands to its children, so that a
        file edited since can't stop one from being started again."""
        used = {"dsn": dsn, "worker_dsn": worker_dsn, "dsn_file": "", "worker_dsn_file": ""}
        return json.dumps(
            [
                [v.section, v.name, used.get(v.name, v.value) if v.section == TOP else v.value, v.origin]
                for v in self.values.values()
            ]
        )


@dataclass(frozen=True, slots=True)
class Tuned:
    """What reading again came to."""

    settings: Settings  # in force from now on
    changed: list[str]  # as "key = value"
    kept: list[str]  # keys whose new value needs a restart
    differences: list[Difference]  # both of them


# Size: the environment is read nowhere else, also what is only handed on of it.
def postgres_environment() -> dict[str, str]:
    """What PostgreSQL's programs go by, where a user has set it: libpq's variables, certificates, locale, and the home
    that its files lie in. Nothing else: our own variables may hold secrets."""
    wanted = ("HOME", "PATH", "LANG", "TZ", "SSL_CERT_FILE", "SSL_CERT_DIR", "OPENSSL_CONF", "LD_LIBRARY_PATH")
    return {
        name: value for name, value in os.environ.items()
        if name in wanted or name.startswith(("PG", "LC_", "KRB5"))
    }  # fmt: skip


def environment_apart() -> dict[str, str]:
    """The environment without what leads to somebody's own platform, database, Redis or Kafka: for one of the lab's
    own, which must never come to run on them. Where PostgreSQL's programs lie isn't among that."""
    return {
        name: value for name, value in os.environ.items()
        if name == "SEAWALL_PG_BIN" or not name.startswith(("SEAWALL_", "PG"))
    }  # fmt: skip


def environ(name: str) -> str | None:
    """One variable, for what is needed before any settings are: None when it is missing or empty."""
    return os.environ.get(name) or None


def read(flags: Mapping[str, object], *, config: Path | None, environment: Mapping[str, str] | None = None) -> Settings:
    """Every setting of every room.

    Args:
        flags: By ``section.name`` (no dot: the program's own); None means not given.
        config: seawall.toml, or None when there is none.
        environment: Read from the process when None.

    Raises:
        Misconfigured: All problems together.
    """
    problems: list[str] = []
    fields = _declared()
    origins: dict[tuple[str, str], tuple[str, Any]] = {}
    if config is not None:
        origins.update(_from_file(config, fields, problems))
    origins.update(_from_environment(os.environ if environment is None else environment, fields))
    for key, given in flags.items():
        section, _, name = key.rpartition(".")
        if given is not None:
            origins[section, name] = (f"--{name.replace('_', '-')}", given)
    values = _checked(fields, origins, problems)
    if problems:
        raise Misconfigured(problems)
    return _built(values)


def load_resolved(path: Path) -> Settings:
    """What ``Settings.resolved`` wrote. Not checked again: a parent of this very version has, also which of them may
    change while it runs, and a role then imports no other role's rooms.

    Raises:
        Misconfigured: The file is missing or damaged.
    """
    try:
        values = [
            Value(section=s, name=n, value=tuple(v) if isinstance(v, list) else v, origin=origin)
            for s, n, v, origin in json.loads(path.read_text("utf-8"))
        ]
        if not values:
            raise ValueError("it is empty")
        return Settings({(v.section, v.name): v for v in values})
    except (OSError, ValueError, TypeError) as error:
        raise Misconfigured([f"{path}: can't be read: {error}"]) from error


def _rooms() -> dict[str, type[Any]]:
    return {section: importlib.import_module(module).Settings for section, module in ROOMS.items()}


def _declared() -> dict[tuple[str, str], Field]:
    """Every setting that a file may name."""
    kinds: dict[str, type[Any]] = {TOP: Program, **_rooms()}
    return {
        (section, name): field
        for section, kind in kinds.items()
        for name, field in fields_of(kind).items()
        if name not in GIVEN.get(section, ())
    }


def _from_file(
    path: Path, fields: Mapping[tuple[str, str], Field], problems: list[str]
) -> dict[tuple[str, str], tuple[str, Any]]:
    try:
        with path.open("rb") as file:
            raw = file.read(FILE_BYTES_MAX + 1)
            mode = os.fstat(file.fileno()).st_mode
    except OSError as error:
        problems.append(f"{path}: can't be read: {error.strerror or error}")
        return {}
    if len(raw) > FILE_BYTES_MAX:
        problems.append(f"{path}: is larger than {FILE_BYTES_MAX} bytes; that is no settings file")
        return {}
    if mode & 0o002:
        problems.append(f"{path}: anybody may write it; run: chmod o-w {path}")
    try:
        text = raw.decode("utf-8-sig")
        tables = tomllib.loads(text)
    except UnicodeDecodeError as error:
        problems.append(f"{path}: byte {error.start} is not UTF-8")
        return {}
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        problems.append(_not_toml(path, text, error))
        return {}
    found: dict[tuple[str, str], tuple[str, Any]] = {}
    for section, name, value in _flat(tables):
        place = f"{path}:{_line(text, section, name)}"
        if (key := ALSO.get((section, name), (section, name))) in fields:
            found[key] = (place, value)
        else:
            problems.append(f"{place}: {_key(section, name)}: unknown; {_suggestion(section, fields)}")
    return found


def _not_toml(path: Path, text: str, error: Exception) -> str:
    """What is wrong; where a table's name is that of a setting above all tables, also what to do."""
    for section, name in ALSO:
        above = re.split(r"(?m)^\s*\[", text, maxsplit=1)[0]
        if re.search(rf"(?m)^\s*{section}\s*=", above) and re.search(rf"(?m)^\s*\[\s*{section}\s*\]", text):
            place = f"{path}:{_line(text, TOP, section)}"
            return f"{place}: {section} can't stand beside a table [{section}]: write it as {name} in that table"
    return f"{path}: is not TOML: {error}"


def _flat(tables: Mapping[str, Any]) -> list[tuple[str, str, Any]]:
    flat: list[tuple[str, str, Any]] = []
    for name, value in tables.items():
        if isinstance(value, dict) and name in ROOMS:
            flat.extend((name, key, inner) for key, inner in value.items())
        else:
            flat.append((TOP, name, value))
    return flat


def _line(text: str, section: str, name: str) -> int:
    """The line of a key, as far as a plain file tells; 1 when it is written in some other way."""
    here = TOP
    for number, line in enumerate(text.splitlines(), 1):
        if table := re.match(r"\s*\[\s*([\w.-]+)\s*\]", line):
            here = table[1]
            if section == TOP and here == name:
                return number
        elif here == section and re.match(rf"\s*[\"']?{re.escape(name)}[\"']?\s*[=.]", line):
            return number
    return 1


def _key(section: str, name: str) -> str:
    return f"{section}.{name}" if section else name


def _suggestion(section: str, fields: Mapping[tuple[str, str], Field]) -> str:
    names = sorted(name for s, name in fields if s == section)
    where = f"[{section}] has" if section else f"tables are {', '.join(sorted(r for r in ROOMS if r))}; above them are"
    return f"{where} {', '.join(names)}"


def _from_environment(
    environment: Mapping[str, str], fields: Mapping[tuple[str, str], Field]
) -> dict[tuple[str, str], tuple[str, Any]]:
    """Variables that name a setting. Others that begin alike are left alone: Kubernetes makes SEAWALL_SERVICE_HOST
    and the like by itself for a service of that name."""
    found: dict[tuple[str, str], tuple[str, Any]] = {}
    for (section, name), field in fields.items():
        variable = "_".join(part for part in ("SEAWALL", section.upper(), name.upper()) if part)
        text = environment.get(variable)
        if text:
            found[section, name] = (variable, from_text(text, field.kind))
    return found


def _checked(
    fields: Mapping[tuple[str, str], Field], origins: Mapping[tuple[str, str], tuple[str, Any]], problems: list[str]
) -> dict[tuple[str, str], Value]:
    values: dict[tuple[str, str], Value] = {}
    for (section, name), field in fields.items():
        origin, value = origins.get((section, name), ("default", field.default))
        if origin != "default" or value is not field.default:
            value = fitting(field, value)
        if value is WRONG:
            given = HIDDEN if field.secret else repr(origins[section, name][1])
            problems.append(f"{origin}: {_key(section, name)} = {given}: must be {field.allowed}")
            continue
        values[section, name] = Value(
            section=section, name=name, value=value, origin=origin, help=field.help, allowed=field.allowed,
            secret=field.secret, live=field.live,
        )  # fmt: skip
    problems.extend(_rules(values))
    return values


def _rules(values: Mapping[tuple[str, str], Value]) -> list[str]:
    """What a range can't say."""
    found: list[str] = []
    level = values.get((TOP, "log_level"))
    if level is not None and level.value not in LEVELS:
        found.append(f"{level.origin}: log_level = {level.value!r}: must be one of {', '.join(LEVELS)}")
    profile = values.get((TOP, "profile"))
    if profile is not None and profile.value not in PROFILES:
        found.append(f"{profile.origin}: profile = {profile.value!r}: must be one of {', '.join(PROFILES)}")
    brokers = values.get(("kafka", "bootstrap"))
    if profile is not None and profile.value == "cluster" and brokers is not None and not brokers.value:
        found.append(f"{profile.origin}: profile = 'cluster': needs kafka.bootstrap, HOST:PORT,HOST:PORT")
    for name in ("listen", "admin"):
        address = values.get((TOP, name))
        if address is not None and host_port(address.value) is None:
            found.append(f"{address.origin}: {name} = {address.value!r}: must be HOST:PORT with a port from 0 to 65535")
    collector = values.get((TOP, "collector"))
    if collector is not None and not re.fullmatch(r"[a-z0-9][a-z0-9-]{0,31}", collector.value):
        found.append(
            f"{collector.origin}: collector = {collector.value!r}: must be 1 to 32 of a-z, 0-9 and -, not - first"
        )
    return found


def host_port(text: str) -> tuple[str, int] | None:
    """``HOST:PORT`` or ``[V6]:PORT`` in parts; None when it is neither."""
    host, colon, port = text.rpartition(":")
    if not colon or not port.isascii() or not port.isdigit() or int(port) > 65535:
        return None
    host = host[1:-1] if host.startswith("[") and host.endswith("]") else host
    return (host, int(port)) if host else None


def _built(values: Mapping[tuple[str, str], Value]) -> Settings:
    """Settings whose secrets by file are read, and whose rooms accept them: a room's own checks run here, once."""
    filled, problems = dict(values), list[str]()
    for section, name in ((TOP, "dsn"), (TOP, "worker_dsn"), ("cache", "url")):
        file = filled[section, f"{name}_file"]
        if file.value:
            try:
                text = Path(file.value).read_text("utf-8").removesuffix("\n")
            except (OSError, UnicodeDecodeError) as error:
                problems.append(f"{file.origin}: {file.key} = {file.value!r}: can't be read: {error}")
                continue
            filled[section, name] = dataclasses.replace(filled[section, name], value=text, origin=file.value)
    problems.extend(_not_dsns([filled[TOP, name] for name in ("dsn", "worker_dsn")]))
    settings = Settings(filled)
    problems.extend(_refused_by_rooms(settings))
    if problems:
        raise Misconfigured(problems)
    return settings


def _not_dsns(values: Sequence[Value]) -> list[str]:
    """What is none, and never what it says: the driver would take a part of a password for a host or a port."""
    problems: list[str] = []
    for value in values:
        try:
            if value.value:
                target(value.value)
        except Misconfigured as error:
            problems.extend(f"{value.origin}: {value.key} = {HIDDEN}: {why}" for why in error.problems)
    return problems


def verify(settings: Settings) -> None:
    """What rooms themselves say about values that were checked one by one. Raises Misconfigured."""
    if problems := _refused_by_rooms(settings):
        raise Misconfigured(problems)


def _refused_by_rooms(settings: Settings) -> list[str]:
    problems: list[str] = []
    for section, kind in _rooms().items():
        given = dict.fromkeys(GIVEN.get(section, ()), "")
        try:
            settings.of(section, kind, **given)
        except Misconfigured as error:
            problems.extend(error.problems)
        except (ValueError, AssertionError) as error:
            problems.append(f"[{section}]: {error}")
    return problems
