"""``seawall runs check``: new code against what is kept of runs."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import click
import msgspec

from seawall.cli.client import Client, find, part
from seawall.cli.listing import place_options, where_option
from seawall.cli.say import FAILED, MISUSED, Failed, json_option, say, say_json, say_table

if TYPE_CHECKING:
    from seawall.store.history import RunHistory
    from seawall.workflow import App, Workflow

DIFFER: Final = 6
"""Exit code: runs go on, otherwise than before."""

UNFINISHED: Final = "state=queued|waiting|held|limited|running"
ENDED: Final = "state=succeeded|failed, since=24h"
GROUP_COLUMNS: Final = ("workflow", "version", "runs", "go_on", "differ", "break")
FOUND_COLUMNS: Final = ("run", "workflow", "version", "status", "severity", "what")
PAGE: Final = 100
SHOWN_MAX: Final = 20
WORDS: Final = {0: "go_on", 1: "differ", 2: "break"}


@dataclass
class Tally:
    """What was found."""

    groups: dict[tuple[str, str], dict[str, Any]] = field(default_factory=dict)
    findings: list[dict[str, Any]] = field(default_factory=list)
    others: int = 0  # runs of workflows that the app doesn't have

    def add(self, run: RunHistory, found: list[tuple[int, str]]) -> None:
        group = self.groups.setdefault(
            (run.workflow, run.version),
            {"workflow": run.workflow, "version": run.version, "runs": 0, **dict.fromkeys(WORDS.values(), 0)},
        )
        group["runs"] += 1
        group[WORDS[max((severity for severity, _ in found), default=0)]] += 1
        named = {"run": run.id, "workflow": run.workflow, "version": run.version, "status": run.status}
        self.findings += [{**named, "severity": WORDS[severity], "what": what} for severity, what in found]

    @property
    def code(self) -> int:
        worst = {line["severity"] for line in self.findings}
        return FAILED if "break" in worst else DIFFER if "differ" in worst else 0


@click.command(
    epilog="""\b
Examples:
  seawall runs check --app new.py                            unfinished runs, and those that ended lately
  seawall runs check --app new.py --where 'workflow=deploy, state=waiting'
  seawall runs check --app new.py --as-version 2 --where 'workflow=deploy, version=1, state=queued|waiting'

\b
Steps are not called: they give what they gave. What stands between steps is, so it must have no effect.
Exit codes: 0 all go on, 1 some would break, 2 misused, 4 unreachable, 6 some would go on otherwise."""
)
@click.option("--app", required=True, metavar="FILE", help="The new code.")
@where_option
@click.option("--as-version", metavar="VERSION", help="Which version to call; else each run's own.")
@click.option(
    "--limit", type=click.IntRange(1, 10_000), default=200, show_default=True, metavar="N", help="Runs, the newest."
)
@place_options
@json_option
def check(
    app: str, where: str | None, as_version: str | None, limit: int, data: str | None, url: str | None, as_json: bool
) -> int:
    """Tell which runs new code would break, before it is deployed."""
    from seawall.machine.application import load_app

    declared = load_app(app)
    client = Client(find(data, url))
    tally = Tally()
    for selection in [where] if where is not None else [UNFINISHED, ENDED]:
        for id in _ids(client, selection, limit):
            run = _history(client, id)
            if run is not None:
                _look(declared, run, as_version, tally)
    if as_json:
        groups = list(tally.groups.values())
        say_json({"groups": groups, "findings": tally.findings, "others": tally.others})
    else:
        _say(tally)
    return tally.code


def _ids(client: Client, where: str, limit: int) -> Iterator[str]:
    cursor: str | None = None
    while limit > 0:
        page = client.get("/v1/runs", where=where, limit=min(limit, PAGE), cursor=cursor)
        for line in page["items"]:
            yield line["id"]
        limit -= len(page["items"])
        cursor = page["next"]
        if cursor is None:
            return


def _history(client: Client, id: str) -> RunHistory | None:
    """None: the run's event is gone meanwhile, or the run."""
    from seawall.cli.say import NOT_FOUND
    from seawall.store.history import RunHistory

    try:
        return msgspec.json.decode(client.raw(f"/v1/runs/{part(id)}/history"), type=RunHistory)
    except Failed as error:
        if error.code != NOT_FOUND:
            raise
        return None


def _look(app: App, run: RunHistory, as_version: str | None, tally: Tally) -> None:
    versions = {w.version: w for w in app.workflows if w.name == run.workflow}
    if not versions:
        tally.others += 1
        return
    wanted = as_version or run.version
    workflow = versions.get(wanted)
    if workflow is None and as_version is not None:
        raise Failed(MISUSED, f"workflow {run.workflow} has no version {as_version} in this app")
    if workflow is not None:
        tally.add(run, asyncio.run(_retraced(workflow, run)))
    elif not run.over:
        tally.add(run, [(2, f"version {wanted} isn't in this app: it would wait, or be moved (seawall runs move)")])


async def _retraced(workflow: Workflow, run: RunHistory) -> list[tuple[int, str]]:
    from datetime import UTC, datetime

    from seawall.workflow import Event
    from seawall.workflow.retrace import History, Kept, Severity, retrace

    event = Event(
        id=run.event, type=run.type, tenant=run.tenant, source=run.source, headers=run.headers, body=run.body,
        received_at=datetime.fromtimestamp(run.received_us / 1_000_000, tz=UTC),
    )  # fmt: skip
    kept = [Kept(k.name, k.nth, k.result, k.failed, k.started_us) for k in run.kept]
    history = History(
        id=int(run.id), attempt=run.attempt, over=run.over, failed=run.over and run.status != "succeeded",
        now_us=run.now_us, event=event, kept=kept,
    )  # fmt: skip
    found = await retrace(workflow, history)
    # One that is over breaks no more: it only shows what such runs would meet.
    most = Severity.DIFFERS if run.over else Severity.BREAKS
    return [(int(min(one.severity, most)), one.what) for one in found]


def _say(tally: Tally) -> None:
    say_table(list(tally.groups.values()), GROUP_COLUMNS, empty="no runs of this app's workflows")
    if tally.findings:
        say("")
        worst = sorted(tally.findings, key=lambda line: line["severity"] != "break")
        say_table(worst[:SHOWN_MAX], FOUND_COLUMNS, empty="")
        if len(worst) > SHOWN_MAX:
            say(f"and {len(worst) - SHOWN_MAX} more: --json", err=True)
    if tally.others:
        say(f"{tally.others} runs are of workflows that this app doesn't have", err=True)
