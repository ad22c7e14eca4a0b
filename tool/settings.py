"""Writes docs/settings.md from the settings that the rooms declare: ``python tool/settings.py``."""

from __future__ import annotations

from itertools import groupby
from pathlib import Path

from seawall.kernel.setting import Value
from seawall.settings import read

PAGE = Path(__file__).resolve().parents[1] / "docs" / "settings.md"
HEAD = """# Settings

Read once at start, the strongest first: a flag, an environment variable, `seawall.toml`, the default. The file is
`DIR/seawall.toml`, or the one that `--config` names; a room's settings stand in a table of its name (`[journal]`),
those of the whole program above all tables. In the environment they are `SEAWALL_JOURNAL_…` and `SEAWALL_…`; lists
are written with commas. Unknown keys of the file are refused; so is any value out of range, and all problems are told
together, with file, line and what is allowed (exit 2). Secrets belong into files: `dsn_file`, `worker_dsn_file`,
`--secret-file`.

`seawall settings` shows each value as a start would see it now, and where it comes from. SIGHUP to `seawall up` reads
everything again and applies at once what says "live" below, without closing a connection or stopping a run: a lower
limit holds for what comes from then on. Settings that say "restart" keep their values until `seawall up` is started
again, also in a role that is started again meanwhile, and the log names those that were changed. A file with a mistake
changes nothing, and the log says why.

For commands, not for the platform: `SEAWALL_DATA` (the data folder), `SEAWALL_URL` and `SEAWALL_TOKEN_FILE` (a
platform elsewhere).

This page is written by `tool/settings.py`; a test compares it with the code.
"""


def page() -> str:
    """The whole page."""
    values = list(read({}, config=None, environment={}).values.values())
    parts = [HEAD]
    for section, group in groupby(values, key=lambda value: value.section):
        parts.append(f"\n## {f'[{section}]' if section else 'Of the whole program'}\n")
        parts.append("\n| name | default | allowed | change | what it does |\n|---|---|---|---|---|\n")
        parts.extend(_row(value) for value in group)
    return "".join(parts)


def _row(value: Value) -> str:
    said = ",".join(value.value) if isinstance(value.value, tuple) else value.value
    default = f"`{said}`" if said != "" else ""
    change = "live" if value.live else "restart"
    return f"| `{value.name}` | {default} | {value.allowed} | {change} | {value.help} |\n"


if __name__ == "__main__":
    PAGE.write_text(page(), "utf-8")
