"""A platform that asks a person: by a link over the listen address, over a restart, and by the command line."""

from __future__ import annotations

import json
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from journey.program import READY_S, seawall
from seawall.lab.tree import Tree

APP = """
from pathlib import Path

from seawall import App, Context, Event

app = App()


async def send(link: str) -> None:
    with (Path(__file__).parent / "links").open("a") as file:
        file.write(link + "\\n")


@app.workflow(on="deploy.asked")
async def deploy(event: Event, ctx: Context) -> dict:
    request = await ctx.approval("deploy?", to=event.json["to"], within=600)
    for link in request.links.values() or [request.link]:
        await ctx.step(send, link)
    answer = await request
    return {"approved": bool(answer), "by": answer.by, "via": answer.via}
"""


def opened(link: str, **form: str) -> tuple[int, str]:
    """GET, or POST of a form; status and page."""
    data = urllib.parse.urlencode(form).encode() if form else None
    try:
        with urllib.request.urlopen(link, data, timeout=10) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def until(holds: Callable[[], Any], timeout_s: float = 20.0) -> Any:
    latest = time.monotonic() + timeout_s
    while not (found := holds()):
        assert time.monotonic() < latest
        time.sleep(0.05)
    return found


def asked(tree: Tree, url: str, home: Path, *, to: list[str]) -> tuple[str, list[str]]:
    """A run that has sent its links."""
    file = home / "links"
    file.unlink(missing_ok=True)
    body = json.dumps({"to": to})
    sent = seawall("send", url, "--kind", "none", "--header", "ce-type: deploy.asked", "--body", body, "--json")
    assert sent.code == 0, sent.err
    count = len(to) or 1
    links = until(lambda: file.exists() and len(file.read_text().split()) == count and file.read_text().split())
    [run] = seawall("runs", "list", "--event", sent.json["body"]["id"], "--data", str(tree.data), "--json").json[
        "items"
    ]
    return run["id"], links


@pytest.mark.slow
def test_a_person_decides_by_a_link_over_restarts_and_by_the_command_line(
    start: Callable[..., Tree], home: Path
) -> None:
    tree = start(app=APP)
    data = ("--data", str(tree.data))
    url = seawall("source", "add", "asks", "--kind", "none", "--json", *data).json["url"]

    def result(run: str) -> Any:
        return seawall("runs", "show", run, "--json", *data).json["result"]

    run, [link] = asked(tree, url, home, to=[])
    assert [opened(link)[0] for _ in range(2)] == [200, 200]
    assert opened(f"{link[:-4]}AAAA")[0] == 404
    worker = tree.kill("worker")
    assert opened(link, answer="yes", name="Ana")[0] == 200, "while no worker runs"
    tree.wait_replaced("worker", worker, READY_S)
    assert until(lambda: result(run)) == {"approved": True, "by": "Ana", "via": "form"}
    status, page = opened(link, answer="no", name="Ben")
    assert status == 409 and "Approved by Ana" in page

    later, (ana, ben) = asked(tree, url, home, to=["ana", "ben"])
    other, [unused] = asked(tree, url, home, to=["eve"])
    tree.stop()
    again = start(app=APP)  # another port, and the key of before
    host = urllib.parse.urlsplit(again.place().listen).netloc
    ana, ben, unused = (urllib.parse.urlsplit(one)._replace(netloc=host).geturl() for one in (ana, ben, unused))
    assert {a["run"] for a in seawall("approvals", "list", "--json", *data).json["items"]} == {later, other}
    assert opened(ben, answer="no", comment="not today")[0] == 200
    assert opened(ana)[0] == 410
    assert until(lambda: result(later)) == {"approved": False, "by": "ben", "via": "link"}
    said = seawall("runs", "approve", other, "--yes", "--by", "ops", *data)
    assert said.code == 0 and "approved by ops" in said.out
    second = seawall("runs", "approve", other, "--no", *data)
    assert second.code == 1 and "it was approved by ops (api) at 20" in second.err
    assert until(lambda: result(other)) == {"approved": True, "by": "ops", "via": "api"}
    assert "Approved by ops" in opened(unused)[1]
    changes = seawall("changes", "--kind", "approval", "--json", *data).json["items"]
    assert {(c["what"], c["by"]) for c in changes} == {(other, "ops"), (later, "ben"), (run, "Ana")}
    again.stop()
    for file in [*home.glob("*.log"), *(f for f in tree.data.rglob("*") if f.is_file() and f.stat().st_size < 1 << 24)]:
        content = file.read_bytes()
        for one in (link, ana, ben, unused):
            assert one.rpartition("/")[2][-40:].encode() not in content, file
