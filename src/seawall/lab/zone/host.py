"""The machines of the zones: a collector on each host, and the edge that they share, the gate and the balancer."""

from __future__ import annotations

import http.client
import json
import os
import shutil
import signal
import socket
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

from seawall.kernel.error import Unavailable
from seawall.lab.part.node import Say, quiet, whole
from seawall.lab.part.part import Part
from seawall.lab.part.port import LOOPBACK, answers
from seawall.lab.part.process import Launch
from seawall.lab.rig.sight import Alert, numbers
from seawall.lab.weak import mark, program
from seawall.lab.zone import balancer, gate
from seawall.lab.zone.net import Made, Net

PORT = 8080
ASK_S = 1.0
STORE = "store"
KILL_S = 3.0
"""So long a collector that is restarted has to stop in order, as the supervisor of incident I4 had it."""


class Edge(Part):
    """Gate and balancer. Nodes: ``gate``, ``balancer``."""

    kind = "edge"
    end_s = 5.0

    def __init__(self, folder: Path, made: Made, *, lines: Mapping[str, int], say: Say = quiet) -> None:
        super().__init__(folder, nodes=["gate", "balancer"], ports=["balancer", STORE], say=say)
        self._made = made
        self._lines = lines

    @property
    def store(self) -> int:
        """Port of the store, on the gate."""
        return self.port(STORE)

    def rotate(self, out: Sequence[str]) -> None:
        """Take hosts out of rotation by hand; all others are in it."""
        whole(self.folder / balancer.ROTATION, json.dumps(list(out)))

    def hole(self, host: str, lines: Sequence[str]) -> None:
        """These lines are black holes for a host; none: they work again."""
        gate.hole(self.folder, self._made.inside(host), lines)

    def check_by(self, path: str) -> None:
        """From here on hosts are checked by an event to this path."""
        whole(self.folder / "check", path)

    def serve_store(self, data: Path) -> None:
        """The store's socket, where a platform's folder says that it is."""
        whole(self.folder / STORE, socket_of(data))

    def stats(self) -> Mapping[str, Mapping[str, float]]:
        """What the balancer knows of each host."""
        found: Mapping[str, Mapping[str, float]] = self._stats().get("hosts", {})
        return found

    def flips(self) -> list[tuple[str, bool, str]]:
        """(host, whether it is in, why), of all changes so far."""
        return [(str(host), bool(there), str(why)) for host, there, why in self._stats().get("flips", [])]

    # ── As a part ──────────────────────────────────────────────────────────────────────────────────────────────────
    def prepare(self) -> None:
        lines: dict[str, object] = {name: (port, (LOOPBACK, port)) for name, port in self._lines.items()}
        lines[STORE] = (self.store, STORE)
        whole(self.folder / gate.LINES, json.dumps({"host": self._made.gate, "lines": lines}))
        hosts = {host: (self._made.front(host), PORT) for host in self._made.hosts}
        whole(self.folder / balancer.HOSTS, json.dumps({"port": self.port("balancer"), "hosts": hosts}))

    def launch(self, node: str) -> Launch:
        return Launch(
            command=[sys.executable, "-m", f"seawall.lab.zone.{node}", str(self.folder)], environment=environment()
        )

    def open(self, node: str) -> bool:
        if node == "balancer":
            return answers(self.port("balancer"))
        return reaches((self._made.gate, self.store))

    def unready(self) -> str:
        return ""

    def unsettled(self) -> str:
        return "lines are holes" if any(gate.read(self.folder / gate.HOLES).values()) else ""

    def _stats(self) -> Mapping[str, dict]:  # type: ignore[type-arg]
        with suppress(OSError, ValueError):
            found: Mapping[str, dict] = json.loads((self.folder / balancer.STATS).read_text("utf-8"))  # type: ignore[type-arg]
            return found
        return {}


