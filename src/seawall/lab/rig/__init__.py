"""The lab's rig: real parts behind the fault proxy, a platform of the lab's own, and traffic with a ledger.

``open_rig`` makes one, in a folder that the lab marks as its own; one at a time in a process, which actions and probes
find by ``current``. What runs outlives the process that opened it: a runner that is killed in mid-experiment must leave
something to revert. ``own.end`` ends it.

``supply`` is the parts and their lines, ``flow`` the traffic, ``sight`` what the platform says of itself, ``talk`` one
round trip over a line, ``own`` the folder.
"""

from seawall.lab.rig.rig import Rig, current, open_rig

__all__ = ["Rig", "current", "open_rig"]
