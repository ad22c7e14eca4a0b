"""All flags there are. Each switches optional work of code that exists; what nothing asks isn't declared."""

from __future__ import annotations

from typing import Final

from seawall.guard.flag import Flag, Loop, Part, Registry, Schema

GEO: Final = "geo"
SHARED_LIMITS: Final = "shared-limits"
HELD_REQUESTS: Final = "held-requests"
BACKLOG_DRAIN: Final = "backlog-drain"
SPOOL_FORWARD: Final = "spool-forward"

COUNTRIES: Final = "countries' data"
REDIS: Final = "redis"

SCHEMA_OF_FLAGS: Final = 3
"""The store's first schema with flags: what came with them needs it."""

REGISTRY: Final = Registry(
    (
        Flag(
            name=GEO,
            owner="cache",
            help="Countries of senders' addresses are added to events (cache.geo).",
            without="events have no seawall-country header",
            default=True,
            safe=False,
            requires=(Part(COUNTRIES),),
            roles=("router",),
            by=("tenant", "source"),
        ),
        Flag(
            name=SHARED_LIMITS,
            owner="cache",
            help="Rate limits are shared by all collectors (cache.url).",
            without="each collector keeps rate limits alone: all of them together let more through",
            default=True,
            safe=False,
            requires=(Part(REDIS),),
            roles=("collector",),
        ),
        Flag(
            name=HELD_REQUESTS,
            owner="responder",
            help="Requests with Prefer: wait are held until the workflow's reply is there.",
            without="they are answered at once, as after their time: 202 (or 504, by source) and where it will be",
            default=True,
            safe=False,
            # Without it nobody would end their wait.
            requires=(Loop("responder.deadline"),),
            roles=("collector",),
            by=("tenant", "source"),
        ),
        Flag(
            name=BACKLOG_DRAIN,
            owner="router",
            help="Events of a backlog are routed, beside fresh ones.",
            without="a backlog stays in the journal, whole; fresh events go on",
            default=True,
            safe=False,
            # A store that doesn't answer, or has just come back as an older one, isn't drained into (incident I5).
            requires=(Loop("router.clock"), Schema(SCHEMA_OF_FLAGS)),
            roles=("router",),
        ),
        Flag(
            name=SPOOL_FORWARD,
            owner="journal",
            help="Events that were spooled while Kafka was away are forwarded to it (profile cluster).",
            without="they stay in the spool, synced; fresh events go to Kafka",
            default=True,
            safe=False,
            requires=(Loop("journal.kafka.topic"),),
            roles=("collector",),
        ),
    )
)
