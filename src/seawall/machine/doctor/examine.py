"""Reads what the checks want to know. What can't be read is left out, or is a finding itself: never an error."""

from __future__ import annotations

import importlib
import importlib.util
import os
import re
import resource
import shutil
import stat
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Protocol
from urllib.parse import urlsplit

from seawall.cache import examine as cache
from seawall.cache.setting import Settings as CacheSettings
from seawall.cache.setting import target
from seawall.journal import cluster
from seawall.kernel.clock import Clock
from seawall.kernel.error import SeawallError
from seawall.machine.check import filesystem_of
from seawall.machine.doctor import certificate, host, kafka, postgres, redis
from seawall.machine.doctor.finding import Finding, Severity
from seawall.machine.doctor.host import Room, Supervision
from seawall.machine.folder import Folder
from seawall.machine.stopping import stages
from seawall.settings import Program, Settings, environ, host_port
from seawall.store import place
from seawall.store.examine import examined
from seawall.store.pool import Settings as StoreSettings
from seawall.store.pool import Store


class Visit(Protocol):
    """``visit.findings``."""

    async def __call__(self, limits: cluster.Settings, *, timeout_s: float, now_s: float) -> list[Finding]: ...


STORE_S = 2.0
REDIS_S = 1.0
KAFKA_S = 1.5
SYSTEMCTL_S = 2.0
SECRET_FILES = (("cache", "url_file"), ("collector", "tls_key"))
"""Settings that name a file with a secret, beside the program's own."""

OTHER_CONNECTIONS = 16
"""Those that don't come from the pools of the four roles: listeners, readers, housekeeping, the schema."""

ROLES = 4
_SPAN = re.compile(r"(\d+(?:\.\d+)?)\s*(us|ms|min|s|h|d)?")
_UNITS = {"us": 1e-6, "ms": 1e-3, "s": 1.0, "": 1.0, "min": 60.0, "h": 3600.0, "d": 86_400.0}


async def examine(
    folder: Folder, settings: Settings, *, dsn: str, clock: Clock, pid: int, embedded: bool
) -> list[Finding]:
    """All findings, the worst first. Takes at most some seconds, whatever hangs.

    Args:
        dsn: Of the store, as its owner; "": it isn't running, and is left out.
        pid: Of `up`, or ours: whose supervisor matters.
        embedded: The store is the embedded one, whose settings are our own.
    """
    found = [*_machine(folder, settings, pid=pid, embedded=embedded)]
    ahead_s: float | None = None
    if dsn:
        try:
            async with Store(StoreSettings(dsn=dsn, connections_max=1), role="doctor") as store:
                said = await examined(store, timeout_s=STORE_S)
        except SeawallError as error:
            found.append(_no_store(error))
        else:
            ahead_s = (int(said["now_us"]) - clock.wall_us()) / 1_000_000
            found += _store(said, settings)
    found += await _redis(settings)
    if settings.program.profile == "cluster":
        found += await _kafka(settings, now_s=clock.wall_us() / 1_000_000)
    now_s = clock.wall_us() / 1_000_000
    found += _own_certificate(settings, now_s)
    found += host.clock(now_s=now_s, store_ahead_s=ahead_s, newest_file_ahead_s=_newest_s(folder.path) - now_s)
    return sorted(found, key=lambda finding: (-finding.severity, finding.check, finding.what))


async def _redis(settings: Settings) -> list[Finding]:
    limits = settings.of("cache", CacheSettings)
    if not limits.url:
        return []
    try:
        return [*redis.fitness(await cache.examined(limits, timeout_s=REDIS_S))]
    except SeawallError as error:
        return [redis.unreachable(str(error))]


async def _kafka(settings: Settings, *, now_s: float) -> list[Finding]:
    if importlib.util.find_spec("confluent_kafka") is None:
        return [kafka.without_client()]
    # By name: only profile cluster pays for the driver, which is an extra.
    findings: Visit = importlib.import_module("seawall.machine.doctor.visit").findings
    return await findings(settings.of("kafka", cluster.Settings), timeout_s=KAFKA_S, now_s=now_s)


def _own_certificate(settings: Settings, now_s: float) -> Iterator[Finding]:
    values = settings.values
    path = str(values["collector", "tls_certificate"].value)
    if path:
        read = certificate.read("collector.tls_certificate", path, str(values["collector", "tls_key"].value))
        yield from certificate.certificate(
            read, now_s=now_s, renewal="put a new certificate and its key there; no restart is needed"
        )


def _no_store(error: SeawallError) -> Finding:
    return Finding(
        check="store", severity=Severity.CRITICAL, what=str(error),
        why="events are accepted and kept in the journal, and nothing runs", cure="start it, or correct the DSN",
    )  # fmt: skip


def _store(said: Mapping[str, str], settings: Settings) -> Iterator[Finding]:
    needed = ROLES * settings.of("store", StoreSettings, dsn="").connections_max + OTHER_CONNECTIONS
    yield from postgres.durability(said)
    yield from postgres.fitness(said, connections_needed=needed, recovering=said.get("recovering") == "true")


