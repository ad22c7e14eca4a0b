"""A rig with zones: hosts in namespaces, each with a collector, behind a balancer with health checks; Kafka, Redis, the
store and all that runs workflows are outside of every zone, and are reached over lines that can be cut.

Options of an experiment: ``zones: {a: 2, b: 2}`` (hosts of each), ``out: [zone.b]`` (taken out of rotation before
traffic begins: zones or hosts), ``synthetic: 20`` (events a second of the lab's own, straight to those that are out).
"""

from __future__ import annotations

import itertools
import secrets
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace

from seawall.kernel.error import Misconfigured, Rejected, Unavailable
from seawall.lab.checker import ledger
from seawall.lab.checker.verify import verify
from seawall.lab.expect import LATE
from seawall.lab.experiment import Experiment
from seawall.lab.part.port import LOOPBACK
from seawall.lab.platform import Place, Platform
from seawall.lab.record import LEDGER
from seawall.lab.rig import current as any_rig
from seawall.lab.rig import supply
from seawall.lab.rig.flow import Flow, streams
from seawall.lab.rig.rig import CALLS, LATE_S, READY_S, Rig, idle, opened
from seawall.lab.rig.sight import Alert
from seawall.lab.rig.supply import Supply
from seawall.lab.rig.talk import QUESTIONS
from seawall.lab.seam import Arm, Order
from seawall.lab.zone import net as nets
from seawall.lab.zone.host import PORT, Edge, Hosts, dsn_by
from seawall.lab.zone.net import Net
from seawall.lab.zone.share import Share, grown

ZONES = {"a": 2, "b": 2}
HOSTS_MAX = 8
SYNTHETIC = "lab-synthetic"
"""Tenant of the lab's own events. It is no user's: their limits and shares are their own."""

TYPE = "lab.synthetic"
"""Of its events. Workflows choose by type, so none of a user's has a run of them."""

SYNTHETIC_RATE = 20
ASK_S = 2.0
BALANCED_S = 30.0
OPEN = (1.0, 2.0, 4.0)
"""What a breaker's state is when it lets little or nothing through."""

BREAKERS = ("kafka", "redis")
RATES = {"kafka.acks_total": "forwarded_rate", "requests": "requests_rate", "failed": "failed_rate"}


def check(experiment: Experiment) -> None:
    """
    Raises:
        Misconfigured: This machine can have no zones, or the file asks for what there can't be.
    """
    if problems := nets.why_not():
        raise Misconfigured(problems)
    hosts_of(experiment.ours.options)


def hosts_of(options: Mapping[str, object]) -> dict[str, list[str]]:
    """Hosts by zone.

    Raises:
        Misconfigured: Not so.
    """
    said = options.get("zones", ZONES)
    if not isinstance(said, Mapping) or not all(
        isinstance(zone, str) and zone.isalpha() and len(zone) == 1 and isinstance(count, int) and count > 0
        for zone, count in said.items()
    ) or not 2 <= sum(said.values()) <= HOSTS_MAX:  # fmt: skip
        raise Misconfigured([f"options.zones: a letter each with a number of hosts, 2 to {HOSTS_MAX} in all; {said!r}"])
    return {zone: [f"{zone}{number}" for number in range(1, count + 1)] for zone, count in said.items()}


def current() -> ZoneRig:
    """The rig of this process.

    Raises:
        Rejected: None is open, or one without zones.
    """
    found = any_rig()
    if not isinstance(found, ZoneRig):
        raise Rejected(409, "no zones", "this rig has none; the experiment needs `rig: seawall.lab.zone.rig`")
    return found


@contextmanager
def open_rig(order: Order, *, arm: Arm, say: Callable[[str], None]) -> Iterator[ZoneRig]:
    """As `seawall.lab.rig.open_rig`."""
    with opened(ZoneRig(order, arm=arm, say=say)) as rig:
        assert isinstance(rig, ZoneRig)
        yield rig


