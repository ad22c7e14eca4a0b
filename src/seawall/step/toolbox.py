"""What the shipped steps of one worker share, and how they come to it.

User code calls steps; nobody passes the worker's parts through it. So a worker *lends* its toolbox to the process as
long as it is open, and a step finds it when it is called. It isn't a context variable, since a run's task has the
context of whatever loop began it, which may be older than the toolbox. A test lends one of its own for as long as it
wants. (docs/decisions/0018-steps.md)
"""

from __future__ import annotations

import asyncio
import random
import ssl
from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Self

from seawall.guard.panel import Panel
from seawall.kernel.alert import Alerts
from seawall.kernel.clock import Clock, SystemClock
from seawall.kernel.error import Misconfigured
from seawall.kernel.metric import Metrics
from seawall.step.error import StepRefused
from seawall.step.keyring import Secret, Secrets
from seawall.step.meter import Meter
from seawall.step.reach import Reach
from seawall.step.resolver import Desk, Resolve, Resolver
from seawall.step.setting import Settings
from seawall.step.wire import Answer, Ask, Wire

FILE_THREADS_MAX = 2
"""For files of secrets: a folder that hangs holds up nobody who needs none."""

_lent: list[Toolbox] = []


class Toolbox:
    """An async context manager: lent to this process from entering to leaving.

    Args:
        secrets: By name, in place of `step.secrets`: for tests.
        resolve: In place of the system's resolver: for tests.

    Raises:
        Misconfigured: ``step.ca_file`` can't be used.
    """

    def __init__(
        self, settings: Settings, *, clock: Clock, rng: random.Random, metrics: Metrics, alerts: Alerts,
        panel: Panel | None = None, own_ports: Callable[[], Collection[int]] = tuple,
        secrets: Mapping[str, str] | None = None, resolve: Resolve | None = None,
    ) -> None:  # fmt: skip
        self.settings = settings
        self.clock = clock
        self.meter = Meter(settings, clock=clock, rng=rng, metrics=metrics, alerts=alerts, panel=panel)
        self.sql_places = asyncio.Semaphore(settings.sql_connections_max)
        self._names = Resolver()
        self._files = Desk(FILE_THREADS_MAX, "step-file")
        self._secrets = Secrets(settings.secrets, secrets)
        self._wire = Wire(
            Reach(settings, own_ports=own_ports), resolve or self._names.resolve, _tls(settings),
            connect_s=settings.connect_s,
        )  # fmt: skip

    async def __aenter__(self) -> Self:
        _lent.append(self)
        return self

    async def __aexit__(self, *_: object) -> None:
        if self in _lent:
            _lent.remove(self)
        self._names.close()
        self._files.close()

    async def send(self, ask: Ask) -> Answer:
        """Make one HTTP request: see ``Wire.send``."""
        return await self._wire.send(ask)

    async def secret(self, wanted: Secret) -> str:
        """A secret as it is now, without its prefix. Raises StepRefused."""
        return await self._files.begin(lambda: self._secrets.read(wanted))


def current(step: str) -> Toolbox:
    """The toolbox that is lent now.

    Raises:
        StepRefused: None is: this isn't a worker.
    """
    if not _lent:
        raise StepRefused(f"{step} runs in a worker; in a test: async with seawall.step.lend(…)")
    return _lent[-1]


@asynccontextmanager
async def lend(
    *, allow: Sequence[str] = (), ports: Sequence[str] = ("1-65535",), secrets: Mapping[str, str] | None = None,
    github_url: str = "https://api.github.com", slack_url: str = "https://slack.com/api",
) -> AsyncIterator[Toolbox]:  # fmt: skip
    """A toolbox for the tests of your own workflows, so that shipped steps work without a worker.

    ::

        async with lend(allow=["127.0.0.0/8"], secrets={"slack": "xoxb-…"}, slack_url=f"http://127.0.0.1:{port}"):
            await open_incident(event, ctx)

    Args:
        allow: Private networks that steps may call: your stub's.
        ports: As ``step.ports``; default: all.
        secrets: By name.
        github_url, slack_url: Your stubs.

    Raises:
        Misconfigured: One of them is no such thing.
    """
    settings = Settings(allow=tuple(allow), ports=tuple(ports), github_url=github_url, slack_url=slack_url)
    clock, metrics = SystemClock(), Metrics()
    toolbox = Toolbox(
        settings, clock=clock, rng=random.Random(), metrics=metrics, alerts=Alerts(metrics, clock),
        secrets=dict(secrets or {}),
    )  # fmt: skip
    async with toolbox:
        yield toolbox


def _tls(settings: Settings) -> ssl.SSLContext:
    """Certificates are checked against the system's authorities, and those that the installation adds."""
    context = ssl.create_default_context()
    context.set_alpn_protocols(["http/1.1"])
    if settings.ca_file:
        try:
            context.load_verify_locations(cafile=settings.ca_file)
        except (OSError, ssl.SSLError) as error:
            raise Misconfigured([f"step.ca_file = {settings.ca_file!r}: can't be used: {error}"]) from error
    return context
