"""The same file against a second installation that the lab didn't make: Seawall and its Redis on hosts of their own, in
namespaces, reached over the network alone; what breaks it and what undoes it are commands."""

from __future__ import annotations

import http.client
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from seawall.lab import history, record
from seawall.lab.arm import file
from seawall.lab.part.process import gone, send
from seawall.lab.part.redis import Redis
from seawall.lab.platform import Place, Platform
from seawall.lab.record import Record, Status
from seawall.lab.rig import own
from seawall.lab.zone import net as nets
from seawall.lab.zone.net import Made, Net

from .made_target import SECRET, write
from .test_armoury import REVERTED_S, until
from .tiny import document

pytestmark = pytest.mark.root

START_S = 120.0
RUN_S = 180.0
PLATFORM, CACHE = "p1", "r1"
PORT, ADMIN, REDIS = 8080, 8081, 6379
PING = "import socket,sys; s=socket.create_connection((sys.argv[1],6379),1); s.sendall(b'PING\\r\\n'); s.recv(1)"
APP = """
from seawall import App, Context, Event

app = App()


@app.workflow(on="lab.ask")
async def answer(event: Event, ctx: Context) -> None:
    ctx.respond({"key": event.headers["webhook-id"]})
"""
SETTINGS = """
[cache]
url = "redis://{redis}:6379"
[collector]
tenant_rate_per_s = 100000
"""


@dataclass(frozen=True)
class Second:
    """It, from outside."""

    folder: Path
    made: Made
    source: str  # URL
    held: str

    @property
    def link(self) -> str:
        """Of Redis' host: down, and nobody reaches it, and nobody is told."""
        return self.made.link(CACHE, "i")

    def cut(self) -> bool:
        return nets.cut(self.made, CACHE)

    def lab(self, *words: str) -> list[str]:
        return [
            sys.executable, "-m", "seawall", "lab", "run", str(self.folder / "redis-away.yaml"), "--target",
            str(self.folder / "staging.toml"), "--folder", str(self.folder / "lab"), *words,
        ]  # fmt: skip

    def records(self) -> list[Record]:
        return [each.record for each in history.read(self.folder / "lab")]


@pytest.fixture(scope="module")
def second(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Second]:
    if problems := nets.why_not():
        pytest.skip("; ".join(problems))
    folder = tmp_path_factory.mktemp("second")
    with ExitStack() as stack:
        net = Net(folder / "net")
        made = net.make([PLATFORM, CACHE])
        stack.callback(net.down)
        data = folder / "data"
        stack.callback(own._forget_store, data)
        engine = Redis(folder / "redis", wheel=True).engine
        redis = [engine.program, "--bind", made.inside(CACHE), "--port", str(REDIS), "--protected-mode", "no",
                 "--save", "", "--dir", str(folder)]  # fmt: skip
        _begin(stack, folder, net, CACHE, redis, dict(engine.environment))
        (folder / "seawall.toml").write_text(SETTINGS.format(redis=made.inside(CACHE)))
        (folder / "app.py").write_text(APP)
        front = made.front(PLATFORM)
        up = [sys.executable, "-m", "seawall", "up", "--data", str(data), "--app", str(folder / "app.py"), "--config",
              str(folder / "seawall.toml"), "--listen", f"{front}:{PORT}", "--admin", f"{front}:{ADMIN}"]  # fmt: skip
        child = _begin(stack, folder, net, PLATFORM, up, {})
        until(lambda: _ready(front) or child.poll() is not None, "it is ready", START_S)
        assert child.poll() is None, (folder / f"{PLATFORM}.log").read_text()
        token = str(json.loads((data / "run" / "admin.json").read_text())["token"])
        with Platform(lambda: Place(admin=f"http://{front}:{ADMIN}", token=token)) as platform:
            paths = [
                platform.add_source(name, kind="standard", secret=SECRET, settings=settings).path
                for name, settings in (("lab", {}), ("ask", {"wait_ms_max": 8000}))
            ]
        found = Second(folder, made, *(f"http://{front}:{PORT}{path}" for path in paths))
        _describe(found, net, token)
        yield found


def _begin(stack: ExitStack, folder: Path, net: Net, host: str, argv: list[str], more: dict[str, str]
) -> subprocess.Popen[bytes]:  # fmt: skip
    with (folder / f"{host}.log").open("ab") as log:
        child = subprocess.Popen(net.command(host, argv), stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                                 env={**os.environ, **more}, start_new_session=True)  # fmt: skip
    stack.callback(_end, child)
    return child


def _end(child: subprocess.Popen[bytes]) -> None:
    child.terminate()
    try:
        child.wait(60)
    except subprocess.TimeoutExpired:
        child.kill()
        child.wait()


def _ready(host: str) -> bool:
    with suppress(OSError, http.client.HTTPException), closing(
        http.client.HTTPConnection(host, ADMIN, timeout=2)
    ) as connection:  # fmt: skip
        connection.request("GET", "/readyz")
        return connection.getresponse().status == 200
    return False


