"""Reads what the checks want to know. What can't be read is left out, or is a finding itself: never an error, for the
other checks would go with it, and the platform's announcements too."""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import os
import re
import resource
import shutil
import stat
import subprocess
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Protocol

from seawall.cache import examine as cache
from seawall.cache.setting import Settings as CacheSettings
from seawall.cache.setting import target
from seawall.journal import cluster
from seawall.kernel.clock import Clock
from seawall.kernel.error import SeawallError
from seawall.kernel.log import fields, logger
from seawall.machine.check import filesystem_of
from seawall.machine.doctor import certificate, host, kafka, postgres, redis
from seawall.machine.doctor.aside import Aside
from seawall.machine.doctor.finding import Finding, Severity
from seawall.machine.doctor.host import Room, Supervision
from seawall.machine.folder import Folder
from seawall.machine.stopping import stages
from seawall.router import Settings as RouterSettings
from seawall.settings import TOP, Program, Settings, environ, host_port
from seawall.store import dsn as store_dsn
from seawall.store import partition, place
from seawall.store.cluster import WORKER
from seawall.store.examine import examined
from seawall.store.pool import Settings as StoreSettings
from seawall.store.pool import Store

log = logger("machine")

Look = Callable[[], Iterable[Finding]]
"""One check of this machine, with what it looks at. It may block."""

Ask = Callable[[], Awaitable[Iterable[Finding]]]
"""One check that asks somebody else; it has a deadline of its own."""


class Visit(Protocol):
    """``visit.findings``."""

    async def __call__(
        self, limits: cluster.Settings, *, aside: Aside, timeout_s: float, now_s: float, kept_days: int
    ) -> list[Finding]: ...


LOOKS_S = 5.0
"""For all that asks a disk together: one that hangs answers none of it."""

STORE_S = 2.0
REDIS_S = 1.0
KAFKA_S = 1.5
SYSTEMCTL_S = 2.0
SECRET_FILES = (("cache", "url_file"), ("collector", "tls_key"))
"""Settings that name a file with a secret, beside the program's own."""

SECRETS: Mapping[tuple[str, str], Callable[[str], bool]] = {
    (TOP, "dsn"): lambda dsn: store_dsn.target(dsn).secret,
    (TOP, "worker_dsn"): lambda dsn: store_dsn.target(dsn).secret,
    ("cache", "url"): lambda url: bool(target(url).password),
    ("watch", "webhook_secret"): bool,
}
"""Settings that may hold a password or a secret, and whether one does."""

OTHER_CONNECTIONS = 16
"""Those that don't come from the pools of the four roles: listeners, readers, housekeeping, the schema."""

OWN_CONNECTIONS = 13
"""Of a worker process of a queue's own, with what listens beside its pool."""

ROLES = 4
KAFKA_PORT = 9092
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
    now_s = clock.wall_us() / 1_000_000
    looks: dict[str, Look] = {
        "ports": partial(_ports, settings),
        "stop-budget": partial(_stop_budget, settings.program, pid=pid, embedded=embedded),
        "disk": lambda: host.disk([*_rooms(folder)]),
        "open-files": _open_files,
        "secret-files": lambda: host.secrets(_modes(folder, settings)),
        "certificate": lambda: _own_certificate(settings, now_s),
        "clock": partial(_clock, folder, clock),
    }
    with Aside(LOOKS_S) as aside:
        asks: dict[str, Ask] = {name: partial(_looked, aside, look) for name, look in looks.items()}
        asks["redis"] = partial(_redis, settings)
        if dsn:
            asks["store"] = partial(_store, dsn, settings, clock)
        if settings.program.profile == "cluster":
            asks["kafka"] = partial(_kafka, settings, aside, now_s=now_s)
        found = [finding for name, ask in asks.items() for finding in await carried_out(name, ask)]
    return sorted(found, key=lambda finding: (-finding.severity, finding.check, finding.what))


async def _looked(aside: Aside, look: Look) -> list[Finding]:
    return await aside.do(lambda: [*look()])


async def carried_out(name: str, ask: Ask) -> Sequence[Finding]:
    """What one check finds. That it can't be carried out is a finding itself."""
    try:
        return [*await ask()]
    except Exception as error:
        # All of them: a bug in one check must not end the others, nor the loop of `up` that they run in.
        log.warning("a check can't be carried out", exc_info=True, extra=fields(check=name))
        # Only our own errors are known to quote no secret.
        cause = str(error) if isinstance(error, SeawallError) else type(error).__name__
        return [
            Finding(
                check="check-failed", severity=Severity.WARNING,
                what=f"the check {name} can't be carried out: {cause}",
                why="what it would find isn't known", cure="see the log for where it failed, and look yourself",
            )
        ]  # fmt: skip


async def _redis(settings: Settings) -> list[Finding]:
    limits = settings.of("cache", CacheSettings)
    if not limits.url:
        return []
    try:
        return [*redis.fitness(await cache.examined(limits, timeout_s=REDIS_S))]
    except SeawallError as error:
        return [redis.unreachable(str(error))]


