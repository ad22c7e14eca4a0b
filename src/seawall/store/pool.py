"""Connections to PostgreSQL: few, bounded in number and in time, and given up at the first doubt.

A connection that timed out, was cancelled in mid-flight or broke is terminated, never reused: an answer that arrives
late must not be taken for the answer to another question. Driver errors leave this module only as ours.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Protocol, cast

import asyncpg

from seawall.kernel.error import SeawallError, Unavailable, Uncertain, Unstorable
from seawall.kernel.log import logger

log = logger("store")


class Row(Protocol):
    """One row: values by column name or number. What a column holds is its statement's business."""

    def __getitem__(self, column: str | int) -> Any: ...


Notified = Callable[[str, str], None]
"""Called on the event loop's thread with (channel, payload)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """How one process uses the store."""

    dsn: str
    connections_max: int = 4
    connect_timeout_s: float = 2.0
    statement_timeout_s: float = 5.0  # ours; the server's own is twice that, so that nothing runs on unseen
    lock_timeout_s: float = 4.0


class Session:
    """One connection in somebody's hands: inside a transaction, or for one statement."""

    __slots__ = ("_connection", "_timeout_s")

    def __init__(self, connection: asyncpg.Connection, timeout_s: float) -> None:
        self._connection = connection
        self._timeout_s = timeout_s

    async def fetch(self, sql: str, *values: object) -> list[Row]:
        """All rows: statements bound their own number."""
        rows: list[Row] = await self._connection.fetch(sql, *values, timeout=self._timeout_s)
        return rows

    async def row(self, sql: str, *values: object) -> Row | None:
        """The first row, or None."""
        return cast("Row | None", await self._connection.fetchrow(sql, *values, timeout=self._timeout_s))

    async def value(self, sql: str, *values: object) -> Any:
        """The first column of the first row, or None."""
        return await self._connection.fetchval(sql, *values, timeout=self._timeout_s)

    async def execute(self, sql: str, *values: object) -> int:
        """Run it; returns the number of rows that it touched."""
        tag: str = await self._connection.execute(sql, *values, timeout=self._timeout_s)
        last = tag.rpartition(" ")[2]
        return int(last) if last.isdigit() else 0


def translated(error: BaseException, *, writing: bool) -> SeawallError | None:
    """Our error for a driver's, or None when the world didn't do it: then it is a bug and goes up as it is.

    Class 22 (data), 23 (constraint) and 54 (limit exceeded) are the value's own fault; a lost connection or a timeout
    is Uncertain when a write may have been committed, else Unavailable. All else that the server says rolled back.
    """
    if isinstance(error, asyncpg.PostgresError):
        state = error.sqlstate or ""
        if state[:2] in ("22", "23", "54"):
            return Unstorable(f"{state} {error}")
        if state[:2] in ("08",) and writing:
            return Uncertain(f"PostgreSQL: {error}")
        return Unavailable("PostgreSQL", f"{state} {error}")
    if isinstance(error, asyncpg.DataError):
        return Unstorable(str(error))
    if isinstance(error, TimeoutError | OSError | asyncpg.InterfaceError | asyncpg.InternalClientError):
        said = str(error) or ("no answer in time" if isinstance(error, TimeoutError) else type(error).__name__)
        return Uncertain(f"PostgreSQL: {said}") if writing else Unavailable("PostgreSQL", said)
    return None


