"""An experiment becomes one for a target, or is refused with what is missing; what can't be seen is said."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from seawall.kernel.error import Misconfigured
from seawall.lab import experiment
from seawall.lab.experiment import Experiment
from seawall.lab.run import preflight, toolkit
from seawall.lab.target import file as files
from seawall.lab.target import plan

from . import tiny
from .made_target import fault, write
from .tiny import document

HERE = "http://127.0.0.1:8081"


def fit(folder: Path, said: Experiment | Mapping[str, Any], *faults: str, **more: Any) -> Experiment:
    target = files.load(write(folder, HERE, {key: fault(folder / key) for key in faults}, **more))
    found = said if isinstance(said, Experiment) else experiment.load(tiny.write(folder, said))
    return plan.fit(found, target, file="staging.toml")


def refused(folder: Path, said: Experiment | Mapping[str, Any], *faults: str, **more: Any) -> str:
    with pytest.raises(Misconfigured) as caught:
        fit(folder, said, *faults, **more)
    return "\n".join(caught.value.problems)


def action(func: str, module: str = "seawall.lab.act", **arguments: Any) -> dict[str, Any]:
    made = tiny.action(func, **arguments)
    made["provider"]["module"] = module
    return made


def steady(said: dict[str, Any], func: str = "ok_share", **arguments: Any) -> dict[str, Any]:
    provider = {"type": "python", "module": "seawall.lab.probe", "func": func, "arguments": arguments}
    said["steady-state-hypothesis"]["probes"] = [{"type": "probe", "name": func, "tolerance": 1, "provider": provider}]
    return said


def mine(*method: Mapping[str, Any], **ours: Any) -> dict[str, Any]:
    """An experiment that can be seen from outside, over a target's actions."""
    said = document(*method, **{"calls": [], "traffic": [{"kind": "events", "rate": 20}], **ours})
    said["rollbacks"] = [action("all_back")]
    return steady(said)


def test_an_experiment_of_the_catalogue_does_what_the_file_says_and_nothing_else(tmp_path: Path) -> None:
    found = fit(tmp_path, experiment.find("redis-slow"), "redis.slow")
    toolkit.check(found.document)
    first, last = found.document["method"]
    assert first["provider"]["arguments"] == {
        "fault": "redis.slow", "values": {"target": "redis", "ms": "1000", "jitter_ms": "0"},
    }  # fmt: skip
    assert first["pauses"] == {"after": 12} and last["provider"]["func"] == "back"
    assert found.ours.rig == "seawall.lab.target" and not found.ours.needs and not found.ours.without
    assert found.at is not None and found.at.name == "staging" and found.at.here
    assert found.ours.traffic == [{"kind": "events", "rate": 60, "type": "lab.event"}]


def test_what_nobody_sees_from_outside_is_left_out_and_said(tmp_path: Path) -> None:
    found = fit(tmp_path, experiment.find("redis-slow"), "redis.slow")
    assert found.at is not None
    said = "\n".join(found.at.unseen)
    assert "held requests that get their own answer: the target names no source [held]" in said
    assert "nothing is lost and no answer is another's: wrong: the target names no source [held]" in said
    kept = {claim.claim: claim.arguments for claim in found.ours.expect.on}
    assert "99 of 100 events are answered within 400 ms" in kept
    lost = kept["nothing is lost and no answer is another's"]
    assert lost["lost"] == 0 and "wrong" not in lost, "what can be judged of it, is"
    asked = "\n".join(preflight.question(found, on=True, off=False))
    assert "redis-slow on staging" in asked and "touch" in asked and "not judged" in asked and "0.069 %" in asked
    with_held = fit(tmp_path, experiment.find("redis-slow"), "redis.slow", held={
        "name": "ask", "url": f"{HERE}/in/h", "secret_file": "lab.secret", "type": "mine.ask"})  # fmt: skip
    assert with_held.at is not None and not with_held.at.unseen
    assert [each["type"] for each in with_held.ours.traffic] == ["lab.event", "mine.ask"]


@pytest.mark.parametrize("name", experiment.names())
def test_each_of_the_catalogue_says_which_tables_it_needs(name: str, tmp_path: Path) -> None:
    said = refused(tmp_path, experiment.find(name), "nothing.at-all")
    assert 'add [fault."' in said and "with apply, verify and revert" in said


def test_a_fault_that_the_file_does_not_name_is_refused_with_its_table_and_values(tmp_path: Path) -> None:
    said = refused(tmp_path, mine(action("slow", target="redis.r1", ms=300.5), action("end", role="worker")), "x.y")
    assert 'add [fault."redis.r1.slow"]' in said and "{ms} is 300.5" in said
    assert 'add [fault."worker.end"]' in said and "{how} is TERM" in said


