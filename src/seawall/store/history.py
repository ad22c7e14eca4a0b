"""One run with everything that is kept of it, so that code can be called against it without the store."""

from __future__ import annotations

from typing import Final

import msgspec

from seawall.kernel.error import Rejected
from seawall.kernel.status import RunStatus
from seawall.store.pool import Store
from seawall.store.statement import statements

_SQL = statements("history")

STEPS_MAX: Final = 20_000
BYTES_MAX: Final = 32 * 1024 * 1024


class KeptStep(msgspec.Struct, frozen=True, kw_only=True):
    """What is kept of a step or wait."""

    name: str  # with the task that took it, as the run seam has it
    nth: int
    result: bytes | None  # base64 in JSON; null: a wait that is open
    failed: bool
    started_us: int


class RunHistory(msgspec.Struct, frozen=True, kw_only=True):
    """A run, as far as it has come. Bytes are base64 in JSON."""

    id: str
    workflow: str
    version: str
    status: str
    attempt: int
    over: bool
    now_us: int  # by the store's clock
    event: str
    type: str
    tenant: str
    source: str
    received_us: int
    headers: bytes  # as a record has them
    body: bytes
    kept: list[KeptStep]


async def history(store: Store, run_id: int, *, timeout_s: float) -> RunHistory | None:
    """A run's history; None: there is no such run, or its event is gone.

    Raises:
        Rejected: It is too large to be sent.
        Unavailable: The store is away, or takes longer.
    """
    row = await store.row(_SQL["run"], run_id, timeout_s=timeout_s)
    if row is None or row["event_id"] is None:
        return None
    if row["bytes"] + len(row["body"]) > BYTES_MAX:
        raise Rejected(422, "Too large", f"more than {BYTES_MAX} bytes are kept of run {run_id}")
    kept = await store.fetch(_SQL["kept"], run_id, STEPS_MAX + 1, timeout_s=timeout_s)
    if len(kept) > STEPS_MAX:
        raise Rejected(422, "Too large", f"run {run_id} has more than {STEPS_MAX} steps")
    return RunHistory(
        id=str(run_id), workflow=row["workflow"] or "", version=row["version"] or "",
        status=RunStatus(row["status"]).word, attempt=row["attempt"], over=row["over"], now_us=row["now_us"],
        event=str(row["event_id"]), type=row["type"], tenant=row["tenant"], source=row["source"],
        received_us=int(row["received_at"].timestamp() * 1_000_000), headers=row["headers"], body=row["body"],
        kept=[
            KeptStep(
                name=k["name"], nth=k["nth"], result=k["result"], failed=k["failed"], started_us=k["started_us"]
            )
            for k in kept
        ],
    )  # fmt: skip
