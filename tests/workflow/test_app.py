"""A wrong declaration fails when the file is imported, and says how to write it."""

from __future__ import annotations

import functools
from typing import Any

import pytest

from seawall import App, Context, Event, Retry


async def deploy(event: Event, ctx: Context) -> None:
    return None


def plain(event: Event, ctx: Context) -> None:
    return None


async def lonely(event: Event) -> None:
    return None


async def optional(event: Event, ctx: Context, more: int = 3) -> None:
    return None


def test_defaults_are_version_one_the_default_queue_and_five_attempts() -> None:
    app = App()
    assert app.workflow(on="github.push")(deploy) is deploy  # the function stays usable by itself
    (found,) = app.workflows
    assert (found.name, found.version, found.queue, found.on) == ("deploy", "1", "default", "github.push")
    assert (found.retry, found.timeout_s, found.function) == (Retry(), 3600.0, deploy)


@pytest.mark.parametrize(
    ("function", "options", "said"),
    [
        (plain, {}, "async def plain"),
        (lonely, {}, r"called as lonely\(event, ctx\)"),
        (functools.partial(lonely), {"name": "part"}, r"called as part\(event, ctx\)"),
        (deploy, {"on": ""}, "on=''"),
        (deploy, {"on": 3}, "on=3; text is needed"),
        (deploy, {"on": "x" * 201}, "1 to 200 printable"),
        (deploy, {"name": "two\nlines"}, "printable"),
        (deploy, {"name": " spaces "}, "without spaces around"),
        (deploy, {"version": 2}, "version=2; text is needed"),
        (deploy, {"queue": "nul\0"}, "printable"),
        (deploy, {"retry": 5}, r"retry=Retry\(attempts=5\)"),
        (deploy, {"timeout_s": 0}, "timeout_s=0"),
        (deploy, {"timeout_s": float("nan")}, "timeout_s=nan"),
        (deploy, {"timeout_s": 1e9}, "at most 86400"),
        (deploy, {"timeout_s": "60"}, "timeout_s='60'"),
    ],
)
def test_a_wrong_declaration_says_what_is_wrong(function: Any, options: dict[str, Any], said: str) -> None:
    with pytest.raises((TypeError, ValueError), match=said):
        App().workflow(**{"on": "github.push", **options})(function)


def test_the_same_name_and_version_twice_is_refused_but_two_versions_are_not() -> None:
    app = App()
    app.workflow(on="a")(deploy)
    app.workflow(on="a", version="2")(deploy)
    app.workflow(on="a", name="optional")(optional)
    with pytest.raises(ValueError, match="deploy version 1 is declared twice"):
        app.workflow(on="b")(deploy)
    assert [(w.name, w.version) for w in app.workflows] == [("deploy", "1"), ("deploy", "2"), ("optional", "1")]
