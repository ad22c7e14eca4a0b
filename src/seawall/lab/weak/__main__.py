"""``python -m seawall.lab.weak --parts deaf-listener,… -- up --data DIR …``: see the package."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from seawall import cli
from seawall.cli.say import say_failure
from seawall.kernel.error import Misconfigured
from seawall.lab.weak.making import making_of

USAGE = "usage: python -m seawall.lab.weak --parts NAME[,NAME…] -- up|run …"


def main(arguments: Sequence[str]) -> None:
    """Be ``seawall up`` or ``seawall run`` with weak parts. Ends the process with their exit codes."""
    if len(arguments) < 4 or arguments[0] != "--parts" or arguments[2] != "--" or arguments[3] not in ("up", "run"):
        sys.exit(say_failure(2, "misused", USAGE))
    try:
        making = making_of([name for name in arguments[1].split(",") if name])
    except Misconfigured as error:
        sys.exit(say_failure(2, "misconfigured", *error.problems))
    cli.main(making, arguments[3:])


if __name__ == "__main__":
    main(sys.argv[1:])
