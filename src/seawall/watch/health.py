"""What a role says about itself, and how another process asks it.

A role is ready when every essential loop of its supervisor makes progress; it is alive when it answers at all. So
health isn't a flag that somebody remembered to keep: it is read from the loops at the moment of the question.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, TypeVar

import msgspec

from seawall.guard import Supervisor, shed
from seawall.guard.panel import Line, Panel
from seawall.guard.supervisor import LoopHealth
from seawall.kernel.alert import Alert, Alerts
from seawall.kernel.error import Rejected
from seawall.kernel.log import printable
from seawall.kernel.metric import Metrics
from seawall.kernel.seam.panel import AlertLine, BreakerLine, WorkLine
from seawall.watch import exposition
from seawall.watch.local import open_local

Extra = Callable[[], Mapping[str, object]]
"""More that a role wants to show: JSON values, never a secret."""

PAGE_BYTES_MAX: Final = 4 * 1024 * 1024
"""Longest answer that is read from a role: many times what thousands of samples need."""

JSON: Final = "application/json"
TEXT: Final = "text/plain; charset=utf-8"


@dataclass(frozen=True, slots=True)
class Page:
    """One answer."""

    status: int
    content_type: str
    body: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class RoleHealth:
    """A role's answer to /readyz."""

    role: str
    ready: bool
    loops: tuple[LoopHealth, ...] = ()
    reason: str = ""  # why it isn't ready, in one line
    extra: dict[str, Any] = field(default_factory=dict)


class Vitals:
    """Answers for one process: /livez, /readyz, /metrics and /statusz; /alerts, /breakers, /shed and /flags for its
    own people.

    Args:
        extra: Read at each /readyz and /statusz.
    """

    def __init__(
        self, supervisor: Supervisor, metrics: Metrics, *, role: str, extra: Extra | None = None,
        alerts: Alerts | None = None, panel: Panel | None = None,
    ) -> None:  # fmt: skip
        self._supervisor = supervisor
        self._metrics = metrics
        self._role = role
        self._extra = extra
        self._alerts = alerts
        self._panel = panel
        self._since = time.monotonic()

    def health(self) -> RoleHealth:
        loops = tuple(self._supervisor.health())
        bad = [f"{loop.name}: {loop.reason}" for loop in loops if loop.essential and not loop.ready]
        extra = dict(self._extra()) if self._extra is not None else {}
        return RoleHealth(role=self._role, ready=not bad, loops=loops, reason="; ".join(bad), extra=extra)

    def answer(self, path: str) -> Page | None:
        """The page of a path (without query), or None when there is no such page."""
        match path:
            case "/livez":
                return Page(200, TEXT, b"ok\n")
            case "/readyz":
                health = self.health()
                return Page(200 if health.ready else 503, JSON, msgspec.json.encode(health, enc_hook=str))
            case "/metrics":
                body = exposition.rendered(self._metrics.samples(), role=self._role)
                return Page(200, exposition.CONTENT_TYPE, body)
            case "/statusz":
                up_s = time.monotonic() - self._since
                return Page(200, TEXT, status_text(self.health(), up_s=up_s).encode("utf-8", "replace"))
            case "/alerts":
                active = self._alerts.active() if self._alerts is not None else ()
                return Page(200, JSON, msgspec.json.encode([told(alert, self._role) for alert in active]))
            case "/breakers":
                breakers = self._panel.lines() if self._panel is not None else ()
                return Page(200, JSON, msgspec.json.encode([shown(line, self._role) for line in breakers]))
            case "/shed":
                work = self._panel.work() if self._panel is not None else ()
                return Page(200, JSON, msgspec.json.encode([listed(line, self._role) for line in work]))
            case "/flags":
                flags = self._panel.flags() if self._panel is not None else ()
                return Page(200, JSON, msgspec.json.encode(flags))
            case _:
                return None

    def act(self, path: str) -> Page | None:
        """What a POST does: ``/breakers/NAME/STATE``, ``/shed/NAME/STATE``. None: there is no such thing."""
        words = path.split("/")
        if len(words) != 4 or self._panel is None:
            return None
        move = {"breakers": self._panel.force, "shed": self._panel.shed}.get(words[1])
        if move is None:
            return None
        try:
            move(words[2], words[3])
        except Rejected as error:
            return Page(error.status, TEXT, f"{error}\n".encode())
        return Page(200, TEXT, b"done\n")


