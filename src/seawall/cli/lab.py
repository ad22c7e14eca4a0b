"""``seawall lab``: experiments, traffic with a ledger, the verdict on it, and real parts to break."""

from __future__ import annotations

import asyncio
import json
import secrets
import signal
import sys
import time
from base64 import b64encode
from pathlib import Path
from typing import Any

import click

from seawall.cli import experiment
from seawall.cli.client import find as find_place
from seawall.cli.drill import drill
from seawall.cli.history import history
from seawall.cli.matrix import matrix
from seawall.cli.parts import parts
from seawall.cli.place import folder_of
from seawall.cli.report import report
from seawall.cli.say import FAILED, MISUSED, UNREACHABLE, Failed, Number, data_option, json_option, say_json
from seawall.cli.storm import storm
from seawall.kernel import limit
from seawall.kernel.error import Rejected, Unavailable
from seawall.lab.checker import ledger as ledgers
from seawall.lab.checker.ledger import Ledger
from seawall.lab.checker.verdict import Verdict
from seawall.lab.checker.verify import verify as verified
from seawall.lab.platform import Find, Place, Platform, Source
from seawall.lab.traffic import Plan, Tally, Target, Traffic

SAY_EVERY_S = 1.0


@click.group()
def lab() -> None:
    """Make incidents happen on command; make traffic, verify that nothing was lost, and start real parts to break.

    \b
      seawall lab list                            experiments, and what each breaks
      seawall lab run redis-slow                  asks before; reverts whatever happens
      seawall lab storm --seed 7 --minutes 5      many faults at once, drawn from a seed; lost 0
      seawall lab panic                           mends everything at once
    \b
      seawall lab traffic --rate 500 --seconds 30 --ledger L &
      kill -9 …                                   any process of the platform, any time
      seawall lab verify --ledger L               lost 0
    """


lab.add_command(parts)
for _command in (*experiment.COMMANDS, storm, matrix, report, history, drill):
    lab.add_command(_command)


def finder(data: str | None, url: str | None) -> Find:
    """Where the platform is, asked anew each time: it may be killed, and come back on other ports."""

    def find() -> Place:
        try:
            place = find_place(data, url)
        except Failed as error:
            if error.code == UNREACHABLE:
                raise Unavailable("the platform", error.what) from error
            raise
        return Place(admin=place.url, token=place.token, listen=_listen(data) if url is None else "")

    return find


def _listen(data: str | None) -> str:
    """Where events are taken, as the data folder says; "" when it doesn't."""
    try:
        return str(json.loads(folder_of(data).admin_file.read_text("utf-8"))["listen"])
    except (OSError, ValueError, KeyError):
        return ""


def url_option(command: Any) -> Any:
    return click.option("--url", metavar="URL", help="Its admin address, with SEAWALL_TOKEN_FILE, instead of --data.")(
        command
    )


@lab.command(
    epilog="""\b
Examples:
  seawall lab traffic --rate 500 --seconds 30 --ledger L
  seawall lab traffic --rate 50 --seconds 600 --ledger L --type order.placed --bytes-max 2000

\b
Arrivals don't wait for answers (open loop). Each attempt is in the ledger before its first byte leaves; nothing is
repeated unless --retry says so. A ledger that exists is continued with one more run. Ctrl-C ends it in order.
Exit codes: 0 the plan was sent, whatever the answers were; 1 not all of it was sent; 2 misused; 4 nobody answers."""
)
@click.option("--rate", type=Number(0.01, 100_000), required=True, help="Events a second, on average.")
@click.option("--seconds", type=Number(0.01, 86_400 * 7), required=True, help="For how long.")
@click.option("--ledger", "path", metavar="FILE", required=True, help="Where every attempt and answer is kept.")
@click.option("--seed", type=int, help="Arrivals and bodies are a function of it. [default: a new one]")
@click.option("--type", default="lab.event", show_default=True, help="Event type.")
@click.option(
    "--bytes-max", type=click.IntRange(0, limit.BODY_BYTES_MAX), default=64 * 1024, show_default=True,
    help="Largest body.",
)  # fmt: skip
@click.option("--connections", type=click.IntRange(1, 5000), default=64, show_default=True, help="Kept open.")
@click.option("--timeout", "timeout_s", type=Number(0.1, 300), default=10.0, show_default=True,
              metavar="SECONDS", help="How long an answer may take before it counts as unsure.")  # fmt: skip
@click.option("--retry", type=click.IntRange(0, 20), default=0, show_default=True,
              help="Repeats of what wasn't answered 2xx or 4xx, with the same id.")  # fmt: skip
@data_option
@url_option
@json_option
def traffic(path: str, data: str | None, url: str | None, as_json: bool, **plan: Any) -> int:
    """Send signed events of seeded, varied bodies to a source of its own, which is removed after."""
    seed = plan["seed"] if plan["seed"] is not None else secrets.randbits(32)
    made = Plan(
        rate=plan["rate"],
        seconds=plan["seconds"],
        seed=seed,
        type=plan["type"],
        bytes_max=plan["bytes_max"],
        connections=plan["connections"],
        answer_timeout_s=plan["timeout_s"],
        retries=plan["retry"],
    )
    with Platform(finder(data, url)) as platform:
        try:
            tally = _run_traffic(platform, made, Path(path), quiet=as_json)
        except Unavailable as error:
            raise Failed(UNREACHABLE, str(error)) from error
        except OSError as error:
            raise Failed(FAILED, f"the ledger {path}: {error}") from error
    if as_json:
        say_json({"ledger": path, "seed": seed, **tally.summary()})
    else:
        click.echo(
            f"sent {tally.sent}, acked {tally.acked()}; seawall lab verify --ledger {path} tells what became of it"
        )
    return FAILED if tally.unsent else 0


