"""What a user's file declares: an ``App`` and its workflows. A wrong declaration fails when the file is imported."""

from __future__ import annotations

import copy
import inspect
import math
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from seawall.kernel import limit
from seawall.kernel.allowance import Allowance, Limit, Rate, declared
from seawall.kernel.placement import PRIORITY_MAX, WEIGHT_MAX, WEIGHTS_MAX
from seawall.workflow.context import Context
from seawall.workflow.cron import Cron, cron_of
from seawall.workflow.event import Event
from seawall.workflow.retry import Retry

WorkflowFunction = Callable[[Event, Context], Awaitable[Any]]
F = TypeVar("F", bound=WorkflowFunction)

RUN_TIMEOUT_MAX_S = 86_400.0
TOTAL_TIMEOUT_MAX_S = 366 * 86_400.0
VERSION_CHARS_MAX = 50
SLOTS_MAX = 1_000_000
LATENCY_MAX_S = 86_400.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Workflow:
    """One declared workflow. A run keeps the version that was active when it was made."""

    name: str
    version: str
    on: str  # an event type, or a pattern: * stands for anything; "": no event begins it
    queue: str
    retry: Retry
    timeout_s: float  # one attempt's longest time
    function: WorkflowFunction
    allowance: Allowance | None = None  # how many runs of one key may be under way, or begin in a time
    priority: int = 0  # -10 to 10: how much sooner than others of its queue its runs begin
    total_timeout_s: float | None = None  # from a run's first start to its end; None: no bound


@dataclass(frozen=True, slots=True, kw_only=True)
class Queue:
    """One declared queue. None: nothing is said of it."""

    name: str
    reserved: int | None
    most: int | None
    latency_s: float | None
    depth_max: int | None = None
    weights: Mapping[str, int] | None = None


NO_EVENT = "no event"
"""Stands for the type of what no event begins, while it is checked; what is registered is no type at all."""


