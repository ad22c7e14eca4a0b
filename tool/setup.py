"""Makes ``.venv`` from the hashed lock files, with nothing but the standard library. Run by ``tool/setup.sh``.

The stamp in ``.venv`` holds the hash of everything that decides its contents, so a second run costs one Python start.
Two runs side by side (two demos from one clone) wait for each other on a lock file. An existing ``.venv`` is brought up
to date in place, never wiped: somebody may be running from it.
"""

from __future__ import annotations

import fcntl
import hashlib
import importlib.util
import os
import platform
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
STAMP = VENV / "seawall.stamp"
INPUTS = ("requirements/dev.lock", "requirements/build.lock", "pyproject.toml", "tool/setup.py")


def main() -> int:
    if platform.system() not in ("Linux", "Darwin"):
        print(f"setup: Seawall runs on Linux (and macOS for development), not on {platform.system()}", file=sys.stderr)
        return 2
    wanted = _wanted()
    if _is_made(wanted):
        return 0
    (ROOT / "build").mkdir(exist_ok=True)
    with (ROOT / "build" / "setup.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        return 0 if _is_made(wanted) else _make(wanted)


def _wanted() -> str:
    """What the stamp must say. The folder is part of it: a moved .venv has the old path in its scripts."""
    digest = hashlib.sha256(str(ROOT).encode())
    for name in INPUTS:
        digest.update((ROOT / name).read_bytes())
    return digest.hexdigest()


def _is_made(wanted: str) -> bool:
    try:
        return STAMP.read_text().strip() == wanted and (VENV / "bin" / "seawall").exists()
    except OSError:
        return False


def _make(wanted: str) -> int:
    if importlib.util.find_spec("ensurepip") is None or importlib.util.find_spec("venv") is None:
        version = f"{sys.version_info.major}.{sys.version_info.minor}"
        print(f"setup: this Python ({sys.executable}) comes without venv. The cure:", file=sys.stderr)
        print(f"    apt-get install -y python{version}-venv", file=sys.stderr)
        return 2
    began = time.monotonic()
    print(f"setup: making .venv with Python {platform.python_version()} (once; about a minute)", flush=True)
    python = VENV / "bin" / "python"
    pip = [str(python), "-m", "pip", "--disable-pip-version-check", "--quiet", "install", "--no-warn-script-location"]
    if os.geteuid() == 0:
        pip.append("--root-user-action=ignore")
    commands = [
        [sys.executable, "-m", "venv", str(VENV)],
        [*pip, "--require-hashes", "-r", "requirements/dev.lock", "-r", "requirements/build.lock"],
        [*pip, "--no-deps", "--no-build-isolation", "-e", "."],
    ]
    for command in commands:
        if subprocess.run(command, cwd=ROOT, check=False).returncode != 0:
            print(f"setup: this failed: {' '.join(command)}", file=sys.stderr)
            return 1
    STAMP.write_text(wanted + "\n")
    print(f"setup: done in {time.monotonic() - began:.0f} s: .venv/bin/seawall", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
