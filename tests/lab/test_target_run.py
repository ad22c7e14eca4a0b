"""Runs against an installation that the lab didn't make: a server that answers as Seawall does; faults are files."""

from __future__ import annotations

import fcntl
import io
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from collector.authority import Authority
from seawall.lab import experiment, record
from seawall.lab.arm import file
from seawall.lab.checker import ledger
from seawall.lab.part.process import gone, send
from seawall.lab.record import Record, Status
from seawall.lab.rig.sight import FIGURES
from seawall.lab.run.place import Folder
from seawall.lab.run.runner import run
from seawall.lab.run.session import Options
from seawall.lab.target import file as files
from seawall.lab.target import plan

from . import tiny
from .made_target import SECRET, fault, installed, write
from .platform_server import FakePlatform
from .test_armoury import REVERTED_S, until
from .test_target_plan import action, mine

SEAWALL = [sys.executable, "-m", "seawall", "lab"]
WHILE_S = 60.0
QUICK = {"max": 30, "recover": 15, "warm": 15, "before": 0, "drain": 10}


@pytest.fixture
def fake() -> Iterator[FakePlatform]:
    with FakePlatform() as made:
        yield installed(made)


def said(*method: Mapping[str, Any], **ours: Any) -> dict[str, Any]:
    steps = method or (action("hole", target="redis"), tiny.action("wait", seconds=0.5), action("back", target="redis"))
    steps = tuple({"type": "action", "name": "a while", "provider": {
        "type": "process", "path": "sleep", "arguments": "0.6"}} if each["name"].startswith("wait") else each
        for each in steps)  # fmt: skip
    return mine(*steps, **{"seconds": QUICK, **ours})


def ran(folder: Path, fake: FakePlatform, document: Mapping[str, Any], **more: Any) -> Record:
    """One run in this process; nothing is broken or armed after it."""
    faults = more.pop("faults", {"redis.hole": fault(folder / "flag")})
    target = files.load(write(folder, fake.url, faults, **more))
    found = plan.fit(experiment.load(tiny.write(folder, document)), target, file="staging.toml")
    options = Options(folder=Folder(folder / "lab"), seed=7, fetched=folder, command="x")
    made = run(found, options, screen_to=io.StringIO())
    assert file.read_all(folder / "lab" / "armed") == ([], []) and not (folder / "flag").exists()
    return made


def test_what_is_expected_of_a_target_is_green_and_its_record_tells_where(tmp_path: Path, fake: FakePlatform) -> None:
    fake.keep("somebody-elses", b"{}")
    made = ran(tmp_path, fake, said())
    assert made.status is Status.AS_EXPECTED, made.why
    assert made.target == "staging" and made.facts["admin"] == fake.url.removeprefix("http://")
    assert [(each.name, each.target, each.ended_by) for each in made.faults] == [("redis.hole", "redis", "method")]
    held = {proof.claim for proof in made.proofs if proof.held}
    assert held >= {"the path to redis.hole is alive", "the path to redis.hole is dead", "something was accepted"}
    assert made.verdict["accepted"] > 0 and made.verdict["invented"] == made.verdict["lost"] == 0
    named = {name for sample in record.samples(tmp_path / "lab" / "run" / made.id) for name in sample.values}
    assert {name for name in named if name not in FIGURES} <= {
        f"{room}.{name}" for room, names in plan.MEASURED.items() for name in names
    }
    assert "effects" not in made.verdict and not fake.removed, "it made no source, and removes none"
    book = ledger.read(tmp_path / "lab" / "run" / made.id / record.LEDGER)
    assert all(each.shared for each in book.runs)
    kept = b"".join(each.read_bytes() for each in (tmp_path / "lab").rglob("*") if each.is_file())
    assert made.id.encode() in kept and not any(each in kept for each in (SECRET.encode(), b"/in/t", b"Bearer"))


@pytest.mark.slow
def test_a_target_behind_tls_is_spoken_with_when_its_authority_is_named_and_else_not(tmp_path: Path) -> None:
    authority = Authority()
    authority.put_own(tmp_path)
    with FakePlatform(authority.put(tmp_path)) as fake:
        made = ran(tmp_path, installed(fake), said(), ca_file="authority.pem")
        assert made.status is Status.AS_EXPECTED, made.why
        assert made.verdict["accepted"] > 0 and fake.url.startswith("https:")
        made = ran(tmp_path, fake, said())
    assert made.status is Status.INVALID and "certificate" in made.why[0].lower(), made.why


