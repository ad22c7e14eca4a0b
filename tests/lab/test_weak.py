"""Platforms with weak parts: how they are made, where they may not be, and that they say what they are."""

from __future__ import annotations

import contextlib
import json
import logging
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from seawall.app import Making
from seawall.journal.filesystem import LocalFilesystem
from seawall.kernel.error import Misconfigured
from seawall.kernel.log import JsonFormatter, TextFormatter
from seawall.lab.checker import ledger
from seawall.lab.checker.verify import verify
from seawall.lab.platform import Platform
from seawall.lab.tree import Tree
from seawall.lab.weak import PARTS, mark, program
from seawall.lab.weak.making import making_of
from seawall.lab.weak.marker import MARKER, marked
from seawall.machine.folder import Folder
from seawall.settings import read
from seawall.store import place

APP = Path(__file__).resolve().parents[2] / "examples" / "demo.py"
READY_S = 90.0


@pytest.mark.parametrize("name", PARTS)
def test_each_part_stands_where_a_real_one_does(name: str) -> None:
    making, real = making_of([name]), Making()
    replaced = {each for kind in type(making).__mro__[1:-3] for each in vars(kind) if each in vars(Making)}
    assert any(not each.startswith("_") for each in replaced), f"{name} replaces nothing"
    assert making.mark == f"WEAK {name}" and real.mark == ""
    assert list(making.program) == list(program([name])) and list(program([])) == list(real.program)


def test_several_parts_make_one_platform_unless_they_replace_the_same() -> None:
    making = making_of(["deaf-listener", "free-drain", "deaf-listener"])
    assert making.responder() is not Making().responder() and making.governor() is not Making().governor()
    assert making.placement() is Making().placement()
    assert making.mark == "WEAK deaf-listener,free-drain"
    with pytest.raises(Misconfigured, match="shared-queue and unfair-queue replace the same part, placement"):
        making_of(["shared-queue", "unfair-queue"])
    with pytest.raises(Misconfigured, match="no such weak part; there are deaf-listener"):
        making_of(["deaf-listner"])
    with pytest.raises(Misconfigured, match="names none"):
        making_of([])


def test_a_folder_of_somebody_elses_is_refused_and_never_marked(tmp_path: Path) -> None:
    folder, making = Folder(tmp_path / "data", LocalFilesystem()), making_of(["memory-ack"])
    with pytest.raises(Misconfigured, match="the lab didn't make this data folder"):
        making.admit(folder, None)
    folder.prepare()
    with pytest.raises(Misconfigured, match="isn't empty, and the lab didn't make it"):
        mark(folder.path)
    with pytest.raises(Misconfigured):
        making.admit(folder, None)
    own = Folder(tmp_path / "own", LocalFilesystem())
    mark(own.path)
    own.prepare()
    mark(own.path)
    making.admit(own, None)
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / MARKER).symlink_to(own.path / MARKER)
    assert not marked(tmp_path / "elsewhere")
    Making().admit(folder, None)


def admitted(data: Path, said: str, **flags: str) -> None:
    config = data.parent / "given.toml"
    config.write_text(said)
    making_of(["memory-ack"]).admit(Folder(data, LocalFilesystem()), read(flags, config=config, environment={}))


DSN, URL, BROKERS = "postgresql://postgres@127.0.0.1:40001/postgres", "redis://127.0.0.1:40002", "127.0.0.1:40003"
FOREIGN = {
    "dsn": 'dsn = "postgresql://shop@db.example/shop"',
    "dsn of this machine": 'dsn = "postgresql://postgres@127.0.0.1:5432/postgres"',
    "worker_dsn": 'worker_dsn = "postgresql://shop@127.0.0.1/shop"',
    "dsn in a file": 'dsn_file = "{dsn}"',
    "cache.url": '[cache]\nurl = "redis://127.0.0.1:6379"',
    "cache.url in a file": '[cache]\nurl_file = "{url}"',
    "kafka.bootstrap": 'profile = "cluster"\n[kafka]\nbootstrap = "127.0.0.1:40003,kafka.example:9092"',
    "listen": 'listen = "0.0.0.0:8080"',
    "admin": 'admin = "192.0.2.7:8081"',
}


@pytest.mark.parametrize("name", FOREIGN)
def test_weak_parts_are_never_led_to_what_the_lab_did_not_make(name: str, tmp_path: Path) -> None:
    data = tmp_path / "data"
    mark(data, [DSN, URL, BROKERS])
    for file, text in (("dsn", "postgresql://shop@127.0.0.1/shop"), ("url", "redis://127.0.0.1:6379")):
        (tmp_path / file).touch(0o600)
        (tmp_path / file).write_text(text)
    said = FOREIGN[name].replace("{dsn}", str(tmp_path / "dsn")).replace("{url}", str(tmp_path / "url"))
    with pytest.raises(Misconfigured, match="^" + name.partition(" ")[0].replace(".", r"\.")) as raised:
        admitted(data, said)
    assert "weak parts lose what they are given" in str(raised.value) and len(raised.value.problems) == 1


