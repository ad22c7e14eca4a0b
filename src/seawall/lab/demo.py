"""The demonstration: a platform from nothing, webhooks as providers send them, a held request, and then every process
killed while traffic runs. It ends with the verdict of the lab's own ledger.

A script in order of time; what it says goes through ``say``, so that a test can read it.
"""

from __future__ import annotations

import http.client
import json
import secrets
import subprocess
import sys
import time
from base64 import b64encode
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from seawall.kernel.error import Unavailable
from seawall.kernel.signature import sign
from seawall.lab.checker import ledger
from seawall.lab.checker.verdict import END_STATES, Verdict
from seawall.lab.checker.verify import verify
from seawall.lab.platform import Platform, Source
from seawall.lab.tree import Tree

START_S = 90.0
"""A first start makes a database; a loaded machine takes its time."""

BACK_S = 45.0
RUN_S = 30.0
WAIT_S = 10
REST_S = 3.0
"""Between two kills, so that traffic is seen to flow again."""

KILLS = ("collector", "router", "worker", "postgres", "up")

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """How much of it."""

    rate: float = 200.0  # events a second while processes are killed
    verify_s: float = 60.0


@dataclass(frozen=True, slots=True)
class _Request:
    """A provider's request: the file in examples/request, and the source it goes to."""

    title: str
    kind: str
    file: str
    workflow: str


REQUESTS = (
    _Request("GitHub push", "github", "github-push.http", "announce_push"),
    _Request("Stripe invoice.paid", "stripe", "stripe-invoice-paid.http", "book_invoice"),
    _Request("Standard contact.created", "standard", "standard-contact-created.http", "greet"),
)
HELD = _Request("Standard quote.requested", "standard", "standard-quote-requested.http", "quote")


