"""``seawall demo``."""

from __future__ import annotations

import contextlib
import shutil
import signal
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import click

import seawall
from seawall.cli.lab import say_verdict
from seawall.cli.say import FAILED, MISUSED, Failed, Number
from seawall.kernel.error import Rejected, Unavailable
from seawall.lab.demo import Demo, Settings
from seawall.lab.tree import Tree
from seawall.store import place

INTERRUPTED = 130
EXAMPLES = Path(seawall.__file__).resolve().parents[2] / "examples"


@click.command(
    epilog="""\b
Examples:
  seawall demo
  seawall demo --stay                    keep the platform running, and say how to use it
  seawall demo --data D --rate 500       in a folder that is kept

Exit codes: 0 every claim held and nothing was lost; 1 otherwise; 2 misused; 130 Ctrl-C."""
)
@click.option("--data", metavar="DIR", help="A data folder, new or of an earlier demo. [default: one that is removed]")
@click.option("--rate", type=Number(1, 5000), default=200.0, show_default=True, help="Events a second.")
@click.option("--stay", is_flag=True, envvar="STAY", help="Keep it running at the end, until Ctrl-C. [env: STAY=1]")
def demo(data: str | None, rate: float, stay: bool) -> int:
    """Show the whole way of an event, and that nothing is lost.

    Starts a platform, sends signed webhooks as GitHub, Stripe and others do, runs workflows on them, answers a held
    request, kills every process with kill -9 while traffic runs, and ends with the sender's own count.
    """
    app = EXAMPLES / "demo.py"
    if not app.exists():
        raise Failed(MISUSED, f"the demo needs the examples of the source tree, and {app} isn't there")
    # Whatever ends us must pass through the cleaning up.
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _interrupt)
    with _folder(data) as folder, Tree(folder / "data", app=app, log=folder / "up.log") as tree:
        click.echo(f"Seawall demo in {folder}" + ("" if data else ", which is removed at the end"))
        try:
            return _show(tree, folder, Settings(rate=rate), stay=stay)
        except (Unavailable, Rejected) as error:
            click.echo(f"\n{tree.log_tail()}", err=True)
            raise Failed(FAILED, str(error)) from error
        except KeyboardInterrupt:
            click.echo("\nstopping", err=True)
            return INTERRUPTED


def _show(tree: Tree, folder: Path, settings: Settings, *, stay: bool) -> int:
    shown = Demo(tree, examples=EXAMPLES, work=folder, settings=settings, say=click.echo)
    verdict = shown.run()
    click.echo("")
    say_verdict(verdict)
    if stay:
        _stay(tree, shown)
    return 0 if verdict.holds else FAILED


def _stay(tree: Tree, shown: Demo) -> None:
    where = tree.place()
    click.echo(f"\nStill running, until Ctrl-C. Events at {where.listen}, admin API at {where.admin}:")
    click.echo(f"  export SEAWALL_DATA={tree.data}")
    click.echo("  .venv/bin/seawall events list")
    click.echo("  .venv/bin/seawall runs list")
    source, secret = shown.urls()["github"]
    # Through a pipe: a file of /tmp is for every user of this machine to read, and so are the arguments of a program.
    click.echo(f"  printf %s {secret} | .venv/bin/seawall send {source.url} --kind github --secret-file - \\")
    click.echo(f"      --file examples/request/github-push.http --explain    # the secret is of {source.name}")
    with contextlib.suppress(KeyboardInterrupt):
        while True:
            time.sleep(3600)


@contextlib.contextmanager
def _folder(data: str | None) -> Iterator[Path]:
    """The demo's folder; a temporary one goes with everything in it, and what PostgreSQL keeps elsewhere for root."""
    if data is not None:
        path = Path(data).absolute()
        path.mkdir(parents=True, exist_ok=True)
        yield path
        return
    path = Path(tempfile.mkdtemp(prefix="seawall-demo-"))
    try:
        yield path
    finally:
        place.forget(path / "data")
        shutil.rmtree(path, ignore_errors=True)


def _interrupt(number: int, frame: object) -> None:
    raise KeyboardInterrupt
