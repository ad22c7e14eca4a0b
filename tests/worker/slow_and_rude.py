"""Both apps in one."""

from __future__ import annotations

from seawall import App
from worker import rude, slow

app = App()
for one in (*rude.app.workflows, *slow.app.workflows):
    app._add(one)
