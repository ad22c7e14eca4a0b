"""The only place that knows the PostgreSQL driver's errors: connecting, and saying in our words what went wrong.

What a failed statement left behind decides the word. The server's own refusal rolled back; a broken connection rolled
back too unless the statement could have committed by itself, for then nobody knows.
"""

from __future__ import annotations

import asyncio
import configparser
import errno
import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import asyncpg

from seawall.kernel.error import Misconfigured, SeawallError, Unavailable, Uncertain, Unstorable
from seawall.kernel.setting import setting
from seawall.store.dsn import target

DEPENDENCY = "PostgreSQL"

FAILURES = (
    asyncpg.PostgresError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
    OSError,
    TimeoutError,
)
"""All that the driver raises for what the world does; some of it is also raised for our own bugs."""

_UNREADABLE = (ValueError, LookupError, configparser.Error)
"""What the driver raises for a DSN, libpq's variables or libpq's files that it doesn't understand. Their texts quote
what they were given, and that may be a password."""

_VALUE = ("22", "23", "54")
"""SQLSTATE classes of a value's own fault: data, constraint, limit of the program (an index entry that is too long)."""

_ENDED = ("57P01", "57P02", "57P03", "57P04", "57P05", "40003")
"""The server ended the session, or doesn't know itself how the statement ended."""

_WRITES = re.compile(
    r"\b(insert|update|delete|merge|create|alter|drop|truncate|commit|notify|pg_notify|nextval|store_history)\b", re.I
)
_COMMENT = re.compile(r"--[^\n]*")


_CONTENDED = ("55P03", "40P01", "57014", "40001")
"""Lock timeout, deadlock, the server's own statement timeout, serialization."""


class Contended(Unavailable):
    """Others were in the way for too long: nothing was done, and the same may work in a moment."""


class Unheard(Unavailable):
    """PostgreSQL's queue of notifications is full: somebody listens, in whatever database, and doesn't take them.
    Nothing was done, and without a notification the same works."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """How one process uses the store."""

    dsn: str
    connections_max: int = setting(4, min=1, max=50, help="Connections of one process to PostgreSQL.")
    connect_timeout_s: float = setting(2.0, min=0.1, max=60, help="For one new connection to PostgreSQL.")
    statement_timeout_s: float = setting(5.0, min=0.1, max=3600, help="For one statement or transaction.")
    lock_timeout_s: float = setting(4.0, min=0.01, max=3600, help="For one lock in PostgreSQL.")
    pooler: str = setting(
        "", help="HOST:PORT of a pooler before the same PostgreSQL; LISTEN, migrations and housekeeping go past it."
    )

    def __post_init__(self) -> None:
        if self.pooler:
            address(self.pooler)

    def of_session(self) -> dict[str, str]:
        """Settings of the server, for whatever we do. Its own limit is twice ours, so that nothing runs on unseen."""
        return {
            "statement_timeout": str(int(self.statement_timeout_s * 2000)),
            "lock_timeout": str(int(self.lock_timeout_s * 1000)),
            "idle_in_transaction_session_timeout": "10000",
            "jit": "off",
        }


def address(pooler: str) -> tuple[str, int]:
    """Host and port of a pooler.

    Raises:
        Misconfigured: It is none.
    """
    host, _, port = pooler.rpartition(":")
    if not host or not (port.isascii() and port.isdigit() and 0 < int(port) < 65_536):
        raise Misconfigured([f"store.pooler is {pooler[:100]!r}; HOST:PORT is needed, such as 127.0.0.1:6432"])
    return host.removeprefix("[").removesuffix("]"), int(port)


@lru_cache(maxsize=1000)
def writes(sql: str) -> bool:
    """Whether a statement may change something. In doubt it may: a false alarm costs a repetition, silence an event."""
    return _WRITES.search(_COMMENT.sub("", sql)) is not None


def survived(error: BaseException, connection: asyncpg.Connection) -> bool:
    """Whether the connection is certainly fit for the next statement: the server itself refused this one."""
    if not isinstance(error, asyncpg.PostgresError) or connection.is_closed():
        return False
    state = error.sqlstate or ""
    severity = getattr(error, "severity_en", None) or getattr(error, "severity", None)
    return severity not in ("FATAL", "PANIC") and state not in _ENDED and state[:2] not in ("08", "")


def moved(error: asyncpg.PostgresError) -> bool:
    """Whether a row found its partition changed under it: it was on its way into the default partition, waited for the
    lock under which its day was attached, and then didn't fit any more. The value is innocent: a dead letter here would
    be a lost event (tests/store/test_partition.py). A check constraint of a table's own has a name."""
    return error.sqlstate == "23514" and not getattr(error, "constraint_name", None)


