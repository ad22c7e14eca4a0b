"""Says where a platform is and what it can do: to the command line (``DIR/run/admin.json``), to systemd, in the log.

Ready is what its senders need: a collector that accepts events. The store may be away at boot for hours, and a service
manager that waited for the worker would end working intake over it. What else isn't ready is said beside it.
"""

from __future__ import annotations

import asyncio
import os
import shlex
import sys
import time
from collections.abc import Awaitable, Callable, Mapping

from seawall.guard import Heart
from seawall.kernel.alert import Alerts
from seawall.kernel.log import fields, logger
from seawall.machine.claim import Claim, url_of
from seawall.machine.folder import Folder, start_time
from seawall.machine.process import Child
from seawall.machine.systemd import Notifier
from seawall.settings import Settings

log = logger("machine")

INTAKE = "collector"
LOOK_S = 0.2
STATUS_CHARS_MAX = 300
EXTEND_EVERY_S = 5.0
SAY_EVERY_S = 60.0


class Announcement:
    """``run`` is a supervised loop.

    Args:
        examine: Awaited once, when everything is ready for the first time.
    """

    def __init__(
        self, folder: Folder, settings: Settings, claim: Claim, systemd: Notifier, alerts: Alerts,
        children: Mapping[str, Child], examine: Callable[[], Awaitable[None]],
    ) -> None:  # fmt: skip
        self._folder = folder
        self._settings = settings
        self._claim = claim
        self._systemd = systemd
        self._alerts = alerts
        self._children = children
        self._examine = examine
        self._began = time.monotonic()
        self._written = False
        self._said_at = float("-inf")
        self._status = ""
        self._extended_at = 0.0
        self._accepting = False
        self._complete = False
        self._leaving = False

    async def run(self, heart: Heart) -> None:
        """Look at the roles again and again, and say what changed."""
        while not self._leaving:
            trouble = self._write()
            if trouble:
                heart.unready(trouble)
            else:
                await heart.beat()
            self._tell_alerts()
            self._tell_systemd()
            if not self._complete and not self._missing():
                self._complete = True
                self._say()
                await _beating(heart, self._examine())
            await asyncio.sleep(LOOK_S)
        while True:  # a role that got ready just before isn't told of any more
            await heart.beat()
            await asyncio.sleep(LOOK_S)

    def leaving(self) -> None:
        """The platform stops; it can be found until its end."""
        self._leaving = True

    def stopping(self) -> None:
        """Nobody need look for us any more."""
        self._written = True  # nor does the loop write it again
        self._folder.admin_file.unlink(missing_ok=True)

    def _write(self) -> str:
        """The files by which others find us. On a full disk they come later, and all else goes on: why, else ""."""
        if self._written:
            return ""
        try:
            self._claim.note()
            self._folder.write_admin(
                {
                    "address": self._admin,
                    "listen": self._listens_at,
                    "token": self._folder.token(),
                    "pid": os.getpid(),
                    "start": start_time(os.getpid()),
                }
            )
        except OSError as error:
            why = f"{error.filename}: {error.strerror}"
            if time.monotonic() - self._said_at > SAY_EVERY_S:
                self._said_at = time.monotonic()
                log.error("commands can't find this platform yet; trying again", extra=fields(cause=why))
            return why
        self._written = True
        return ""

    def _missing(self) -> list[str]:
        """Roles that aren't ready, with the reason where they gave one."""
        waiting = [child for child in self._children.values() if not child.ready.is_set()]
        return [f"{child.spec.role} ({child.problem})" if child.problem else child.spec.role for child in waiting]

    def _tell_alerts(self) -> None:
        for role, child in self._children.items():
            if not child.problem:
                self._alerts.cleared("role-refused", child=role)
                continue
            unaffected = "" if role == INTAKE else "events are accepted and kept"
            self._alerts.raised(
                "role-refused", f"the {role} can't start: {child.problem}", child=role, unaffected=unaffected,
                cure="mend what it says; it is tried again by itself",
            )  # fmt: skip

    def _tell_systemd(self) -> None:
        missing = self._missing()
        accepting = self._children[INTAKE].ready.is_set()
        told = ", ".join(missing)
        status = f"accepting events; not ready: {told}" if accepting else f"not accepting events; not ready: {told}"
        status = (status if missing else "ready")[:STATUS_CHARS_MAX]
        if accepting and not self._accepting:
            self._accepting = True
            self._systemd.ready(status)
        elif not self._accepting:
            if status != self._status or time.monotonic() - self._extended_at > EXTEND_EVERY_S:
                self._extended_at = time.monotonic()
                self._systemd.starting(status)
        elif status != self._status:
            self._systemd.tell(f"STATUS={status}")
        self._status = status

    def _say(self) -> None:
        """One line when everything is ready for the first time: where it listens, and how long it took."""
        log.info(
            "seawall is up",
            extra=fields(
                listen=self._listens_at, admin=self._admin, data=str(self._folder.path),
                took_s=round(time.monotonic() - self._began, 2),
            ),
        )  # fmt: skip
        if sys.stderr.isatty():
            # For whoever sits there; a service's log has no need of it.
            add = f"seawall source add NAME --kind github --data {shlex.quote(str(self._folder.path))}"
            log.info("next, in another terminal: %s (Ctrl-C here stops)", add)

    @property
    def _admin(self) -> str:
        assert self._claim.admin is not None, "taken before"
        return url_of(self._claim.admin)

    @property
    def _listens_at(self) -> str:
        assert self._claim.listen is not None, "taken before"
        return url_of(self._claim.listen, tls=bool(self._settings.values["collector", "tls_certificate"].value))


async def _beating(heart: Heart, work: Awaitable[None]) -> None:
    """Do ``work`` to its end, which may take long, and say meanwhile that we live."""
    task = asyncio.ensure_future(work)
    try:
        while not task.done():
            await heart.beat()
            await asyncio.wait([task], timeout=1.0)
        await task
    finally:
        task.cancel()
