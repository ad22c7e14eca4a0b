"""Whatever one seeded wrong a platform does among much that is right, the checker names it: in whatever order answers
came, whenever replies were found, and behind a line that a crash tore. Nothing wrong is called well."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from seawall.lab.checker.effect import Effect
from seawall.lab.checker.effect import judge as judge_effects
from seawall.lab.checker.ledger import Ledger, read
from seawall.lab.checker.verdict import SeenEvent, SeenRun, Verdict, judge
from seawall.lab.traffic.payload import body, sha256

SEEDS = range(12)
EVENTS, HELD = 30, 12


class World:
    """What was sent and answered, and what a platform holds of it: right, until somebody makes it wrong."""

    def __init__(self, seed: int, path: Path) -> None:
        self.random = random.Random(f"world {seed}")
        self.path = path
        self.events: dict[str, SeenEvent] = {}
        self.tickets: dict[str, str] = {}
        self.effects: list[Effect] = []
        self.replies: dict[str, tuple[str, str]] = {}
        self.statuses: dict[str, int] = {}
        for run, count in (("e1", EVENTS), ("h1", HELD)):
            for n in range(count):
                self._one(f"{run}_{n}", n, held=run == "h1")

    def _one(self, key: str, n: int, *, held: bool) -> None:
        status = self.random.choices([202, 0, 503, 413], [90, 3, 4, 3])[0]
        there = status == 202 or (status in (0, 503) and self.random.random() < 0.5)
        self.statuses[key] = status
        if held and status == 202:
            late = self.random.random() < 0.3
            self.replies[key] = ("", f"/in/tickets/{key}") if late else (key, "")
            if late:
                self.tickets[key] = key
        if there:
            runs = (SeenRun(id=f"run-{key}", workflow="w", status="succeeded"),)
            sha = sha256(self.body(key, n))
            self.events[key] = SeenEvent(id=f"id-{key}", key=key, sha256=sha, status="routed", runs=runs)
            self.effects.append(Effect(key, "a", f"{key}.a", 1))

    def body(self, key: str, n: int) -> bytes:
        return body(5 if key.startswith("e") else 6, n, type="t", bytes_max=300)

    def acked(self, *, prefix: str = "") -> str:
        """One that was accepted."""
        return self.random.choice([key for key in self.events if self.statuses[key] == 202 and key.startswith(prefix)])

    def write(self) -> None:
        """The ledger: each line in the order in which it may be, answers of different requests in any."""
        with Ledger(self.path) as ledger:
            for run, seed in (("e1", 5), ("h1", 6)):
                ledger.begin(run, {"source_id": run, "seed": seed, "type": "t", "bytes_max": 300,
                                   **({"wait_s": 5.0} if run == "h1" else {})})  # fmt: skip
            waiting: list[str] = []
            left = list(self.statuses)
            self.random.shuffle(left)
            while left or waiting:
                if left and (not waiting or self.random.random() < 0.6):
                    key = left.pop()
                    n = int(key.rpartition("_")[2])
                    data = self.body(key, n)
                    ledger.sent(key, n=n, attempt=0, sha256=sha256(data), bytes=len(data), sent_us=1)
                    waiting.append(key)
                else:
                    self._answered(ledger, waiting.pop(self.random.randrange(len(waiting))))

    def _answered(self, ledger: Ledger, key: str) -> None:
        whose, ticket = self.replies.get(key, ("", ""))
        if key.startswith("h"):
            ledger.replied(key, attempt=0, whose=whose, ticket=ticket)
        status = self.statuses[key]
        event_id = f"id-{key}" if status == 202 else ""
        ledger.answered(key, attempt=0, status=status, event_id=event_id, answered_us=2)

    def judged(self) -> Verdict:
        book = read(self.path)
        held = list(self.events.values())
        self.random.shuffle(held)
        seen = {run: [each for each in held if each.id.startswith(f"id-{run}")] for run in ("e1", "h1")}
        verdict = judge(book.runs, seen, tickets=self.tickets, must_succeed=True, must_run=True)
        self.random.shuffle(self.effects)
        judge_effects(verdict, book.runs, self.effects, must=True)
        for where, why in book.damage():
            verdict.add("unknown", where, why)
        return verdict


def _event(world: World, **changed: object) -> None:
    key = world.acked()
    world.events[key] = replace(world.events[key], **changed)  # type: ignore[arg-type]


def _other_id(world: World) -> None:
    key = world.acked()
    world.events[key] = replace(world.events[key], id=f"id-{key}-other")


def _lose(world: World) -> None:
    del world.events[world.acked()]


def _lose_all(world: World) -> None:
    world.events.clear()
    world.effects.clear()


def _lose_runs(world: World) -> None:
    """Of every event of a stream: there is no other that would say which workflow is missing."""
    for key in [key for key in world.events if key.startswith("e")]:
        world.events[key] = replace(world.events[key], runs=())


def _lose_effects(world: World) -> None:
    world.effects = [each for each in world.effects if not each.key.startswith("h")]


def _lose_effect(world: World) -> None:
    key = world.acked()
    world.effects = [each for each in world.effects if each.key != key]


def _run(world: World, status: str) -> None:
    key = world.acked()
    run = replace(world.events[key].runs[0], status=status)
    world.events[key] = replace(world.events[key], runs=(run,))


def _double(world: World) -> None:
    key = world.acked()
    world.events[key + " again"] = replace(world.events[key], id=f"id-{key}-again")


def _double_run(world: World) -> None:
    key = world.acked()
    run = world.events[key].runs[0]
    world.events[key] = replace(world.events[key], runs=(run, replace(run, id="other")))


def _invent(world: World) -> None:
    key = world.acked(prefix="e")
    world.events["x"] = replace(world.events[key], id="id-e1-x", key="e1_999")


def _keep_refused(world: World) -> None:
    key = world.acked(prefix="e")
    world.statuses[key] = 413


def _swap_replies(world: World) -> None:
    one, other = world.random.sample([key for key, (whose, _) in world.replies.items() if whose], 2)
    world.replies[one], world.replies[other] = (other, ""), (one, "")


def _swap_ticket(world: World) -> None:
    key = world.acked(prefix="h")
    world.replies[key], world.tickets[key] = ("", f"/in/tickets/{key}"), "h1_999"


def _no_reply(world: World) -> None:
    key = world.acked(prefix="h")
    world.replies[key] = ("", f"/in/tickets/{key}")
    world.tickets.pop(key, None)


WRONG: dict[str, tuple[Callable[[World], None], str]] = {
    "an event": (_lose, "lost"), "all": (_lose_all, "lost"), "a stream's runs": (_lose_runs, "lost"),
    "a stream's effects": (_lose_effects, "lost"), "an effect": (_lose_effect, "lost"),
    "a run": (lambda w: _event(w, runs=()), "lost"), "dead": (lambda w: _run(w, "dead"), "lost"),
    "failed": (lambda w: _run(w, "failed"), "lost"), "a dead letter": (lambda w: _event(w, status="dead"), "lost"),
    "a run that goes on": (lambda w: _run(w, "running"), "unknown"),
    "one that isn't routed": (lambda w: _event(w, status="received"), "unknown"),
    "bytes": (lambda w: _event(w, sha256=sha256(b"others")), "corrupted"),
    "an id": (_other_id, "corrupted"),
    "twice": (_double, "duplicated"), "two runs": (_double_run, "duplicated"),
    "never sent": (_invent, "invented"), "refused": (_keep_refused, "invented"),
    "two answers": (_swap_replies, "wrong"), "a ticket": (_swap_ticket, "wrong"), "no reply": (_no_reply, "unknown"),
}  # fmt: skip


@pytest.mark.parametrize("seed", SEEDS)
def test_what_is_right_is_believed_also_behind_a_torn_line(seed: int, tmp_path: Path) -> None:
    world = World(seed, tmp_path / "L")
    world.write()
    assert world.judged().holds
    with world.path.open("ab") as file:
        file.write(b'["sent","e1_99",99,0,"ab"')
    assert world.judged().holds, "its writer died; what it didn't write down was never sent"


@pytest.mark.parametrize("name", WRONG)
def test_one_wrong_among_much_that_is_right_is_named(name: str, tmp_path: Path) -> None:
    make, word = WRONG[name]
    for seed in SEEDS:
        world = World(seed, tmp_path / f"L{seed}")
        make(world)
        world.write()
        verdict = world.judged()
        assert not verdict.holds and verdict.counts()[word] >= 1, (seed, verdict.counts(), verdict.examples)


@pytest.mark.parametrize("seed", SEEDS)
def test_an_ack_that_is_torn_out_of_the_middle_is_no_torn_tail(seed: int, tmp_path: Path) -> None:
    """It would make an unsure answer of what was accepted, and nobody would miss it."""
    world = World(seed, tmp_path / "L")
    key = world.acked(prefix="e")
    del world.events[key]
    world.effects = [each for each in world.effects if each.key != key]
    world.write()
    lines = world.path.read_text().splitlines(keepends=True)
    (at,) = [n for n, line in enumerate(lines) if line.startswith(f'["answered","{key}",')]
    ends = ['["end","e1",{}]\n', '["end","h1",{}]\n']
    world.path.write_text("".join([*lines[:at], lines[at][:9] + "\n", *lines[at + 1 :], *ends]))
    assert not world.judged().holds