class Hosts(Part):
    """A collector on each host, with a data folder of its own. Nodes: the hosts.

    Args:
        settings: Of all; each host's name is put before them.
        weak: Weak parts of their collectors.
        own: Where the parts are to which the settings lead: the lab's own, and so fit for weak parts.
    """

    kind = "hosts"
    end_s = 10.0

    def __init__(
        self, folder: Path, net: Net, made: Made, *, settings: str, dsn: str, key_of: Path, weak: Sequence[str] = (),
        own: Sequence[str] = (), say: Say = quiet,
    ) -> None:  # fmt: skip
        super().__init__(folder, nodes=made.hosts, ports=[], say=say)
        self._net, self._made = net, made
        self._settings, self._dsn, self._key_of, self._weak, self._own = settings, dsn, key_of, weak, own

    def data(self, host: str) -> Path:
        """Its data folder."""
        return self.folder / host

    def restart(self, host: str, *, kill_s: float = KILL_S, timeout_s: float = 60.0) -> bool:
        """Tell a collector to stop, kill it after ``kill_s``, and start it again. True: it stopped by itself.

        Raises:
            Unavailable: It doesn't come back.
        """
        with self._locked():
            orderly = self._known(host).end(signal.SIGTERM, kill_s)
        self.start(host, timeout_s)
        return orderly

    def figures(self, host: str) -> Mapping[str, float]:
        """Its metrics, each summed over its labels but ``to``. By its socket in its data folder, which no cut reaches.

        Raises:
            Unavailable: It can't be asked.
        """
        return numbers(_get(self.data(host) / "run" / "collector.sock", "/metrics"))

    def alerts(self, host: str) -> list[Alert]:
        """Those that are open. Raises as ``figures``."""
        try:
            said = json.loads(_get(self.data(host) / "run" / "collector.sock", "/alerts"))
            return [
                Alert(str(one["name"]), ", ".join([host, *map(str, one.get("labels", {}).values())]),
                      str(one["summary"])) for one in said
            ]  # fmt: skip
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise Unavailable("a collector", f"{host}: its alerts can't be read: {error}") from error

    # ── As a part ──────────────────────────────────────────────────────────────────────────────────────────────────
    def prepare(self) -> None:
        secret = self.folder / "dsn"
        secret.touch(0o600)
        secret.write_text(self._dsn)
        for host in self.nodes:
            data = self.data(host)
            if data.exists():
                continue
            mark(data, [self._dsn, f"{self._made.front(host)}:{PORT}", *self._own])
            # One key for all: what one seals, the others open.
            for name in ("FORMAT", "key"):
                shutil.copy2(self._key_of / name, data / name)
            (self.folder / f"{host}.toml").write_text(f'profile = "cluster"\ndsn_file = "{secret}"\n{self._settings}')

    def launch(self, node: str) -> Launch:
        argv = [
            *program(self._weak), "run", "collector", "--data", str(self.data(node)), "--config",
            str(self.folder / f"{node}.toml"), "--listen", f"{self._made.front(node)}:{PORT}",
        ]  # fmt: skip
        # In a file, the collector's name and its table of settings would have one name.
        named = {**environment(), "SEAWALL_COLLECTOR": node}
        return Launch(command=self._net.command(node, argv), environment=named)

    def open(self, node: str) -> bool:
        return reaches((self._made.front(node), PORT))

    def unready(self) -> str:
        for host in self.nodes:
            connection = http.client.HTTPConnection(self._made.front(host), PORT, timeout=ASK_S)
            try:
                connection.request("GET", "/readyz")
                answer = connection.getresponse()
                if answer.status != 200:
                    return f"{host}: {answer.read(300).decode('utf-8', 'replace')}"
            except (OSError, http.client.HTTPException) as error:
                return f"{host}: {error}"
            finally:
                connection.close()
        return ""

    def unsettled(self) -> str:
        return self.unready()


def environment() -> Mapping[str, str]:
    """It finds its modules as we do."""
    return {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}


def reaches(address: tuple[str, int]) -> bool:
    """Whether a connection is taken there."""
    try:
        with socket.create_connection(address, ASK_S):
            return True
    except OSError:
        return False


def dsn_of(data: Path) -> str:
    """Of the store that a platform uses.

    Raises:
        Unavailable: Its folder doesn't say.
    """
    try:
        said = json.loads((data / "run" / "settings.json").read_text("utf-8"))
        return next(str(value) for _, name, value, _ in said if name == "dsn")
    except (OSError, ValueError, TypeError, StopIteration) as error:
        raise Unavailable("the platform", f"{data} doesn't name its store: {error}") from error


def socket_of(data: Path) -> str:
    """The embedded store's socket. Raises as ``dsn_of``."""
    query = parse_qs(urlsplit(dsn_of(data)).query)
    return f"{unquote(query['host'][0])}/.s.PGSQL.{query.get('port', ['5432'])[0]}"


def dsn_by(data: Path, host: str, port: int) -> str:
    """The same store, over a line. Raises as ``dsn_of``."""
    parts = urlsplit(dsn_of(data))
    return f"postgresql://{parts.username}@{host}:{port}{parts.path}"


def _get(path: Path, what: str) -> str:
    """A page over a unix socket."""
    connection = http.client.HTTPConnection("localhost", timeout=ASK_S)
    try:
        connection.sock = socket.socket(socket.AF_UNIX)
        connection.sock.settimeout(ASK_S)
        connection.sock.connect(str(path))
        connection.request("GET", what)
        return connection.getresponse().read().decode("utf-8", "replace")
    except (OSError, http.client.HTTPException) as error:
        raise Unavailable("a collector", f"{path.parent.parent.name}: {error}") from error
    finally:
        connection.close()
