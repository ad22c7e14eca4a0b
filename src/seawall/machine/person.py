"""Who uses a program, as far as the system says: for the timeline of changes. A name is a claim, no proof."""

from __future__ import annotations

import os
import pwd

from seawall.settings import environ


def person() -> str:
    """The name of the user whose process this is, with who became that user by sudo."""
    number = os.geteuid()
    try:
        name = pwd.getpwuid(number).pw_name
    except KeyError:
        name = f"user {number}"
    sudo = environ("SUDO_USER")
    return f"{sudo} as {name}" if sudo and sudo != name else name
