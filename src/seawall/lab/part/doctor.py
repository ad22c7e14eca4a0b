"""What this machine lacks for which part, and the cure. Nothing is fetched or started."""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from seawall.kernel.error import Misconfigured
from seawall.lab.part import fetch
from seawall.lab.part.catalog import FETCHED
from seawall.testing.postgres import programs

JAVA_MIN = 17
ANSWER_S = 20.0
DISK_MB = 1500
MEMORY_MB = 2000


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One thing that was looked at."""

    name: str
    ok: bool
    found: str  # what is there, or what isn't
    parts: str  # which need it
    cure: str = ""


def examine(folder: Path) -> list[Check]:
    """All checks, also those that are well."""
    return [*_machine(folder), *_kafka(folder), *_redis(folder), *_postgres(folder)]


def _machine(folder: Path) -> Iterator[Check]:
    linux = platform.system() == "Linux" and Path("/proc/self/stat").exists()
    yield Check(name="Linux", ok=linux, found=platform.platform(), parts="all", cure="use a Linux machine, with /proc")
    there = next(each for each in (folder.absolute(), *folder.absolute().parents) if each.exists())
    writable, free_mb = os.access(there, os.W_OK), shutil.disk_usage(there).free // 2**20
    yield Check(name="folder", ok=writable, parts="all", cure="choose another one with --folder",
                found=f"{folder}: {'writable' if writable else 'not writable'}")  # fmt: skip
    yield Check(name="disk", ok=free_mb >= DISK_MB, found=f"{free_mb} MB free", parts="all",
                cure=f"free {DISK_MB} MB, or choose a folder elsewhere with --folder")  # fmt: skip
    memory_mb = _memory_mb()
    yield Check(name="memory", ok=memory_mb >= MEMORY_MB, found=f"{memory_mb} MB available", parts="all",
                cure=f"free {MEMORY_MB} MB, or start fewer parts at a time (kafka3 takes 600 MB)")  # fmt: skip


def _kafka(folder: Path) -> Iterator[Check]:
    major, found = _java()
    yield Check(name="java", ok=major >= JAVA_MIN, found=found, parts="kafka, kafka3",
                cure=f"apt-get install -y openjdk-17-jre-headless (needed: {JAVA_MIN} or later)")  # fmt: skip
    jars = (folder / FETCHED / f"kafka-{fetch.KAFKA}").is_dir()
    mvn = shutil.which("mvn")
    yield Check(name="mvn", ok=jars or mvn is not None, parts="kafka, kafka3", cure="apt-get install -y maven",
                found=f"Kafka {fetch.KAFKA} is fetched" if jars else mvn or "missing; Kafka's jars aren't fetched yet",
                )  # fmt: skip
    client = find_spec("confluent_kafka") is not None
    yield Check(name="confluent-kafka", ok=client, found="installed" if client else "missing", parts="kafka, kafka3",
                cure="pip install 'seawall[kafka]'")  # fmt: skip


def _redis(folder: Path) -> Iterator[Check]:
    yield _program(folder, "redis-server", "redis", "redis, sentinel", "redis-server")


def _postgres(folder: Path) -> Iterator[Check]:
    try:
        binaries, user = programs()
        yield Check(name="postgres", ok=True, parts="postgres",
                    found=f"PostgreSQL {binaries.version}, run by {user.name}")  # fmt: skip
    except Misconfigured as error:
        yield Check(name="postgres", ok=False, found="; ".join(error.problems), parts="postgres",
                    cure="pip install 'seawall[embedded]'")  # fmt: skip
    yield _program(folder, "pgbouncer", "pgbouncer", "postgres", "pgbouncer")


def _program(folder: Path, program: str, fetched: str, parts: str, package: str) -> Check:
    """A program of a Debian package: the machine's, a fetched one, or one that can be fetched."""
    there = shutil.which(program)
    if there is None and (folder / FETCHED / fetched).is_dir():
        there = f"fetched, in {folder / FETCHED / fetched}"
    can = shutil.which("apt-get") is not None and shutil.which("dpkg") is not None
    return Check(name=program, ok=there is not None or can, parts=parts, cure=f"install {package} by hand",
                 found=there or ("will be fetched, by apt-get download" if can else "missing"))  # fmt: skip


def _java() -> tuple[int, str]:
    """(major version, what was found)."""
    program = shutil.which("java")
    if program is None:
        return 0, "missing"
    try:
        said = subprocess.run(
            [program, "-version"], capture_output=True, text=True, timeout=ANSWER_S, check=True
        ).stderr
    except (OSError, subprocess.SubprocessError) as error:
        return 0, f"{program} can't be run: {error}"
    version = re.search(r'version "(\d+)', said)
    return int(version[1]) if version else 0, f"{program}: {said.splitlines()[0] if said else 'no version'}"


def _memory_mb() -> int:
    try:
        found = re.search(r"MemAvailable:\s+(\d+)", Path("/proc/meminfo").read_text())
    except OSError:
        return 0
    return int(found[1]) // 1024 if found else 0
