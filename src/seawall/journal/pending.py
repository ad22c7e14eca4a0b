"""Records on their way: submitted, and not yet handed to the writer."""

from __future__ import annotations

from dataclasses import dataclass, field

from seawall.journal.settings import Settings
from seawall.kernel.seam.journal import Done


@dataclass(slots=True)
class Batch:
    """Records that are written together; two lists, as one is written and the other one answered."""

    payloads: list[bytes] = field(default_factory=list)
    dones: list[Done] = field(default_factory=list)
    size_bytes: int = 0
    started: float = 0.0
    answered: bool = False  # given up as Uncertain before its outcome was known


class Pending:
    """What was submitted, in order."""

    __slots__ = ("batch", "settings")

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.batch = Batch()

    def add(self, payload: bytes, done: Done) -> bool:
        """False, and not taken, when there are too many records or bytes."""
        batch, settings = self.batch, self.settings
        size = batch.size_bytes + len(payload)
        if size > settings.pending_bytes_max or len(batch.dones) >= settings.pending_records_max:
            return False
        batch.payloads.append(payload)
        batch.dones.append(done)
        batch.size_bytes = size
        return True

    def take(self) -> Batch:
        """The next batch: all, or as many records as a batch may hold, and one at least when there is any."""
        batch, bytes_max = self.batch, self.settings.batch_bytes_max
        if batch.size_bytes <= bytes_max:
            return self.take_all()
        count = size = 0
        for payload in batch.payloads:
            if count and size + len(payload) > bytes_max:
                break
            count += 1
            size += len(payload)
        self.batch = Batch(batch.payloads[count:], batch.dones[count:], batch.size_bytes - size)
        return Batch(batch.payloads[:count], batch.dones[:count], size)

    def take_all(self) -> Batch:
        batch, self.batch = self.batch, Batch()
        return batch