def _run_traffic(platform: Platform, plan: Plan, path: Path, *, quiet: bool) -> Tally:
    run = f"t{secrets.token_hex(6)}"
    secret = "whsec_" + b64encode(secrets.token_bytes(24)).decode()
    source = platform.own_source(
        f"lab-{run}", kind="standard", secret=secret, settings={"body_bytes_max": max(1, plan.bytes_max)}
    )
    try:
        with Ledger(path) as book:
            about = {
                "source": source.name, "source_id": source.id, "seed": plan.seed, "rate": plan.rate,
                "seconds": plan.seconds, "type": plan.type, "bytes_max": plan.bytes_max,
                "started_us": time.time_ns() // 1000,
            }  # fmt: skip
            book.begin(run, about)
            target = Target(address=_address(platform, source), path=source.path, secret=secret.encode())
            return asyncio.run(_send(Traffic(plan, target, book, run=run), quiet=quiet))
    finally:
        _remove(platform, source)


def _address(platform: Platform, source: Source) -> Any:
    """The address, read again at most every tenth of a second."""
    known, read_at = platform.listen(source), time.monotonic()

    def address() -> tuple[str, int]:
        nonlocal known, read_at
        if time.monotonic() - read_at > 0.1:
            known, read_at = platform.listen(source), time.monotonic()
        return known

    return address


async def _send(traffic: Traffic, *, quiet: bool) -> Tally:
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, traffic.stop)
    saying = asyncio.create_task(_say_progress(traffic.tally, quiet=quiet))
    try:
        return await traffic.send()
    finally:
        saying.cancel()


async def _say_progress(tally: Tally, *, quiet: bool) -> None:
    began = time.monotonic()
    while not quiet:
        await asyncio.sleep(SAY_EVERY_S)
        unsure = {word: count for word, count in sorted(tally.answers.items()) if not word.startswith("2")}
        said = "".join(f", {word} {count}" for word, count in unsure.items())
        line = f"{time.monotonic() - began:6.1f} s  sent {tally.sent}, acked {tally.acked()}{said}"
        click.echo(line + (f", unsent {tally.unsent}" if tally.unsent else ""), err=True)


def _remove(platform: Platform, source: Source) -> None:
    try:
        platform.remove_source(source.name)
    except (Unavailable, Rejected) as error:
        click.echo(f"seawall: the source {source.name} is still there ({error}): seawall source remove it", err=True)


@lab.command(
    epilog="""\b
Examples:
  seawall lab verify --ledger L
  seawall lab verify --ledger L --timeout 300 --workflow weigh --must-succeed --json

\b
Waits until everything that was accepted has come to its end. What hasn't after --timeout is unknown, and red.
Exit codes: 0 nothing was lost, invented, corrupted or duplicated, and nothing is unknown; 1 otherwise; 2 misused."""
)
@click.option("--ledger", "path", metavar="FILE", required=True, help="What `seawall lab traffic` wrote.")
@click.option("--timeout", "timeout_s", type=Number(0, 86_400), default=60.0, show_default=True,
              metavar="SECONDS", help="How long to wait for what isn't finished.")  # fmt: skip
@click.option("--workflow", "workflows", multiple=True, metavar="NAME",
              help="Every event must have a run of it; repeatable. [default: of what any event has]")  # fmt: skip
@click.option("--must-succeed", is_flag=True,
              help="Count a run that failed as lost: for workflows that can't fail by themselves.")  # fmt: skip
@data_option
@url_option
@json_option
def verify(
    path: str,
    timeout_s: float,
    workflows: tuple[str, ...],
    must_succeed: bool,
    data: str | None,
    url: str | None,
    as_json: bool,
) -> int:
    """Compare a ledger with what the platform holds: lost, invented, corrupted, duplicated, recovered, unknown."""
    try:
        book = ledgers.read(Path(path))
    except (OSError, ValueError) as error:
        raise Failed(MISUSED, f"--ledger {path}: {error}") from error
    with Platform(finder(data, url), patience_s=min(5.0, timeout_s)) as platform:
        verdict = verified(
            platform,
            book,
            timeout_s=timeout_s,
            workflows=workflows,
            must_succeed=must_succeed,
            progress=None if as_json else _say_round,
        )
    if as_json:
        say_json({**verdict.counts(), "runs": verdict.runs, "holds": verdict.holds, "examples": verdict.examples})
    else:
        say_verdict(verdict)
    return 0 if verdict.holds else FAILED


def _say_round(verdict: Verdict) -> None:
    if sys.stderr.isatty() or verdict.unknown or verdict.lost:
        said = f"{verdict.finished} of {verdict.accepted} accepted events are finished"
        click.echo(f"        {said}; not yet there {verdict.lost}, not yet finished {verdict.unknown}", err=True)


def say_verdict(verdict: Verdict) -> None:
    """The table. Its last line says ``lost 0`` only when the verdict holds."""
    for word, kept in verdict.examples.items():
        for line in kept[:5]:
            click.echo(f"  {word}: {line}")
    if verdict.accepted and not verdict.runs:
        click.echo("  no event has a run, so none was missed; --workflow NAME says that each must have one")
    counts = verdict.counts()
    for word, count in counts.items():
        if word != "lost":
            click.echo(f"{word:>12} {count}")
    if verdict.holds or verdict.lost:
        click.echo(f"{'lost':>12} {verdict.lost}")
    else:
        click.echo(f"{'lost':>12} none seen, but the verdict doesn't hold: see above")