def test_weak_parts_are_led_to_the_labs_own(tmp_path: Path) -> None:
    data = tmp_path / "data"
    mark(data, [DSN, URL])
    mark(data, [BROKERS, DSN])
    (tmp_path / "dsn").touch(0o600)
    (tmp_path / "dsn").write_text(f"{DSN}\n")
    admitted(
        data,
        f'profile = "cluster"\n[cache]\nurl = "{URL}"\n[kafka]\nbootstrap = "{BROKERS}"\n',
        dsn_file=str(tmp_path / "dsn"),
    )
    admitted(data, "")
    other = tmp_path / "other"
    mark(other)
    with pytest.raises(Misconfigured, match="leads to what the lab didn't make for"):
        admitted(other, f'dsn = "{DSN}"')


def test_a_mark_stands_first_in_each_line() -> None:
    line = logging.LogRecord("seawall.up", logging.INFO, __file__, 1, "it starts", (), None)
    assert JsonFormatter("up", mark="WEAK x").format(line).startswith('{"mark": "WEAK x", "at": ')
    assert TextFormatter("up", mark="WEAK x").format(line).startswith("WEAK x ")
    assert JsonFormatter("up").format(line).startswith('{"at": ')


@pytest.mark.parametrize("command", ["up", "run"])
def test_the_program_refuses_before_it_touches_anything(command: str, tmp_path: Path) -> None:
    words = [
        *program(["memory-ack"]),
        command,
        *(["router"] if command == "run" else []),
        "--data",
        str(tmp_path / "d"),
    ]
    if command == "run":
        (tmp_path / "dsn").touch(0o600)
        (tmp_path / "dsn").write_text("postgresql://nobody@127.0.0.1:1/nowhere")
        words += ["--config", str(tmp_path / "toml")]
        (tmp_path / "toml").write_text(f'dsn_file = "{tmp_path / "dsn"}"\n')
    done = subprocess.run(words, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2 and "the lab didn't make this data folder" in done.stderr, done.stderr
    assert not (tmp_path / "d").exists()


def test_the_program_refuses_a_store_of_somebody_elses(tmp_path: Path) -> None:
    mark(tmp_path / "d")
    (tmp_path / "dsn").touch(0o600)
    (tmp_path / "dsn").write_text("postgresql://nobody@127.0.0.1:1/nowhere")
    words = [*program(["memory-ack"]), "up", "--data", str(tmp_path / "d"), "--dsn-file", str(tmp_path / "dsn")]
    done = subprocess.run(words, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2 and "dsn: leads to what the lab didn't make" in done.stderr, done.stderr
    assert [path.name for path in (tmp_path / "d").iterdir()] == [MARKER]


@pytest.mark.parametrize(
    "words", [["--parts", "memory-ack", "--", "backup"], ["--parts", "nothing", "--", "up"], ["up"], []]
)
def test_the_program_does_nothing_else(words: list[str]) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "seawall.lab.weak", *words], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 2 and done.stderr


@contextlib.contextmanager
def running(folder: Path, *weak: str) -> Iterator[Tree]:
    with Tree(folder / "data", app=APP, log=folder / "up.log", weak=weak) as tree:
        tree.start()
        tree.wait_ready(READY_S)
        yield tree
    place.forget(folder / "data")


@pytest.mark.slow
@pytest.mark.parametrize("weak", [(), ("memory-ack",)])
def test_a_whole_platform_that_acks_from_memory_loses_events_and_the_product_none(
    weak: tuple[str, ...], tmp_path: Path
) -> None:
    sent = tmp_path / "ledger"
    with running(tmp_path, *weak) as tree:
        traffic = subprocess.Popen(
            [
                *program([]), "lab", "traffic", "--rate", "100", "--seconds", "60", "--ledger", str(sent),
                "--data", str(tree.data),
            ],
            stdout=subprocess.DEVNULL,
        )  # fmt: skip
        try:
            until_acked(sent, 300)
            old = tree.kill("collector")
            tree.wait_replaced("collector", old, READY_S)
            until_acked(sent, 100 + acked(sent))
        finally:
            traffic.terminate()
            traffic.wait(60)
        with contextlib.closing(Platform(tree.place)) as platform:
            verdict = verify(platform, ledger.read(sent), timeout_s=8.0 if weak else READY_S, workflows=("weigh",))
        lines = [line for line in tree.log.read_text().splitlines() if line.startswith("{")]
    assert lines and all(
        json.loads(line).get("mark", "") == " ".join(["WEAK", *weak] if weak else []) for line in lines
    )
    assert (verdict.lost > 0) == bool(weak), verdict.counts()
    assert verdict.unknown == verdict.invented == verdict.corrupted == 0


def acked(path: Path) -> int:
    try:
        return sum(attempt.acked for run in ledger.read(path).runs for attempt in run.attempts)
    except (OSError, ValueError):
        return 0


def until_acked(path: Path, count: int) -> None:
    latest = time.monotonic() + READY_S
    while acked(path) < count:
        assert time.monotonic() < latest, f"{acked(path)} of {count} events accepted"
        time.sleep(0.1)
