"""Steps that ship with Seawall: HTTP requests, Slack, GitHub, SQL, and how other packages add theirs.

    from seawall.step import http_request, secret

    answer = await ctx.step(http_request, "POST", "https://example.com/hook", json={"id": 7},
                            headers={"authorization": secret("hook", prefix="Bearer ")})

Each is known to runs by its name and version, has a breaker for each service it calls, is counted by cause, and keeps
secrets out of results, logs and errors. What they may reach is the installation's to say (`[step]`). The room is at
work in whichever process runs workflows: the worker lends it a ``Toolbox`` there.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from seawall.step.error import StepDeclined, StepRefused, StepUnavailable
    from seawall.step.github import github_issue
    from seawall.step.http import http_request
    from seawall.step.installed import load
    from seawall.step.keyring import secret
    from seawall.step.postgres import sql
    from seawall.step.setting import Settings
    from seawall.step.shipped import step
    from seawall.step.slack import slack_channel
    from seawall.step.toolbox import Toolbox, lend

_WHERE = {
    "Settings": "setting", "StepDeclined": "error", "StepRefused": "error", "StepUnavailable": "error",
    "Toolbox": "toolbox", "github_issue": "github", "http_request": "http", "lend": "toolbox", "load": "installed",
    "secret": "keyring", "slack_channel": "slack", "sql": "postgres", "step": "shipped",
}  # fmt: skip
"""Where each name is. Imported when it is asked for: every process reads the settings in here, and few call anybody."""


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module {__name__} has no {name}")
    return getattr(importlib.import_module(f"{__name__}.{_WHERE[name]}"), name)


__all__ = [
    "Settings", "StepDeclined", "StepRefused", "StepUnavailable", "Toolbox", "github_issue", "http_request", "lend",
    "load", "secret", "slack_channel", "sql", "step",
]  # fmt: skip
