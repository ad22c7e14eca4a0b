"""``sql``: one statement on a PostgreSQL of yours."""

from __future__ import annotations

import asyncio
import base64
import datetime
import decimal
import uuid
from collections.abc import Mapping
from typing import Any, Final, TypedDict

import asyncpg
import msgspec

from seawall.guard.breaker import Cause
from seawall.kernel import limit
from seawall.kernel.error import Misconfigured
from seawall.step.error import StepDeclined, StepRefused, StepUnavailable
from seawall.step.keyring import Secret
from seawall.step.shipped import step
from seawall.step.toolbox import Toolbox
from seawall.store.dsn import target

STATEMENT_CHARS_MAX: Final = 100_000
TIMEOUT_S_MAX: Final = 50.0
FETCH_ROWS: Final = 100
"""Rows that are read at once, so that no answer is in memory as a whole before it is known to be small enough."""

AGAIN: Final = ("08", "40", "53", "55P03", "57", "58")
"""SQLSTATEs, or classes of them, that may be gone another time: connection, serialisation and deadlock, resources, a
lock that wasn't free, shutdown and cancel, the system."""

OURS: Final = ("08", "53", "57P", "58")
"""Those of them that speak against the database rather than for a busy row."""


class SQLResult(TypedDict):
    """What a statement gave."""

    rows: list[dict[str, Any]]  # dates and times as ISO 8601, numeric and uuid as text, bytea as base64
    status: str  # the command's tag, as "INSERT 0 1"; with rows: how many


def service_of(tools: Toolbox, statement: str, *args: Any, dsn: Secret, **rest: Any) -> str:
    """The name of the database's secret. Raises StepRefused."""
    if not isinstance(dsn, Secret):
        raise StepRefused("sql: dsn=secret(…) is needed: a password doesn't belong into code or events")
    return dsn.name


@step("sql", version=1, service=service_of)
async def sql(
    tools: Toolbox,
    statement: str,
    *args: Any,
    dsn: Secret,
    read_only: bool = False,
    timeout_s: float = 20.0,
    rows_max: int | None = None,
) -> SQLResult:
    """Do one statement in a transaction of its own, on a connection of its own.

    Repeated after a crash it is done again: let it be one that may be (``on conflict do nothing``, with
    ``ctx.idempotency_key(…)`` as the key).

    Args:
        statement: With ``$1``, ``$2``, … in place of values. Never build it from an event.
        args: The values. They are in no log and in no error.
        dsn: ``secret("reports")``: a PostgreSQL's DSN.
        read_only: The server refuses to change anything.
        timeout_s: Of the statement, also on the server; at most 50.
        rows_max: Default and most: `step.sql_rows_max`.

    Raises:
        StepRefused: An argument, or what the secret holds.
        StepDeclined: The server says that it is wrong: with its SQLSTATE as ``code``, and no value of any row.
            Or it has more rows, or larger ones, than may be kept; the transaction is rolled back then.
        StepUnavailable: No connection, a deadlock, a lock, a shutdown, or no answer in time.
    """
    rows = _checked(tools, statement, timeout_s, rows_max)
    where = await tools.secret(dsn)
    try:
        target(where)
    except Misconfigured:
        raise StepRefused(f"secret {dsn.name} is no DSN of a PostgreSQL") from None
    connect_s = tools.settings.connect_s
    sent = False
    try:
        async with asyncio.timeout(timeout_s + connect_s), tools.sql_places:
            connection = await _connected(where, dsn.name, timeout_s=timeout_s, connect_s=connect_s)
            try:
                sent = not read_only
                return await _done(connection, statement, args, read_only=read_only, rows_max=rows)
            finally:
                connection.terminate()
    except TimeoutError as error:
        raise StepUnavailable(
            f"{dsn.name} didn't answer within {timeout_s + connect_s:g} s", cause=Cause.TIMEOUT, sent=sent
        ) from error
    except asyncpg.PostgresError as error:
        # Not chained: its own text quotes rows and values ("Key (email)=(…) already exists").
        raise _translated(error, dsn.name, sent=sent) from None
    except (_Lost, OSError) as error:
        cause = Cause.RESET if sent else Cause.REFUSED
        raise StepUnavailable(f"no connection to {dsn.name}", cause=cause, sent=sent) from error
    except (asyncpg.InterfaceError, ValueError, TypeError):
        # Not chained either: the driver quotes the value that it couldn't encode.
        raise StepDeclined(f"{dsn.name}: the values don't fit the statement's parameters") from None


