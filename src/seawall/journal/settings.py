"""Settings of the journal."""

from __future__ import annotations

from dataclasses import dataclass

from seawall.kernel.error import Misconfigured

MIB = 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """How one log is written."""

    segment_bytes: int = 64 * MIB
    """Size after which a new segment is begun; 16 KiB to 1 GiB. A whole segment is forgotten at once."""

    fill_bytes: int = MIB
    """How far ahead zeros are written; 4 KiB to 16 MiB. Measured: below 256 KiB syncs get dearer, above 4 MiB a slow
    disk feels each fill (0001)."""

    batch_bytes_max: int = 8 * MIB
    """Largest batch of one write and one sync (a single larger record is a batch by itself); 4 KiB to 64 MiB."""

    pending_records_max: int = 20_000
    """Records submitted and not yet answered, beyond which more are refused; 1 to 1,000,000."""

    pending_bytes_max: int = 64 * MIB
    """The same in bytes of payload; 1 MiB to 1 GiB."""

    reserve_bytes: int = 64 * MIB
    """Free space that the journal leaves alone, so that the store and checkpoints go on; 0 to 1 TiB."""

    resume_bytes: int = 80 * MIB
    """Free space at which a full journal takes records again; at least reserve_bytes + fill_bytes."""

    full_retry_after_s: float = 10.0
    """What senders are told while the disk is full; 1 to 600."""

    answer_timeout_s: float = 10.0
    """How long a record may wait for the disk. Then what is being written is answered Uncertain, and what isn't yet
    Overloaded, while new records are refused until the disk is back; 0.1 to 60."""

    lock_timeout_s: float = 5.0
    """How long a start waits for the folder's lock, which a reader may hold for the time of a recovery; 0 to 60."""

    stop_timeout_s: float = 5.0
    """How long stopping waits for the last batches; 0.1 to 60."""

    def __post_init__(self) -> None:
        ranges: dict[str, tuple[float, float]] = {
            "segment_bytes": (16 * 1024, 1024 * MIB),
            "fill_bytes": (4096, 16 * MIB),
            "batch_bytes_max": (4096, 64 * MIB),
            "pending_records_max": (1, 1_000_000),
            "pending_bytes_max": (MIB, 1024 * MIB),
            "reserve_bytes": (0, 1024 * 1024 * MIB),
            "resume_bytes": (self.reserve_bytes + self.fill_bytes, 1025 * 1024 * MIB),
            "full_retry_after_s": (1, 600),
            "answer_timeout_s": (0.1, 60),
            "lock_timeout_s": (0, 60),
            "stop_timeout_s": (0.1, 60),
        }
        problems = [
            f"journal.{name} is {getattr(self, name):g}; allowed: {low:g} to {high:g}"
            for name, (low, high) in ranges.items()
            if not low <= getattr(self, name) <= high
        ]
        if problems:
            raise Misconfigured(problems)
