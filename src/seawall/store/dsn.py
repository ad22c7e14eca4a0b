"""What a DSN says, read as the driver reads it, and refused where the driver would take a part of a password for
something else: for a host, a port or a database, which it then names in its errors.

Nothing of a DSN stands in an error of this module.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from urllib.parse import SplitResult, parse_qs, unquote, urlsplit

from seawall.kernel.error import Misconfigured

PORT = 5432
SCHEMES = ("postgresql", "postgres")
SECRETS = ("password", "sslpassword")
"""Options that hold one."""

WANTED = (
    "must be postgresql://[USER[:PASSWORD]@][HOST[:PORT][,HOST[:PORT]…]][/DATABASE][?OPTION=VALUE&…]; characters such"
    " as / # ? @ % [ and ] in a user, a password or a database must be percent-encoded (/ is %2F, # is %23, @ is %40)"
)

_HOST = re.compile(r"\[([^\[\]]+)\](?::(\d*))?|([^\[\]:@]*)(?::(\d*))?")

_OPTIONS = frozenset(
    {
        "host", "port", "user", "dbname", "database", "service", "passfile", "sslmode", "sslcert", "sslkey",
        "sslrootcert", "sslcrl", "sslnegotiation", "ssl_min_protocol_version", "ssl_max_protocol_version",
        "target_session_attrs", "krbsrvname", "gsslib", "application_name", "options", "search_path", *SECRETS,
    }
)  # fmt: skip
"""Options whose value may have an @ that nobody encoded (a cloud's users are called ``name@server``). In any other the
@ is taken for the end of a password that had a ``?`` in it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """Where a DSN leads."""

    hosts: Sequence[tuple[str, int]]  # tried in order; a name, an address or a socket's folder; (): libpq's default
    database: str  # "": the user's
    user: str  # "": libpq's default
    secret: bool  # whether it holds a password or a passphrase

    @property
    def shown(self) -> str:
        """Host, port and database, for people."""
        hosts = ",".join(f"[{host}]:{port}" if ":" in host else f"{host}:{port}" for host, port in self.hosts)
        return f"{hosts or 'default host'}/{self.database}"


def target(dsn: str) -> Target:
    """A DSN in parts.

    Raises:
        Misconfigured: It is none that the driver understands, or a part of a password would be taken for another part.
    """
    try:
        parts = urlsplit(dsn)
        # As the driver: the last of several, none that is empty, and no item without "=".
        options = {key: values[-1] for key, values in parse_qs(parts.query, strict_parsing=bool(parts.query)).items()}
        if not _sound(parts, options):
            raise ValueError
        credentials, _, places = parts.netloc.rpartition("@")
        hosts = _hosts(places, "", decoded=True) or _hosts(options.get("host", ""), options.get("port", ""))
    except ValueError:
        # Not chained: the text of this one quotes what it didn't understand.
        raise Misconfigured([WANTED]) from None
    user, _, password = credentials.partition(":")
    return Target(
        hosts=hosts,
        database=unquote(parts.path.removeprefix("/")) or options.get("dbname") or options.get("database", ""),
        user=unquote(user) or options.get("user", ""),
        secret=bool(password) or any(name in options for name in SECRETS),
    )


def shown(dsn: str) -> str:
    """Host, port and database of any DSN, also of one that nobody has checked."""
    try:
        return target(dsn).shown
    except Misconfigured:
        return "(not understood)"


def _sound(parts: SplitResult, options: Mapping[str, str]) -> bool:
    credentials, at, _ = parts.netloc.rpartition("@")
    strays = parts.path + ("" if at else "".join(value for key, value in options.items() if key not in _OPTIONS))
    return parts.scheme in SCHEMES and not parts.fragment and "@" not in credentials + strays


def _hosts(places: str, ports: str, *, decoded: bool = False) -> Sequence[tuple[str, int]]:
    """Hosts with ports. Raises ValueError.

    Args:
        places: HOST[:PORT], several divided by commas.
        ports: One for all, or one for each, for hosts that are given without; "": libpq's own.
        decoded: A percent sign begins a character that was encoded.
    """
    numbers = [_port(port) for port in ports.split(",")] if ports else [PORT]
    if not places:
        return ()
    names = places.split(",")
    if len(numbers) not in (1, len(names)):
        raise ValueError
    return [_host(name, (numbers * len(names))[i], decoded=decoded) for i, name in enumerate(names)]


def _host(place: str, port: int, *, decoded: bool) -> tuple[str, int]:
    if place.startswith("/"):
        return place, port
    match = _HOST.fullmatch(place)
    if match is None or not place:
        raise ValueError
    own = match[2] or match[4]
    host = match[1] or match[3]
    return unquote(host) if decoded else host, _port(own) if own else port


def _port(text: str) -> int:
    if not text.isascii() or not 0 < int(text) < 65536:
        raise ValueError
    return int(text)
