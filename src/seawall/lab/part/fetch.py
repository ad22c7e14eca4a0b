"""Brings programs into a folder through the machine's own package clients: jars by ``mvn``, Debian packages by
``apt-get download``. Nothing is installed, and no cache of the machine's user is written.

Each fetch says before what it brings and how big it is, happens once (a later call finds it whole), and is proven:
jars by the hashes in ``jar.sha256`` beside this file, packages by apt's own signatures.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import shutil
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from importlib import resources
from pathlib import Path

from seawall.kernel.error import Misconfigured, Unavailable
from seawall.lab.part.node import Say

KAFKA = "4.4.0"
LOG4J = "2.25.3"
"""kafka's jars bring log4j-core, but not what joins slf4j, in which it logs, to it."""

FETCH_S = 420.0
TRIES = 2
"""A client that hangs until its limit may get through the second time."""

LOCK_S = 900.0
SHARED = "/var/lib/dpkg/status"

POM = f"""<project xmlns="http://maven.apache.org/POM/4.0.0"><modelVersion>4.0.0</modelVersion>
<groupId>seawall.lab</groupId><artifactId>kafka-runtime</artifactId><version>1</version><packaging>pom</packaging>
<dependencies>
<dependency><groupId>org.apache.kafka</groupId><artifactId>kafka_2.13</artifactId><version>{KAFKA}</version>
<exclusions><exclusion><groupId>org.apache.kafka</groupId><artifactId>kafka-tools-api</artifactId></exclusion></exclusions>
</dependency>
<dependency><groupId>org.apache.logging.log4j</groupId><artifactId>log4j-slf4j-impl</artifactId><version>{LOG4J}</version>
</dependency>
</dependencies></project>
"""
# kafka-tools-api is left out: 4.4.0 names it, its jar was never published, and a broker runs without it.


def kafka(fetched: Path, say: Say) -> Path:
    """The folder with a broker's jars.

    Raises:
        Misconfigured: No ``mvn``.
        Unavailable: They couldn't be fetched, or aren't what we know; nothing of them is used.
    """
    jars = fetched / f"kafka-{KAFKA}"
    with _once(fetched, jars) as wanted:
        if wanted:
            mvn = _program("mvn", "apt-get install -y maven")
            say(f"fetching Apache Kafka {KAFKA}: 44 jars, 43 MB (with what mvn itself needs 56 MB), by mvn")
            _maven(mvn, fetched, jars)
    return jars


def _maven(mvn: str, fetched: Path, jars: Path) -> None:
    work = fetched / "kafka.work"
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir()
    (work / "pom.xml").write_text(POM)
    # A repository of its own: the user's ~/.m2 is left as it is.
    command = [
        mvn, "-q", "-B", "-ntp", f"-Dmaven.repo.local={work / 'repository'}", "-f", str(work / "pom.xml"),
        "dependency:copy-dependencies", f"-DoutputDirectory={work / 'jar'}", "-DincludeScope=runtime",
    ]  # fmt: skip
    _run(command, what="Kafka's jars")
    _check(work / "jar")
    (work / "jar").replace(jars)
    shutil.rmtree(work, ignore_errors=True)


def _check(folder: Path) -> None:
    """Compare with the hashes that we know: a registry's own checksum only says that the transfer went well."""
    lines = resources.files(__package__).joinpath("jar.sha256").read_text("ascii").splitlines()
    known = {name: digest for digest, name in map(str.split, lines)}
    found = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.glob("*.jar")}
    wrong = sorted(name for name in known.keys() | found.keys() if known.get(name) != found.get(name))
    if wrong:
        raise Unavailable("Kafka's jars", f"these aren't what jar.sha256 says: {', '.join(wrong)}")


def packages(fetched: Path, name: str, wanted: Mapping[str, str], say: Say) -> Path:
    """Debian packages, unpacked side by side.

    Args:
        name: Of the folder below ``fetched``.
        wanted: Packages, and for what they are; libraries that they need are named too.

    Returns:
        The folder that has ``usr/bin`` in it.

    Raises:
        Misconfigured: This isn't Debian, or a relative of it.
        Unavailable: They couldn't be fetched.
    """
    target = fetched / name
    with _once(fetched, target) as missing:
        if missing:
            apt = _program("apt-get", "Debian or Ubuntu, or install the program yourself")
            dpkg = _program("dpkg", "Debian or Ubuntu, or install the program yourself")
            _apt(apt, dpkg, fetched / f"{name}.work", wanted, say)
            (fetched / f"{name}.work" / "root").replace(target)
            shutil.rmtree(fetched / f"{name}.work", ignore_errors=True)
    return target


