"""What experiments do to a target: the commands of its file. `seawall.lab.act.back` and ``all_back`` undo."""

from __future__ import annotations

from collections.abc import Mapping

from seawall.kernel.error import Unavailable
from seawall.lab.target import command
from seawall.lab.target.plan import commands
from seawall.lab.target.rig import current, place_of

MAX_S = 3600.0
"""The run's own bound comes first."""


def do(fault: str, values: Mapping[str, str] | None = None) -> str:
    """Apply one of the target's faults; what reverts it is armed before."""
    rig = current()
    said = rig.target.said.fault[fault]
    made = commands(said, values or {})
    words = said.says or fault
    pid = rig.run / f"apply.{fault.replace('/', '-')}.pid"
    if said.passing:
        # Before: what it does while it runs is its doing, also when it fails in the middle.
        rig.struck(f"{fault}: {words}")
        command.apply(made["apply"], rig.target.folder, pid)
        if "verify" in made and command.ask(made["verify"], rig.target.folder) != command.THERE:
            raise Unavailable(fault, "its command ended well, and yet it wasn't done")
        return f"{fault}: done"
    revert = made["revert"]
    look = made.get("gone", made["verify"])
    armed = {
        "do": "command", "argv": revert.argv, "timeout_s": revert.timeout_s, "folder": str(rig.target.folder),
        "look_s": look.timeout_s, "ends": str(pid), ("verify" if "gone" in made else "absent"): look.argv,
    }  # fmt: skip
    place = place_of(fault)
    id = rig.arm.arm(armed, max_s=MAX_S, fault=words, target=place, dead=[fault, *said.cuts], exact=True)
    rig.did(place, id, lambda: None)
    rig.applied[fault] = made
    command.apply(made["apply"], rig.target.folder, pid)
    return f"{fault}: done"
