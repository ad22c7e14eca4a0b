"""What only some experiments claim, beside `seawall.lab.expect`: the same kind of function, over the same `Seen`."""

from __future__ import annotations

from math import inf

from seawall.lab.expect import SAMPLES_MIN, Finding, Seen


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


def holds_after(
    seen: Seen, fault: str, name: str, within_s: float, at_least: float = -inf, at_most: float = inf, share: float = 1.0
) -> Finding:
    """From ``within_s`` after a fault's end on (its name has ``fault`` in it) a sample is within bounds, for as long as
    something else is broken still: that is what the fault's own ``after`` can't say."""
    ends = [each.ended_s for each in seen.record.faults if fault in each.name and each.ended_s is not None]
    if not ends:
        return Finding(False, f"no fault {fault!r} has ended")
    since_s = max(ends) + within_s
    until_s = max(inf if each.ended_s is None else each.ended_s for each in seen.record.faults)
    found = [each.values[name] for each in seen.samples if name in each.values and since_s <= each.at_s < until_s]
    if len(found) < SAMPLES_MIN:
        return Finding(False, f"{name} was measured {len(found)} times")
    inside = sum(at_least <= value <= at_most for value in found) / len(found)
    said = f"{name} from {min(found):g} to {max(found):g}, {inside:.0%} of {len(found)} samples within bounds"
    return Finding(inside >= share, said)
