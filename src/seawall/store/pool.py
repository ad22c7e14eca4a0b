"""Connections to PostgreSQL: few, bounded in number and in time, and given up at the first doubt.

A connection that timed out, was cancelled in mid-flight or broke is terminated, never reused: an answer that arrives
late must not be taken for the answer to another question. Driver errors leave this room only as ours (``driver``).
"""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Sequence
from types import TracebackType
from typing import Any, Protocol, TypeVar, cast

import asyncpg

from seawall.kernel.error import SeawallError, Unavailable
from seawall.kernel.log import logger
from seawall.store.driver import DEPENDENCY, FAILURES, Settings, connect, survived, translated, writes

__all__ = ["Listener", "Notified", "Row", "Session", "Settings", "Store", "text_array"]

log = logger("store")

CLOSE_S = 0.5
_SET = re.compile(r"(?m)^set ")
ROLLBACK_S = 1.0

T = TypeVar("T")


class Row(Protocol):
    """One row: values by column name or number. What a column holds is its statement's business."""

    def __getitem__(self, column: str | int) -> Any: ...

    def __iter__(self) -> Iterator[Any]: ...


Notified = Callable[[str, str], None]
"""Called on the event loop's thread with (channel, payload)."""


class Session:
    """One connection in somebody's hands: inside a transaction, for one statement, or for long.

    Every method raises Unstorable (a value's own fault; outside a transaction the session stays usable), Unavailable
    (certainly nothing was changed by this statement) or Uncertain (it may have been: only outside a transaction,
    where each statement commits by itself). After a timeout, a cancellation or a broken connection the session is of
    no more use, and says so with Unavailable.
    """

    __slots__ = ("_begin_sql", "_connection", "_doubt", "_inside", "_limit_s", "_pooled", "_until")

    def __init__(
        self,
        connection: asyncpg.Connection,
        limit_s: float,
        until: float | None,
        *,
        inside: bool,
        pooled: Settings | None,
    ) -> None:
        self._connection = connection
        self._limit_s = limit_s  # for each statement
        self._until = until  # for all of them together, event loop's time
        self._inside = inside  # a transaction
        self._doubt = False  # a statement didn't come to a certain end
        self._pooled = pooled is not None  # a pooler lends us a connection for each transaction
        self._begin_sql = "begin"
        for name, value in pooled.of_session().items() if pooled is not None else ():
            self._begin_sql += f"; set local {name} = '{value}'"

    async def always(self, sql: str) -> None:
        """Run these `set` statements for all that comes in this session."""
        if self._pooled:
            self._begin_sql += "; " + _SET.sub("set local ", sql)
        else:
            await self._ask(self._connection.execute, sql, ())

    async def fetch(self, sql: str, *values: object) -> list[Row]:
        """All rows: statements bound their own number."""
        return cast("list[Row]", await self._ask(self._connection.fetch, sql, values))

    async def row(self, sql: str, *values: object) -> Row | None:
        """The first row, or None."""
        return cast("Row | None", await self._ask(self._connection.fetchrow, sql, values))

    async def value(self, sql: str, *values: object) -> Any:
        """The first column of the first row, or None."""
        return await self._ask(self._connection.fetchval, sql, values)

    async def execute(self, sql: str, *values: object) -> int:
        """Run it; returns the number of rows that it touched. Without values, ``sql`` may be several statements."""
        last = (await self._ask(self._connection.execute, sql, values)).rpartition(" ")[2]
        return int(last) if last.isdigit() else 0

    @property
    def usable(self) -> bool:
        """Whether the next statement has a chance."""
        return not self._doubt and not self._connection.is_closed()

    async def _ask(self, method: Callable[..., Awaitable[T]], sql: str, values: Sequence[object]) -> T:
        return await (self._one if self._inside or not self._pooled else self._lent)(method, sql, values)

    async def _lent(self, method: Callable[..., Awaitable[T]], sql: str, values: Sequence[object]) -> T:
        """One statement in a transaction of its own, which a pooler sees as such: whatever a statement needs must reach
        the server over one connection."""
        self._inside = True
        try:
            await self._one(self._connection.execute, self._begin_sql, ())
            try:
                answer = await self._one(method, sql, values)
            except SeawallError:
                if self.usable:
                    await self._one(self._connection.execute, "rollback", ())
                raise
        finally:
            self._inside = False
        await self._one(self._connection.execute, "commit" if writes(sql) else "rollback", ())
        return answer

    async def _one(self, method: Callable[..., Awaitable[T]], sql: str, values: Sequence[object]) -> T:
        timeout_s = self._limit_s
        if self._until is not None:
            timeout_s = min(timeout_s, self._until - asyncio.get_running_loop().time())
        if self._doubt or self._connection.is_closed() or timeout_s <= 0:
            raise Unavailable(DEPENDENCY, "no time is left" if timeout_s <= 0 else "the connection is gone")
        # Doubt first: it stays when we are cancelled, or when anything but a certain end comes back.
        self._doubt = True
        try:
            answer = await method(sql, *values, timeout=timeout_s)
        except FAILURES as error:
            self._doubt = not survived(error, self._connection)
            ours = translated(error, self._connection, writing=not self._inside and writes(sql))
            if ours is None:
                raise
            raise ours from error
        self._doubt = False
        return answer

    async def _begin(self, settings: Settings) -> None:
        sql = self._begin_sql
        if self._limit_s > settings.statement_timeout_s:
            # The server's own limit was set for ordinary statements, when we connected.
            sql += f"; set local statement_timeout = {int(self._limit_s * 1000)}"
        await self._one(self._connection.execute, sql, ())

    async def _commit(self) -> None:
        self._inside = False
        said = await self._one(self._connection.execute, "commit", ())
        if said != "COMMIT":
            # A statement had failed and its error was swallowed: PostgreSQL then answers a commit with a rollback.
            raise Unavailable(DEPENDENCY, "the transaction was rolled back, since a statement in it had failed")

    async def _rollback(self) -> None:
        """End it when that is quick; else the connection is dropped, which ends it as well."""
        self._until = None
        self._limit_s = ROLLBACK_S
        if self.usable:
            with contextlib.suppress(SeawallError):
                await self._one(self._connection.execute, "rollback", ())