class Demo:
    """One demonstration on one platform that the lab started.

    Args:
        examples: The folder with demo.py and request/.
        work: A folder for the ledger.
    """

    def __init__(self, tree: Tree, *, examples: Path, work: Path, settings: Settings, say: Say) -> None:
        self._tree = tree
        self._examples = examples
        self._ledger = work / f"ledger-{secrets.token_hex(4)}"
        self._settings = settings
        self._say = say
        self._began = time.monotonic()
        self._platform = Platform(tree.place)
        self._sources: dict[str, tuple[Source, str]] = {}
        self._traffic: subprocess.Popen[bytes] | None = None

    def run(self) -> Verdict:
        """All of it, in order.

        Raises:
            Unavailable: The platform, or a part that was killed, didn't come (back) in time.
        """
        try:
            self._start()
            self._add_sources()
            self._send_requests()
            self._hold()
            self._kill_everything()
            return self._verify()
        finally:
            self._platform.close()
            if self._traffic is not None and self._traffic.poll() is None:
                self._traffic.terminate()
                self._traffic.wait(30)

    def urls(self) -> Mapping[str, tuple[Source, str]]:
        """Sources by kind, with their secrets."""
        return self._sources

    def _title(self, text: str) -> None:
        self._say(f"\n{time.monotonic() - self._began:6.1f} s  {text}")

    def _line(self, text: str) -> None:
        self._say(f"          {text}")

    def _start(self) -> None:
        self._title("starting collector, router, worker, console and a PostgreSQL of its own")
        self._tree.start()
        took_s = self._tree.wait_ready(START_S)
        place = self._tree.place()
        self._line(f"ready after {took_s:.1f} s: events at {place.listen}, admin API at {place.admin}")

    def _add_sources(self) -> None:
        self._title("adding sources, each with a secret of its own")
        for kind in ("github", "stripe", "standard"):
            secret = "whsec_" + b64encode(secrets.token_bytes(24)).decode()
            name = f"demo-{kind}-{secrets.token_hex(3)}"
            settings = {"wait_ms_max": WAIT_S * 1000} if kind == "standard" else {}
            source = self._platform.add_source(name, kind=kind, secret=secret, settings=settings)
            self._sources[kind] = (source, secret)
            self._line(f"{name:24} {source.url[: source.url.rfind('/') + 5]}…")

    def _send_requests(self) -> None:
        self._title("signed requests, shaped as the providers send them")
        for request in REQUESTS:
            status, body, took_ms = self._send(request)
            if status != 202:
                raise Unavailable(request.title, f"was answered {status}: {body[:300]!r}")
            self._line(f"{request.title:26} {status} in {took_ms:.1f} ms: on disk, with id {json.loads(body)['id']}")
            self._line(f"{'':26} {self._finished(json.loads(body)['id'], request.workflow)}")

    def _hold(self) -> None:
        self._title(f"a request that waits for its answer (Prefer: wait={WAIT_S})")
        status, body, took_ms = self._send(HELD, wait_s=WAIT_S)
        if status != 200:
            raise Unavailable("the held request", f"was answered {status}: {body[:300]!r}")
        self._line(f"{HELD.title:26} {status} in {took_ms:.1f} ms: {body.decode()}")

    def _send(self, request: _Request, *, wait_s: int = 0) -> tuple[int, bytes, float]:
        """(status, body, milliseconds) of one signed request."""
        source, secret = self._sources[request.kind]
        head, _, body = (self._examples / "request" / request.file).read_bytes().partition(b"\n\n")
        headers = dict(line.split(": ", 1) for line in head.decode().splitlines())
        headers |= sign(request.kind, secret.encode(), body, time.time(), id=f"demo-{secrets.token_hex(8)}")
        if wait_s:
            headers["Prefer"] = f"wait={wait_s}"
        host, port = self._platform.listen(source)
        began = time.monotonic()
        with closing(http.client.HTTPConnection(host, port, timeout=wait_s + 10)) as connection:
            connection.request("POST", source.path, body, headers)
            answer = connection.getresponse()
            said = answer.read()
        return answer.status, said, (time.monotonic() - began) * 1000

    def _finished(self, event_id: str, workflow: str) -> str:
        """Wait for the event's run to end; a line about it."""
        latest = time.monotonic() + RUN_S
        while time.monotonic() < latest:
            runs = list(self._platform.items("/v1/runs", event=event_id))
            if runs and all(r["status"] in END_STATES for r in runs):
                if [(r["workflow"], r["status"]) for r in runs] != [(workflow, "succeeded")]:
                    raise Unavailable(workflow, f"its run ended otherwise than it should: {runs}")
                return f"run {runs[0]['id']} of {workflow}: succeeded"
            time.sleep(0.05)
        raise Unavailable(workflow, f"event {event_id} didn't finish within {RUN_S:g} s")

    def _kill_everything(self) -> None:
        rate = self._settings.rate
        self._title(f"{rate:g} events/s, in an open loop; meanwhile kill -9 of every process, one after the other")
        self._traffic = subprocess.Popen(
            [
                sys.executable, "-m", "seawall", "lab", "traffic", "--rate", str(rate), "--seconds", "600",
                "--ledger", str(self._ledger), "--data", str(self._tree.data), "--json",
            ],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, start_new_session=True,
        )  # fmt: skip
        self._rest()
        for part in KILLS:
            pid = self._tree.kill(part)
            self._say(f"{time.monotonic() - self._began:6.1f} s  kill -9 {part} (pid {pid})")
            if part == "up":
                self._tree.start()
            took_s = self._tree.wait_replaced(part, pid, BACK_S)
            self._line(f"back after {took_s:.1f} s")
            self._rest()
        self._traffic.terminate()  # ends it in order: what is under way gets its answer
        said, _ = self._traffic.communicate(timeout=60)
        if self._traffic.returncode != 0:
            raise Unavailable("the traffic generator", f"ended with {self._traffic.returncode}: {said[-500:]!r}")
        told = json.loads(said)
        answers = ", ".join(f"{word}: {count}" for word, count in told["answers"].items())
        self._line(f"sent {told['sent']} ({answers}); median answer {told['p50_ms']} ms, slowest {told['max_ms']} ms")

    def _rest(self) -> None:
        """Let traffic flow, and see that it does."""
        before = self._acked()
        latest = time.monotonic() + BACK_S
        time.sleep(REST_S)
        while self._acked() == before:
            if time.monotonic() > latest:
                raise Unavailable("intake", f"no event was accepted for {BACK_S:g} s:\n{self._tree.log_tail()}")
            time.sleep(0.1)
        self._line(f"{self._acked()} events accepted so far")

    def _acked(self) -> int:
        try:
            return sum(a.acked for run in ledger.read(self._ledger).runs for a in run.attempts)
        except (OSError, ValueError):
            return 0

    def _verify(self) -> Verdict:
        self._title("what became of them, by the ledger of the sender")

        def progress(verdict: Verdict) -> None:
            left = verdict.lost + verdict.unknown
            self._line(
                f"{verdict.finished} of {verdict.accepted} finished" + (f", {left} on their way" if left else "")
            )

        return verify(
            self._platform,
            ledger.read(self._ledger),
            timeout_s=self._settings.verify_s,
            workflows=("weigh",),
            must_succeed=True,
            progress=progress,
        )
