"""What an event's address says, added to its headers on the way into the store.

Here and not at intake: no event is accepted later for it, the journal keeps exactly what came, and a backlog after an
outage is enriched like everything else. What isn't known in time is left out, and nobody looks again.
"""

from __future__ import annotations

from dataclasses import replace

from seawall.kernel.seam.place import COUNTRY_HEADER, Places
from seawall.kernel.status import EventStatus
from seawall.router.batch import Batch, Item


async def with_countries(batch: Batch, places: Places | None) -> Batch:
    """The batch, with the country of those addresses that are known. Takes ``LOOK_UP_S`` at the most."""
    if places is None:
        return batch
    known = await places.countries({item.record.peer for item in batch.items if item.record.peer})
    if known:
        batch.items = [_with_country(item, known.get(item.record.peer)) for item in batch.items]
    return batch


def _with_country(item: Item, country: str | None) -> Item:
    if country is None or item.status is EventStatus.DEAD:
        return item
    ours = b"\0".join((COUNTRY_HEADER, country.encode("ascii")))
    headers = item.record.headers
    return replace(item, record=replace(item.record, headers=b"\0".join((headers, ours)) if headers else ours))
