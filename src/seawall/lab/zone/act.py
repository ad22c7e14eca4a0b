"""What experiments do to hosts in zones: actions for Chaos Toolkit files. Undone by `seawall.lab.act.back` and
``all_back``, as all that is done to a rig."""

from __future__ import annotations

from functools import partial

from seawall.lab.act import MAX_S
from seawall.lab.zone.host import KILL_S
from seawall.lab.zone.rig import current


def cut(target: str, max_s: float = MAX_S) -> str:
    """Cut a zone (``zone.b``) or a host (``zone.b.b1``) off from everything but the balancer. Silent: nobody is told,
    connections that are there hang."""
    rig = current()
    hosts = rig.hosts_of(target)
    for host in hosts:
        revert = {"do": "zone.heal", "folder": str(rig.net.folder), "host": host}
        dead = [path for path in rig.paths() if path.startswith(f"{rig.name_of(host)}.")]
        id = rig.arm.arm(revert, max_s=max_s, fault="cut off", target=target, dead=dead)
        rig.did(rig.name_of(host), id, partial(rig.net.heal, host))
        rig.net.cut(host)
    return f"{target} ({', '.join(hosts)}) is cut off from everything but the balancer"


def lose(target: str, lines: list[str], max_s: float = MAX_S) -> str:
    """The process on a host loses some lines (``[kafka, redis]``) alone: black holes, for it and for nobody else."""
    rig = current()
    for host in rig.hosts_of(target):
        address = rig.made.inside(host)
        revert = {"do": "zone.mend", "folder": str(rig.edge.folder), "address": address}
        dead = [f"{rig.name_of(host)}.{line}" for line in lines]
        # The lines are the target, so that the host's other ones are to stay alive.
        id = rig.arm.arm(revert, max_s=max_s, fault=f"lost {' and '.join(lines)}", target=f"process {host}", dead=dead)
        rig.did(rig.name_of(host), id, partial(rig.edge.hole, host, ()))
        rig.edge.hole(host, lines)
    return f"{target} has lost {', '.join(lines)}"


def restart(target: str, kill_s: float = KILL_S) -> str:
    """Restart the collectors of a zone or host, one after the other: SIGTERM, and SIGKILL ``kill_s`` later."""
    rig = current()
    said = []
    for host in rig.hosts_of(target):
        rig.note("killed", f"{host}: SIGTERM, SIGKILL after {kill_s:g} s")
        orderly = rig.hosts.restart(host, kill_s=kill_s)
        said.append(f"{host} {'stopped in order' if orderly else 'was killed'} and is back")
        rig.note("act", said[-1])
    return "; ".join(said)
