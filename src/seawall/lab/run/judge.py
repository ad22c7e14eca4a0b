"""What a run has shown: pure, from its record."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from seawall.kernel.error import said as spelt
from seawall.lab.expect import Finding, Seen
from seawall.lab.experiment import EXPECT, Claim
from seawall.lab.record import Expectation, Record, Status
from seawall.lab.run.sentry import Order


def find(claims: Iterable[Claim], seen: Seen) -> list[Expectation]:
    """Each claim, looked at. One that can't be isn't held."""
    return [Expectation(claim=claim.claim, held=found.held, said=found.said)
            for claim in claims for found in [_find(claim, seen)]]  # fmt: skip


def _find(claim: Claim, seen: Seen) -> Finding:
    try:
        found = claim.find()(seen, **claim.arguments)
    except Exception as error:  # noqa: BLE001 - a user's function: whatever it raises, its claim isn't shown
        return Finding(False, f"it can't be said: {spelt(error)}")
    return found if isinstance(found, Finding) else Finding(bool(found), repr(found))


WRONG = ("lost", "invented", "corrupted", "duplicated", "wrong")
"""Words of the ledger of which a run with the protections may have none, unless its file says how many."""


def safe(verdict: Mapping[str, int], claims: Iterable[Claim]) -> list[Expectation]:
    """What every run with the protections is to show, whether its file asks for it or not."""
    asked = {word for each in claims if (each.module, each.func) == (EXPECT, "verdict") for word in each.arguments}
    found = [f"{word} {verdict[word]}" for word in WRONG if word not in asked and verdict.get(word, 0)]
    unknown = verdict.get("unknown", 0)
    return [
        Expectation(claim="all that was accepted came to its end", held=not unknown, said=f"unknown {unknown}"),
        Expectation(claim="nothing else is wrong in the ledger", held=not found, said=", ".join(found) or "nothing"),
    ]


def visible(claims: Iterable[Claim], seen: Seen) -> tuple[list[Claim], list[str]]:
    """(those that somebody could look at, why not of the others): a sample that was never measured tells nothing."""
    measured = {name for sample in seen.samples for name in sample.values}
    kept, unseen = list[Claim](), list[str]()
    for claim in claims:
        name = claim.arguments.get("name")
        if claim.module == EXPECT and isinstance(name, str) and name not in measured:
            unseen.append(f"{claim.claim}: {name} was never measured")
        else:
            kept.append(claim)
    return kept, unseen


STILL = "STILL BROKEN"


def conclude(record: Record, *, orders: Sequence[Order], invalid: Sequence[str], broken: Sequence[str]) -> None:
    """Give a record its status, and each cause in words.

    Args:
        orders: Why it was ended before its time.
        invalid: Why it shows nothing.
        broken: What couldn't be undone.
    """
    failed = [f"{each.claim}: {each.said}" for each in record.proofs if not each.held]
    missed = [f"{each.claim}: {each.said}" for each in record.expectations if not each.held]
    still = [f"{STILL}: {each}" for each in broken]
    aborted = [each.why for each in orders if each.status is Status.ABORTED]
    shown = [each.why for each in orders if each.status is not Status.ABORTED] + [*invalid, *failed]
    if aborted:
        # What follows an abort (proofs that fail, actions cut off in the middle) is its doing.
        record.status, record.why = Status.ABORTED, still + aborted
    elif shown:
        record.status, record.why = Status.INVALID, still + list(dict.fromkeys(shown))
    elif missed or still:
        record.status, record.why = Status.NOT_AS_EXPECTED, still + missed
    else:
        record.status, record.why = Status.AS_EXPECTED, []


EXIT = {
    Status.AS_EXPECTED: 0, Status.NOT_AS_EXPECTED: 1, Status.INVALID: 6, Status.ABORTED: 7, Status.RUNNING: 7,
}  # fmt: skip
"""Exit codes of runs."""
WORST = (Status.AS_EXPECTED, Status.NOT_AS_EXPECTED, Status.INVALID, Status.ABORTED, Status.RUNNING)


def worst(found: Iterable[Status]) -> Status:
    """Of several runs."""
    return max(found, key=WORST.index, default=Status.AS_EXPECTED)
