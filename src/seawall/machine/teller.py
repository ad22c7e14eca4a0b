"""What `up` tells the timeline: its starts and stops, settings that changed, and the ends of roles' processes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from seawall.kernel.clock import Clock
from seawall.kernel.seam.change import NOBODY, Kind
from seawall.kernel.setting import Difference
from seawall.machine.diary import Diary
from seawall.machine.folder import Folder
from seawall.machine.person import person
from seawall.machine.tuning import last_settings
from seawall.settings import Settings

PLATFORM = "seawall"
"""What starts and stops."""

QUIET_S = 60.0
"""Between two lines about one role. One that dies every five seconds would fill the timeline in days."""


@dataclass(slots=True)
class _Last:
    told_at: float
    untold: int = 0


class Teller:
    """Writes into the diary of one `up`."""

    def __init__(self, diary: Diary, folder: Folder, clock: Clock) -> None:
        self._diary = diary
        self._folder = folder
        self._clock = clock
        self._last: dict[str, _Last] = {}

    async def starts(self, settings: Settings) -> None:
        """We start; and which settings aren't those of our last life. Called before they are written down."""
        by = person()
        for difference in last_settings(self._folder.resolved_file, settings):
            self._jot_setting(difference, by=by, why="at a start")
        await self._diary.started(PLATFORM, by=by)

    def tuned(self, differences: Sequence[Difference]) -> None:
        """Settings were read again. A signal doesn't say who sent it; only whoever may act as us can have."""
        for difference in differences:
            self._jot_setting(difference, by=person(), why="SIGHUP")

    def ended(self, role: str, cause: str) -> None:
        """A role's process has ended, and another one begins."""
        now = self._clock.monotonic()
        last = self._last.get(role)
        if last is not None and now - last.told_at < QUIET_S:
            last.untold += 1
            return
        why = f"{cause}; {last.untold} more since the last line" if last is not None and last.untold else cause
        self._last[role] = _Last(now)
        self._diary.jot(self._diary.change(Kind.RESTART, role, why=why))

    async def stops(self, why: str) -> None:
        """We stop, and nothing is started again any more."""
        for role, last in self._last.items():
            if last.untold:
                self._diary.jot(self._diary.change(Kind.RESTART, role, why=f"{last.untold} more since the last line"))
        self._last.clear()
        await self._diary.note(self._diary.change(Kind.STOP, PLATFORM, by=self._stopper(), why=why))

    def _jot_setting(self, difference: Difference, *, by: str, why: str) -> None:
        before, after = difference.before, difference.after
        self._diary.jot(self._diary.change(Kind.SETTING, difference.key, by=by, before=before, after=after, why=why))

    def _stopper(self) -> str:
        """Who stops us: `seawall down` leaves a name, other senders of a signal don't."""
        try:
            name = self._folder.stopper_file.read_text("utf-8", "replace").strip()
            self._folder.stopper_file.unlink()
        except OSError:
            return NOBODY
        return name or NOBODY
