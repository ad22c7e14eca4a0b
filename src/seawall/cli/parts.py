"""``seawall lab parts``: real Kafka, Redis and more on this machine, to break."""

from __future__ import annotations

import functools
import signal
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from seawall.cli.say import FAILED, MISUSED, NOT_FOUND, Failed, json_option, say_json, say_table
from seawall.kernel.error import Misconfigured, Rejected, SeawallError

if TYPE_CHECKING:
    from seawall.lab.part.part import Part
    from seawall.lab.part.proxy import FaultProxy

COLUMNS = ("part", "node", "state", "pid", "memory_mb", "port")
SIGNALS = ("KILL", "TERM", "INT", "QUIT", "STOP", "CONT", "HUP")


@click.group()
def parts() -> None:
    """Real Kafka, Redis, PostgreSQL and a fault proxy on this machine, all in one folder.

    \b
      seawall lab parts doctor                    what is missing, and the cure
      seawall lab parts up kafka3 sentinel        fetched at the first time; says what and how big
      seawall lab parts topic kafka3 seawall      a topic for events; prints the brokers' addresses
      seawall lab parts kill kafka3 broker2       or --signal STOP; then start, then settle
      seawall lab parts down
    """


def folder_option(command: Any) -> Any:
    return click.option(
        "--folder", metavar="DIR", default="build/parts", show_default=True,
        help="Where programs, data, logs and pid files lie. Nothing is written elsewhere.",
    )(command)  # fmt: skip


def told(command: Callable[..., int]) -> Callable[..., int]:
    """Failures as lines and exit codes."""

    @functools.wraps(command)
    def run(*args: Any, **given: Any) -> int:
        try:
            return command(*args, **given)
        except Misconfigured as error:
            raise Failed(MISUSED, "\n".join(error.problems)) from error
        except Rejected as error:
            raise Failed(NOT_FOUND if error.status == 404 else FAILED, str(error)) from error
        except SeawallError as error:
            raise Failed(FAILED, str(error)) from error

    return run


def _say(text: str) -> None:
    click.echo(text, err=True)


def _one(folder: str, name: str) -> Part:
    from seawall.lab.part import catalog

    return catalog.parts(Path(folder), [name], _say)[0]


@parts.command(
    epilog="""\b
Examples:
  seawall lab parts up                          kafka, redis, postgres and proxy
  seawall lab parts up kafka3 sentinel

\b
They run on after this command, until `down`. What is there already stays as it is.
Exit codes: 0 all of it works; 1 something couldn't be fetched or started; 2 a program is missing."""
)
@click.argument("names", nargs=-1, metavar="[PART]...")
@folder_option
@json_option
@told
def up(names: tuple[str, ...], folder: str, as_json: bool) -> int:
    """Start parts, and wait until they work."""
    from seawall.lab.part import catalog

    wanted = catalog.parts(Path(folder), names, _say)
    for part in wanted:
        entry = catalog.CATALOG[part.kind]
        _say(f"{part.kind}: {entry.about}; about {entry.memory_mb} MB of memory")
        began = time.monotonic()
        part.up()
        _say(f"{part.kind}: ready after {time.monotonic() - began:.1f} s")
    _say_status(wanted, as_json=as_json)
    return 0


@parts.command(
    epilog="""\b
Examples:
  seawall lab parts down
  seawall lab parts down kafka3 --wipe

\b
In order, and after 20 s by SIGKILL. Only processes that stand in the folder's pid files, with their start time, are
ever signalled. Exit codes: 0 none of them runs; 1 one doesn't end."""
)
@click.argument("names", nargs=-1, metavar="[PART]...")
@click.option("--wipe", is_flag=True, help="Remove their data too. What was fetched stays.")
@folder_option
@told
def down(names: tuple[str, ...], wipe: bool, folder: str) -> int:
    """Stop parts; all that are there, when none is named."""
    from seawall.lab.part import catalog

    there = catalog.made(Path(folder), _say)
    for part in there:
        if not names or part.kind in names:
            (part.wipe if wipe else part.down)()
    return 0