def unheard(error: asyncpg.PostgresError) -> bool:
    """Whether a commit was refused for its notifications. It has the class of values that are too large, and none is to
    blame: every event became a dead letter. Told by who raises it, since messages are translated."""
    return error.sqlstate == "54000" and getattr(error, "server_source_function", None) == "PreCommit_Notify"


def translated(error: BaseException, connection: asyncpg.Connection | None, *, writing: bool) -> SeawallError | None:
    """Our error for the driver's, or None for a bug of ours, which must go up as it is.

    Args:
        connection: The one that it happened on; None while connecting.
        writing: The statement could have committed by itself.
    """
    if isinstance(error, asyncpg.PostgresError):
        state = error.sqlstate or ""
        if state in _CONTENDED or moved(error):
            return Contended(DEPENDENCY, f"{state} {error}")
        if unheard(error):
            return Unheard(DEPENDENCY, f"{state} {error}")
        if state[:2] in _VALUE:
            return Unstorable(f"{state} {error}")
        certain = not writing or (connection is not None and survived(error, connection))
        return Unavailable(DEPENDENCY, f"{state} {error}") if certain else Uncertain(f"{DEPENDENCY}: {state} {error}")
    if isinstance(error, asyncpg.InterfaceError) and connection is not None and not connection.is_closed():
        return None  # a wrong number of arguments, two statements at once
    said = str(error) or ("no answer in time" if isinstance(error, TimeoutError) else type(error).__name__)
    return Uncertain(f"{DEPENDENCY}: {said}") if writing else Unavailable(DEPENDENCY, said)


async def connect(
    settings: Settings, *, role: str, timeout_s: float, pooled: bool = False
) -> asyncpg.Connection:  # fmt: skip
    """A new connection with our server settings.

    Args:
        pooled: Through the pooler, which lends each transaction another connection to the server: then nothing of a
            session is ours, neither its settings nor its prepared statements.

    Raises:
        Unavailable: It can't be had: the server is away, starting, full, or refuses us; or the DSN is none. Nothing of
            the DSN's secrets is in it, nor in what it is chained to.

    Cancelled: nothing is left.
    """
    try:
        target(settings.dsn)
    except Misconfigured as error:
        raise Unavailable(DEPENDENCY, f"its DSN {error}") from None
    name = {"application_name": f"seawall-{role}"}
    given: dict[str, Any] = {"server_settings": {**name, **settings.of_session()}}
    if pooled:
        host, port = address(settings.pooler)
        given = {"server_settings": name, "host": host, "port": port, "statement_cache_size": 0}
    try:
        async with asyncio.timeout(timeout_s):
            return await asyncpg.connect(
                settings.dsn, timeout=timeout_s, command_timeout=settings.statement_timeout_s, **given
            )
    except FAILURES as error:
        if isinstance(error.__cause__, OSError) and error.__cause__.errno == errno.ENOTCONN:
            # asyncio takes a Unix socket's EAGAIN for "under way", and the first byte then finds no connection.
            raise Unavailable(DEPENDENCY, "its line of new connections is full") from error
        said = str(error) or ("no answer in time" if isinstance(error, TimeoutError) else type(error).__name__)
        state = getattr(error, "sqlstate", None)
        raise Unavailable(DEPENDENCY, f"{state} {said}" if state else said) from error
    except _UNREADABLE as error:
        kind = type(error).__name__
        raise Unavailable(DEPENDENCY, f"its DSN, or a variable or file of libpq, isn't understood ({kind})") from None