def told(alert: Alert, role: str) -> AlertLine:
    """An alert as it is listed."""
    since = datetime.fromtimestamp(alert.since_us / 1_000_000, UTC)
    return AlertLine(
        name=alert.name, role=role, since=since, labels=dict(alert.labels), summary=alert.summary,
        unaffected=alert.unaffected, cure=alert.cure,
    )  # fmt: skip


def shown(line: Line, role: str) -> BreakerLine:
    """A breaker as it is listed."""
    return BreakerLine(
        name=line.name, role=role, state=line.state, retry_after_s=line.retry_after_s, without=line.without
    )


def listed(line: shed.Line, role: str) -> WorkLine:
    """Optional work as it is listed."""
    return WorkLine(
        name=line.name, role=role, rank=line.rank, on=line.on, why=line.why, without=line.without, eases=line.eases
    )


def status_text(health: RoleHealth, *, up_s: float | None = None) -> str:
    """A role's health for people: a line for the role, one for each loop, one for each extra."""
    up = f", up {up_s:.0f} s" if up_s is not None else ""
    lines = [f"{health.role}: {'ready' if health.ready else 'NOT READY'}{up}"]
    if not health.loops and health.reason:
        lines.append(f"  {health.reason}")
    for loop in health.loops:
        state = "ready" if loop.ready else ("NOT READY" if loop.essential else "not ready (intake goes on)")
        lines.append(
            f"  {loop.name:28} {state:10} progress {loop.last_progress_age_s:.1f} s ago, "
            f"{loop.restarts} restarts {loop.reason}".rstrip()
        )
    lines.extend(f"  {name} = {value}" for name, value in health.extra.items())
    return "\n".join(printable(line) for line in lines) + "\n"


async def read_health(unix_path: Path, timeout_s: float, *, role: str | None = None) -> RoleHealth:
    """A role's health over its socket; never raises for what the world does.

    A role that is absent, hangs or answers nonsense is not ready, with its name (``role``, else the socket's) and why.
    """
    name = role if role is not None else unix_path.stem
    try:
        page = await _read_page(unix_path, "/readyz", timeout_s)
        return msgspec.json.decode(page.body, type=RoleHealth)
    except TimeoutError:
        return RoleHealth(role=name, ready=False, reason=f"no answer within {timeout_s:g} s: it hangs or is overloaded")
    except OSError as error:
        return RoleHealth(role=name, ready=False, reason=f"not running ({error.strerror or error})")
    except (ValueError, asyncio.IncompleteReadError, asyncio.LimitOverrunError) as error:
        return RoleHealth(role=name, ready=False, reason=f"its answer can't be read: {error}")


Row = TypeVar("Row")


async def read_rows(unix_path: Path, path: str, row: type[Row], timeout_s: float) -> list[Row] | None:
    """A role's list (/alerts, /breakers, /flags); None when it can't be had in time."""
    try:
        page = await _read_page(unix_path, path, timeout_s)
        return msgspec.json.decode(page.body, type=list[row])  # type: ignore[valid-type]
    except (OSError, ValueError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
        return None


async def post(unix_path: Path, path: str, timeout_s: float) -> Page:
    """Let a role act.

    Raises:
        OSError, ValueError: It isn't there, doesn't answer in time, or answers nonsense; it may have acted.
    """
    try:
        return await _read_page(unix_path, path, timeout_s, method="POST")
    except (asyncio.IncompleteReadError, asyncio.LimitOverrunError) as error:
        raise ValueError(str(error)) from error


async def read_metrics(unix_path: Path, timeout_s: float) -> bytes | None:
    """A role's /metrics page; None when it can't be had in time."""
    try:
        return (await _read_page(unix_path, "/metrics", timeout_s)).body
    except (OSError, ValueError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
        return None


async def _read_page(unix_path: Path, path: str, timeout_s: float, *, method: str = "GET") -> Page:
    """Ask our own server (route.py): it sends a length and closes. TimeoutError is an OSError since Python 3.10."""
    async with asyncio.timeout(timeout_s):
        reader, writer = await open_local(unix_path)
        try:
            writer.write(f"{method} {path} HTTP/1.1\r\nHost: seawall\r\n\r\n".encode())
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
            headers = dict(line.lower().split(": ", 1) for line in head[1:] if line)
            length = int(headers["content-length"])
            if length > PAGE_BYTES_MAX:
                raise ValueError(f"{length} bytes announced")
            body = await reader.readexactly(length)
        except KeyError as error:
            raise ValueError("no length") from error
        finally:
            writer.transport.abort()
    return Page(int(head[0][9:12]), headers.get("content-type", ""), body)
