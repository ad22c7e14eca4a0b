"""The PostgreSQL that rehearsals share: one server, started once; each rehearsal has a database of its own in it."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import AsyncIterator
from types import TracebackType

from seawall import migrate
from seawall.store import pool, rehearsal
from seawall.store.cluster import WORKER
from seawall.store.pool import Store
from seawall.testing.postgres import Database, PostgresServer

TEMPLATE = "seawall_rehearsal"


class Stage:
    """``with`` starts the server and ends it; it dies with its process in any case.

    Args:
        server: One that runs already, and stays; None: one of our own, which never syncs.
        bin: The folder of PostgreSQL's programs; "": those of the extra ``embedded``, else those on the path.
    """

    def __init__(self, server: PostgresServer | None = None, *, bin: str = "") -> None:
        self._given = server
        self._own = PostgresServer(durable=False, bin=bin) if server is None else None
        self._numbers = itertools.count(1)
        self._made = False

    def __enter__(self) -> Stage:
        if self._own is not None:
            self._own.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._own is not None:
            self._own.close()

    @property
    def _server(self) -> PostgresServer:
        server = self._own or self._given
        assert server is not None
        return server

    @contextlib.asynccontextmanager
    async def database(self) -> AsyncIterator[Database]:
        """A fresh database with the schema, whose time only ``store.rehearsal.move_clock`` moves. Dropped at the end.

        Raises:
            Unavailable, Uncertain: The server is away.
        """
        server = self._server
        async with Store(pool.Settings(dsn=server.dsn(), connections_max=1), role="stage", direct=True) as admin:
            if not self._made:
                await self._make_template(admin)
                self._made = True
            name = f"rehearsal_{next(self._numbers)}"
            await rehearsal.make(admin, name, template=TEMPLATE)
            try:
                yield Database(name, server.dsn(database=name), server.dsn(database=name, role=WORKER))
            finally:
                await rehearsal.drop(admin, name)

    async def _make_template(self, admin: Store) -> None:
        await rehearsal.drop(admin, TEMPLATE)  # half made, when the first rehearsal was broken off
        await rehearsal.make(admin, TEMPLATE)
        settings = pool.Settings(dsn=self._server.dsn(database=TEMPLATE))
        async with Store(settings, role="stage", direct=True) as store:
            await rehearsal.lay_clock(store)
        await migrate.apply(settings)
