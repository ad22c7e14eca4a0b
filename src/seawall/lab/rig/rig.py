"""One rig: made, looked at, and at the end judged by its own ledger."""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from seawall.kernel.error import Rejected, Unavailable
from seawall.lab.checker import effect, ledger
from seawall.lab.checker.verdict import Verdict
from seawall.lab.checker.verify import verify
from seawall.lab.expect import LATE, UNREAD
from seawall.lab.part.part import Part
from seawall.lab.part.process import identity, memory_mb
from seawall.lab.part.proxy import FaultProxy
from seawall.lab.platform import Place, Platform
from seawall.lab.record import LEDGER, LOG
from seawall.lab.rig import own, supply
from seawall.lab.rig.balancer import Balancer
from seawall.lab.rig.flow import Flow, streams
from seawall.lab.rig.sight import Alert, Sight
from seawall.lab.rig.supply import Line, Supply
from seawall.lab.rig.talk import ANSWER_S, round_trip
from seawall.lab.rig.work import Work
from seawall.lab.seam import Arm, Order
from seawall.lab.traffic import BARE
from seawall.lab.tree import ROLES, Tree
from seawall.lab.weak import mark

APPS = Path(__file__).resolve().parents[1] / "catalog" / "app"
USUAL_APP = "basic.py"
READY_S = 90.0
READY_ASK_S = 1.0
LATE_S = 5.0
"""Answers of so long are looked at for shares and quantiles: a second alone holds too few of a slow stream."""

CALLS = {"redis": "limiter.shared_total", "kafka": "kafka.acks_total", "postgres": "router.events_total"}
"""What an event makes grow when it calls a dependency, and nothing else does."""

WAITING = ("router.lag_s", "spool.lag_s")
DRAINED_S = 1.0
"""Older is nothing that waits: checks of the balancer come on."""

WARM = 20
WARM_S = 30.0

_current: Rig | None = None


def current() -> Rig:
    """The rig of this process.

    Raises:
        Rejected: None is open.
    """
    if _current is None:
        raise Rejected(409, "no rig", "no rig is open in this process; run it by `seawall lab run`, or `chaos run`")
    return _current


@contextmanager
def open_rig(order: Order, *, arm: Arm, say: Callable[[str], None]) -> Iterator[Rig]:
    """A rig in which everything is up, and traffic flows; at the end all of it is ended.

    Raises:
        Rejected: The order makes no sense, the folder isn't the lab's, or another rig is open.
        Misconfigured: A program or a library is missing.
        Unavailable: Something didn't start.
    """
    with opened(Rig(order, arm=arm, say=say)) as rig:
        yield rig


@contextmanager
def opened(rig: Rig) -> Iterator[Rig]:
    """A rig of any kind, made and current. Raises as ``open_rig``."""
    global _current
    if _current is not None:
        raise Rejected(409, "a rig is open", "one at a time in a process")
    with ExitStack() as stack:
        stack.enter_context(own.held(rig.folder))
        stack.callback(rig.close)
        rig.make()
        _current = rig
        try:
            yield rig
        finally:
            _current = None


@dataclass(frozen=True, slots=True)
class _Done:
    """A fault that is there."""

    target: str
    id: str  # under which it is armed
    undo: Callable[[], object]
    gone: Callable[[], str]  # why it isn't there any more, "" when it is


def _gone(done: _Done) -> str:
    """Why it isn't there any more; "" when it is."""
    try:
        return done.gone()
    except Unavailable as error:
        return str(error)


