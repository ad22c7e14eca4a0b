"""Countries of addresses, from a file in MaxMind's format or from the data set of a package (kernel/seam/place.py).

The file is read into memory, in a thread, and read again when it has changed; one that can't be read leaves the last
good one in use. It isn't mapped: whoever copies a new one over it would cut the mapped file short, and the process that
looks into it then is killed (SIGBUS).
"""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import Callable, Collection, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from types import TracebackType
from typing import Any

from seawall.cache.setting import DEFAULT_DATA, Settings
from seawall.guard import Heart, Supervisor
from seawall.guard.dependency import Dependency, Plan, cause_of
from seawall.guard.panel import Panel
from seawall.guard.pressure import LOOP_LAG, MEMORY
from seawall.guard.shed import ShedList, declared
from seawall.kernel.alert import Alerts
from seawall.kernel.clock import Clock
from seawall.kernel.error import Misconfigured, Unavailable
from seawall.kernel.log import fields, logger
from seawall.kernel.metric import Metrics
from seawall.kernel.seam.place import LOOK_UP_S

try:
    import maxminddb
except ModuleNotFoundError:  # optional
    maxminddb = None  # type: ignore[assignment, unused-ignore]
try:
    import iptocc
except ModuleNotFoundError:  # optional
    iptocc = None  # type: ignore[assignment, unused-ignore]

log = logger("cache")

FILE_BYTES_MAX = 512 * 1024 * 1024
KNOWN_MAX = 50_000
"""Addresses whose country is remembered; then all are forgotten, and looked up again as they come."""

LOOK_S = 1.0
"""How often the file is compared with what was read."""

LookUp = Callable[[str], str]
"""The country of one address; "": not known. Runs in a thread."""


@dataclass(frozen=True, slots=True)
class _Stamp:
    """By what a file is known to be another one."""

    inode: int
    bytes: int
    modified_ns: int


class Geo:
    """Knows countries. ``async with`` starts nothing but its thread; the first look at the file is in the loop.

    Args:
        settings: With ``geo`` set.

    Raises:
        Misconfigured: The package for it isn't installed.
    """

    def __init__(
        self, settings: Settings, *, clock: Clock, metrics: Metrics, alerts: Alerts, panel: Panel,
        shed: ShedList | None = None,
    ) -> None:  # fmt: skip
        plan = Plan(
            name="geo", timeout_s=LOOK_UP_S, inflight_max=4, without="events have no seawall-country header",
            unaffected="accepting events and running them",
        )  # fmt: skip
        _require(settings.geo)
        self._path = None if settings.geo == DEFAULT_DATA else Path(settings.geo)
        self._clock = clock
        self._alerts = alerts
        self._look_up: LookUp | None = _assigned if self._path is None else None
        self._stamp: _Stamp | None = None
        self._known: dict[str, str] = {}
        # Its own, so that a disk that hangs takes no thread from anybody else.
        self._threads = ThreadPoolExecutor(1, thread_name_prefix="geo")
        self._dependency: Dependency[list[str]] = Dependency(
            plan, clock=clock, rng=random.Random(), metrics=metrics, alerts=alerts, cause_of=cause_of
        )
        panel.add(self._dependency.breaker, without=plan.without)
        self._wanted = declared(shed, "countries", rank=30, without=plan.without, eases=(LOOP_LAG, MEMORY))
        self._reloads = metrics.counter("seawall_geo_reloads_total", "Times that the file of countries was read.")
        metrics.gauge("seawall_geo_ready_count", "1: there is data to look countries up in.").read = lambda: float(
            self._look_up is not None
        )

    @property
    def ready(self) -> bool:
        """Whether there is data to look into."""
        return self._look_up is not None

    def register(self, supervisor: Supervisor) -> None:
        """Add the loop that reads the file. It makes nothing unready."""
        if self._path is not None:
            supervisor.add("cache.geo", self._watch, essential=False)

    async def __aenter__(self) -> Geo:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def countries(self, addresses: Collection[str]) -> Mapping[str, str]:
        """As the seam says: within ``LOOK_UP_S``, whatever the data does."""
        look_up = self._look_up
        if look_up is None or not self._wanted():
            return {}
        fresh = [address for address in addresses if address not in self._known]
        if fresh:
            try:
                found = await self._dependency.attempt(lambda: self._in_thread(lambda: [look_up(a) for a in fresh]))
            except Unavailable:
                found = []  # counted by cause
            if len(self._known) + len(found) > KNOWN_MAX:
                self._known.clear()
            if look_up is self._look_up:
                self._known.update(zip(fresh, found, strict=False))
        return {address: country for address in addresses if (country := self._known.get(address))}

    async def _in_thread(self, work: Callable[[], Any]) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self._threads, work)

    async def _watch(self, heart: Heart) -> None:
        path = self._path
        assert path is not None, "the package's data set has no file"
        while True:
            reading = asyncio.ensure_future(self._in_thread(lambda: _read(path, self._stamp)))
            try:
                while not reading.done():
                    heart.touch()
                    await asyncio.wait([reading], timeout=0.5)
                if (found := reading.result()) is not None:
                    self._stamp, self._look_up = found
                    self._known.clear()
                    self._reloads.value += 1
                    log.info("countries are read", extra=fields(file=str(path)))
                self._alerts.cleared("geo-file")
                await heart.beat()
            except (OSError, ValueError) as error:
                heart.unready(f"{path} can't be read: {error}")
                self._alerts.raised(
                    "geo-file", f"{path} can't be read: {error}; "
                    + ("the last good one is in use" if self._look_up else "events have no seawall-country header"),
                    unaffected="accepting events and running them", cure="put a file in MaxMind's format there",
                )  # fmt: skip
            finally:
                reading.cancel()
            await asyncio.sleep(LOOK_S)


