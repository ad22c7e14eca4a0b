"""``seawall up`` and ``seawall down``."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from seawall.cli.place import folder_of, reader
from seawall.cli.say import NOT_FOUND, TIMED_OUT, Failed, data_option, json_option, say_json
from seawall.machine.folder import Lock, replace_private
from seawall.machine.person import person

if TYPE_CHECKING:
    from seawall.app import Making

POLL_S = 0.1


@click.command(
    epilog="""\b
Examples:
  seawall up --app examples/github.py
  seawall up --data /srv/seawall --listen 0.0.0.0:8080 --admin 127.0.0.1:8081 --app app.py
  seawall up --app app.py --watch           reload app.py when you save it
  seawall up --listen 127.0.0.1:0 --admin 127.0.0.1:0    any free ports; DIR/run/admin.json says which

\b
Signals: Ctrl-C or SIGTERM stops in order, a second one doesn't wait for work in hand; SIGHUP reads the
settings again; SIGUSR1 to a role logs what it is doing. Exit codes: 0 stopped, 1 failed, 2 misconfigured.
An app that can't be imported is refused (2) only while there is no source: later, events are taken in without it."""
)
@data_option
@click.option("--config", metavar="FILE", help="Settings file. [default: DIR/seawall.toml]")
@click.option("--listen", metavar="HOST:PORT", help="Where events come in. [default: 127.0.0.1:8080]")
@click.option("--admin", metavar="HOST:PORT", help="Where the admin API is. [default: 127.0.0.1:8081]")
@click.option("--app", metavar="FILE.py", help="Your workflows. Without it events are kept, and nothing runs.")
@click.option("--profile", metavar="NAME", help="embedded, or cluster: the journal is Kafka. [default: embedded]")
@click.option("--dsn-file", metavar="FILE", help="A file with the DSN of your own PostgreSQL; else the embedded one.")
@click.option("--log-level", metavar="LEVEL", help="debug, info, warning or error. [default: info]")
@click.option("--watch", is_flag=True, help="Reload the app file when it changes (for development).")
@click.pass_obj
def up(making: Making | None, /, data: str | None, config: str | None, watch: bool, **flags: str | None) -> int:
    """Run the whole platform on this machine, in the foreground: collector, router, worker, console and PostgreSQL.

    A role that dies is started again. What was accepted is on disk: kill anything, at any time.
    """
    from seawall.app import run_up

    folder = folder_of(data)
    if flags["app"]:
        flags["app"] = str(Path(flags["app"]).absolute())
    reread = reader(folder, config, flags)
    return run_up(folder, reread(), reread, watch_app=watch, making=making)


@click.command(
    epilog="""\b
Examples:
  seawall down
  seawall down --data /srv/seawall --timeout 60

Exit codes: 0 stopped, 3 nothing was running, 5 still stopping after --timeout."""
)
@data_option
@click.option("--timeout", "timeout_s", default=60.0, show_default=True, metavar="SECONDS", help="How long to wait.")
@json_option
def down(data: str | None, timeout_s: float, as_json: bool) -> None:
    """Stop the platform of a data folder, as Ctrl-C would, and wait until it is gone."""
    folder = folder_of(data)
    lock = Lock(folder.path / "lock")
    pid = lock.holder_pid()
    if pid is None:
        raise Failed(NOT_FOUND, f"nothing is running in {folder.path}")
    began = time.monotonic()
    replace_private(folder.stopper_file, person())
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGTERM)
    while lock.held():
        if time.monotonic() - began > timeout_s:
            raise Failed(TIMED_OUT, f"process {pid} is still stopping after {timeout_s:g} s")
        time.sleep(POLL_S)
    took_s = round(time.monotonic() - began, 2)
    if as_json:
        say_json({"stopped": True, "pid": pid, "took_s": took_s})
    else:
        click.echo(f"stopped in {took_s:g} s")