class Rig:
    """See `seawall.lab.seam.Rig`. Made by ``open_rig``.

    Attributes:
        parts: By kind: redis, kafka, postgres.
        lines: Of clients to them, by name: ``redis.r1``.
        arm: What holds reverts.
        verdict: Of the traffic, after ``finish``.
        weak: Parts of ``lab/weak`` that the platform has. Of a run with the protections those that lack none.
    """

    # Size: what a runner, an action and a probe ask of a rig, each a few lines over the rooms that do it.

    def __init__(self, order: Order, *, arm: Arm, say: Callable[[str], None]) -> None:
        self.order = order
        self.folder = order.folder.absolute()
        self.run = order.run.absolute()
        self.arm = arm
        self.proxy = FaultProxy(self.folder / "proxy", say=say)
        self.parts: dict[str, Part] = {}
        self.lines: dict[str, Line] = {}
        self.verdict: Verdict | None = None
        self.weak = tuple(order.weak) or supply.parts(order.options)
        self._say = say
        self._streams = streams(order.traffic)
        self._before: Mapping[str, int] = {}
        self._done: list[_Done] = []
        self._moments: list[tuple[str, str]] = []
        # A probe of the main thread takes a sample too, beside whoever takes one twice a second.
        self._noting = threading.RLock()
        self._unread = 0.0  # whether nobody could say, at the last look, which alerts are open
        self._alerts: dict[str, Alert] = {}
        self._pids: dict[str, int | None] = {}
        self._host_in = True
        self._finishing = False
        self._last: tuple[float, dict[str, float]] = (float("-inf"), {})
        self._bytes: tuple[float, dict[str, int]] = (0.0, {})
        self._work = Work(self.folder / own.APP / "work")

    # ── Making ─────────────────────────────────────────────────────────────────────────────────────────────────────
    def make(self) -> None:
        """Start parts, then the platform, then traffic."""
        self.run.mkdir(parents=True, exist_ok=True)
        self.proxy.up()
        made = supply.supplies(
            self.folder, self.order.needs, self.proxy, fetched=self.order.fetched, options=self.order.options,
            say=self._say,
        )  # fmt: skip
        self.parts = {each.kind: each.part for each in made}
        self.lines = {line.name: line for each in made for line in each.lines}
        self.advertise(made)
        with ThreadPoolExecutor(max_workers=max(1, len(made)), thread_name_prefix="lab.part") as pool:
            for done in [pool.submit(_bring_up, each) for each in made]:
                done.result()
        for line in self.lines.values():
            # A part whose port somebody else took meanwhile has come up with another one.
            self.proxy.link(line.name, self.parts[line.kind].port(line.node))
        self.begin_platform(made)
        for name, value in self.order.options.get("flags", {}).items():
            self.set_flag(name, value)
        self._before = self._traffic_bytes()
        self._bytes = (time.monotonic(), dict(self._before))
        self.flow = Flow(self.platform, self._streams, self.run / LEDGER, seed=self.order.seed)
        self.balancer = Balancer(self.platform)
        if self._streams:
            self.flow.start()
            self.begin_balancer()
            self._warm_up()
        self._pids = {role: self.tree.pid(role) for role in ROLES}

    def advertise(self, made: Sequence[Supply]) -> None:
        """Before anything of the parts runs: say where clients find them, where that isn't the proxy on loopback."""

    def begin_platform(self, made: Sequence[Supply]) -> None:
        """Start it, and wait until it is ready."""
        self.tree = self._platform(made)
        self.tree.start()
        took_s = self.tree.wait_ready(READY_S)
        self._say(f"the platform is ready after {took_s:.1f} s")
        self.platform = Platform(self.place)
        self.sight = Sight(self.tree.place)

    def begin_balancer(self) -> None:
        """Look at the platform as a balancer does."""
        self.balancer.start()

    def place(self) -> Place:
        """Where senders and the lab itself find the platform. Raises Unavailable."""
        return self.tree.place()

    def _warm_up(self) -> None:
        """Until each stream was answered some times: first answers are those of a platform that is just starting."""
        latest = time.monotonic() + WARM_S
        for stream in self._streams:
            while sum(self.flow.recent[stream.kind].total.values()) < WARM:
                if time.monotonic() > latest or not self.flow.running:
                    raise Unavailable("the traffic", f"{stream.kind}: not {WARM} answers in {WARM_S:g} s")
                time.sleep(0.05)

    def _platform(self, made: Sequence[Supply]) -> Tree:
        app = self.folder / own.APP / "app.py"
        app.parent.mkdir()
        shutil.copyfile(APPS / (self.order.app or USUAL_APP), app)
        settings = self.folder / "seawall.toml"
        settings.write_text(supply.settings(made, self.order.options))
        options = ["--config", str(settings), "--profile", self.order.profile or "embedded"]
        if dsn := supply.dsn(made):
            file = self.folder / "dsn"
            file.touch(0o600)
            file.write_text(dsn)
            options += ["--dsn-file", str(file)]
        if self.weak:
            mark(self.folder / own.DATA, [dsn, *supply.places(made).values()])
        return Tree(self.folder / own.DATA, app=app, log=self.run / LOG, options=options, weak=self.weak)

    def close(self) -> None:
        """End everything. What was never begun isn't missed."""
        self.end_traffic()
        if hasattr(self, "tree"):
            self.tree.stop()
        if hasattr(self, "sight"):
            self.sight.close()
            self.platform.close()
        for part in self.parts.values():
            part.down()
        self.proxy.down()
        own.clear(self.folder)

    def end_traffic(self) -> None:
        """No more of it. Harmless when it never began."""
        if hasattr(self, "balancer"):
            self.balancer.stop()
            with suppress(Unavailable):
                self.flow.stop()

    # ── What the runner asks ───────────────────────────────────────────────────────────────────────────────────────
    def targets(self) -> Mapping[str, str]:
        found = {line.name: f"127.0.0.1:{self.parts[line.kind].port(line.node)}" for line in self.lines.values()}
        return {**found, **dict.fromkeys(ROLES, "")}

    def alerts(self) -> Sequence[str]:
        return [each.text for each in self.alerts_open()]

    def alerts_open(self) -> Sequence[Alert]:
        """As ``alerts``, with their parts. Raises Unavailable."""
        return self.sight.alerts()

    def sample(self) -> Mapping[str, float]:
        """Of the traffic, of the platform's own figures, and of the lines."""
        found = {**self._of_traffic(), **self.sight.figures(), **self._of_lines(), **self._work.sample()}
        if self.order.options.get("api"):
            found.update(self.sight.api())
        pid = self.tree.pid("collector")
        if pid is not None and (who := identity(pid)) is not None:
            found["collector.rss_mb"] = memory_mb(who)
        found["intake.ready_ratio"] = float(self.ready())
        found["spool.bytes"] = float(sum(_size(file) for file in (self.tree.data / "spool").rglob("*")))
        self._look()
        found[UNREAD] = self._unread
        self._last = (time.monotonic(), found)
        return found

    def sampled(self, age_s: float = 1.0) -> Mapping[str, float]:
        """The last sample, or a new one when that is older."""
        at, found = self._last
        return found if time.monotonic() - at <= age_s else self.sample()

    def moments(self) -> Sequence[tuple[str, str]]:
        with self._noting:
            found, self._moments = self._moments, []
        return found

    def note(self, kind: str, text: str) -> None:
        """A moment that whoever reads the record wants to see."""
        with self._noting:
            self._moments.append((kind, text))

    def broken(self) -> str:
        if self._streams and not self._finishing and not self.flow.running:
            return f"the traffic ended: {self.flow.died or 'nobody said why'}"
        if self.tree.pid("up") is None:
            return f"seawall up ended: {self.tree.log_tail(3)}"
        return "" if self.proxy.pid("proxy") is not None else "the fault proxy ended"

    def called(self, dependency: str) -> int:
        """Bytes over its lines are no proof: the platform's own probes make some. So what traffic alone makes grow is
        counted too."""
        bytes, before = self._traffic_bytes(), self._before
        moved = sum(count - before.get(name, 0) for name, count in bytes.items() if _of(name, dependency))
        calls = self.sight.figures().get(CALLS.get(dependency.partition(".")[0], ""), 0.0)
        return int(calls) if moved > 0 else 0

    def paths(self) -> Sequence[str]:
        return tuple(self.lines)

    def alive(self, path: str) -> bool:
        try:
            self.round_trip(path)
        except OSError:
            return False
        return True

    def round_trip(self, path: str, timeout_s: float = ANSWER_S) -> float:
        """Seconds of one question over a line, as its clients would ask it. Raises OSError: no answer."""
        line = self.lines[path]
        return round_trip(line.kind, line.port, timeout_s)

    def processes(self) -> Sequence[int]:
        roles = [self.tree.pid(role) for role in ROLES]
        nodes = [part.pid(node) for part in (*self.parts.values(), self.proxy) for node in part.nodes]
        return [pid for pid in (*roles, *nodes) if pid is not None]

    def finish(self, timeout_s: float) -> Mapping[str, int]:
        if not self._streams:
            return {}
        self._finishing = True
        self.flow.stop()
        # Our own apps have a workflow for each stream, and each of their steps writes down what it does: where nothing
        # is written, nothing was done. Of somebody else's we know less.
        ours = (APPS / (self.order.app or USUAL_APP)).resolve().parent == APPS
        self.verdict = verify(
            self.platform, ledger.read(self.run / LEDGER), timeout_s=timeout_s, must_succeed=True, must_run=ours,
            effects=lambda: effect.read(self.folder / own.APP / "effects"), drained=self._drained,
        )  # fmt: skip
        return self.verdict.counts()

    def facts(self) -> Mapping[str, str]:
        engine = getattr(self.parts.get("redis"), "engine", None)
        return {"Redis": engine.name} if engine is not None else {}

    # ── For actions and probes ─────────────────────────────────────────────────────────────────────────────────────
    def ready(self) -> bool:
        """Whether the collector calls itself ready, as a balancer would ask it."""
        try:
            return self.platform.public("/readyz", READY_ASK_S)[0] == 200
        except Unavailable:
            return False

    def lines_of(self, target: str) -> list[Line]:
        """``redis``: all of its lines; ``redis.r1``: that one.

        Raises:
            Rejected: There is none.
        """
        found = [line for name, line in self.lines.items() if _of(name, target)]
        if not found:
            raise Rejected(404, "no such target", f"{target}; there are {', '.join(self.targets())}")
        return found

    def set_flag(self, name: str, value: str) -> None:
        """As a person would.

        Raises:
            Rejected: No such flag or value.
            Unavailable: Not every role works with it in time.
        """
        seen = self.platform.call("POST", f"/v1/flags/{name}/preview", {"value": value})
        said = {"value": value, "why": "the lab's experiment", "version": seen["version"]}
        found = self.platform.call("POST", f"/v1/flags/{name}", said)
        if not found["live"]:
            raise Unavailable(f"flag {name}", f"it isn't live in {', '.join(found['missing'])}")

    def did(
        self, target: str, id: str, undo: Callable[[], object], gone: Callable[[], str] = lambda: ""
    ) -> None:  # fmt: skip
        """A fault is armed as ``id``; ``undo`` ends it. ``gone`` is asked before, where no path tells that it is there
        yet."""
        self._done.append(_Done(target, id, undo, gone))

    def undo(self, target: str) -> int:
        """End all faults of a target, and of its parts; "": of everything. The last one first. How many.

        Raises:
            Unavailable: One had ended before, by itself or by somebody's hand. All were undone.
        """
        chosen = [each for each in self._done if not target or _of(each.target, target)]
        self.arm.still([each.id for each in chosen])
        last = {each.target: each for each in self._done}  # what came after it on a line may have taken its place
        gone = [why for each in chosen if last[each.target] is each and (why := _gone(each))]
        for each in reversed(chosen):
            each.undo()
            self._done.remove(each)
            self.arm.undone(each.id)
        if gone:
            raise Unavailable("the fault", "; ".join(gone))
        return len(chosen)

    # ── Inside ─────────────────────────────────────────────────────────────────────────────────────────────────────
    def _drained(self) -> bool:
        """Whether nothing waits any more, so that no copy of anything comes later."""
        return idle(self.sight.figures())

    def _of_traffic(self) -> dict[str, float]:
        if not self._streams:
            return {}
        found = {
            **self.balancer.sample(),
            "intake.open_count": float(self.flow.open),
            "intake.unsent_count": float(self.flow.unsent),
            LATE: self.flow.late_s,
        }
        for room, kind in (("intake", "events"), ("held", "held")):
            recent = self.flow.recent[kind]
            if not recent.total:
                continue
            second, lately = recent.window(1.0), recent.window(LATE_S)
            for sort in ("ok", "refused", "failed", "none", *(("own", "ticket", "wrong") if room == "held" else ())):
                found[f"{room}.{sort}_rate"] = float(second.count(sort))
            found[f"{room}.bare_count"] = float(sum(n for word, n in [*recent.total.items()] if word.endswith(BARE)))
            found[f"{room}.ok_ratio"] = lately.count("own" if room == "held" else "ok") / max(1, lately.all)
            for name, share in (("p50", 0.5), ("p99", 0.99)):
                if (value := second.quantile_s(share)) is not None:
                    found[f"{room}.{name}_ms"] = value * 1000
        return found

    def _of_lines(self) -> dict[str, float]:
        """Bytes a second that went to each kind of part, and what is left of its burst credits."""
        now, (at, before) = time.monotonic(), self._bytes
        lines = self._links()
        bytes = _bytes(lines)
        self._bytes = (now, bytes)
        if not before:
            return {}
        found: dict[str, float] = {}
        for name, said in lines.items():
            if (left := said.get("credit_left")) is not None:
                room = f"line.{name.partition('.')[0]}_credit_bytes"
                found[room] = min(found.get(room, float("inf")), float(str(left)))
        for name, count in bytes.items():
            room = f"line.{name.partition('.')[0]}_bytes_s"
            found[room] = found.get(room, 0.0) + max(0, count - before.get(name, 0)) / max(0.01, now - at)
        return found

    def _traffic_bytes(self) -> dict[str, int]:
        """What each line has handed on, to the servers and back."""
        return _bytes(self._links())

    def _links(self) -> Mapping[str, Mapping[str, object]]:
        with suppress(Unavailable):
            return self.proxy.links()
        return {}

    def look_at_alerts(self) -> None:
        """Note which are new, and which are over."""
        now: dict[str, Alert] | None = None
        with suppress(Unavailable):
            now = {f"{each.name} {each.labels}": each for each in self.alerts_open()}
        with self._noting:
            self._unread = float(now is None)
            if now is not None:
                self._moments += [("alert", now[key].text) for key in now.keys() - self._alerts.keys()]
                self._moments += [("cleared", self._alerts[key].name) for key in self._alerts.keys() - now.keys()]
                self._alerts = now

    def _look(self) -> None:
        """Note what has changed: alerts, and processes."""
        self.look_at_alerts()
        with self._noting:
            if self.balancer.host_in != self._host_in:
                self._host_in = self.balancer.host_in
                said = "the host is let in" if self._host_in else "the host is taken out"
                self._moments.append(("balancer", said))
            for role in ROLES:
                pid = self.tree.pid(role)
                if pid is not None and pid != self._pids[role]:
                    self._moments.append(("child", f"{role} is another process"))
                    self._pids[role] = pid


def idle(figures: Mapping[str, float]) -> bool:
    """Whether a process says that nothing waits in it; one that says nothing may hold anything."""
    return bool(figures) and all(figures.get(name, 0.0) < DRAINED_S for name in WAITING)


def _bring_up(made: Supply) -> None:
    made.part.up()
    supply.ready(made)


def _bytes(lines: Mapping[str, Mapping[str, object]]) -> dict[str, int]:
    return {name: int(str(said["bytes_up"])) + int(str(said["bytes_down"])) for name, said in lines.items()}


def _of(name: str, target: str) -> bool:
    return name == target or name.startswith(f"{target}.")


def _size(file: Path) -> int:
    try:
        return file.stat().st_size if file.is_file() else 0
    except OSError:
        return 0
