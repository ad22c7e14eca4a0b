"""The worker's settings."""

from __future__ import annotations

from dataclasses import dataclass

from seawall.kernel.setting import setting


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """How one worker process runs."""

    inflight_max: int = setting(1000, min=1, max=20_000, live=True, help="Runs of one worker process at the same time.")
    refill_runs: int = setting(250, min=1, max=5000, live=True, help="Runs read from the store at once, at most.")
    inflight_body_bytes_max: int = setting(
        64 << 20,
        min=1 << 20,
        max=16 << 30,
        live=True,
        help="Bodies of runs in hand altogether; exceeded by one body at most.",
    )
    poll_s: float = setting(
        0.25, min=0.01, max=10, live=True, help="Longest time until new runs are looked for without a hint."
    )
    sweep_s: float = setting(
        1.0, min=0.1, max=60, live=True, help="How often runs are read from the smallest virtual time."
    )
    lease_ttl_s: float = setting(5.0, min=1, max=300, help="A shard whose owner is silent for so long may be taken.")
    renew_s: float = setting(1.0, min=0.1, max=60, help="How often leases are renewed; at most a third of their time.")
    flush_rows_max: int = setting(4000, min=1, max=100_000, live=True, help="Outcomes in one flush, at most.")
    flush_bytes_max: int = setting(
        8 << 20, min=1 << 20, max=256 << 20, live=True, help="Results in one flush; exceeded by one."
    )
    unflushed_bytes_max: int = setting(
        64 << 20,
        min=1 << 20,
        max=16 << 30,
        live=True,
        help="No new runs while more results than this wait for the store.",
    )
    cancel_grace_s: float = setting(
        10.0, min=0.1, max=600, help="How long a run or step may go on after it was cancelled at its deadline."
    )
    threads_max: int = setting(32, min=1, max=1000, help="Threads for steps that are plain functions.")
    timer_s: float = setting(
        0.5, min=0.05, max=10, live=True, help="How often waiting runs whose time has come are woken."
    )
    timer_runs: int = setting(500, min=1, max=10_000, live=True, help="Waiting runs woken at once.")
    drain_s: float = setting(
        5.0, min=0, max=300, live=True, help="At a clean stop, how long steps that have begun may take."
    )
    deaths_max: int = setting(
        3, min=1, max=100, live=True, help="Deaths of a process with one run alone in it that end the run."
    )
    solo_max: int = setting(2, min=1, max=50, live=True, help="Processes for suspects at the same time.")
    solo_memory_mb: int = setting(
        2048, min=256, max=1 << 20, help="Memory of a process for suspects; beyond it the run gets a MemoryError."
    )
    solo_idle_s: float = setting(
        3.0, min=0, max=600, live=True, help="A process for suspects ends after so long without one."
    )
    solo_turn_s: float = setting(
        30.0,
        min=0.1,
        max=86_400,
        live=True,
        help="How long a suspect may run while others of its queue wait behind it; each further turn is twice as long.",
    )
    solo_silent_s: float = setting(
        8.0, min=1, max=600, live=True, help="A process for suspects that doesn't beat is ended."
    )
    nesting_max: int = setting(
        16,
        min=1,
        max=1000,
        help="How deep runs may be nested that begin others, which begin others; more fails the run.",
    )
    children_max: int = setting(10_000, min=1, max=1_000_000, help="Runs that one run may begin; more fails it.")
