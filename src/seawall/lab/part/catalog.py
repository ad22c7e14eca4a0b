"""The parts by name, as the command line and `make parts` know them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from seawall.kernel.error import Misconfigured, Rejected
from seawall.lab.part.node import Say, quiet
from seawall.lab.part.part import Part

FETCHED = "fetched"


@dataclass(frozen=True, slots=True)
class Entry:
    """One part: what it is, what it costs, and what makes it."""

    about: str
    memory_mb: int
    module: str
    name: str
    options: Mapping[str, Any]

    def make(self) -> Callable[..., Part]:
        """Its class. Loaded only now: Kafka's needs a library that not everybody has installed.

        Raises:
            Misconfigured: That library is missing.
        """
        try:
            found: Callable[..., Part] = getattr(import_module(f"seawall.lab.part.{self.module}"), self.name)
        except ModuleNotFoundError as error:
            raise Misconfigured([f"{error.name} is missing; cure: pip install 'seawall[kafka]'"]) from error
        return found


CATALOG: Mapping[str, Entry] = {
    "kafka": Entry("Apache Kafka, one node", 200, "kafka", "Kafka", {"brokers": 1}),
    "kafka3": Entry("Apache Kafka, a controller and three brokers", 600, "kafka", "Kafka", {"brokers": 3}),
    "redis": Entry("Redis", 12, "redis", "Redis", {}),
    "sentinel": Entry("Redis with a replica, and three sentinels", 60, "redis", "Redis", {"replica": True}),
    "postgres": Entry("PostgreSQL with a streaming replica, and pgbouncer", 120, "postgres", "Postgres", {}),
    "proxy": Entry("the TCP fault proxy", 30, "proxy", "FaultProxy", {}),
}
USUAL = ("kafka", "redis", "postgres", "proxy")
"""What is meant when nothing is named: one of each, small."""


def parts(folder: Path, names: Sequence[str] = (), say: Say = quiet, *, fetched: Path | None = None) -> list[Part]:
    """Parts in a folder, each in a folder of its name there, in the catalogue's order.

    Args:
        fetched: Where programs lie; by default in the folder too.

    Raises:
        Rejected: A name isn't in the catalogue.
        Misconfigured: A library is missing.
    """
    wanted = names or USUAL
    if unknown := sorted(set(wanted) - CATALOG.keys()):
        raise Rejected(404, "no such part", f"{', '.join(unknown)}; there are {', '.join(CATALOG)}")
    return [
        entry.make()(folder / name, fetched=fetched or folder / FETCHED, say=say, **entry.options)
        for name, entry in CATALOG.items() if name in wanted
    ]  # fmt: skip


def made(folder: Path, say: Say = quiet) -> list[Part]:
    """The parts that have a folder there."""
    names = [name for name in CATALOG if (folder / name / "part").is_file()]
    return parts(folder, names, say) if names else []
