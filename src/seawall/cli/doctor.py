"""``seawall doctor``."""

from __future__ import annotations

import asyncio
import os
from dataclasses import asdict

import click

from seawall.cli.place import folder_of, reader
from seawall.cli.say import FAILED, NOT_FOUND, Failed, data_option, json_option, say, say_json
from seawall.kernel.clock import SystemClock
from seawall.machine.doctor import Finding, Severity, examine
from seawall.machine.folder import Lock
from seawall.settings import load_resolved

CRITICAL = 6


@click.command(
    epilog="""\b
Examples:
  seawall doctor
  seawall doctor --data /srv/seawall --json

\b
Works beside a running platform, and on the folder of one that is stopped (then without the embedded store).
Exit codes: 0 nothing, or notes only; 1 warnings; 6 something critical; 2 misused; 3 there is no such data folder."""
)
@data_option
@click.option("--config", metavar="FILE", help="Settings file. [default: DIR/seawall.toml]")
@json_option
def doctor(data: str | None, config: str | None, as_json: bool) -> int:
    """Look for what works today and breaks in an outage: what is wrong, why it matters, and the cure."""
    folder = folder_of(data)
    if not folder.key_file.exists():
        raise Failed(NOT_FOUND, f"{folder.path} is no data folder")
    settings = reader(folder, config, {})()
    lock = Lock(folder.path / "lock")
    running = lock.held()
    if running:
        settings = load_resolved(folder.resolved_file)
    pid = (lock.holder_pid() if running else None) or os.getpid()
    embedded = not reader(folder, config, {})().program.dsn
    found = asyncio.run(
        examine(folder, settings, dsn=settings.program.dsn, clock=SystemClock(), pid=pid, embedded=embedded)
    )
    if as_json:
        say_json([{**asdict(finding), "severity": finding.severity.name.lower()} for finding in found])
    else:
        _say(found)
    worst = max((finding.severity for finding in found), default=Severity.NOTE)
    return {Severity.NOTE: 0, Severity.WARNING: FAILED, Severity.CRITICAL: CRITICAL}[worst]


def _say(found: list[Finding]) -> None:
    for finding in found:
        say(f"{finding.severity.name.lower():9} {finding.what}")
        say(f"{'':9}   why:  {finding.why}")
        say(f"{'':9}   cure: {finding.cure}")
    if not found:
        say("nothing found that would break in an outage")
