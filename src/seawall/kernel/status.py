"""The states of events and runs: the numbers that the store keeps, and the words that everybody else sees."""

from __future__ import annotations

from enum import IntEnum


class EventStatus(IntEnum):
    """``accepted`` (only in the journal yet) has no row, so no number is stored for it."""

    ACCEPTED = 0
    ROUTED = 1
    HELD = 2
    CONFLICT = 3
    DEAD = 4


class RunStatus(IntEnum):
    """0-4 are states of unfinished work (table ``run``; RUNNING is a READY run in some worker's hands, known by its
    refill row), and 9; 5-8 are ends (table ``run_done``)."""

    QUEUED = 0
    WAITING = 1
    HELD = 2
    LIMITED = 3  # waits for others of its key, or for its turn under a rate
    RUNNING = 4
    SUCCEEDED = 5
    FAILED = 6  # the workflow raised to the end of its retries
    CANCELLED = 7
    DEAD = 8  # it could not be run or stored
    CANCELLING = 9  # unfinished: to be cancelled, and maybe in some worker's hands still

    @property
    def word(self) -> str:
        return self.name.lower()


DAY_SHIFT = 44
"""A run id is (day << 44) | number: its day is its event's day (kernel.event.id_day)."""

SUSPECT_SHARD = -1
"""Shard of runs that were in a process that died: each runs alone."""

CHANNEL_RUN = "seawall_run"
"""NOTIFY channel, router to workers: what is new of which queue, by comma (kernel/made.py). A worker that has read
further goes back there."""

CHANNEL_LINE = "seawall_line"
"""NOTIFY channel, router to workers: payload is WORKFLOW_ID:KEY, comma-separated, of lines that have new runs; a key
is 40 hex digits."""

CHANNEL_LEASE = "seawall_lease"
"""NOTIFY channel, worker to workers: shards were given back; payload is their queues' ids, by comma."""

CHANNEL_REPLY = "seawall_reply"
"""NOTIFY channel, worker and router to responders: payload is up to 200 event ids as 32 hex digits, by comma."""

CHANNEL_SOURCE = "seawall_source"
"""NOTIFY channel, whoever changed a source to collectors: payload is the new source_version."""

CHANNEL_FLAG = "seawall_flag"
"""NOTIFY channel, whoever set a flag to the roles that ask it: payload is the flag's name."""