@parts.command(
    epilog="""\b
Example: seawall lab parts status --json

\b
Exit codes: 0 every node of every part that is there is up; 1 otherwise."""
)
@folder_option
@json_option
@told
def status(folder: str, as_json: bool) -> int:
    """Every node: up, stopped by SIGSTOP or down; pid, memory, port."""
    from seawall.lab.part import catalog

    there = catalog.made(Path(folder))
    _say_status(there, as_json=as_json)
    return 0 if all(node.state == "up" for part in there for node in part.status()) else FAILED


def _say_status(there: list[Part], *, as_json: bool) -> None:
    rows = [asdict(node) for part in there for node in part.status()]
    if as_json:
        say_json({"parts": rows})
    else:
        say_table(rows, COLUMNS, empty="no part was ever started there")


@parts.command(
    epilog="""\b
Examples:
  seawall lab parts kill kafka3 broker2
  seawall lab parts kill sentinel r1 --signal STOP      it hangs; --signal CONT lets it go on

\b
Exit codes: 0 done; 1 it doesn't run; 3 no such part or node."""
)
@click.argument("part")
@click.argument("node")
@click.option("--signal", "name", type=click.Choice(SIGNALS), default="KILL", show_default=True, help="Which signal.")
@folder_option
@told
def kill(part: str, node: str, name: str, folder: str) -> int:
    """Signal one node; one that ends it is waited for."""
    found = _one(folder, part)
    if name == "STOP":
        found.stop(node)
    elif name == "CONT":
        found.cont(node)
    else:
        found.kill(node, signal.Signals[f"SIG{name}"])
    return 0


@parts.command(
    epilog="""\b
Example: seawall lab parts start kafka3 broker2

\b
Exit codes: 0 it answers; 1 it doesn't; 3 no such part or node."""
)
@click.argument("part")
@click.argument("node")
@folder_option
@told
def start(part: str, node: str, folder: str) -> int:
    """Start a node that was killed, and wait until it answers."""
    _one(folder, part).start(node)
    return 0


@parts.command(
    epilog="""\b
Example: seawall lab parts settle kafka3

\b
Between two faults this matters: a second one within about 10 s can take what was acknowledged, since a stale
Redis may be elected.
Exit codes: 0 healed; 1 not in time, and why."""
)
@click.argument("part")
@click.option("--timeout", "timeout_s", type=click.FloatRange(0, 3600), default=60.0, show_default=True,
              metavar="SECONDS", help="How long to wait.")  # fmt: skip
@folder_option
@told
def settle(part: str, timeout_s: float, folder: str) -> int:
    """Wait until every replica has everything."""
    _one(folder, part).settle(timeout_s)
    return 0


@parts.command(
    epilog="""\b
Examples:
  seawall lab parts topic kafka3 seawall
  seawall lab parts topic kafka other --partitions 3

\b
With the settings that profile cluster asks for: on every broker, min.insync.replicas one less than those (and at least
1), no limit by bytes, and room for the largest event. Prints the brokers' addresses, for `kafka.bootstrap`.
Exit codes: 0 it is there now; 1 it couldn't be made, for instance since it was there; 2 not a Kafka; 3 no such part."""
)
@click.argument("part")
@click.argument("name")
@click.option("--partitions", type=click.IntRange(1, 100), default=6, show_default=True, help="Of the topic.")
@folder_option
@told
def topic(part: str, name: str, partitions: int, folder: str) -> int:
    """Make a topic that events may go to; prints the brokers' addresses."""
    from seawall.journal.topic import RECORD_OVERHEAD_BYTES
    from seawall.kernel.limit import RECORD_BYTES_MAX
    from seawall.lab.part.kafka import Kafka

    kafka = _one(folder, part)
    if not isinstance(kafka, Kafka):
        raise Failed(MISUSED, f"{part} isn't a Kafka; kafka and kafka3 are")
    in_sync = max(1, len(kafka.brokers) - 1)
    settings = {
        "min.insync.replicas": str(in_sync), "retention.bytes": "-1",
        "max.message.bytes": str(RECORD_BYTES_MAX + RECORD_OVERHEAD_BYTES),
    }  # fmt: skip
    kafka.make_topic(name, partitions=partitions, settings=settings)
    click.echo(kafka.bootstrap)
    return 0