def _describe(second: Second, net: Net, token: str) -> None:
    """Its file, and an experiment about its Redis."""
    link, made = second.link, second.made
    look = 'found=$(ip -o link show up dev "$0") || exit 2; test -z "$found"'
    hole = {
        "apply": ["ip", "link", "set", link, "down"], "revert": ["ip", "link", "set", link, "up"],
        "verify": ["sh", "-c", look, link], "cuts": ["redis"],
    }  # fmt: skip
    way = {"ask": net.command(PLATFORM, [sys.executable, "-c", PING, made.inside(CACHE)])}
    admin = f"http://{made.front(PLATFORM)}:{ADMIN}"
    write(second.folder, admin, {"redis.hole": hole}, path={"redis": way}, held={
        "name": "ask", "url": second.held, "secret_file": "lab.secret", "type": "lab.ask"})  # fmt: skip
    (second.folder / "token").write_text(token)
    (second.folder / "lab.url").write_text(second.source)
    (second.folder / "redis-away.yaml").write_text(yaml.safe_dump(experiment("6"), sort_keys=False))


def experiment(seconds: str) -> dict[str, Any]:
    def act(func: str, **arguments: Any) -> dict[str, Any]:
        provider = {"type": "python", "module": "seawall.lab.act", "func": func, "arguments": arguments}
        return {"type": "action", "name": f"{func} {arguments.get('target', '')}".strip(), "provider": provider}

    pause = {
        "type": "action",
        "name": "a while",
        "provider": {"type": "process", "path": "sleep", "arguments": seconds},
    }
    said = document(
        act("hole", target="redis"), pause, act("back", target="redis"),
        traffic=[{"kind": "events", "rate": 30}, {"kind": "held", "rate": 5, "wait_s": 4}],
        calls=["redis"], graph=["intake.p99_ms"],
        seconds={"max": 90, "min": 3, "recover": 60, "warm": 60, "before": 2, "drain": 60},
        expect={"on": [
            {"claim": "events are taken all the time", "func": "stays",
             "arguments": {"name": "intake.ok_ratio", "at_least": 0.99}},
            {"claim": "the breaker opens", "func": "reaches",
             "arguments": {"name": "breaker.redis_code", "at_least": 2}},
            {"claim": "the line falls silent", "func": "becomes",
             "arguments": {"name": "line.redis_bytes_s", "most": 0.5}},
            {"claim": "nothing is lost", "func": "verdict", "arguments": {"lost": 0, "invented": 0, "wrong": 0}},
        ]},
    )  # fmt: skip
    said["steady-state-hypothesis"]["probes"][0]["provider"] = {
        "type": "python", "module": "seawall.lab.probe", "func": "ok_share",
    }  # fmt: skip
    said["rollbacks"] = [act("all_back")]
    del said["extensions"][0]["rig"]
    return said


def test_an_experiment_breaks_judges_and_reverts_it_over_the_network(second: Second) -> None:
    done = subprocess.run(second.lab("--yes"), capture_output=True, text=True, timeout=RUN_S, check=False,
                          stdin=subprocess.DEVNULL)  # fmt: skip
    assert done.returncode == 2 and "--yes-really staging" in done.stderr and not second.cut()
    done = subprocess.run(second.lab("--yes-really", "staging"), capture_output=True, text=True, timeout=RUN_S,
                          check=False, stdin=subprocess.DEVNULL)  # fmt: skip
    assert done.returncode == 0, done
    made = second.records()[-1]
    whole = record.load(second.folder / "lab" / "run" / made.id)
    assert made.status is Status.AS_EXPECTED and made.target == "staging" and not second.cut()
    assert {"the path to redis is dead", "the path to redis.hole is dead", "the traffic calls redis"} <= {
        proof.claim for proof in whole.proofs if proof.held
    }
    assert made.unseen == ["the line falls silent: line.redis_bytes_s is measured on the lab's own rig only"]
    assert (
        made.verdict["own"] > 20
        and made.verdict["accepted"] > 100
        and made.verdict["lost"] == made.verdict["invented"] == 0
    )
    assert made.detect_s is not None and made.recover_s is not None
    assert "not seen, not judged: the line falls silent" in done.stdout


def test_kill_9_of_the_runner_in_mid_fault_reverts_it(second: Second) -> None:
    (second.folder / "redis-away.yaml").write_text(yaml.safe_dump(experiment("80"), sort_keys=False))
    with (second.folder / "out").open("wb") as out, subprocess.Popen(
        second.lab("--yes-really", "staging"), stdin=subprocess.DEVNULL, stdout=out, stderr=out
    ) as child:  # fmt: skip
        try:
            until(lambda: second.cut() or child.poll() is not None, "it is broken", RUN_S)
            assert child.poll() is None, (second.folder / "out").read_text()
            time.sleep(1.0)  # in the middle
            child.send_signal(signal.SIGKILL)
        finally:
            child.kill()
    assert until(lambda: not second.cut(), "it is reverted") < REVERTED_S
    until(lambda: second.records()[-1].status is Status.ABORTED, "its record is ended")
    holder = file.holder(second.folder / "lab" / "armed")
    assert holder is not None
    if (watchdog := holder.watchdog) is not None:
        # It would wait for what a dead runner's rig may have left; of a target there is none.
        send(watchdog, signal.SIGTERM)
        assert gone(watchdog, RUN_S)