class ZoneRig(Rig):
    """See above.

    Attributes:
        zones: Hosts by zone.
        net: Of the hosts.
    """

    # Size: the same questions as of any rig, each answered for hosts too.

    def __init__(self, order: Order, *, arm: Arm, say: Callable[[str], None]) -> None:
        super().__init__(replace(order, needs=[n for n in order.needs if n != "zones"]), arm=arm, say=say)
        self.zones = hosts_of(order.options)
        self.net = Net(self.folder / "net")
        self.out: list[str] = []
        self.synthetic: Flow | None = None
        self._flips = 0
        self._last_seen: dict[str, tuple[float | None, Mapping[str, float]]] = {}
        self._grown: defaultdict[str, float] = defaultdict(float)
        self._forwarded = Share()
        self._open: dict[tuple[str, str], bool] = {}

    # ── Making ─────────────────────────────────────────────────────────────────────────────────────────────────────
    def advertise(self, made: Sequence[Supply]) -> None:
        self.made = self.net.make([host for hosts in self.zones.values() for host in hosts])
        lines = {line.name: line.port for each in made for line in each.lines}
        self.edge = Edge(self.folder / "edge", self.made, lines=lines, say=self._say)
        self.edge.up()
        for each in made:
            for line in each.lines:
                if hasattr(each.part, "advertise"):
                    each.part.advertise(line.node, line.port, self.made.gate)

    def begin_platform(self, made: Sequence[Supply]) -> None:
        super().begin_platform(made)
        self.edge.serve_store(self.tree.data)
        self.hosts = Hosts(
            self.folder / "hosts", self.net, self.made,
            settings=supply.settings(made, self.order.options, host=self.made.gate),
            dsn=dsn_by(self.tree.data, self.made.gate, self.edge.store), key_of=self.tree.data, weak=self.order.weak,
            own=list(supply.places(made, host=self.made.gate).values()), say=self._say,
        )  # fmt: skip
        self.hosts.up(READY_S)
        self._say(f"{len(self.made.hosts)} hosts are ready")
        self.platform = Platform(self.place)
        name = f"lab-balancer-{secrets.token_hex(4)}"
        self.edge.check_by(self.platform.own_source(name, kind="none", secret="").path)
        # Hosts that were checked while they started, or asked Kafka for the first time, were out for a moment.
        self._wait(lambda: all(each["in"] for each in self.edge.stats().values()), "has every host in")
        self._flips = len(self.edge.flips())

    def begin_balancer(self) -> None:
        """There is a real one. What is to be out of rotation is taken out, and gets events of the lab's own."""
        options = self.order.options
        self.out = [host for target in options.get("out", ()) for host in self.hosts_of(str(target))]
        if not self.out:
            return
        self.edge.rotate(self.out)
        self._wait(lambda: not any(self.edge.stats()[host]["rotated"] for host in self.out), "takes them out")
        rate = options.get("synthetic", SYNTHETIC_RATE)
        turn = itertools.cycle([(self.made.front(host), PORT) for host in self.out])
        self.synthetic = Flow(
            self.platform, streams([{"kind": "events", "rate": rate, "tenant": SYNTHETIC, "type": TYPE}]),
            self.run / f"{LEDGER}.synthetic", seed=self.order.seed + 1000, address=lambda: next(turn),
        )  # fmt: skip
        self.synthetic.start()

    def place(self) -> Place:
        """Senders know the balancer alone."""
        return replace(super().place(), listen=f"http://{LOOPBACK}:{self.edge.port('balancer')}")

    def close(self) -> None:
        self.end_traffic()
        with suppress(Unavailable):
            if self.synthetic is not None:
                self.synthetic.stop()
        try:
            if hasattr(self, "hosts"):
                self.hosts.down()
        finally:
            # Which ends all that is left in the folder: the edge, and the network.
            super().close()

    # ── What the runner asks ───────────────────────────────────────────────────────────────────────────────────────
    def targets(self) -> Mapping[str, str]:
        hosts = [f"zone.{zone}.{host}" for zone, hosts in self.zones.items() for host in hosts]
        return {**super().targets(), **dict.fromkeys([*(f"zone.{zone}" for zone in self.zones), *hosts], "")}

    def alerts_open(self) -> Sequence[Alert]:
        """Of the platform, and of each host, which says its own."""
        found = list(super().alerts_open())
        for host in self.made.hosts:
            with suppress(Unavailable):
                found += self.hosts.alerts(host)
        return found

    def sample(self) -> Mapping[str, float]:
        found = dict(super().sample())
        self._grown.clear()
        for zone in self.zones:
            for name, value in self._of_zone(zone).items():
                found[f"zone_{zone}.{name}"] = value
        handed_out = self._grown["requests"] + self._grown["checks"]
        self._forwarded.add(time.monotonic(), self._grown["kafka.acks_total"], handed_out)
        if (share := self._forwarded.ratio) is not None:
            found["zones.forwarded_ratio"] = share
        stats = self.edge.stats()
        wanted = [each for each in stats.values() if each["rotated"]]
        found["balancer.in_ratio"] = sum(bool(each["in"]) for each in wanted) / max(1, len(wanted))
        for word in ("forwarded_rate", "breakers_open_count"):
            values = [found[name] for zone in self.zones if (name := f"zone_{zone}.{word}") in found]
            if len(values) == len(self.zones):
                found[f"zones.{word}"] = sum(values)
        if self.synthetic is not None:
            recent = self.synthetic.recent["events"]
            second, lately = recent.window(1.0), recent.window(LATE_S)
            found[LATE] = max(found.get(LATE, 0.0), self.synthetic.late_s)
            found["synthetic.ok_rate"] = float(second.count("ok"))
            found["synthetic.failed_rate"] = float(second.count("failed"))
            found["synthetic.ok_ratio"] = lately.count("ok") / max(1, lately.all)
            if (slowest := second.quantile_s(0.99)) is not None:
                found["synthetic.p99_ms"] = slowest * 1000
        self._note_flips()
        return found

    def finish(self, timeout_s: float) -> Mapping[str, int]:
        """Of both ledgers, together; ``synthetic_runs`` is how many runs of workflows synthetic events have had."""
        synthetic = self.synthetic
        if synthetic is None:
            return super().finish(timeout_s)
        synthetic.stop()
        found = Counter(super().finish(timeout_s))
        own = verify(
            self.platform, ledger.read(self.run / f"{LEDGER}.synthetic"), timeout_s=timeout_s, drained=self._drained
        )
        found.update(own.counts())
        return {**found, "synthetic": own.accepted, "synthetic_runs": own.runs}

    def broken(self) -> str:
        if self.synthetic is not None and not self.synthetic.running:
            return f"the synthetic traffic ended: {self.synthetic.died or 'nobody said why'}"
        return super().broken() or next(
            (f"the {name} ended" for name in self.edge.nodes if self.edge.pid(name) is None), ""
        )

    def called(self, dependency: str) -> int:
        """``redis``: by all hosts together; ``zone.b.redis``: by the host of zone B that did so least."""
        if dependency.startswith("zone."):
            target, _, kind = dependency.rpartition(".")
            return int(min(self._figures(host).get(CALLS.get(kind, ""), 0.0) for host in self.hosts_of(target)))
        return int(sum(self._figures(host).get(CALLS.get(dependency, ""), 0.0) for host in self.made.hosts))

    def paths(self) -> Sequence[str]:
        kinds = [*sorted({line.kind for line in self.lines.values()}), "store"]
        inside = [f"{self.name_of(host)}.{kind}" for host in self.made.hosts for kind in kinds]
        return (*super().paths(), *inside, *(f"front.{host}" for host in self.made.hosts))

    def round_trip(self, path: str, timeout_s: float = ASK_S) -> float:
        first, *rest = path.split(".")
        if first not in ("zone", "front"):
            return super().round_trip(path, timeout_s)
        began = time.monotonic()
        if first == "front":
            nets.question((self.made.front(rest[0]), PORT), b"GET /livez HTTP/1.1\r\nhost: lab\r\n\r\n", timeout_s)
        else:
            _, host, kind = rest
            port = self.edge.store if kind == "store" else next(
                line.port for line in self.lines.values() if line.kind == kind
            )  # fmt: skip
            asked = QUESTIONS["postgres" if kind == "store" else kind]
            nets.ask(self.net, host, (self.made.gate, port), asked, timeout_s)
        return time.monotonic() - began

    def processes(self) -> Sequence[int]:
        pids = [part.pid(node) for part in (self.hosts, self.edge) for node in part.nodes]
        return [*super().processes(), *(pid for pid in pids if pid is not None)]

    # ── For actions ────────────────────────────────────────────────────────────────────────────────────────────────
    def hosts_of(self, target: str) -> list[str]:
        """``zone.b``: its hosts; ``zone.b.b1``: that one.

        Raises:
            Rejected: There is none.
        """
        found = [host for host in self.made.hosts if f"{self.name_of(host)}.".startswith(f"{target}.")]
        if not found:
            raise Rejected(404, "no such target", f"{target}; there are {', '.join(self.targets())}")
        return found

    def name_of(self, host: str) -> str:
        """Of a host, as a target: ``zone.b.b1``."""
        return f"zone.{host[0]}.{host}"

    # ── Inside ─────────────────────────────────────────────────────────────────────────────────────────────────────
    def _drained(self) -> bool:
        return super()._drained() and all(idle(self._figures(host)) for host in self.made.hosts)

    def _wait(self, true: Callable[[], bool], what: str) -> None:
        latest = time.monotonic() + BALANCED_S
        while not self.edge.stats() or not true():
            if time.monotonic() > latest:
                raise Unavailable("the balancer", f"not within {BALANCED_S:g} s: it {what}")
            time.sleep(0.05)

    def _of_zone(self, zone: str) -> dict[str, float]:
        """What a zone does, since the last sample; of rates none when there was no sample before."""
        hosts, stats = self.zones[zone], self.edge.stats()
        found: dict[str, float] = {"breakers_open_count": 0.0, "in_ratio": 0.0}
        for host in hosts:
            at, before = self._last_seen.get(host, (None, {}))
            # A host that can't be read now is as it was: it is being restarted, or the machine is busy.
            now, said = time.monotonic(), {**before, **self._figures(host), **stats.get(host, {})}
            self._last_seen[host] = (now, said)
            by = {name: grown(before.get(name), said.get(name)) for name in (*RATES, "checks", "took_ms")}
            for counter, count in by.items():
                self._grown[counter] += count
            for counter, name in RATES.items() if at is not None else ():
                found[name] = found.get(name, 0.0) + by[counter] / max(0.05, now - (at or 0.0))
            if by["requests"] > 0:
                found["answer_ms"] = max(found.get("answer_ms", 0.0), by["took_ms"] / by["requests"])
            found["in_ratio"] += bool(said.get("in")) / len(hosts)
            found["check_ms"] = max(found.get("check_ms", 0.0), said.get("check_ms", 0.0))
            found["breakers_open_count"] += self._breakers(host, said)
        return found

    def _breakers(self, host: str, said: Mapping[str, float]) -> int:
        count = 0
        for to in BREAKERS:
            there = said.get(f"breaker.{to}_code", 0.0) in OPEN
            count += there
            with self._noting:
                if there != self._open.get((host, to), False):
                    self._open[host, to] = there
                    self.note("breaker", f"{host}: {to} {'open' if there else 'closed'}")
        return count

    def _figures(self, host: str) -> Mapping[str, float]:
        with suppress(Unavailable):
            return self.hosts.figures(host)
        return {}

    def _note_flips(self) -> None:
        flips = self.edge.flips()
        with self._noting:
            for host, there, why in flips[self._flips :]:
                self.note("balancer", f"{host} is {'let in' if there else 'taken out'}: {why}")
            self._flips = max(self._flips, len(flips))
