"""What experiments do to a platform by its work alone: nothing is cut, and yet it may be an incident (I2).

Actions for Chaos Toolkit files, as `seawall.lab.act`, and looks at what an operator would look at.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from seawall.kernel.error import Unavailable
from seawall.lab.act import MAX_S
from seawall.lab.rig import Rig, current, own
from seawall.lab.rig.flow import Stream

PACE = "pace"
TRUE = shutil.which("true") or "true"
TOP_S = 15.0


def slower(times: float, over_s: float, max_s: float = MAX_S) -> str:
    """What ingestion calls gets so many times slower, little by little within ``over_s``; just as much of it comes."""
    rig = current()
    path, said = rig.folder / own.APP / PACE, f"{times:g} times slower within {over_s:g} s"
    revert = {"do": "command", "argv": ["rm", "-f", str(path)], "verify": ["test", "!", "-e", str(path)]}
    id = rig.arm.arm(revert, max_s=max_s, fault=said, target="ingestion")
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


def _write(path: Path, said: object) -> None:
    """Whole, or not at all: workers read it at any moment."""
    made = path.with_suffix(".new")
    try:
        made.write_text(json.dumps(said))
        made.replace(path)
    except OSError as error:
        raise Unavailable(str(path), str(error)) from error