async def _kafka(settings: Settings, aside: Aside, *, now_s: float) -> list[Finding]:
    if importlib.util.find_spec("confluent_kafka") is None:
        return [kafka.without_client()]
    # By name: only profile cluster pays for the driver, which is an extra.
    findings: Visit = importlib.import_module("seawall.machine.doctor.visit").findings
    limits = settings.of("kafka", cluster.Settings)
    return await findings(limits, aside=aside, timeout_s=KAFKA_S, now_s=now_s, kept_days=_kept_days(settings))


def _kept_days(settings: Settings) -> int:
    return settings.of("housekeeping", partition.Settings).retention_days


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


async def _store(dsn: str, settings: Settings, clock: Clock) -> Sequence[Finding]:
    worker_dsn = settings.program.worker_dsn
    roles = {WORKER, store_dsn.target(worker_dsn).user if worker_dsn else ""} - {""}
    try:
        async with Store(StoreSettings(dsn=dsn, connections_max=1), role="doctor") as store:
            said = await examined(store, sorted(roles), timeout_s=STORE_S)
    except SeawallError as error:
        return [_no_store(error)]
    ahead_s = (int(said["now_us"]) - clock.wall_us()) / 1_000_000
    each = settings.of("store", StoreSettings, dsn="").connections_max
    needed = ROLES * each + OTHER_CONNECTIONS + settings.program.own_queues_max * max(each, OWN_CONNECTIONS)
    return [
        *postgres.durability(said),
        *postgres.fitness(said, connections_needed=needed, recovering=said.get("recovering") == "true"),
        *postgres.kept(settings.of("router", RouterSettings).journal_keep_s, _kept_days(settings)),
        *host.store_clock(ahead_s),
    ]


def _clock(folder: Folder, clock: Clock) -> Iterator[Finding]:
    now_s = clock.wall_us() / 1_000_000
    yield from host.clock(now_s=now_s, newest_file_ahead_s=_newest_s(folder.path) - now_s)


def _ports(settings: Settings) -> Iterator[Finding]:
    program, limits = settings.program, settings.of("cache", CacheSettings)
    used = {
        "--listen": _port(program.listen), "--admin": _port(program.admin),
        "the store": _local(store_dsn.target(program.dsn).hosts) if program.dsn else [],
        "Redis": _local(target(limits.url).hosts) if limits.url else [],
        "Kafka": _local(_brokers(settings)) if program.profile == "cluster" else [],
    }  # fmt: skip
    if (ephemeral := _ephemeral()) is not None:
        yield from host.ports(used, ephemeral, _ranges(_read("/proc/sys/net/ipv4/ip_local_reserved_ports")))


def _stop_budget(program: Program, *, pid: int, embedded: bool) -> Iterator[Finding]:
    yield from host.stop_budget(stages(program, embedded=embedded), supervision(program, pid))


def _open_files() -> Iterator[Finding]:
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    yield from host.open_files(None if hard == resource.RLIM_INFINITY else hard)


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


def _port(address: str) -> Sequence[int]:
    parsed = host_port(address)
    return [parsed[1]] if parsed is not None else []


def _brokers(settings: Settings) -> Iterator[tuple[str, int]]:
    """As ``kafka.bootstrap`` names them: ``[PROTOCOL://]HOST[:PORT]``."""
    for name in settings.of("kafka", cluster.Settings).bootstrap.split(","):
        address = name.strip().rpartition("://")[2]
        yield host_port(address) or (address, KAFKA_PORT)


def _local(hosts: Iterable[tuple[str, int]]) -> Sequence[int]:
    """Ports of those that are on this machine."""
    return sorted({port for name, port in hosts if name in ("localhost", "::1") or name.startswith("127.")})


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
    files = {folder.key_file, folder.path / "admin.token", folder.admin_file, folder.resolved_file, *_tellers(settings)}
    named = (program.dsn_file, program.worker_dsn_file, *(str(settings.values[key].value) for key in SECRET_FILES))
    files.update(Path(name) for name in named if name)
    return dict(found for path in sorted(files) if (found := _mode(path)) is not None)


def _mode(path: Path) -> tuple[str, int] | None:
    """Of a file; None when there is none (any more)."""
    with contextlib.suppress(FileNotFoundError, NotADirectoryError):
        mode = path.stat().st_mode
        return (str(path), stat.S_IMODE(mode)) if stat.S_ISREG(mode) else None
    return None


def _tellers(settings: Settings) -> Iterator[Path]:
    """Files that a secret was read from: a settings file, or one that a setting names. By its origin, for that is all
    that a running platform hands on of them."""
    for key, tells in SECRETS.items():
        value = settings.values[key]
        if value.value and tells(value.value):
            file, _, line = value.origin.rpartition(":")
            yield Path(file if line.isdigit() else value.origin)


def _newest_s(folder: Path) -> float:
    """When the newest file was changed. Files of this folder are replaced all the time, also between two looks."""
    newest_s = 0.0
    for path in folder.iterdir():
        with contextlib.suppress(FileNotFoundError):
            newest_s = max(newest_s, path.lstat().st_mtime)
    return newest_s
