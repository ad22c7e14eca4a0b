"""A rig of almost nothing, for tests of the runner: a server that echoes, a line to it through the fault proxy, another
line that nobody breaks, and a client that asks over both all the time. Experiments name it as their ``rig``, and
its functions as actions and probes.

``options`` of an experiment: ``alert`` (text of one that is open), ``away`` (a target elsewhere), ``deaf`` (the client
asks nobody), ``dies_s`` (so long the client lives), ``lost`` (of the verdict), ``words`` (more of it), ``unjudged``
(nobody can say what became of the traffic), ``blind_s`` (so long its next measurement takes when something is broken).
"""

from __future__ import annotations

import contextlib
import copy
import socket
import socketserver
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from seawall.lab.part.fault import Fault
from seawall.lab.part.port import LOOPBACK
from seawall.lab.part.proxy import FaultProxy
from seawall.lab.seam import Arm, Order

ASK_S = 0.25
PAUSE_S = 0.02
LINES = ("echo", "other")
MODULE = "lab.tiny"

_current: TinyRig | None = None


class _Echo(socketserver.StreamRequestHandler):
    def handle(self) -> None:
        with contextlib.suppress(OSError):
            while line := self.rfile.readline():
                self.wfile.write(line)


class _Server(socketserver.ThreadingTCPServer):
    daemon_threads = True
    block_on_close = False


def ask(port: int, timeout_s: float = ASK_S) -> bool:
    """One round trip on a connection of its own."""
    try:
        with socket.create_connection((LOOPBACK, port), timeout=timeout_s) as line:
            line.sendall(b"?\n")
            return line.recv(16) == b"?\n"
    except OSError:
        return False


class TinyRig:
    """See `seawall.lab.seam.Rig`."""

    def __init__(self, order: Order, arm: Arm, say: Callable[[str], None]) -> None:
        self.order, self.arm, self.say = order, arm, say
        self.proxy = FaultProxy(order.folder / "proxy")
        self.ports: dict[str, int] = {}
        self.ids: list[str] = []
        self.looks = 0
        self.blind = False
        self.answers: Counter[str] = Counter()
        self.recent: list[tuple[float, bool]] = []
        self._moments: list[tuple[str, str]] = []
        self._stopping = threading.Event()
        self._client = threading.Thread(target=self._ask, name="tiny.client", daemon=True)

    def make(self, server_port: int) -> None:
        self.proxy.up()
        self.ports = {name: self.proxy.link(name, server_port) for name in LINES}
        self._client.start()

    def close(self) -> None:
        self._stopping.set()
        if self._client.is_alive():
            self._client.join()
        self.proxy.wipe()

    def _ask(self) -> None:
        began = time.monotonic()
        dies_s = float(self.order.options.get("dies_s", 3600))
        while not self._stopping.wait(PAUSE_S) and time.monotonic() - began < dies_s:
            if not self.order.options.get("deaf"):
                answered = ask(self.ports["echo"])
                self.answers["ok" if answered else "none"] += 1
                self.recent.append((time.monotonic(), answered))

    def share(self, seconds: float = 0.5) -> float:
        """Of the last answers those that came; 1.0 when nobody asked."""
        since = time.monotonic() - seconds
        found = [answered for at, answered in self.recent[-200:] if at >= since]
        return sum(found) / len(found) if found else float(not self.recent)

    # ── seam.Rig ───────────────────────────────────────────────────────────────────────────────────────────────────
    def targets(self) -> Mapping[str, str]:
        away = self.order.options.get("away")
        found = {name: f"{LOOPBACK}:{port}" for name, port in self.ports.items()}
        return {**found, "elsewhere": str(away)} if away else found

    def alerts(self) -> Sequence[str]:
        found = self.order.options.get("alert")
        return [str(found)] if found else []

    def sample(self) -> Mapping[str, float]:
        if self.ids and (blind_s := self.order.options.get("blind_s")) and not self.blind:
            self.blind = True
            time.sleep(float(blind_s))
        return {"echo.ok_ratio": self.share(), "echo.asked_total": float(sum(self.answers.values()))}

    def moments(self) -> Sequence[tuple[str, str]]:
        found, self._moments = self._moments, []
        return found

    def note(self, kind: str, text: str) -> None:
        self._moments.append((kind, text))

    def broken(self) -> str:
        return "" if self._client.is_alive() else "the client is gone"

    def called(self, dependency: str) -> int:
        return self.answers["ok"] if dependency == "echo" else 0

    def paths(self) -> Sequence[str]:
        return LINES

    def alive(self, path: str) -> bool:
        return ask(self.ports[path])

    def processes(self) -> Sequence[int]:
        pid = self.proxy.pid("proxy")
        return [pid] if pid is not None else []

    def finish(self, timeout_s: float) -> Mapping[str, int]:
        self._stopping.set()
        self._client.join(timeout_s)
        # Longer than a sentry's look: a client that has ended on purpose is no broken rig.
        time.sleep(0.8)
        if self.order.options.get("unjudged"):
            raise ValueError("the ledger holds no run")
        found = {"accepted": self.answers["ok"], "unknown": 0, "lost": int(self.order.options.get("lost", 0))}
        return {**found, **self.order.options.get("words", {})}

    def facts(self) -> Mapping[str, str]:
        return {"weak": ", ".join(self.order.weak)}


