"""What an operator may set about routing."""

from __future__ import annotations

from dataclasses import dataclass

from seawall.kernel.limit import BATCH_BYTES_MAX, BATCH_RECORDS_MAX, DEDUPE_WINDOW_S_MIN
from seawall.kernel.setting import setting


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """How one router works."""

    batch_records: int = setting(
        500, min=1, max=BATCH_RECORDS_MAX, live=True, help="Records stored in one transaction."
    )
    batch_bytes: int = setting(
        4 * 1024 * 1024,
        min=64 * 1024,
        max=BATCH_BYTES_MAX,
        live=True,
        help="Bytes of records stored in one transaction.",
    )
    transaction_timeout_s: float = setting(
        10.0, min=1.0, max=60.0, live=True, help="Longest that one batch's transaction may take."
    )
    dedupe_window_s: int = setting(
        86_400, min=DEDUPE_WINDOW_S_MIN, max=3 * 86_400,
        help="How long after an event a repeated dedupe key counts as the same event.",
    )  # fmt: skip
    lag_split_s: float = setting(
        10.0,
        min=1.0,
        max=3600.0,
        live=True,
        help="Age of the oldest unread record beyond which fresh ones are served first.",
    )
    ranges_max: int = setting(8, min=2, max=64, live=True, help="Ranges of one log that may be left to read at once.")
    backlog_rate: int = setting(
        1000, min=1, max=100_000, live=True, help="Records a second, of each log, that an older range is drained at."
    )
    backlog_batch: int = setting(
        50,
        min=1,
        max=BATCH_RECORDS_MAX,
        live=True,
        help="Records of an older range in one transaction: fresh ones wait for it.",
    )
    journal_keep_s: float = setting(
        3600.0,
        min=1.0,
        max=30 * 86_400.0,
        live=True,
        help="How long a routed segment is kept; more than a fail-over of the store can lose.",
    )
    governor_window_s: float = setting(
        10.0, min=1.0, max=600.0, live=True, help="How long is measured before the rates of drains change."
    )
    governor_store_s: float = setting(
        0.1, min=0.001, max=10.0, live=True, help="Time of a small commit beyond which drains are cut."
    )
    governor_start_s: float = setting(
        5.0, min=0.01, max=3600.0, live=True,
        help="How late runs of queues without a target may start; beyond that, drains are cut.",
    )  # fmt: skip
    governor_failed_share: float = setting(
        0.05, min=0.001, max=1.0, live=True, help="Share of executions that fail beyond which drains are cut."
    )
    reserve_bytes: int = setting(
        0, min=0, max=10**15, help="Burst reserve of the store's disk, in bytes of WAL; 0: it has none."
    )
    reserve_base_bytes_s: float = setting(
        1_000_000.0, min=0.0, max=1e12, help="Bytes a second that the reserve gets back all the time."
    )
    reserve_least: float = setting(
        0.2, min=0.01, max=0.9, live=True, help="Share of the reserve below which drains are cut."
    )
    reserve_lasts_s: float = setting(
        1800.0, min=1.0, max=86_400.0, live=True, help="Drains are cut when the reserve, as it falls, ends before that."
    )
