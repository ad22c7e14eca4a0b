"""What an event's address says, added to its headers on the way into the store.

Here and not at intake: no event is accepted later for it, the journal keeps exactly what came, and a backlog after an
outage is enriched like everything else. What isn't known in time is left out, and nobody looks again.
"""

from __future__ import annotations

from dataclasses import replace

from seawall.kernel.seam.flag import Switch, always
from seawall.kernel.seam.place import COUNTRY_HEADER, Places
from seawall.kernel.status import EventStatus
from seawall.router.batch import Batch, Item


async def with_countries(batch: Batch, places: Places | None, on: Switch = always) -> Batch:
    """The batch, with the country of those addresses that are known. Takes ``LOOK_UP_S`` at the most.

    Args:
        on: Asked for each tenant and source; where it is off, nobody is looked up.
    """
    if places is None:
        return batch
    asked = {
        (item.record.tenant, item.record.source): on(tenant=item.record.tenant, source=item.record.source)
        for item in batch.items
    }
    wanted = [asked[item.record.tenant, item.record.source] for item in batch.items]
    known = await places.countries(
        {item.record.peer for item, yes in zip(batch.items, wanted, strict=True) if yes and item.record.peer}
    )
    if known:
        batch.items = [
            _with_country(item, known.get(item.record.peer) if yes else None)
            for item, yes in zip(batch.items, wanted, strict=True)
        ]
    return batch


def _with_country(item: Item, country: str | None) -> Item:
    if country is None or item.status is EventStatus.DEAD:
        return item
    ours = b"\0".join((COUNTRY_HEADER, country.encode("ascii")))
    headers = item.record.headers
    return replace(item, record=replace(item.record, headers=b"\0".join((headers, ours)) if headers else ours))
