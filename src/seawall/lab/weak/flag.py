"""``unready-flag``: the flag of incident I5. A configuration change switched on code whose cache didn't exist yet, for
nobody asked whether it did."""

from __future__ import annotations

from seawall.app import Making
from seawall.guard.flag import EVERYBODY, Flag, Subject, Verdict, wanted
from seawall.guard.switchboard import Switchboard


class UnreadySwitchboard(Switchboard):
    """A flag is what it was set to."""

    def verdict(self, flag: Flag, subject: Subject = EVERYBODY) -> Verdict:
        setting = self.known.settings.get(flag.name) if self.known is not None else None
        value = wanted(flag, setting, subject)
        return Verdict(value, value)


class UnreadyFlags(Making):
    """Puts it in place."""

    def switchboard(self) -> type[Switchboard]:
        return UnreadySwitchboard
