"""What a hand holds on or off, kept beside the process' socket: a role that is started again in the middle of an
overload must not take up again what somebody had switched off."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from seawall.kernel.log import fields, logger
from seawall.machine.folder import replace_private

log = logger("machine")

BYTES_MAX = 64 * 1024


class Hands:
    """One process' file: JSON, by name ``on`` or ``off``. Not synced: it outlives a process, not a power cut."""

    def __init__(self, file: Path) -> None:
        self._file = file

    def read(self) -> Mapping[str, str]:
        """As kept; nothing where there is none. One that can't be read is left out, with a warning."""
        try:
            with self._file.open("rb") as file:
                found = json.loads(file.read(BYTES_MAX))
            return {str(name): str(hand) for name, hand in found.items()}
        except FileNotFoundError:
            return {}
        except (OSError, ValueError, AttributeError) as error:
            log.warning("what was held by hand can't be read", extra=fields(file=str(self._file), cause=str(error)))
            return {}

    def keep(self, hands: Mapping[str, str]) -> None:
        """Replace it. A disk that can't costs the memory of it over a restart, with a warning."""
        try:
            replace_private(self._file, json.dumps(dict(hands)))
        except OSError as error:
            log.warning("what is held by hand can't be kept", extra=fields(file=str(self._file), cause=str(error)))
