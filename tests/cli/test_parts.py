"""``seawall lab parts`` from a shell: each command is a process of its own, and the part lives on between them."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

from seawall.lab.part.port import LOOPBACK


def parts(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "seawall", "lab", "parts", *arguments, "--folder", str(folder)],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip


def answered(server: socket.socket) -> None:
    line, _ = server.accept()
    with line:
        line.sendall(line.recv(16))


def test_a_part_is_started_used_broken_mended_and_stopped(tmp_path: Path) -> None:
    assert parts(tmp_path, "status").stdout == "no part was ever started there\n"
    up = parts(tmp_path, "up", "proxy", "--json")
    try:
        (node,) = json.loads(up.stdout)["parts"]
        assert up.returncode == 0 and (node["part"], node["node"], node["state"]) == ("proxy", "proxy", "up")
        with socket.create_server((LOOPBACK, 0)) as server:
            threading.Thread(target=answered, args=(server,), daemon=True).start()
            made = parts(tmp_path, "link", "echo", f"{LOOPBACK}:{server.getsockname()[1]}")
            assert parts(tmp_path, "fault", "echo", "latency", "ms=100").returncode == 0
            late = parts(tmp_path, "settle", "proxy", "--timeout", "0")
            assert late.returncode == 1 and "faults on echo" in late.stderr
            host, port = made.stdout.strip().split(":")
            with socket.create_connection((host, int(port)), 10) as line:
                began = time.monotonic()
                line.sendall(b"hello")
                assert line.recv(16) == b"hello" and time.monotonic() - began >= 0.2
        assert parts(tmp_path, "fault", "echo").returncode == 0
        assert parts(tmp_path, "settle", "proxy").returncode == 0
        assert parts(tmp_path, "kill", "proxy", "proxy").returncode == 0
        assert parts(tmp_path, "status").returncode == 1
    finally:
        assert parts(tmp_path, "down", "--wipe").returncode == 0
    assert list(tmp_path.iterdir()) == []


def test_what_is_misused_is_said_with_what_there_is(tmp_path: Path) -> None:
    for code, words, said in (
        (3, ("up", "rabbit"), "there are kafka"),
        (3, ("kill", "proxy", "nobody"), "proxy has proxy"),
        (2, ("link", "far", "192.0.2.1:80"), "isn't an address of loopback"),
        (2, ("topic", "proxy", "seawall"), "isn't a Kafka"),
        (2, ("fault", "echo", "latency", "300"), "isn't FIELD=VALUE"),
        (1, ("fault", "echo", "fog"), "one of latency"),
    ):
        done = parts(tmp_path, *words)
        assert (done.returncode, said in done.stderr) == (code, True), done.stderr
