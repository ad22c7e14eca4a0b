"""Settings of the journal."""

from __future__ import annotations

from dataclasses import dataclass

from seawall.kernel.error import Misconfigured
from seawall.kernel.setting import setting

KIB = 1024
MIB = 1024 * KIB
GIB = 1024 * MIB


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """How one log is written.

    Raises:
        Misconfigured: Two settings contradict each other. (Ranges are checked where settings are read.)
    """

    segment_bytes: int = setting(
        64 * MIB,
        min=16 * KIB,
        max=GIB,
        live=True,
        help="Size at which a new segment is begun; segments are forgotten whole.",
    )
    # Measured (decision 0001): below 256 KiB syncs get dearer, above 4 MiB a disk feels each fill.
    fill_bytes: int = setting(MIB, min=4 * KIB, max=16 * MIB, live=True, help="How far ahead zeros are written.")
    batch_bytes_max: int = setting(
        8 * MIB,
        min=4 * KIB,
        max=64 * MIB,
        live=True,
        help="Largest batch of one sync; a larger record is a batch by itself.",
    )
    pending_records_max: int = setting(
        20_000, min=1, max=1_000_000, live=True, help="Records waiting for the disk, beyond which more are refused."
    )
    pending_bytes_max: int = setting(
        64 * MIB, min=MIB, max=GIB, live=True, help="Bytes waiting for the disk, beyond which more are refused."
    )
    reserve_bytes: int = setting(
        64 * MIB,
        min=0,
        max=1024 * GIB,
        live=True,
        help="Free space that the journal leaves to the store and to checkpoints.",
    )
    resume_bytes: int = setting(
        80 * MIB, min=4 * KIB, max=1025 * GIB, live=True, help="Free space at which a full journal takes events again."
    )
    full_retry_after_s: float = setting(
        10.0, min=1, max=600, live=True, help="What senders are told while the disk is full."
    )
    answer_timeout_s: float = setting(
        10.0,
        min=0.1,
        max=60,
        live=True,
        help="How long a record waits for a disk that hangs, before it is answered uncertain.",
    )
    lock_timeout_s: float = setting(
        5.0, min=0, max=60, help="How long a start waits for the journal's lock: a reader may be recovering it."
    )
    stop_timeout_s: float = setting(
        5.0, min=0.1, max=60, live=True, help="How long stopping waits for the last batches."
    )

    def __post_init__(self) -> None:
        least = self.reserve_bytes + self.fill_bytes
        if self.resume_bytes < least:
            raise Misconfigured(
                [f"journal.resume_bytes is {self.resume_bytes}; with this reserve and fill, at least {least}"]
            )