def _apt(apt: str, dpkg: str, work: Path, wanted: Mapping[str, str], say: Say) -> None:
    shutil.rmtree(work, ignore_errors=True)
    (work / "root").mkdir(parents=True)
    sizes = _sizes(apt, (), wanted)
    options: Sequence[str] = ()
    if sizes is None:
        # The machine has no package lists, or old ones. We read them anew, into our own folder.
        say("reading Debian's package lists (9 MB), by apt-get update, into a folder of our own")
        for folder in ("lists/partial", "cache/archives/partial"):
            (work / folder).mkdir(parents=True)
        options = [
            "-o", f"Dir::State::lists={work / 'lists'}", "-o", f"Dir::Cache={work / 'cache'}",
            "-o", f"Dir::State::status={SHARED}", "-o", "APT::Sandbox::User=", "-o", "Debug::NoLocking=1",
        ]  # fmt: skip
        _run([apt, "-q", *options, "update"], what="Debian's package lists")
        sizes = _sizes(apt, options, wanted)
    about = "; ".join(f"{name} ({why})" for name, why in wanted.items())
    say(f"fetching {about}: {sum(sizes or [0]) / 1e6:.1f} MB, by apt-get download; nothing is installed")
    _run([apt, "-q", *options, "-o", "APT::Sandbox::User=", "download", *wanted], what=about, cwd=work)
    for package in sorted(work.glob("*.deb")):
        _run([dpkg, "-x", str(package), str(work / "root")], what=package.name)


def _sizes(apt: str, options: Sequence[str], wanted: Mapping[str, str]) -> list[int] | None:
    """Bytes of each package, as the lists say; None when they don't know all of them."""
    done = subprocess.run(
        [apt, *options, "download", "--print-uris", *wanted],
        stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=FETCH_S, check=False,
    )  # fmt: skip
    found = [int(line.split()[2]) for line in done.stdout.splitlines() if line.startswith("'")]
    return found if done.returncode == 0 and len(found) == len(wanted) else None


def libraries(root: Path) -> str:
    """An LD_LIBRARY_PATH for what was unpacked there."""
    found = sorted({str(path.parent) for path in (root / "usr" / "lib").glob("*/*.so*")})
    return ":".join(found)


# ── Running a client ───────────────────────────────────────────────────────────────────────────────────────────────
def _program(name: str, cure: str) -> str:
    found = shutil.which(name)
    if found is None:
        raise Misconfigured([f"{name} is missing; cure: {cure}"])
    return found


def _run(command: Sequence[str], *, what: str, cwd: Path | None = None) -> None:
    """Run a package client, twice if it doesn't get through.

    Raises:
        Unavailable: It failed, or ``FETCH_S`` passed, each time.
    """
    said = ""
    for _ in range(TRIES):
        try:
            done = subprocess.run(
                command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=FETCH_S, check=False, cwd=cwd
            )
        except subprocess.TimeoutExpired:
            said = f"no answer in {FETCH_S:g} s"
            continue
        if done.returncode == 0:
            return
        said = "\n".join((done.stdout + done.stderr).strip().splitlines()[-8:])
    raise Unavailable(what, f"{Path(command[0]).name} couldn't do it: {said}")


@contextlib.contextmanager
def _once(fetched: Path, target: Path) -> Iterator[bool]:
    """Whether ``target`` must still be made; held by one process at a time. It appears whole, by a rename."""
    if target.exists():
        yield False
        return
    with locked(fetched):
        yield not target.exists()


@contextlib.contextmanager
def locked(fetched: Path) -> Iterator[None]:
    """Held while something is made there that all parts share.

    Raises:
        Unavailable: Another process held it for ``LOCK_S``.
    """
    fetched.mkdir(parents=True, exist_ok=True)
    with (fetched / "lock").open("w") as file:
        latest = time.monotonic() + LOCK_S
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > latest:
                    raise Unavailable(str(fetched), "another command is fetching into it") from None
                time.sleep(0.2)
        yield
