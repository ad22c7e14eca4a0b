"""``python -m seawall.lab.weak --parts deaf-listener,… -- up --data DIR …``: see the package."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from seawall import cli
from seawall.cli.say import say_failure
from seawall.kernel.error import Misconfigured
from seawall.lab.weak.making import making_of
from seawall.settings import environ

ELSEWHERE = (
    "SEAWALL_DSN", "SEAWALL_DSN_FILE", "SEAWALL_WORKER_DSN", "SEAWALL_WORKER_DSN_FILE", "SEAWALL_CACHE_URL",
    "SEAWALL_CACHE_URL_FILE", "SEAWALL_KAFKA_BOOTSTRAP",
)  # fmt: skip
"""Variables that a shell may have for a platform of its user's."""

USAGE = "usage: python -m seawall.lab.weak --parts NAME[,NAME…] -- up|run …"


def main(arguments: Sequence[str]) -> None:
    """Be ``seawall up`` or ``seawall run`` with weak parts. Ends the process with their exit codes."""
    if len(arguments) < 4 or arguments[0] != "--parts" or arguments[2] != "--" or arguments[3] not in ("up", "run"):
        sys.exit(say_failure(2, "misused", USAGE))
    if found := [name for name in ELSEWHERE if environ(name)]:
        said = f"{', '.join(found)}: leads to somebody's own, and no weak part runs there; unset it"
        sys.exit(say_failure(2, "misconfigured", said))
    try:
        making = making_of([name for name in arguments[1].split(",") if name])
    except Misconfigured as error:
        sys.exit(say_failure(2, "misconfigured", *error.problems))
    cli.main(making, arguments[3:])


if __name__ == "__main__":
    main(sys.argv[1:])
