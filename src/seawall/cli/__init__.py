"""Arguments to one call each, a file per noun. Exit codes: 0 done, 1 failed, 2 misconfigured or misused, 3 not found,
4 unreachable, 5 not in time.

Commands are imported when they are called: ``seawall --help`` must not pay for the platform.
"""

from __future__ import annotations

import importlib
import io
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from seawall import __version__
from seawall.cli.say import Failed, say_failure
from seawall.kernel.error import Misconfigured, SeawallError

if TYPE_CHECKING:
    from seawall.app import Making

COMMANDS: dict[str, tuple[str, str]] = {
    "up": ("seawall.cli.up:up", "Run the whole platform on this machine, in the foreground."),
    "down": ("seawall.cli.up:down", "Stop a running platform."),
    "run": ("seawall.cli.run:run", "Run one role alone (systemd, Kubernetes)."),
    "demo": ("seawall.cli.demo:demo", "Show the whole way of an event, and that nothing is lost."),
    "source": ("seawall.cli.source:source", "Add, list, rotate, revoke and remove sources of events."),
    "send": ("seawall.cli.send:send", "Send an event, signed as any kind of source signs."),
    "events": ("seawall.cli.events:events", "Look at events that came in."),
    "runs": ("seawall.cli.runs:runs", "Look at runs of workflows."),
    "bulk": ("seawall.cli.bulk:bulk", "Acts on many runs: look how far they have come, or undo one."),
    "workflows": ("seawall.cli.workflows:workflows", "Versions: see which new runs take, choose one, or freeze."),
    "replay": ("seawall.cli.replay:replay", "Run events once more, at a rate, beside fresh work."),
    "replays": ("seawall.cli.replay:replays", "Replays: look how far they have come, pause, resume or cancel one."),
    "throttle": ("seawall.cli.throttle:throttle", "Begin a queue's runs at a rate, which may rise by itself."),
    "cron": ("seawall.cli.cron:cron", "Schedules: look, pause, resume, and begin a run by hand."),
    "queues": ("seawall.cli.queues:queues", "Queues: look, pause, resume, and set their slots."),
    "approvals": ("seawall.cli.approvals:approvals", "What runs ask people."),
    "steps": ("seawall.cli.steps:steps", "Steps that workflows may use, of Seawall and of other packages."),
    "alerts": ("seawall.cli.alerts:alerts", "What is wrong now."),
    "breakers": ("seawall.cli.alerts:breakers", "Circuit breakers: look, or move one by hand."),
    "shed": ("seawall.cli.shed:shed", "Optional work: see what is off, or switch it by hand."),
    "flags": ("seawall.cli.flags:flags", "Switch optional work, and see what would flip."),
    "changes": ("seawall.cli.changes:changes", "Everything that was changed, and by whom."),
    "doctor": ("seawall.cli.doctor:doctor", "Look for what works today and breaks in an outage."),
    "journal": ("seawall.cli.journal:journal", "Inspect, verify and export a journal, offline."),
    "settings": ("seawall.cli.settings:settings", "Show every setting; preview what a file would change."),
    "backup": ("seawall.cli.backup:backup", "Write store, journal and key into one folder."),
    "restore": ("seawall.cli.backup:restore", "Make a data folder from a backup."),
    "lab": ("seawall.cli.lab:lab", "Make incidents happen, and verify that nothing was lost."),
}
"""Name → where it is, and its line of help: listing commands imports none of them."""


class Lazy(click.Group):
    """A group whose commands are imported by name."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module, _, name = COMMANDS[cmd_name][0].partition(":")
        command: click.Command = getattr(importlib.import_module(module), name)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, help) for name, (_, help) in COMMANDS.items()])


@click.group(
    cls=Lazy,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Each command explains itself with examples: seawall COMMAND --help",
)
@click.version_option(__version__, prog_name="seawall")
def seawall() -> None:
    """Takes events in over HTTP, runs durable Python workflows on them, and never loses an event that it accepted.

    \b
      seawall up --app examples/github.py       start the platform
      seawall source add gh --kind github       get a URL to give to GitHub
      seawall send gh --body '{"zen": "…"}'     try it, signed as GitHub signs
      seawall runs list                         see what ran
    """


def main(making: Making | None = None, arguments: Sequence[str] | None = None) -> None:
    """The program. Ends the process with a documented exit code; never shows a traceback for what the world does.

    Args:
        making: What a platform that it starts is made of; None: what it should be.
        arguments: None: those of the process.
    """
    for out in (sys.stdout, sys.stderr):
        if isinstance(out, io.TextIOWrapper):
            out.reconfigure(errors="backslashreplace")  # what this terminal can't show is spelt out, and no failure
    try:
        sys.exit(seawall.main(arguments, standalone_mode=False, obj=making) or 0)
    except click.exceptions.Exit as error:
        sys.exit(error.exit_code)
    except click.UsageError as error:
        error.show()
        sys.exit(2)
    except click.Abort:
        sys.exit(1)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except Misconfigured as error:
        sys.exit(say_failure(2, "misconfigured", *error.problems))
    except Failed as error:
        sys.exit(say_failure(error.code, error.what))
    except SeawallError as error:
        sys.exit(say_failure(1, str(error)))
    except BrokenPipeError:
        # The reader of our output has seen enough (`| head`). Standard output is broken: don't flush it at exit.
        sys.stderr.close()
        sys.exit(1)
    except OSError as error:  # a full disk, a folder that isn't ours: the world's doing, whichever command met it
        sys.exit(say_failure(1, f"{error.strerror or error} ({error.filename or 'no file'})"))