def _checked(tools: Toolbox, statement: object, timeout_s: object, rows_max: int | None) -> int:
    most = tools.settings.sql_rows_max
    if not isinstance(statement, str) or not 0 < len(statement) <= STATEMENT_CHARS_MAX:
        raise StepRefused(f"sql: a statement of 1 to {STATEMENT_CHARS_MAX} characters is needed")
    if not (isinstance(timeout_s, int | float) and 0 < timeout_s <= TIMEOUT_S_MAX):
        raise StepRefused(f"sql: timeout_s={timeout_s!r}: more than 0 and at most {TIMEOUT_S_MAX:g}")
    if rows_max is not None and not (type(rows_max) is int and 0 < rows_max <= most):
        raise StepRefused(f"sql: rows_max={rows_max!r}: 1 to {most} (step.sql_rows_max)")
    return rows_max or most


async def _connected(dsn: str, name: str, *, timeout_s: float, connect_s: float) -> asyncpg.Connection:
    limit_ms = str(int(timeout_s * 1000))
    try:
        return await asyncpg.connect(
            dsn, timeout=connect_s, command_timeout=timeout_s, statement_cache_size=0,
            server_settings={
                "application_name": "seawall sql",
                "statement_timeout": limit_ms,
                "idle_in_transaction_session_timeout": limit_ms,
            },
        )  # fmt: skip
    except (asyncpg.InterfaceError, ValueError):
        # Not chained: the driver may quote the DSN.
        raise StepRefused(f"secret {name}: the driver can't use this DSN") from None


async def _done(
    connection: asyncpg.Connection, statement: str, args: tuple[Any, ...], *, read_only: bool, rows_max: int
) -> SQLResult:
    try:
        async with connection.transaction(readonly=read_only):
            prepared = await connection.prepare(statement)
            if not prepared.get_attributes():
                await prepared.fetch(*args)
                return SQLResult(rows=[], status=prepared.get_statusmsg())
            cursor = await prepared.cursor(*args)
            rows = await _rows(cursor, rows_max)
            return SQLResult(rows=rows, status=f"{len(rows)} rows")
    except asyncpg.InterfaceError:
        if connection.is_closed():  # the rollback met a connection that the server had cut
            raise _Lost from None
        raise


class _Lost(Exception):
    """The connection has gone, whatever the driver made of that."""


async def _rows(cursor: Any, rows_max: int) -> list[dict[str, Any]]:
    """All rows of a cursor. Raises StepDeclined when they are too many, or too large together."""
    rows: list[dict[str, Any]] = []
    size = 0
    while True:
        part = await cursor.fetch(min(FETCH_ROWS, rows_max + 1 - len(rows)))
        if not part:
            return rows
        fresh = [{name: _plain(value) for name, value in row.items()} for row in part]
        rows += fresh
        size += len(msgspec.json.encode(fresh))
        if len(rows) > rows_max:
            raise StepDeclined(f"sql: there are more than {rows_max} rows; ask for fewer, or for a page of them")
        if size > limit.RESULT_BYTES_MAX:
            raise StepDeclined(f"sql: the rows are larger than the {limit.RESULT_BYTES_MAX} bytes that a step may keep")


_PLAIN = (str, int, type(None))  # bool is an int
_TEXTS = (decimal.Decimal, uuid.UUID, datetime.timedelta)
_TIMES = (datetime.datetime, datetime.date, datetime.time)


def _plain(value: Any) -> Any:
    """A column's value as JSON has it; what JSON has nothing for as text."""
    if isinstance(value, _PLAIN):
        return value
    if isinstance(value, float):
        return value if value - value == 0 else str(value)  # NaN and infinity are no JSON
    if isinstance(value, _TIMES):
        return value.isoformat()
    if isinstance(value, bytes | bytearray | memoryview):
        return base64.b64encode(value).decode()
    if isinstance(value, list | tuple) and not isinstance(value, Mapping) and not hasattr(value, "items"):
        return [_plain(one) for one in value]
    if hasattr(value, "items"):  # a composite type
        return {name: _plain(one) for name, one in value.items()}
    return str(value)


def _translated(error: asyncpg.PostgresError, name: str, *, sent: bool) -> Exception:
    state = str(getattr(error, "sqlstate", None) or "XX000")
    text = f"{name}: SQLSTATE {state}, {type(error).__name__}"
    if constraint := getattr(error, "constraint_name", None):
        text += f", constraint {constraint}"
    if state.startswith(AGAIN):
        return StepUnavailable(text, cause=Cause.ERROR if state.startswith(OURS) else None, sent=sent)
    return StepDeclined(text, code=state)