class Store:
    """A bounded pool of connections. ``async with`` opens nothing yet: the first use does, so that a role can start
    while the store is away.

    Every method raises Unavailable (certainly nothing happened), Uncertain (it may have) or Unstorable.
    """

    def __init__(self, settings: Settings, *, role: str) -> None:
        self.settings = settings
        self._role = role
        self._free: list[asyncpg.Connection] = []
        self._slots = asyncio.Semaphore(settings.connections_max)
        self._closed = False

    async def __aenter__(self) -> Store:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Give all connections back. Harmless when called twice."""
        self._closed = True
        while self._free:
            connection = self._free.pop()
            with contextlib.suppress(Exception):
                await connection.close(timeout=0.5)

    async def fetch(self, sql: str, *values: object, timeout_s: float | None = None) -> list[Row]:
        async with self._session(timeout_s, writing=False) as session:
            return await session.fetch(sql, *values)

    async def row(self, sql: str, *values: object, timeout_s: float | None = None) -> Row | None:
        async with self._session(timeout_s, writing=False) as session:
            return await session.row(sql, *values)

    async def value(self, sql: str, *values: object, timeout_s: float | None = None) -> Any:
        async with self._session(timeout_s, writing=False) as session:
            return await session.value(sql, *values)

    async def execute(self, sql: str, *values: object, timeout_s: float | None = None) -> int:
        """One statement that writes, its own transaction. Uncertain when the connection broke under way."""
        async with self._session(timeout_s, writing=True) as session:
            return await session.execute(sql, *values)

    @contextlib.asynccontextmanager
    async def transaction(self, *, timeout_s: float | None = None) -> AsyncIterator[Session]:
        """A transaction: committed when the block ends, rolled back when it raises.

        Raises:
            Uncertain: The connection broke or time ran out; a commit may have happened. What you wrote must be safe to
                repeat (a compare-and-set, a unique key).

        Cancelled: rolled back, or Uncertain in the moment of the commit; the connection is dropped.
        """
        async with self._session(timeout_s, writing=True) as session:
            transaction = session._connection.transaction()
            await transaction.start()
            try:
                yield session
            except BaseException:
                with contextlib.suppress(Exception):
                    async with asyncio.timeout(1.0):
                        await transaction.rollback()
                raise
            async with asyncio.timeout(session._timeout_s):
                await transaction.commit()

    @contextlib.asynccontextmanager
    async def own_connection(self) -> AsyncIterator[Session]:
        """A connection for one holder for long (prepared statements stay warm); counts against the pool's bound."""
        async with self._session(None, writing=True) as session:
            yield session

    @contextlib.asynccontextmanager
    async def _session(self, timeout_s: float | None, *, writing: bool) -> AsyncIterator[Session]:
        limit_s = timeout_s if timeout_s is not None else self.settings.statement_timeout_s
        connection: asyncpg.Connection | None = None
        try:
            async with asyncio.timeout(limit_s):
                await self._slots.acquire()
        except TimeoutError as error:
            raise Unavailable("PostgreSQL", f"all {self.settings.connections_max} connections are busy") from error
        healthy = False
        try:
            try:
                connection = await self._connected(limit_s)
            except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError, TimeoutError) as error:
                raise (translated(error, writing=False) or error) from error
            try:
                yield Session(connection, limit_s)
                healthy = True
            except SeawallError:
                healthy = not connection.is_closed() and not connection.is_in_transaction()
                raise
            except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError, TimeoutError, ValueError) as error:
                # A statement that the server itself refused leaves a usable connection; anything else leaves doubt.
                healthy = isinstance(error, asyncpg.PostgresError | ValueError) and not connection.is_closed()
                ours = translated(error, writing=writing)
                if ours is None:
                    raise
                raise ours from error
        finally:
            if connection is not None:
                self._give_back(connection, healthy=healthy)
            self._slots.release()

    async def _connected(self, limit_s: float) -> asyncpg.Connection:
        while self._free:
            connection = self._free.pop()
            if not connection.is_closed():
                return connection
        return await connect(self.settings, role=self._role, timeout_s=min(limit_s, self.settings.connect_timeout_s))

    def _give_back(self, connection: asyncpg.Connection, *, healthy: bool) -> None:
        if healthy and not self._closed and not connection.is_closed() and not connection.is_in_transaction():
            self._free.append(connection)
        else:
            connection.terminate()


async def connect(settings: Settings, *, role: str, timeout_s: float) -> asyncpg.Connection:
    """A new connection with our server settings. Raises the driver's errors: only this room calls it."""
    async with asyncio.timeout(timeout_s):
        return await asyncpg.connect(
            settings.dsn,
            timeout=timeout_s,
            server_settings={
                "application_name": f"seawall-{role}",
                "statement_timeout": str(int(settings.statement_timeout_s * 2000)),
                "lock_timeout": str(int(settings.lock_timeout_s * 1000)),
                "idle_in_transaction_session_timeout": "10000",
                "jit": "off",
            },
        )


class Listener:
    """LISTEN on a connection of its own. Notifications are hints: whoever listens also re-reads.

    ``serve`` runs until the connection is lost; its caller (a supervised loop) calls it again, and reconciles first.
    """

    def __init__(self, settings: Settings, channels: Sequence[str], notified: Notified, *, role: str) -> None:
        self._settings = settings
        self._channels = tuple(channels)
        self._notified = notified
        self._role = role

    @contextlib.asynccontextmanager
    async def subscribed(self) -> AsyncIterator[Callable[[float], Any]]:
        """While inside, notifications arrive. Yields ``check(timeout_s)``, a coroutine function that proves the
        connection alive by a round trip.

        Raises:
            Unavailable: Can't connect, or the check failed.
        """
        try:
            connection = await connect(self._settings, role=self._role, timeout_s=self._settings.connect_timeout_s)
        except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError, TimeoutError) as error:
            raise (translated(error, writing=False) or error) from error

        def notified(_: object, __: int, channel: str, payload: str) -> None:
            self._notified(channel, payload)

        async def check(timeout_s: float) -> None:
            try:
                await connection.fetchval("select 1", timeout=timeout_s)
            except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError, TimeoutError) as error:
                raise (translated(error, writing=False) or error) from error

        try:
            try:
                for channel in self._channels:
                    await connection.add_listener(channel, notified)
            except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError, TimeoutError) as error:
                raise (translated(error, writing=False) or error) from error
            yield check
        finally:
            connection.terminate()


def text_array(values: Iterable[str]) -> list[str]:
    """Text that PostgreSQL can keep: NUL is spelt out, lone surrogates are replaced."""
    return [v.replace("\0", "\\x00").encode("utf-8", "replace").decode() for v in values]
