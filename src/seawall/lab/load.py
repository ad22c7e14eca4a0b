"""What experiments do to a platform by its work alone: nothing is cut, and yet it may be an incident (I2).

Actions for Chaos Toolkit files, as `seawall.lab.act`, and looks at what an operator would look at.
"""

from __future__ import annotations

import json
import shutil
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from seawall.kernel.error import Unavailable
from seawall.lab import tune
from seawall.lab.act import MAX_S
from seawall.lab.rig import Rig, current, own
from seawall.lab.rig.flow import Stream

PACE = "pace"
HEAVY = "uncached"
TRUE = shutil.which("true") or "true"
TOP_S = 15.0
WHY = "the lab's experiment"


def slower(times: float, over_s: float, max_s: float = MAX_S) -> str:
    """What ingestion calls gets so many times slower, little by little within ``over_s``; just as much of it comes."""
    rig = current()
    path, said = rig.folder / own.APP / PACE, f"{times:g} times slower within {over_s:g} s"
    id = rig.arm.arm(_removal(path), max_s=max_s, fault=said, target="ingestion")
    rig.did("ingestion", id, lambda: path.unlink(missing_ok=True))
    _write(path, {"began_s": time.time(), "over_s": over_s, "times": times})
    return f"ingestion gets {said}"


def flood(rate: float, type: str, tenant: str = "flood", max_s: float = MAX_S) -> str:
    """One tenant sends so many events a second, beside what the others send, until `back`."""
    rig = current()
    said = f"{rate:g} events of type {type} a second"
    # What ends it is the end of this process, which the watchdog waits for; so there is nothing to do in its place.
    id = rig.arm.arm({"do": "command", "argv": [TRUE]}, max_s=max_s, fault=said, target=tenant)
    rig.did(tenant, id, rig.flow.more(Stream(kind="events", rate=rate, type=type, tenant=tenant, bytes_max=512)))
    return f"tenant {tenant} sends {said}"


def heavy(max_s: float = MAX_S) -> str:
    """A configuration change switches on code whose cache doesn't exist: each run looks up, and keeps, by itself."""
    rig = current()
    path, said = rig.folder / own.APP / HEAVY, "caching code is live, and its cache isn't there"
    id = rig.arm.arm(_removal(path), max_s=max_s, fault=said, target="triggers")
    rig.did("triggers", id, lambda: path.unlink(missing_ok=True))
    _write(path, True)
    return said


def throttle(queue: str, rate: float, raise_to: float | None = None, over_s: float | None = None) -> str:
    """`seawall throttle`: as a person would. An act, and no fault: nothing is undone."""
    rig = current()
    wish = {"rate": rate, "raise_to": raise_to, "over_s": over_s, "why": WHY}
    said = {key: value for key, value in wish.items() if value is not None}
    found = rig.platform.call("POST", f"/v1/queues/{queue}/throttle", said)
    rig.note("act", f"queue {queue} is throttled: {found['after']}")
    return f"{queue}: {found['after']} (before: {found['before']})"


def flag(name: str, max_s: float = MAX_S) -> str:
    """`seawall flags set NAME on`, by a change for all. Until ``back``, which sets it off again."""
    rig = current()
    place = str(rig.tree.data / "run" / "admin.json")
    off = [sys.executable, "-m", "seawall", "flags", "set", name, "off", "--why", WHY, "--data", str(rig.tree.data)]
    # A platform that has ended has no flags.
    argv = ["sh", "-c", 'test -e "$0" || exit 0; exec "$@"', place, *off]
    id = rig.arm.arm({"do": "command", "argv": argv}, max_s=max_s, fault="switched on", target=name)
    rig.did(name, id, lambda: rig.set_flag(name, "off"))
    rig.set_flag(name, "on")
    found = next(one for one in rig.platform.call("GET", "/v1/flags")["items"] if one["name"] == name)
    held = sorted({str(role["held"]) for role in found["roles"] if role["held"]})
    said = f"flag {name} is set on, and is held at its safe value: {', '.join(held)}" if held else f"flag {name} is on"
    rig.note("act", said)
    return said


def grow(room: str, name: str, value: int) -> str:
    """A larger bound in the platform's settings, read again by SIGHUP under traffic; returns when it is in force."""
    rig = current()
    if rig.tree.pid("up") is None:
        raise Unavailable("seawall up", "it isn't running")
    tune.put(rig.folder, room, {name: value})
    tune.reread(rig.folder, room)
    wanted = f"{room}.{name}"
    rig.note("act", f"{wanted} is {value} from now on")
    return f"{wanted} is {value}"


def top(by: str = "workflow", first: str = "") -> str:
    """`seawall queues top`, noted: who eats the capacity. With ``first``: waits until that one is the first, since slot
    time is written down every few seconds."""
    rig = current()
    latest = time.monotonic() + TOP_S
    while True:
        said, name = _top(rig, by)
        if name == first or not first or time.monotonic() > latest:
            rig.note("top", said)
            return said
        time.sleep(0.5)


def _top(rig: Rig, by: str) -> tuple[str, str]:
    found = rig.platform.call("GET", f"/v1/slots?since=1m&by={by}")["items"]
    if not found:
        return "no run held a slot", ""
    first: Mapping[str, Any] = found[0]
    slower = f", {first['slower']:g} times as long a turn as before" if first["slower"] else ""
    return f"{by} {first['name']} has {first['share']:.0%} of all slot time{slower}", str(first["name"])


def back(target: str) -> str:
    """It is as before. Harmless when nothing was done to it."""
    return f"{target}: {current().undo(target)} undone"


def _removal(path: Path) -> Mapping[str, object]:
    return {"do": "command", "argv": ["rm", "-f", str(path)], "verify": ["test", "!", "-e", str(path)]}


def _write(path: Path, said: object) -> None:
    """Whole, or not at all: workers read it at any moment."""
    made = path.with_suffix(".new")
    try:
        made.write_text(json.dumps(said))
        made.replace(path)
    except OSError as error:
        raise Unavailable(str(path), str(error)) from error