def _require(geo: str) -> None:
    if (iptocc if geo == DEFAULT_DATA else maxminddb) is None:
        name = "iptocc" if geo == DEFAULT_DATA else "maxminddb"
        raise Misconfigured([f"cache.geo: the package {name} is missing; install seawall[geo]"])


def _read(path: Path, known: _Stamp | None) -> tuple[_Stamp, LookUp] | None:
    """A file as something to look up in; None: it is the one that is known. Runs in a thread.

    Raises:
        OSError: It can't be read.
        ValueError: It is none that we understand, or not whole, or too large.
    """
    with path.open("rb") as file:
        status = os.fstat(file.fileno())
        stamp = _Stamp(status.st_ino, status.st_size, status.st_mtime_ns)
        if stamp == known:
            return None
        if status.st_size > FILE_BYTES_MAX:
            raise ValueError(f"it is larger than {FILE_BYTES_MAX >> 20} MiB")
        try:
            reader = maxminddb.open_database(file, maxminddb.MODE_FD)
        except OSError:
            raise
        except Exception as error:  # whatever its parsing met: TypeError for a name of the file's that it doesn't know
            raise ValueError(f"it isn't a whole file in MaxMind's format ({error or type(error).__name__})") from error
    return stamp, lambda address: _country(reader, address)


def _country(reader: Any, address: str) -> str:
    """One address in a file, as MaxMind, DB-IP (``country.iso_code``) and IPinfo (``country_code``, ``country``) have
    it; "" also for what a damaged file makes of it."""
    try:
        entry = reader.get(address)
    except Exception:  # noqa: BLE001 - whatever its parsing met in these bytes; events go on without a country
        return ""
    if not isinstance(entry, dict):
        return ""
    country = entry.get("country")
    code = country.get("iso_code") if isinstance(country, dict) else entry.get("country_code", country)
    return _code(code)


def _assigned(address: str) -> str:
    """One address by the registries' own lists: the country it was assigned to, mostly that where it is."""
    try:
        return _code(iptocc.country_code(str(ip_address(address))))
    except ValueError:
        return ""


def _code(found: object) -> str:
    text = found if isinstance(found, str) else ""
    return text if len(text) == 2 and text.isascii() and text.isalpha() and text.isupper() else ""
