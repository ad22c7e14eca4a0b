"""What only some experiments claim, beside `seawall.lab.expect`: the same kind of function, over the same `Seen`."""

from __future__ import annotations

from seawall.lab.expect import Finding, Seen


def hears_again(seen: Seen, after: str, within_s: float, channel: str = "redis") -> Finding:
    """The listener heard an echo so soon after a fault's end (its name has ``after`` in it).

    More exact than samples are apart: each says how long ago the last echo was.
    """
    ends = [each.ended_s for each in seen.record.faults if after in each.name and each.ended_s is not None]
    if not ends:
        return Finding(False, f"no fault {after!r} has ended")
    ended_s, name = max(ends), f"listener.{channel}_age_s"
    echoes = [each.at_s - each.values[name] for each in seen.samples if name in each.values]
    heard = min((at_s for at_s in echoes if at_s > ended_s), default=None)
    if heard is None:
        return Finding(False, "it heard nothing any more")
    return Finding(heard - ended_s <= within_s, f"after {heard - ended_s:.2f} s")