class Store:
    """A bounded pool of connections. ``async with`` opens nothing yet: the first use does, so that a role can start
    while the store is away.

    Args:
        direct: Past the pooler, if there is one: for whoever needs a session, for a lock or for settings of its own.

    Every method raises Unavailable (certainly nothing happened), Uncertain (it may have) or Unstorable, within
    ``timeout_s`` (default: ``statement_timeout_s``), waiting for a connection included.
    """

    def __init__(self, settings: Settings, *, role: str, direct: bool = False) -> None:
        self.settings = settings
        self._role = role
        self._pooled = settings if settings.pooler and not direct else None
        self._free: list[asyncpg.Connection] = []
        self._slots = asyncio.Semaphore(settings.connections_max)
        self._closed = False
        self.size = settings.connections_max
        self.waiting = 0  # callers that have no connection yet, since all are in use

    async def __aenter__(self) -> Store:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Give all connections back, within `CLOSE_S`; those in use go when their holder is done. Harmless when called
        twice."""
        self._closed = True
        free, self._free = self._free, []
        await asyncio.gather(*(_close(connection) for connection in free))

    async def fetch(self, sql: str, *values: object, timeout_s: float | None = None) -> list[Row]:
        async with self._session(timeout_s) as session:
            return await session.fetch(sql, *values)

    async def row(self, sql: str, *values: object, timeout_s: float | None = None) -> Row | None:
        async with self._session(timeout_s) as session:
            return await session.row(sql, *values)

    async def value(self, sql: str, *values: object, timeout_s: float | None = None) -> Any:
        async with self._session(timeout_s) as session:
            return await session.value(sql, *values)

    async def execute(self, sql: str, *values: object, timeout_s: float | None = None) -> int:
        """One statement, its own transaction; returns the number of rows that it touched."""
        async with self._session(timeout_s) as session:
            return await session.execute(sql, *values)

    @contextlib.asynccontextmanager
    async def transaction(self, *, timeout_s: float | None = None) -> AsyncIterator[Session]:
        """A transaction: committed when the block ends, rolled back when it raises.

        Args:
            timeout_s: For all of it together, from waiting for a connection to the commit.

        Raises:
            Unavailable: Nothing was changed. Also when a statement failed and the block went on regardless.
            Uncertain: Only from the commit: the connection broke or time ran out under way. What you wrote must be
                safe to repeat (a compare-and-set, a unique key).

        Durability: after the block, what the server's ``synchronous_commit`` promises.
        Cancelled: rolled back, or as Uncertain in the moment of the commit; the connection is dropped.
        """
        async with self._session(timeout_s, inside=True) as session:
            await session._begin(self.settings)
            try:
                yield session
            except Exception:
                await session._rollback()
                raise
            await session._commit()

    @contextlib.asynccontextmanager
    async def own_connection(self) -> AsyncIterator[Session]:
        """A connection for one holder for long (prepared statements stay warm); counts against the pool's bound.

        Each statement has ``statement_timeout_s``, and is its own transaction. Leave and enter again when the session
        isn't `usable` any more.
        """
        async with self._session(None, long=True) as session:
            yield session

    @contextlib.asynccontextmanager
    async def _session(
        self, timeout_s: float | None, *, inside: bool = False, long: bool = False
    ) -> AsyncIterator[Session]:
        limit_s = timeout_s if timeout_s is not None else self.settings.statement_timeout_s
        until = asyncio.get_running_loop().time() + limit_s
        await self._slot(limit_s)
        connection: asyncpg.Connection | None = None
        session: Session | None = None
        try:
            connection = await self._connected(until)
            session = Session(
                connection, limit_s, None if long else until, inside=inside, pooled=self._pooled
            )  # fmt: skip
            yield session
        finally:
            if connection is not None:
                self._give_back(connection, healthy=session is not None and session.usable)
            self._slots.release()

    async def _slot(self, limit_s: float) -> None:
        if self._closed:
            raise Unavailable(DEPENDENCY, "our pool of connections is closed")
        if not self._slots.locked():
            await self._slots.acquire()  # at once: the common path pays for no timer
            return
        self.waiting += 1
        try:
            async with asyncio.timeout(limit_s):
                await self._slots.acquire()
        except TimeoutError as error:
            raise Unavailable(DEPENDENCY, f"all {self.size} connections are busy") from error
        finally:
            self.waiting -= 1

    async def _connected(self, until: float) -> asyncpg.Connection:
        while self._free:
            connection = self._free.pop()
            if not connection.is_closed():
                return connection
        left_s = until - asyncio.get_running_loop().time()
        timeout_s = min(left_s, self.settings.connect_timeout_s)
        return await connect(self.settings, role=self._role, timeout_s=timeout_s, pooled=self._pooled is not None)

    def _give_back(self, connection: asyncpg.Connection, *, healthy: bool) -> None:
        if healthy and not self._closed and not connection.is_in_transaction():
            self._free.append(connection)
        else:
            connection.terminate()


async def _close(connection: asyncpg.Connection) -> None:
    with contextlib.suppress(*FAILURES):
        await connection.close(timeout=CLOSE_S)


class Listener:
    """LISTEN on a connection of its own. Notifications are hints: whoever listens also re-reads.

    Args:
        broke: Called when the connection is known to be gone, also at the end of ``subscribed``; maybe more than once.
    """

    def __init__(
        self, settings: Settings, channels: Sequence[str], notified: Notified, *, role: str,
        broke: Callable[[], None] = lambda: None,
    ) -> None:  # fmt: skip
        self._settings = settings
        self._channels = tuple(channels)
        self._notified = notified
        self._role = role
        self._broke = broke

    @contextlib.asynccontextmanager
    async def subscribed(self) -> AsyncIterator[Callable[[float], Awaitable[None]]]:
        """While inside, notifications arrive. Yields ``check(timeout_s)``, a coroutine function that proves the
        connection alive by a round trip; after it raised, leave, enter again and reconcile.

        Raises:
            Unavailable: Can't connect or subscribe, or the check failed.
        """
        timeout_s = self._settings.connect_timeout_s
        connection = await connect(self._settings, role=self._role, timeout_s=timeout_s)

        def notified(_: object, __: int, channel: str, payload: str) -> None:
            self._notified(channel, payload)

        async def check(timeout_s: float) -> None:
            with _unavailable():
                await connection.fetchval("select 1", timeout=timeout_s)

        connection.add_termination_listener(lambda _: self._broke())
        try:
            with _unavailable():
                async with asyncio.timeout(timeout_s):
                    for channel in self._channels:
                        await connection.add_listener(channel, notified)
            yield check
        finally:
            connection.terminate()


@contextlib.contextmanager
def _unavailable() -> Any:
    """Driver errors of what changes nothing, in our words."""
    try:
        yield
    except FAILURES as error:
        ours = translated(error, None, writing=False)
        if ours is None:
            raise
        raise ours from error


def text_array(values: Iterable[str]) -> list[str]:
    """Text that PostgreSQL can keep: NUL is spelt out, lone surrogates are replaced."""
    return [v.replace("\0", "\\x00").encode("utf-8", "replace").decode() for v in values]