# Size: all that can be declared, and how, in one place for whoever imports it.
class App:
    """A user's workflows, in the order in which they were declared.

    ::

        app = App()

        @app.workflow(on="github.push", retry=Retry(attempts=5))
        async def deploy(event: Event, ctx: Context) -> dict[str, str]:
            build = await ctx.step(start_build, event.json["after"])
            return {"build": build}
    """

    def __init__(self) -> None:
        self._workflows: dict[tuple[str, str], Workflow] = {}
        self._queues: dict[str, Queue] = {}
        self._crons: dict[str, Cron] = {}

    @property
    def workflows(self) -> tuple[Workflow, ...]:
        return tuple(self._workflows.values())

    @property
    def crons(self) -> tuple[Cron, ...]:
        return tuple(self._crons.values())

    @property
    def queues(self) -> tuple[Queue, ...]:
        return tuple(self._queues.values())

    def over(self, lay: Callable[[Workflow], Workflow], *, queues: Sequence[Queue] | None = None) -> App:
        """The same app with each workflow as ``lay`` gives it: `seawall.testing` stands between a workflow and its run
        this way.

        Args:
            queues: In place of those that were declared; None: these.
        """
        made = copy.copy(self)
        if queues is not None:
            made._queues = {queue.name: queue for queue in queues}
        made._workflows = {key: lay(workflow) for key, workflow in self._workflows.items()}
        return made

    def queue(
        self, name: str, *, reserved: int | None = None, max: int | None = None, latency: float | None = None,
        depth_max: int | None = None, weights: Mapping[str, int] | None = None,
    ) -> None:  # fmt: skip
        """Say how many slots a queue has: a slot is a run in a worker's hands; one that waits holds none.

        A queue that nothing is said of has none reserved, and takes what others leave free.

        Args:
            reserved: Slots that no other queue's runs take, however many of those there are.
            max: Most runs at once, in all workers together; None: as many as workers have.
            latency: Seconds from a run's creation to its start that are fine; beyond, there is an alert. 0: never.
                None: as the setting ``watch.latency_s`` says.
            depth_max: Unfinished runs from which on new events are held, and their runs made when there are fewer.
                It is looked at five times a second, so it should be several seconds of work. None: no bound.
            weights: By tenant, how many turns it has for each of another's, 1 to 1000; 1 for who isn't there.

        Raises:
            TypeError, ValueError: Says what is wrong.
        """
        for what, value, least in (("reserved", reserved, 0), ("max", max, 1), ("depth_max", depth_max, 1)):
            if value is not None and (not isinstance(value, int) or not least <= value <= SLOTS_MAX):
                raise ValueError(f"queue {name}: {what}={value!r}; a whole number of {least} to {SLOTS_MAX} is needed")
        if reserved is not None and max is not None and reserved > max:
            raise ValueError(f"queue {name}: reserved={reserved} is more than max={max}")
        if name in self._queues:
            raise ValueError(f"queue {name} is declared twice")
        self._queues[name] = Queue(
            name=_word(name, "queue", name, limit.NAME_CHARS_MAX), reserved=reserved, most=max,
            latency_s=_latency(name, latency), depth_max=depth_max, weights=_weights(name, weights),
        )  # fmt: skip

    def workflow(
        self,
        *,
        on: str,
        version: str = "1",
        queue: str = "default",
        retry: Retry | None = None,
        name: str | None = None,
        timeout_s: float = 3600.0,
        total_timeout_s: float | None = None,
        concurrency: Limit | Sequence[Limit] = (),
        throttle: Rate | Sequence[Rate] = (),
        priority: int = 0,
    ) -> Callable[[F], F]:
        """Declare a workflow: each event of the type ``on`` starts one run of it.

        Args:
            on: An event type, or a pattern, in which ``*`` stands for anything: ``github.*``, ``*``.
            version: Raise it when a change of the code must not be met by runs that are under way: they finish with
                the version they began with, as long as some worker still has it.
            queue: Workflows of one queue share its workers.
            retry: How often a run that raised is tried again; steps that ended are not repeated. None: ``Retry()``.
            name: Default: the function's name.
            timeout_s: One attempt's longest time, at most a day. Waiting for the store doesn't count.
            total_timeout_s: A run's longest time from its first start on, over its waits, retries and restarts, at
                most 366 days: it fails then, wherever it is, and isn't tried again. Waiting for its first start never
                counts. None: no bound. (Inngest's ``timeouts.finish``; Temporal's execution timeout without the time
                in its task queue.)
            concurrency: How many of its runs may be under way at once, of all or of each key; up to two such limits.
            throttle: How many of its runs may begin in a time; up to two such rates.
            priority: -10 to 10. Its runs begin up to so many hundred turns before or after their place in the queue.

        Raises:
            TypeError, ValueError: Says which declaration is wrong, and how.
        """

        def declare(function: F) -> F:
            made = _checked(function, on, version, queue, retry, name, timeout_s)
            allowance = _allowance(made.name, concurrency, throttle)
            total_s = _total(made.name, total_timeout_s)
            priority_ = _priority(made.name, priority)
            self._add(replace(made, allowance=allowance, priority=priority_, total_timeout_s=total_s))
            return function

        return declare

    def cron(
        self,
        expression: str,
        *,
        tz: str = "UTC",
        queue: str = "default",
        overlap: str = "skip",
        catch_up: str = "one",
        tenant: str = "default",
        per_tenant: bool = False,
        version: str = "1",
        retry: Retry | None = None,
        name: str | None = None,
        timeout_s: float = 3600.0,
        total_timeout_s: float | None = None,
    ) -> Callable[[F], F]:
        """Declare a workflow that begins by itself: ``@app.cron("*/10 * * * *", tz="Europe/Berlin")``.

        Its event's JSON has ``cron`` (the name), ``moment`` and ``last`` (the moment of the run before; null: none),
        both as ISO 8601 with their zone. Events from outside never begin it.

        Args:
            expression: Minute, hour, day, month, day of the week. One that names hours runs once where the wall clock
                skips them, and once where it repeats them.
            tz: A time zone's name.
            overlap: What becomes of a moment while the former run goes on: ``skip`` counts it and begins nothing,
                ``queue`` begins when that one has ended (one moment waits, the latest), ``cancel`` cancels that one.
            catch_up: What becomes of moments at which no worker was there, once one is: ``none`` begins none of them
                (a minute late isn't missed), ``one`` the latest, ``all`` one after the other, at most the latest 100.
            tenant: Whose runs they are.
            per_tenant: One for each tenant that has a source, spread over the time between two moments: a tenant's
                place in it stays the same.
            version, queue, retry, name, timeout_s, total_timeout_s: As for ``workflow``.

        Raises:
            TypeError, ValueError: Says which declaration is wrong, and how.
        """

        def declare(function: F) -> F:
            checked = _checked(function, NO_EVENT, version, queue, retry, name, timeout_s)
            made = replace(checked, on="", total_timeout_s=_total(checked.name, total_timeout_s))
            self._add(made)
            if made.name in self._crons:
                raise ValueError(f"cron {made.name} is declared twice: change a name=")
            whose = None if per_tenant else _word(made.name, "tenant", tenant, limit.NAME_CHARS_MAX)
            self._crons[made.name] = cron_of(made.name, expression, tz, overlap, catch_up, whose)
            return function

        return declare

    def _add(self, workflow: Workflow) -> None:
        key = (workflow.name, workflow.version)
        if key in self._workflows:
            raise ValueError(
                f"workflow {workflow.name} version {workflow.version} is declared twice: change a name= or version="
            )
        self._workflows[key] = workflow