def test_a_function_of_a_users_own_and_a_program_are_refused_too(tmp_path: Path) -> None:
    program = {"type": "action", "name": "pull the plug", "provider": {"type": "process", "path": "plug"}}
    said = refused(tmp_path, mine(action("cut", module="nobody.has", target="db"), program), "x.y")
    assert 'add [fault."db.cut"]' in said and 'add [fault."pull the plug"]' in said
    sleep = {"type": "action", "name": "a while", "provider": {"type": "process", "path": "sleep", "arguments": "1"}}
    found = fit(tmp_path, mine(action("hole", target="redis"), sleep, program), "redis.hole", "pull the plug")
    assert [each["provider"].get("path", "") for each in found.document["method"]] == ["", "sleep", ""]


def test_a_word_that_the_action_has_not_is_refused(tmp_path: Path) -> None:
    faults = {"redis.hole": fault(tmp_path / "flag", apply=["cut", "{target}", "{colour}"])}
    target = files.load(write(tmp_path, HERE, faults))
    with pytest.raises(Misconfigured, match=r"apply: \{colour\}: the action has .*\{target\}"):
        plan.fit(experiment.load(tiny.write(tmp_path, mine(action("hole", target="redis")))), target, file="f")


@pytest.mark.parametrize(
    ("ours", "said"),
    [
        ({"options": {"flags": {"x": "on"}}}, "it sets flags before it begins"),
        ({"traffic": [{"kind": "events", "rate": 500}]}, "it sends 500 events a second; limits.rate is 100"),
        ({"seconds": {"min": 400, "max": 500}}, "its faults last 400 s at least; limits.seconds is 300"),
        (
            {
                "expect": {
                    "on": [{"claim": "c", "func": "becomes", "arguments": {"name": "line.redis_bytes_s", "most": 9}}]
                }
            },
            "nothing of what it expects can be seen from outside",
        ),
    ],
)
def test_what_a_target_can_not_have_is_refused(ours: dict[str, Any], said: str, tmp_path: Path) -> None:
    assert said in refused(tmp_path, mine(action("hole", target="redis"), **ours), "redis.hole")


def test_a_steady_state_that_nobody_sees_is_refused(tmp_path: Path) -> None:
    said = steady(mine(action("hole", target="redis")), "alive", path="redis")
    assert "nothing of its steady state can be seen" in refused(tmp_path, said, "redis.hole")


def test_the_targets_own_limits_and_abort_conditions_count(tmp_path: Path) -> None:
    found = fit(
        tmp_path, mine(action("hole", target="redis"), seconds={"max": 200}), "redis.hole", limits={"seconds": 20},
        abort=[{"claim": "senders are refused", "name": "intake.failed_rate", "above": 5}],
    )  # fmt: skip
    assert found.ours.seconds.max == 20 and found.ours.abort[-1].claim == "senders are refused"


def test_an_abort_condition_that_nobody_can_look_at_is_refused_and_one_of_the_experiments_said(tmp_path: Path) -> None:
    def refusal(name: str, **more: Any) -> str:
        abort = [{"claim": "senders are refused", "name": name, "above": 5}]
        return refused(tmp_path, mine(action("hole", target="redis")), "redis.hole", abort=abort, **more)

    said = refusal("intake.fail_rate")
    assert "abort: senders are refused: it would never be met: nobody measures intake.fail_rate" in said
    assert "there are intake.ok_rate, intake.refused_rate, intake.failed_rate" in said
    assert "store.ok_ratio needs dsn_file" in refusal("store.ok_ratio") and "[held]" in refusal("held.own_rate")
    hot = {"claim": "the rig is hot", "name": "line.redis_bytes_s", "above": 5}
    found = fit(tmp_path, mine(action("hole", target="redis"), abort=[hot]), "redis.hole",
                abort=[{"claim": "the console is away", "name": "api.ok_ratio", "below": 0.5}])  # fmt: skip
    assert found.at is not None and any("it isn't aborted when the rig is hot" in each for each in found.at.unseen)
    assert [each.name for each in found.ours.abort] == ["api.ok_ratio"] and found.ours.options["api"]


@pytest.mark.parametrize("value", ["redis; reboot", "$(reboot)", "-o", "a b", "`x`", "a\nb", "${x}"])
def test_what_an_experiment_says_is_no_command_where_a_shell_may_read_it(value: str, tmp_path: Path) -> None:
    told = fault(tmp_path / "flag", apply=["ssh", "gw", "break {way}"])
    target = files.load(write(tmp_path, HERE, {"redis.hole": told}))
    with pytest.raises(Misconfigured, match=r"apply: \{way\} is .* may stand in a command"):
        plan.fit(
            experiment.load(tiny.write(tmp_path, mine(action("hole", target="redis", way=value)))), target, file="f"
        )
    for fine in ("both", "10.0.0.7:6379", "-0.5", ""):
        said = mine(action("hole", target="redis", way=fine))
        assert plan.fit(experiment.load(tiny.write(tmp_path, said)), target, file="f").at is not None
