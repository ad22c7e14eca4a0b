"""What the runner asks of an installation of the user's own: all of it over HTTP, and by the commands of its file."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import cast
from urllib.parse import urlsplit

from seawall.kernel.error import Rejected, Unavailable
from seawall.lab.checker import ledger
from seawall.lab.checker.verify import verify
from seawall.lab.expect import UNREAD
from seawall.lab.platform import Place, Platform, Source
from seawall.lab.record import LEDGER
from seawall.lab.rig import current as any_rig
from seawall.lab.rig import talk
from seawall.lab.rig.balancer import Balancer
from seawall.lab.rig.rig import CALLS, Rig, opened
from seawall.lab.rig.sight import Sight
from seawall.lab.seam import Arm, Order
from seawall.lab.target import command
from seawall.lab.target.file import Command, Sender, Target
from seawall.lab.target.flow import TargetFlow
from seawall.lab.target.look import Looks
from seawall.lab.target.plan import commands

KNOWN_S = 5.0
PATIENCE_S = 10.0
ASK_S = 2.0
"""One question to the target may take so long; the lab's own rig is asked for less."""


def place_of(fault: str) -> str:
    """What a fault is done to: ``redis`` of ``redis.hole``."""
    return fault.rpartition(".")[0] or fault


def current() -> TargetRig:
    """The target of this process.

    Raises:
        Rejected: None is open.
    """
    found = any_rig()
    if not isinstance(found, TargetRig):
        raise Rejected(409, "no target", "this run has a rig of the lab's own, and no target")
    return found


@contextmanager
def open_rig(order: Order, *, arm: Arm, say: Callable[[str], None]) -> Iterator[TargetRig]:
    """A target that answers, with the lab's traffic flowing to it; at the end the traffic is ended, and nothing else.

    Raises:
        Rejected: It knows no such source, or refuses our token.
        Unavailable: It doesn't answer.
    """
    with opened(TargetRig(order, arm=arm, say=say)) as rig:
        yield cast(TargetRig, rig)