def _machine(folder: Folder, settings: Settings, *, pid: int, embedded: bool) -> Iterator[Finding]:
    program, url = settings.program, settings.of("cache", CacheSettings).url
    used = {"--listen": _port(program.listen), "--admin": _port(program.admin), "the store": _store_port(program.dsn)}
    used["Redis"] = _redis_port(url)
    if (ephemeral := _ephemeral()) is not None:
        yield from host.ports(used, ephemeral, _ranges(_read("/proc/sys/net/ipv4/ip_local_reserved_ports")))
    yield from host.stop_budget(stages(program, embedded=embedded), supervision(program, pid))
    yield from host.disk([*_rooms(folder)])
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    yield from host.open_files(None if hard == resource.RLIM_INFINITY else hard)
    yield from host.secrets(_modes(folder, settings))


def supervision(program: Program, pid: int) -> Supervision:
    """Who would end the process, as far as can be seen from in here."""
    known = program.kill_after_s or None
    if environ("KUBERNETES_SERVICE_HOST"):
        return Supervision(kind="kubernetes", kill_after_s=known)
    if Path("/.dockerenv").exists() or Path("/run/.containerenv").exists():
        return Supervision(kind="container", kill_after_s=known)
    units = re.findall(r"([^/\s]+\.service)$", _read(f"/proc/{pid}/cgroup"), re.MULTILINE)
    if units and not units[0].startswith("user@"):
        return Supervision(kind="systemd", kill_after_s=known if known is not None else _systemd_s(units[0]))
    return Supervision(kill_after_s=known)


def _systemd_s(unit: str) -> float | None:
    """TimeoutStopSec of a unit; None when systemd doesn't say."""
    systemctl = shutil.which("systemctl")
    if systemctl is None:
        return None
    try:
        done = subprocess.run(
            [systemctl, "show", "--property=TimeoutStopUSec", "--value", unit],
            capture_output=True, text=True, timeout=SYSTEMCTL_S, check=False,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired):
        return None
    return span_s(done.stdout)


def span_s(text: str) -> float | None:
    """Seconds of a time span as systemd writes it (``1min 30s``); None for ``infinity`` and for what is none."""
    parts = text.split()
    matches = [_SPAN.fullmatch(part) for part in parts]
    if not parts or any(match is None for match in matches):
        return None
    return sum(float(match[1]) * _UNITS[match[2] or ""] for match in matches if match is not None)


def _port(address: str) -> int:
    parsed = host_port(address)
    return parsed[1] if parsed is not None else 0


def _store_port(dsn: str) -> int:
    """Of a store on this machine, that is of a DSN with a local host; 0: none, or not told."""
    try:
        parts = urlsplit(dsn)
        return (parts.port or 5432) if parts.hostname in ("localhost", "127.0.0.1", "::1") else 0
    except ValueError:
        return 0


def _redis_port(url: str) -> int:
    """Of a Redis on this machine; 0: none."""
    hosts = target(url).hosts if url else ()
    return next((port for host, port in hosts if host in ("localhost", "127.0.0.1", "::1")), 0)


def _ephemeral() -> tuple[int, int] | None:
    words = _read("/proc/sys/net/ipv4/ip_local_port_range").split()
    return (int(words[0]), int(words[1])) if len(words) == 2 else None


def _ranges(text: str) -> list[tuple[int, int]]:
    pairs = [part.partition("-") for part in text.strip().split(",") if part]
    return [(int(low), int(high or low)) for low, _, high in pairs]


def _read(path: str) -> str:
    try:
        return Path(path).read_text("utf-8", "replace")
    except OSError:
        return ""


def _rooms(folder: Folder) -> Iterator[Room]:
    places = {"the data folder": folder.path}
    others = {"PostgreSQL's data": place.recorded(folder.path), "journal": folder.journals, "spool": folder.spools}
    for what, path in others.items():
        if path is not None and path.exists() and path.stat().st_dev != folder.path.stat().st_dev:
            places[what] = path
    mounts = _read("/proc/self/mountinfo")
    for what, path in places.items():
        room = os.statvfs(path)
        yield Room(
            what=what, path=str(path), kind=filesystem_of(path, mounts), bytes_free=room.f_bavail * room.f_frsize,
            bytes_all=room.f_blocks * room.f_frsize, inodes_free=room.f_favail if room.f_files else None,
        )  # fmt: skip


def _modes(folder: Folder, settings: Settings) -> dict[str, int]:
    program = settings.program
    files = [folder.key_file, folder.path / "admin.token", folder.admin_file, folder.resolved_file]
    named = (program.dsn_file, program.worker_dsn_file, *(str(settings.values[key].value) for key in SECRET_FILES))
    files += [Path(name) for name in named if name]
    return {str(path): stat.S_IMODE(path.stat().st_mode) for path in files if path.is_file()}


def _newest_s(folder: Path) -> float:
    return max((path.lstat().st_mtime for path in folder.iterdir()), default=0.0)
