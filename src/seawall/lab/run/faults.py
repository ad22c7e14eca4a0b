"""What is broken in one run: armed before it is done, proven while it lasts, and kept in the record."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Protocol

from seawall.kernel.error import Unavailable
from seawall.lab.arm.armoury import Armoury
from seawall.lab.record import Fault, Proof

LAND_S = 5.0
"""A fault is in force within so long of its action's end; what is to stay alive answers within so long."""
AGAIN_S = 0.1
ASKED_AT_ONCE_MAX = 16


class Paths(Protocol):
    """What is asked of a rig here (seam.Rig)."""

    def paths(self) -> Sequence[str]:
        """Every line that can be dead or alive."""

    def alive(self, path: str) -> bool:
        """Whether one round trip is answered. Raises Unavailable: nobody can say."""


@dataclass(slots=True)
class _Armed:
    """One id of the armoury, and the fault of the record that it is a part of."""

    fault: Fault
    target: str
    dead: Sequence[str]
    exact: bool  # nothing else of the target is meant
    looked: bool = False


class Faults:
    """See `seawall.lab.seam.Arm`. Several that are armed for one fault of one target are one in the record.

    Args:
        clock: Seconds since the run began.
        changed: Called whenever ``faults`` or ``proofs`` have changed; from any thread.
        max_s: How long faults may last, all together.
        kept: They last until they are undone; else (a drill) people may mend them, and are meant to.
    """

    def __init__(
        self, armoury: Armoury, *, clock: Callable[[], float], changed: Callable[[], None], max_s: float,
        kept: bool = True,
    ) -> None:  # fmt: skip
        self.faults: list[Fault] = []
        self.proofs: list[Proof] = []
        self.rig: Paths | None = None  # none before it is open
        self.by = "method"  # who undoes what an action says is undone
        self._armoury = armoury
        self._clock = clock
        self._changed = changed
        self._max_s = max_s
        self._kept = kept
        self._armed: dict[str, _Armed] = {}
        self._lock = threading.Lock()

    # ── For actions (seam.Arm) ─────────────────────────────────────────────────────────────────────────────────────
    def arm(
        self, revert: Mapping[str, object], *, max_s: float, fault: str, target: str, dead: Sequence[str] = (),
        exact: bool = False,
    ) -> str:  # fmt: skip
        left_s = self._max_s - (self._clock() - self.first_s) if self.faults else self._max_s
        # The run's own end, and a moment for the runner to do it first: it knows more than the watchdog.
        id = self._armoury.arm(revert, max_s=min(max_s, max(1.0, left_s) + LAND_S), fault=fault, target=target)
        with self._lock:
            known = next((e for e in self.faults if (e.name, e.target, e.ended_s) == (fault, target, None)), None)
            if known is None:
                known = Fault(name=fault, target=target, began_s=round(self._clock(), 3))
                self.faults.append(known)
            self._armed[id] = _Armed(known, target, tuple(dead), exact)
        self._changed()
        return id

    def landed(self, id: str) -> None:
        with self._lock:
            armed = self._armed.get(id)
        if armed is None:
            raise Unavailable("the fault", "it was undone before anybody could look at it")
        armed.looked = True
        if not self._prove(armed.dead, "dead", armed.fault.name) or not self._prove_kept():
            raise Unavailable(armed.fault.name, self.failed[-1].said)

    def still(self, ids: Sequence[str]) -> None:
        with self._lock:
            armed = [each for id in ids if (each := self._armed.get(id)) is not None and each.looked]
        if self._kept:
            # Asked once: a path that answers is alive, however often it is asked before it happens not to.
            self._prove(sorted({path for each in armed for path in each.dead}), "still dead", "until it was undone", 0)

    def undone(self, id: str) -> None:
        done = self._armoury.undo(id, by=self.by)
        if done is not None and not done.ok:
            raise Unavailable(done.armed.fault, done.said)

    # ── For the session ────────────────────────────────────────────────────────────────────────────────────────────
    def look(self) -> bool:
        """After an action: each fault that is there and wasn't looked at is proven now; False when one isn't there."""
        with self._lock:
            new = [armed for armed in self._armed.values() if not armed.looked]
            for armed in new:
                armed.looked = True
        if not new:
            return True
        dead = sorted({path for armed in new for path in armed.dead})
        return self._prove(dead, "dead", ", ".join(sorted({armed.fault.name for armed in new}))) and self._prove_kept()

    def struck(self, text: str) -> None:
        """Something was broken that ends by itself: ``collector: SIGKILL``."""
        now = round(self._clock(), 3)
        with self._lock:
            target = text.partition(":")[0]
            self.faults.append(Fault(name=text, target=target, began_s=now, ended_s=now, ended_by="itself"))

    def prove(self, claim: str, *, held: bool, said: str) -> bool:
        """Keep one proof."""
        with self._lock:
            self.proofs.append(Proof(claim=claim, at_s=round(self._clock(), 3), held=held, said=said))
        self._changed()
        return held

    def prove_whole(self, when: str) -> bool:
        """Every path answers."""
        return self.rig is None or self._prove(self.rig.paths(), "alive", when)

    def ended(self, id: str, by: str) -> None:
        """One was undone; called by the armoury."""
        with self._lock:
            armed = self._armed.pop(id, None)
            # One fault may have several lines: it ends with the last one.
            if armed is not None and not any(each.fault is armed.fault for each in self._armed.values()):
                armed.fault.ended_s, armed.fault.ended_by = round(self._clock(), 3), by
        if armed is not None and armed.dead and not armed.looked and by == "method":
            claim = f"the path to {', '.join(armed.dead)} is dead"
            self.prove(claim, held=False, said="it was undone before anybody could look")
        self._changed()

    @property
    def first_s(self) -> float:
        """When the first one began. There must be one."""
        return min(each.began_s for each in self.faults)

    @property
    def last_s(self) -> float | None:
        """When the last one ended; None while one lasts, or none was."""
        ends = [each.ended_s for each in self.faults]
        return max(end for end in ends if end is not None) if ends and None not in ends else None

    @property
    def there(self) -> bool:
        """Whether something is broken now."""
        return any(each.ended_s is None for each in self.faults)

    @property
    def failed(self) -> list[Proof]:
        """Proofs that didn't hold."""
        return [each for each in self.proofs if not each.held]

    # ── Inside ─────────────────────────────────────────────────────────────────────────────────────────────────────
    def _prove_kept(self) -> bool:
        """What nobody means to break answers."""
        if self.rig is None:
            return True
        with self._lock:
            armed = list(self._armed.values())
        kept = [path for path in self.rig.paths() if not any(_meant(path, each) for each in armed)]
        return self._prove(kept, "alive", "it isn't meant to be broken")

    def _prove(self, paths: Sequence[str], wanted: str, because: str, within_s: float | None = None) -> bool:
        """Each path is dead, or alive, within ``LAND_S`` or so long. All are asked, at once; each gets its proof."""
        if not paths or self.rig is None:
            return True
        with ThreadPoolExecutor(min(ASKED_AT_ONCE_MAX, len(paths)), thread_name_prefix="prove") as pool:
            found = list(pool.map(lambda path: self._is(path, wanted, LAND_S if within_s is None else within_s), paths))
        for path, (held, said) in zip(paths, found, strict=True):
            self.prove(f"the path to {path} is {wanted}", held=held, said=f"{said} ({because})" if held else said)
        return all(held for held, _ in found)

    def _is(self, path: str, wanted: str, within_s: float) -> tuple[bool, str]:
        """(whether it is, in words)."""
        assert self.rig is not None
        began, other = time.monotonic(), "dead" if wanted == "alive" else "alive"
        while True:
            longest_s = within_s
            try:
                held, why = self.rig.alive(path) == (wanted == "alive"), f"it is {other}"
            except Unavailable as error:
                # Nobody knows: neither dead nor alive.
                held, why, longest_s = False, f"nobody can say: {error}", LAND_S
            took_s = time.monotonic() - began
            if held:
                return True, f"{wanted} after {took_s:.1f} s"
            if took_s >= longest_s:
                return False, f"{why}, after {took_s:.1f} s of asking"
            time.sleep(AGAIN_S)


def _meant(path: str, armed: _Armed) -> bool:
    """Whether a path belongs to what is broken: ``redis.r1`` to the target ``redis``."""
    of_it = path == armed.target or path.startswith(armed.target + ".")
    return path in armed.dead or (of_it and not armed.exact)