def _checked(
    function: Any, on: str, version: str, queue: str, retry: Retry | None, name: str | None, timeout_s: float
) -> Workflow:
    shown = str(name or getattr(function, "__name__", repr(function)))
    if not inspect.iscoroutinefunction(function):
        raise TypeError(f"workflow {shown}: write it as `async def {shown}(event, ctx)`; steps may be plain functions")
    try:
        inspect.signature(function).bind(None, None)
    except TypeError as error:
        raise TypeError(f"workflow {shown}: it is called as {shown}(event, ctx), but {error}") from None
    if retry is not None and not isinstance(retry, Retry):
        raise TypeError(f"workflow {shown}: retry={retry!r} is no Retry; write retry=Retry(attempts=5)")
    if not isinstance(timeout_s, int | float) or not (math.isfinite(timeout_s) and 0 < timeout_s <= RUN_TIMEOUT_MAX_S):
        raise ValueError(f"workflow {shown}: timeout_s={timeout_s!r}; more than 0 and at most {RUN_TIMEOUT_MAX_S:g}")
    return Workflow(
        name=_word(shown, "name", shown, limit.NAME_CHARS_MAX),
        version=_word(shown, "version", version, VERSION_CHARS_MAX),
        on=_word(shown, "on", on, limit.TYPE_CHARS_MAX),
        queue=_word(shown, "queue", queue, limit.NAME_CHARS_MAX),
        retry=retry or Retry(),
        timeout_s=float(timeout_s),
        function=function,
    )


def _weights(queue: str, given: Mapping[str, int] | None) -> Mapping[str, int] | None:
    if given is None:
        return None
    if not isinstance(given, Mapping) or len(given) > WEIGHTS_MAX:
        raise ValueError(f"queue {queue}: weights={given!r}; a dict of at most {WEIGHTS_MAX} tenants is needed")
    for tenant, weight in given.items():
        _word(queue, "weights", tenant, limit.NAME_CHARS_MAX)
        if isinstance(weight, bool) or not isinstance(weight, int) or not 1 <= weight <= WEIGHT_MAX:
            raise ValueError(f"queue {queue}: weight {weight!r} of {tenant}; a whole number of 1 to {WEIGHT_MAX}")
    return dict(given)


def _latency(queue: str, value: object) -> float | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= LATENCY_MAX_S:
        raise ValueError(f"queue {queue}: latency={value!r}; seconds, 0 to {LATENCY_MAX_S:g}, are needed")
    return float(value)


def _allowance(workflow: str, limits: Limit | Sequence[Limit], rates: Rate | Sequence[Rate]) -> Allowance | None:
    ours = tuple(limits) if isinstance(limits, list | tuple) else (limits,)
    spaced = tuple(rates) if isinstance(rates, list | tuple) else (rates,)
    for what, given, kind in (("concurrency", ours, Limit), ("throttle", spaced, Rate)):
        if not all(isinstance(one, kind) for one in given):
            raise TypeError(f"workflow {workflow}: {what}={given!r}; {kind.__name__}(…), or a list of them, is needed")
    return declared(workflow, ours, spaced) if ours or spaced else None


def _total(workflow: str, value: object) -> float | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= TOTAL_TIMEOUT_MAX_S:
        raise ValueError(
            f"workflow {workflow}: total_timeout_s={value!r}; more than 0 and at most {TOTAL_TIMEOUT_MAX_S:g}"
        )
    return float(value)


def _priority(workflow: str, value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or abs(value) > PRIORITY_MAX:
        raise ValueError(
            f"workflow {workflow}: priority={value!r}; a whole number of {-PRIORITY_MAX} to {PRIORITY_MAX}"
        )
    return value


def _word(workflow: str, what: str, value: object, chars_max: int) -> str:
    if not isinstance(value, str):
        raise TypeError(f"workflow {workflow}: {what}={value!r}; text is needed")
    if not value or len(value) > chars_max or not value.isprintable() or value != value.strip():
        raise ValueError(
            f"workflow {workflow}: {what}={value!r}; 1 to {chars_max} printable characters without spaces around"
        )
    return value