@parts.command(
    epilog="""\b
Example: seawall lab parts link redis 127.0.0.1:6379

\b
The proxy must be up. A link that is there is pointed at the new address, for connections to come.
Exit codes: 0 done; 1 the proxy doesn't answer, or refused."""
)
@click.argument("name")
@click.argument("address", metavar="127.0.0.1:PORT")
@folder_option
@told
def link(name: str, address: str, folder: str) -> int:
    """Make a line through the proxy; prints the address for clients."""
    host, _, port = address.rpartition(":")
    if host not in ("127.0.0.1", "localhost") or not port.isdigit():
        raise Failed(MISUSED, f"{address} isn't an address of loopback, such as 127.0.0.1:6379")
    click.echo(f"127.0.0.1:{_proxy(folder).link(name, int(port))}")
    return 0


@parts.command(
    epilog="""\b
Examples:
  seawall lab parts fault redis latency ms=300 jitter_ms=50
  seawall lab parts fault redis hole way=down           black hole: no RST; also up, both
  seawall lab parts fault redis cut bytes=100           also reset, refuse, bandwidth bytes_s=1000
  seawall lab parts fault redis                         nothing is wrong with it any more

\b
It takes the place of the faults that were there. Exit codes: 0 done; 1 the proxy doesn't answer; 3 no such link."""
)
@click.argument("name")
@click.argument("kind", required=False)
@click.argument("values", nargs=-1, metavar="[FIELD=VALUE]...")
@folder_option
@told
def fault(name: str, kind: str | None, values: tuple[str, ...], folder: str) -> int:
    """Break a line that goes through the proxy, or mend it."""
    from seawall.lab.part.fault import parse

    if unclear := [word for word in values if "=" not in word]:
        raise Failed(MISUSED, f"{unclear[0]} isn't FIELD=VALUE")
    said = {key: value for key, _, value in (word.partition("=") for word in values)}
    _proxy(folder).set(name, *([parse({"kind": kind, **said})] if kind is not None else []))
    return 0


def _proxy(folder: str) -> FaultProxy:
    from seawall.lab.part.proxy import FaultProxy

    return FaultProxy(Path(folder) / "proxy")


@parts.command(
    epilog="""\b
Examples:
  seawall lab parts prepare                     what `make parts` runs
  seawall lab parts prepare kafka redis

\b
What was proven, and hasn't changed since, is not done again.
Exit codes: 0 each works; 1 something couldn't be fetched or started; 2 a program is missing."""
)
@click.argument("names", nargs=-1, metavar="[PART]...")
@folder_option
@json_option
@told
def prepare(names: tuple[str, ...], folder: str, as_json: bool) -> int:
    """Fetch parts (all, when none is named), start and use each once, and stop it."""
    from seawall.lab.part import proof

    found = proof.prove(Path(folder), names, _say)
    if as_json:
        say_json({"proven": [asdict(each) for each in found]})
    else:
        rows = [{**asdict(each), "seconds": round(each.seconds, 1)} for each in found]
        say_table(rows, ("part", "seconds", "what"), empty="nothing")
    return 0


@parts.command(
    epilog="""\b
Example: seawall lab parts doctor --json

\b
Nothing is fetched or started. Exit codes: 0 nothing is missing; 1 something is."""
)
@folder_option
@json_option
@told
def doctor(folder: str, as_json: bool) -> int:
    """What this machine lacks for the parts, and the cure."""
    from seawall.lab.part import doctor as examination

    checks = examination.examine(Path(folder))
    if as_json:
        say_json({"ok": all(check.ok for check in checks), "checks": [asdict(check) for check in checks]})
    else:
        for check in checks:
            click.echo(f"{'ok' if check.ok else 'MISSING':8} {check.name:16} {check.found}")
            if not check.ok:
                click.echo(f"{'':8} needed for {check.parts}. Cure: {check.cure}")
    return 0 if all(check.ok for check in checks) else FAILED
