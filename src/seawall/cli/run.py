"""``seawall run ROLE``: one role in one process, under ``seawall up`` or alone."""

from __future__ import annotations

import socket
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import UUID

import click

from seawall.cli.place import folder_of, reader
from seawall.cli.say import data_option
from seawall.kernel.error import Misconfigured
from seawall.settings import host_port, load_resolved

if TYPE_CHECKING:
    from seawall.app import Making


@click.command(
    epilog="""\b
Examples:
  seawall run collector --data /srv/seawall --listen 0.0.0.0:8080 --health 0.0.0.0:9000
  seawall run worker --data /srv/seawall --app app.py --health 0.0.0.0:9002
  seawall run worker --data /srv/seawall --app app.py --queue runbooks

\b
A role alone needs a PostgreSQL of yours: dsn_file in seawall.toml, or SEAWALL_DSN_FILE. Its schema is made, and
brought up to date, by `seawall up` alone: until then a role waits.
Exit codes: 0 stopped, 1 failed, 2 misconfigured, 70 a loop couldn't be stopped."""
)
@click.argument("role", type=click.Choice(["collector", "router", "worker", "console"]))
@data_option
@click.option("--config", metavar="FILE", help="Settings file. [default: DIR/seawall.toml]")
@click.option("--listen", metavar="HOST:PORT", help="Where events come in (collector).")
@click.option("--admin", metavar="HOST:PORT", help="Where the admin API is (console).")
@click.option("--app", metavar="FILE.py", help="Your workflows (worker).")
@click.option("--queue", "queues", multiple=True, metavar="NAME",
              help="Serve only this queue, in a process of its own; may be repeated (worker).")  # fmt: skip
@click.option("--health", metavar="HOST:PORT", help="Serve /livez, /readyz and /metrics there too.")
@click.option("--check", is_flag=True, help="Only say whether the app file can be imported (worker).")
@click.option("--resolved", hidden=True)  # a file of settings, as `seawall up` read them
@click.option("--parent", type=int, hidden=True)  # descriptor of the parent's socket
@click.option("--solo", hidden=True)  # only this queue's suspects (worker)
@click.option("--owner", hidden=True)  # its name in leases
@click.option("--turn", "turn_s", type=float, hidden=True)  # how long one may run while others wait, in seconds
@click.option("--socket", "served", type=int, hidden=True)  # descriptor of a listening socket
@click.pass_obj
def run(
    making: Making | None,
    /,
    role: str,
    data: str | None,
    config: str | None,
    queues: tuple[str, ...],
    health: str | None,
    check: bool,
    resolved: str | None,
    parent: int | None,
    served: int | None,
    solo: str | None,
    owner: str | None,
    turn_s: float | None,
    **flags: str | None,
) -> int:
    """Run one role alone, with the same settings as `seawall up`, for systemd or Kubernetes."""
    from seawall.app import run_role
    from seawall.guard.lifecycle import confessing
    from seawall.machine.application import load_app
    from seawall.machine.role import Solo, Start

    ours = socket.socket(fileno=parent) if parent is not None else None
    with confessing(ours):
        folder = folder_of(data)
        if flags["app"]:
            flags["app"] = str(Path(flags["app"]).absolute())
        reread = partial(load_resolved, Path(resolved)) if resolved else reader(folder, config, flags)
        settings = reread()
        if check:
            load_app(settings.program.app)
            return 0
        if queues and role != "worker":
            raise Misconfigured([f"--queue: a {role} serves no queue; only a worker does"])
        address = host_port(health) if health else None
        if health and address is None:
            raise Misconfigured([f"--health {health}: must be HOST:PORT with a port from 0 to 65535"])
        return run_role(
            Start(
                role=role,
                folder=folder,
                settings=settings,
                reread=reread,
                parent=ours,
                socket=socket.socket(fileno=served) if served is not None else None,
                health=address,
                queues=tuple(dict.fromkeys(queues)),
                solo=Solo(solo, UUID(owner), turn_s) if solo is not None else None,
            ),
            making,
        )
