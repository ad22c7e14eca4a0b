"""What is wrong with a workflow that takes no new runs, since its workers went away for good. Without I/O or a clock.

A worker that is away for hours costs nothing: events begin runs, which wait. After a day nobody is expected any more,
and from then on events are kept and begin nothing: that must be heard by whoever believes that it still runs.
"""

from __future__ import annotations

from datetime import UTC

from seawall.store.watch import Lapsed
from seawall.watch.verdict import Finding, Verdict


def lapsed(one: Lapsed) -> Finding:
    """Bad for as long as it is listed: until a worker has it again, or somebody says that it is meant."""
    name, since = one.name, one.since.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    stops, anew = "nothing begins it", ""
    if one.pattern:
        stops = f"events of type {one.pattern} are kept, and begin none of it"
        anew = f", then seawall replay --where 'type={one.pattern}, since={since}' --workflow {name}"
    return Finding(
        verdict=Verdict.BAD,
        summary=f"workflow {name} takes no new runs since {since}, as no worker was seen with it for a day: {stops}",
        unaffected="accepting and keeping events, and other workflows; runs that it has already wait for a worker",
        cure=f"start a worker whose app has it{anew}; or, if it is meant to be gone, seawall workflows freeze {name}",
    )
