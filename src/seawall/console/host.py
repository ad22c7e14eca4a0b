"""By which names the pages without a token may be asked for: a guard against DNS rebinding.

A web page may give its own name the address of this machine, and then reads what we answer to that name as if it were
its own. Such a name always has a dot, and is no address; so one with a dot must be named in the settings.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from ipaddress import ip_address

_PORT = re.compile(r":[0-9]*\Z")


def is_ours(host: str, names: Collection[str]) -> bool:
    """Whether a Host header names this machine: by address, by a name without a dot, or by one of ``names``.

    An empty one is: who sends none is no browser.
    """
    name = _PORT.sub("", host.strip()).rstrip(".").lower()
    if "." not in name and ":" not in name:
        return True
    return name in {known.lower() for known in names} or name.endswith(".localhost") or _is_address(name)


def _is_address(name: str) -> bool:
    try:
        ip_address(name[1:-1] if name.startswith("[") and name.endswith("]") else name)
    except ValueError:
        return False
    return True