class TargetRig(Rig):
    """See `seawall.lab.seam.Rig`.

    Attributes:
        applied: Commands of the faults that were applied, filled in as they were then.
    """

    def __init__(self, order: Order, *, arm: Arm, say: Callable[[str], None]) -> None:
        super().__init__(order, arm=arm, say=say)
        self.target: Target = order.options["target"]
        used: Mapping[str, Mapping[str, str]] = order.options["used"]
        self.applied: dict[str, dict[str, Command]] = {
            key: commands(self.target.said.fault[key], values) for key, values in used.items()
        }
        self._first: Mapping[str, float] = {}
        self._looks = Looks({"admin": self._of_admin, "ready": self._of_ready, "store": self._of_store})
        self._read_at = time.monotonic()
        self._held: int | None = None

    # ── Making ─────────────────────────────────────────────────────────────────────────────────────────────────────
    def make(self) -> None:
        """Find the target, its sources, and begin the traffic."""
        self.run.mkdir(parents=True, exist_ok=True)
        self._hold()
        self.platform = Platform(self.place, patience_s=PATIENCE_S, timeout_s=ASK_S * 2)
        self.sight = Sight(self.place, timeout_s=ASK_S)
        senders = {"events": self._sender(self.target.source)}
        if self.target.held is not None:
            senders["held"] = self._sender(self.target.held)
        self._first = self.sight.figures()
        if not self._first:
            raise Unavailable(self.target.name, f"{self.target.said.admin} tells no metrics")
        self.flow = TargetFlow(
            self.platform, self._streams, self.run / LEDGER, seed=self.order.seed, senders=senders,
            tls=self.target.tls,
        )  # fmt: skip
        self.balancer = Balancer(self.platform)  # never started: it would make a source
        self._say(f"{self.target.name} answers at {self.target.said.admin}")
        if self._streams:
            self.flow.start()
            self._warm_up()

    def place(self) -> Place:
        parts = urlsplit(self.target.source.url)
        listen = f"{parts.scheme}://{parts.netloc}"
        return Place(admin=self.target.said.admin, token=self.target.token, listen=listen, tls=self.target.tls)

    def _sender(self, sender: Sender) -> tuple[Sender, Source]:
        """A source of the target's, by its name."""
        try:
            found = next((each for each in self.platform.items("/v1/sources") if each["name"] == sender.name), None)
        except Rejected as error:
            if error.status in (401, 403):
                why = f"{self.target.said.admin} refuses that of {self.target.said.token_file}"
                raise Rejected(error.status, "the token", why) from error
            raise
        if found is None:
            raise Rejected(404, "no such source", f"{self.target.name} has none with the name {sender.name}")
        if found["kind"] != "standard":
            raise Rejected(409, "wrong kind", f"source {sender.name} is of kind {found['kind']}; standard is needed: "
                           "the ledger knows its events by their ids")  # fmt: skip
        return sender, Source(id=str(found["id"]), name=sender.name, token="", url=sender.url)

    # ── What the runner asks ───────────────────────────────────────────────────────────────────────────────────────
    def targets(self) -> Mapping[str, str]:
        return {**self.target.addresses, **dict.fromkeys(self.applied, "")}

    def sample(self) -> Mapping[str, float]:
        found = {name: value for name, value in self._of_traffic().items() if not name.startswith("balancer.")}
        found[UNREAD] = 1.0
        for seen in self._looks.sample().values():
            found.update(seen)
        self._last = (time.monotonic(), found)
        return found

    def broken(self) -> str:
        if self._streams and not self._finishing and not self.flow.running:
            return f"the traffic ended: {self.flow.died or 'nobody said why'}"
        blind_s = time.monotonic() - self._read_at
        if blind_s > self.target.said.limits.blind_s and not self._finishing:
            return f"nobody has been able to read the metrics of {self.target.name} for {blind_s:.0f} s"
        return ""

    def called(self, dependency: str) -> int:
        """By the target's own figures: what traffic makes grow, also that of others."""
        name = CALLS.get(dependency.rpartition(".")[2] or dependency, "")
        now = self.sight.figures()
        if name not in now:
            return 0
        return int(now[name] - self._first.get(name, 0.0))

    def paths(self) -> Sequence[str]:
        """Its faults that the experiment needs, each alive while the fault isn't there; and its own paths."""
        return (*(key for key, made in self.applied.items() if "revert" in made), *self.target.said.path)

    def alive(self, path: str) -> bool:
        """
        Raises:
            Unavailable: Nobody can say.
        """
        folder = self.target.folder
        if path in self.target.said.path:
            return command.ask(self.target.said.path[path].command, folder) == command.THERE
        made = self.applied[path]
        if "gone" not in made:
            return command.ask(made["verify"], folder) == command.GONE
        if command.ask(made["verify"], folder) == command.THERE:
            return False
        if command.ask(made["gone"], folder) == command.THERE:
            return True
        raise Unavailable(path, "it is neither there nor gone")

    def struck(self, text: str) -> None:
        """Something is done now that ends by itself; on return the run knows of it, or nobody measures any more."""
        self.note("killed", text)
        latest = time.monotonic() + KNOWN_S
        while self._moments and time.monotonic() < latest:
            time.sleep(0.02)

    def processes(self) -> Sequence[int]:
        return ()

    def finish(self, timeout_s: float) -> Mapping[str, int]:
        if not self._streams:
            return {}
        self._finishing = True
        self.flow.stop()
        self.verdict = verify(self.platform, ledger.read(self.run / LEDGER), timeout_s=timeout_s)
        return {word: count for word, count in self.verdict.counts().items() if word not in ("effects", "repeated")}

    def facts(self) -> Mapping[str, str]:
        return {"target": self.target.name, **{name: at for name, at in self.target.addresses.items() if at}}

    def close(self) -> None:
        self._finishing = True
        self._looks.close()
        super().close()
        if self._held is not None:
            os.close(self._held)
            self._held = None

    # ── Inside ─────────────────────────────────────────────────────────────────────────────────────────────────────
    def _hold(self) -> None:
        """Keep other runs away whose --folder is another one: each would take the other's fault for its own."""
        try:
            self._held = os.open(self.target.path, os.O_RDONLY | os.O_CLOEXEC)
            fcntl.flock(self._held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Rejected(409, "in use", f"another run is made by {self.target.path}: one at a time") from None
        except OSError:  # a file system without locks
            pass

    def _of_admin(self) -> dict[str, float]:
        found = self.sight.figures()
        if found:
            self._read_at = time.monotonic()
        if self._finishing:
            return found
        self.look_at_alerts()
        found[UNREAD] = self._unread
        if self.order.options.get("api"):
            found.update(self.sight.api())
        return found

    def _of_ready(self) -> dict[str, float]:
        return {"intake.ready_ratio": float(self.ready())}

    def _of_store(self) -> dict[str, float]:
        """Whether its database's port answers from here, and how soon: one letter, from a server that asks no name."""
        if self.target.store is None:
            return {}
        with suppress(OSError):
            took_s = talk.store(self.target.store, ASK_S)
            return {"store.ok_ratio": 1.0, "store.answer_ms": took_s * 1000}
        return {"store.ok_ratio": 0.0}
