"""Changes of code under runs that are under way: who got past the place before stays with what was there."""

from __future__ import annotations

import msgspec

from seawall.kernel.seam.wait import WaitingRun
from seawall.workflow.wait import Waits, checked_name

PATCH = "ctx.patched "
"""Before a change's name, as it is kept."""


class Patches(Waits):
    """The part of a context that knows of changes."""

    __slots__ = ("_patches",)

    def __init__(self, run: WaitingRun) -> None:
        super().__init__(run)
        self._patches: dict[str, bool] = {}

    def patched(self, name: str) -> bool:
        """Whether this run is to take what was changed: True for one that comes here for the first time, False for one
        that had got past this place before the change. Kept for the run's life, wherever the name is asked again.

        ::

            if ctx.patched("ask-twice"):
                await ctx.step(ask, "are you sure?")

        A run that does things side by side, and had done some of them before, gets False in doubt.

        Args:
            name: Of the change. Never used before, and never again for another one.

        Raises:
            ValueError: That is no name.
            RuntimeError: A step called it.

        Durability: kept in the commit that keeps what the run does next, or in an earlier one.
        """
        if self._here().nth >= 0:
            raise RuntimeError(f"patched({name!r}): a step can't ask; let the workflow, and give it the answer")
        known = self._patches
        if name not in known:
            run, key = self._run, checked_name(PATCH + name)
            memo = run.recall(key, 0)
            known[name] = bool(msgspec.json.decode(memo.result)) if memo is not None else not run.has_more()
            if memo is None:
                data = msgspec.json.encode(known[name])
                run.keep(key, 0, data, failed=False, attempt=1, started_us=run.now_us(), wait=False)
        return known[name]