@pytest.mark.slow
def test_a_fault_that_does_not_land_shows_nothing(
    tmp_path: Path, fake: FakePlatform, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("seawall.lab.run.faults.LAND_S", 0.5)
    made = ran(tmp_path, fake, said(), faults={"redis.hole": fault(tmp_path / "flag", apply=["true"])})
    assert made.status is Status.INVALID and "the path to redis.hole is dead: it is alive" in made.why[1], made.why
    blind = fault(tmp_path / "flag", verify=["sh", "-c", "exit 255"])
    made = ran(tmp_path, fake, said(), faults={"redis.hole": blind})
    assert made.status is Status.INVALID and "nobody can say" in made.why[0], made.why
    assert not made.faults, "it wasn't even begun"


@pytest.mark.slow
def test_paths_of_the_target_are_proven_dead_and_alive(
    tmp_path: Path, fake: FakePlatform, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("seawall.lab.run.faults.LAND_S", 0.5)
    path = {name: {"ask": ["sh", "-c", '! test -e "$0"', str(tmp_path / flag)]}
            for name, flag in (("to-redis", "flag"), ("to-store", "other"))}  # fmt: skip
    faults = {"redis.hole": fault(tmp_path / "flag", cuts=["to-redis"])}
    made = ran(tmp_path, fake, said(), faults=faults, path=path)
    assert made.status is Status.AS_EXPECTED, made.why
    assert "the path to to-redis is dead" in {proof.claim for proof in made.proofs if proof.held}
    same = {"redis": path["to-redis"]}
    made = ran(tmp_path, fake, said(), faults={"redis.hole": fault(tmp_path / "flag")}, path=same)
    assert made.status is Status.INVALID and "the path to redis is alive: it is dead" in made.why[1], (
        "its cuts don't name it, and that it has the target's name means nothing"
    )
    more = ["sh", "-c", 'touch "$0" "$1"', str(tmp_path / "flag"), str(tmp_path / "other")]
    made = ran(tmp_path, fake, said(), faults={"redis.hole": {**faults["redis.hole"], "apply": more}}, path=path)
    assert made.status is Status.INVALID and "the path to to-store is alive: it is dead" in made.why[1], made.why


@pytest.mark.slow
@pytest.mark.parametrize("case", ["an open alert", "no source", "no token", "away"])
def test_nothing_is_broken_on_a_target_that_is_not_well(case: str, tmp_path: Path, fake: FakePlatform) -> None:
    if case == "an open alert":
        fake.alerts = [{"name": "store-away", "labels": {}, "summary": "nobody answers"}]
    elif case == "no source":
        fake.sources.clear()
    document = said(seconds={**QUICK, "warm": 0.5})
    if case in ("no token", "away"):
        target = files.load(write(tmp_path, fake.url, {"redis.hole": fault(tmp_path / "flag")},
                                  **({"admin": "http://127.0.0.1:9"} if case == "away" else {})))  # fmt: skip
        (tmp_path / "token").write_text("another")
        target = target if case == "away" else files.load(tmp_path / "staging.toml")
        found = plan.fit(experiment.load(tiny.write(tmp_path, document)), target, file="staging.toml")
        options = Options(folder=Folder(tmp_path / "lab"), seed=7, fetched=tmp_path, command="x")
        made = run(found, options, screen_to=io.StringIO())
    else:
        made = ran(tmp_path, fake, document)
    wanted = {"an open alert": "store-away", "no source": "has none with the name lab",
              "no token": "refuses that of token",
              "away": "refused"}[case]  # fmt: skip
    assert made.status is Status.INVALID and wanted in made.why[0], made.why
    assert not made.faults and not (tmp_path / "flag").exists()


@pytest.mark.slow
def test_an_abort_condition_of_the_target_reverts(tmp_path: Path, fake: FakePlatform) -> None:
    flag = tmp_path / "flag"
    fake.answer = lambda key: 503 if flag.exists() else 202
    wait = tiny.action("wait", seconds=60)
    made = ran(
        tmp_path, fake, said(action("hole", target="redis"), {**wait, "provider": {
            "type": "process", "path": "sleep", "arguments": "60"}, "name": "for long"}),
        abort=[{"claim": "senders are refused", "name": "intake.failed_rate", "above": 1}],
    )  # fmt: skip
    assert made.status is Status.ABORTED and "senders are refused" in made.why[0], made.why
    assert made.faults[0].ended_by == "abort"
    assert made.recover_s is not None and len(made.why) == 1, "it was seen well again"


@pytest.mark.slow
def test_what_is_not_well_after_an_abort_is_said(tmp_path: Path, fake: FakePlatform) -> None:
    flag, seen = tmp_path / "flag", threading.Event()

    def answer(key: str) -> int:
        if flag.exists():
            seen.set()
        return 503 if seen.is_set() else 202

    fake.answer = answer
    made = ran(
        tmp_path, fake, said(action("hole", target="redis"), {**tiny.action("wait", seconds=60), "provider": {
            "type": "process", "path": "sleep", "arguments": "60"}, "name": "for long"},
            seconds={**QUICK, "recover": 1}),
        abort=[{"claim": "senders are refused", "name": "intake.failed_rate", "above": 1}],
    )  # fmt: skip
    assert made.status is Status.ABORTED and made.recover_s is None
    assert made.why[-1].startswith("reverted, and not seen steady again: "), made.why


@pytest.mark.slow
def test_an_abort_condition_is_met_though_the_targets_admin_address_answers_nobody(
    tmp_path: Path, fake: FakePlatform, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("seawall.lab.target.rig.ASK_S", 40.0)  # so long one look may hang
    flag = tmp_path / "flag"
    fake.answer = lambda key: 503 if flag.exists() else 202

    def hang(path: str) -> None:
        while flag.exists() and path == "/metrics":
            time.sleep(0.02)

    fake.pause = hang
    wait = tiny.action("wait", seconds=60)
    made = ran(
        tmp_path, fake, said(action("hole", target="redis"), {**wait, "provider": {
            "type": "process", "path": "sleep", "arguments": "60"}, "name": "for long"}),
        abort=[{"claim": "senders are refused", "name": "intake.failed_rate", "above": 1, "for_s": 1}],
    )  # fmt: skip
    assert made.status is Status.ABORTED and "senders are refused" in made.why[0], made.why


@pytest.mark.slow
def test_what_ends_by_itself_needs_no_revert(tmp_path: Path, fake: FakePlatform) -> None:
    done = tmp_path / "done"
    faults = {"collector.end": {"apply": ["touch", str(done)], "verify": ["test", "-e", str(done)], "passing": True}}
    half = {"apply": ["sh", "-c", 'cat lab/run/*/run.json > before; touch "$0"; exit 3', str(done)], "passing": True}
    made = ran(tmp_path, fake, said(action("end", role="collector")), faults={"collector.end": half})
    assert made.status is Status.INVALID and made.faults, "it may have been done, and the record says when it began"
    assert '"began_s"' in (tmp_path / "before").read_text(), "the run knows of it before it is done"
    assert made.unseen == ["collector.end: whether it was done: it has no verify, and its apply is believed"]
    made = ran(tmp_path, fake, said(action("end", role="collector")), faults=faults)
    assert made.status is Status.AS_EXPECTED, made.why
    assert [(each.target, each.ended_by) for each in made.faults] == [("collector.end", "itself")] and not made.unseen


@pytest.mark.slow
def test_an_alert_that_opens_shortly_before_the_fault_is_no_moment_to_break_anything(
    tmp_path: Path, fake: FakePlatform
) -> None:
    def begins() -> None:
        runs = tmp_path / "lab" / "run"
        until(lambda: any("is alive" in each.read_text() for each in runs.glob("*/run.json")), "it was proven", WHILE_S)
        fake.alerts = [{"name": "store-away", "labels": {}, "summary": "nobody answers"}]

    thread = threading.Thread(target=begins)
    thread.start()
    made = ran(tmp_path, fake, said(seconds={**QUICK, "before": 5, "warm": 5}))
    thread.join()
    assert made.status is Status.INVALID and not made.faults
    assert made.why[0] == "an alert is open: store-away: nobody answers"


@pytest.mark.slow
def test_a_sample_that_is_never_measured_is_said_and_not_judged(tmp_path: Path, fake: FakePlatform) -> None:
    claims = [
        {"claim": "nothing is lost", "func": "verdict", "arguments": {"lost": 0}},
        {"claim": "the breaker opens", "func": "reaches", "arguments": {"name": "breaker.redis_code", "at_least": 2}},
    ]
    made = ran(tmp_path, fake, said(expect={"on": claims}))
    assert made.status is Status.AS_EXPECTED, made.why
    assert made.unseen == ["the breaker opens: breaker.redis_code was never measured"]
    made = ran(tmp_path, fake, said(expect={"on": claims[1:]}))
    assert made.status is Status.INVALID and made.why == ["nothing of what is expected could be seen"]


def command(folder: Path, *words: str) -> list[str]:
    return [*SEAWALL, "run", str(folder / "silent-echo.yaml"), "--target", str(folder / "staging.toml"),
            "--folder", str(folder / "lab"), *words]  # fmt: skip


def lab(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command(folder, *words), capture_output=True, text=True, timeout=WHILE_S, check=False,
                          stdin=subprocess.DEVNULL)  # fmt: skip


def test_one_run_at_a_time_is_made_by_a_targets_file(tmp_path: Path, fake: FakePlatform) -> None:
    other = os.open(write(tmp_path, fake.url, {"redis.hole": fault(tmp_path / "flag")}), os.O_RDONLY)
    try:
        fcntl.flock(other, fcntl.LOCK_EX)
        target = files.load(tmp_path / "staging.toml")
        found = plan.fit(experiment.load(tiny.write(tmp_path, said())), target, file="staging.toml")
        options = Options(folder=Folder(tmp_path / "lab"), seed=7, fetched=tmp_path, command="x")
        made = run(found, options, screen_to=io.StringIO())
    finally:
        os.close(other)
    assert made.status is Status.INVALID and "another run is made by" in made.why[0] and not made.faults


@pytest.mark.slow
def test_what_is_not_on_this_machine_must_be_named_to_be_broken(tmp_path: Path) -> None:
    tiny.write(tmp_path, said())
    write(tmp_path, "http://192.0.2.7:8081", {"redis.hole": fault(tmp_path / "flag")})
    for words, why in (
        (["--yes"], "--yes isn't enough: --yes-really staging"),
        (["--yes-really", "production"], "names staging"),
        ([], "nobody is there to confirm it; --yes-really staging says"),
        (["--yes", "--twice"], "--target has none"),
    ):
        done = lab(tmp_path, *words)
        assert done.returncode == 2 and why in done.stderr, done
    write(tmp_path, "http://127.0.0.1:9", {"redis.slow": fault(tmp_path / "flag")})
    done = lab(tmp_path, "--yes")
    assert done.returncode == 2 and 'add [fault."redis.hole"]' in done.stderr
    assert not (tmp_path / "lab" / "run").exists(), "nothing was begun"


@pytest.mark.slow
def test_kill_9_of_the_runner_in_mid_fault_reverts_on_the_target(tmp_path: Path, fake: FakePlatform) -> None:
    flag, out = tmp_path / "flag", tmp_path / "out"
    long = {"type": "action", "name": "long", "provider": {"type": "process", "path": "sleep", "arguments": "60"}}
    tiny.write(tmp_path, said(action("hole", target="redis"), long))
    write(tmp_path, fake.url, {"redis.hole": fault(flag)})
    with out.open("wb") as told, subprocess.Popen(
        command(tmp_path, "--yes"), stdin=subprocess.DEVNULL, stdout=told, stderr=told, env=dict(os.environ)
    ) as child:  # fmt: skip
        try:
            until(lambda: flag.exists() or child.poll() is not None, "it is broken", WHILE_S)
            assert child.poll() is None, out.read_text()
        finally:
            child.kill()
    assert until(lambda: not flag.exists(), "it is reverted") < REVERTED_S
    (folder,) = (tmp_path / "lab" / "run").iterdir()
    until(lambda: record.load(folder).status is not Status.RUNNING, "its record is ended")
    assert record.load(folder).status is Status.ABORTED
    holder = file.holder(tmp_path / "lab" / "armed")
    assert holder is not None
    if (watchdog := holder.watchdog) is not None:
        send(watchdog, signal.SIGTERM)  # its rig has nothing that it would wait for
        assert gone(watchdog, WHILE_S)