@contextlib.contextmanager
def open_rig(order: Order, *, arm: Arm, say: Callable[[str], None]) -> Iterator[TinyRig]:
    global _current
    with _Server((LOOPBACK, 0), _Echo) as server:
        threading.Thread(target=server.serve_forever, args=(0.05,), name="tiny.server", daemon=True).start()
        rig = _current = TinyRig(order, arm, say)
        try:
            rig.make(server.server_address[1])
            yield rig
        finally:
            _current = None
            rig.close()
            server.shutdown()


def current() -> TinyRig:
    assert _current is not None
    return _current


# ── Actions and probes ─────────────────────────────────────────────────────────────────────────────────────────────
def hole(name: str = "echo", max_s: float = 60.0, claim: bool = True) -> str:
    """A black hole; with ``claim`` false it is armed, and not done."""
    rig = current()
    revert = {"do": "proxy.clear", "folder": str(rig.proxy.folder), "link": name}
    rig.ids.append(rig.arm.arm(revert, max_s=max_s, fault=f"{name} a black hole", target=name, dead=[name]))
    if claim:
        rig.proxy.set(name, Fault(kind="hole"))
    rig.note("alert", f"{name}-away: nobody answers")
    return "done"


def too_much() -> str:
    """Says that it breaks one line, and breaks the other one, too."""
    hole("echo")
    current().proxy.set("other", Fault(kind="refuse"))
    return "done"


def blink() -> str:
    """Over before anybody could look."""
    hole()
    return mend()


def mend() -> str:
    rig = current()
    ids, rig.ids = rig.ids, []
    rig.arm.still(ids)
    for id in ids:
        rig.arm.undone(id)
    return "mended"


def fail() -> None:
    raise RuntimeError("it can't be done")


def flush() -> None:
    """Somebody mends what the lab has broken, and says nothing: a proxy that was started again, a table flushed."""
    current().proxy.clear("echo")


def wait(seconds: float) -> None:
    time.sleep(seconds)


def ok_share() -> float:
    return current().share()


def unsteady() -> float:
    """Not within its tolerance at the third look of a run, which would have been the gate's."""
    rig = current()
    rig.looks += 1
    return float(rig.looks != 3)


def never() -> float:
    return 0.0


# ── Files ──────────────────────────────────────────────────────────────────────────────────────────────────────────
def action(func: str, **arguments: Any) -> dict[str, Any]:
    provider = {"type": "python", "module": MODULE, "func": func, "arguments": arguments}
    return {"type": "action", "name": f"{func} {' '.join(map(str, arguments.values()))}".strip(), "provider": provider}


EXTENSION: Mapping[str, Any] = {
    "name": "seawall", "rig": MODULE, "worst_case": "an echo is late", "calls": ["echo"],
    "traffic": [{"kind": "echo", "rate": 50}],
    "seconds": {"max": 30, "recover": 10, "warm": 10, "before": 0, "drain": 5},
    "expect": {"on": [{"claim": "nothing is lost", "func": "verdict", "arguments": {"lost": 0}}]},
}  # fmt: skip


def document(*method: Mapping[str, Any], probe: str = "ok_share", **ours: Any) -> dict[str, Any]:
    """An experiment: a hole, a moment of waiting, mended; or another method."""
    extension: dict[str, Any] = {**copy.deepcopy(dict(EXTENSION)), **ours}
    extension["seconds"] = {**EXTENSION["seconds"], **ours.get("seconds", {})}
    return {
        "title": "the echo falls silent", "description": "A line becomes a black hole.", "tags": ["tiny"],
        "runtime": {"rollbacks": {"strategy": "always"}, "hypothesis": {"strategy": "continuously"}},
        "controls": [{"name": "seawall", "provider": {"type": "python", "module": "seawall.lab.control"}}],
        "steady-state-hypothesis": {
            "title": "the echo answers",
            "probes": [{
                "type": "probe", "name": "answered", "tolerance": [0.9, 1.0],
                "provider": {"type": "python", "module": MODULE, "func": probe},
            }],
        },
        "method": list(method) or [action("hole"), action("wait", seconds=0.6), action("mend")],
        "rollbacks": [action("mend")],
        "extensions": [extension],
    }  # fmt: skip


def write(folder: Path, said: Mapping[str, Any], name: str = "silent-echo") -> Path:
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump(dict(said), sort_keys=False))
    return path
