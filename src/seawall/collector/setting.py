"""What may be chosen: for a collector (``Settings``), and for each of its sources (``Choice``)."""

from __future__ import annotations

import re
from dataclasses import dataclass
from math import ceil

import msgspec

from seawall.collector.key import PATHS_MAX, DedupeChoice
from seawall.collector.network import HEADERS, Networks
from seawall.kernel import limit, pointer, signature
from seawall.kernel.error import Misconfigured
from seawall.kernel.seam.limiter import Rate
from seawall.kernel.setting import setting
from seawall.kernel.signature.generic_hmac import ALGORITHMS, ENCODINGS

MIB = 1024 * 1024

RATE_MIN = 1 / 86_400
"""One a day: below that, the time until the next one leaves what clocks and ``Retry-After`` can say."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Limits and deadlines of one collector."""

    body_bytes_max: int = setting(
        MIB, min=1, max=limit.BODY_BYTES_MAX, live=True, help="Largest body, unless its source says."
    )
    bodies_bytes_max: int = setting(
        256 * MIB, min=MIB, live=True, help="Bodies being received and made durable, all together."
    )
    connections_max: int = setting(
        4000, min=1, max=100_000, live=True, help="Open connections; more are answered 503 and closed."
    )
    connections_per_ip_max: int = setting(1000, min=1, max=100_000, live=True, help="Open connections of one address.")
    pipeline_max: int = setting(
        16, min=1, max=1000, live=True, help="Unanswered requests of one connection before reading stops."
    )
    tls_certificate: str = setting("", help="PEM file with the certificate of `listen` and its chain; empty: no TLS.")
    tls_key: str = setting("", help="PEM file with the key of `tls_certificate`.")
    handshake_s: float = setting(
        5.0, min=0.05, max=60, live=True, help="For a TLS handshake, and for a PROXY header before it."
    )
    proxies: tuple[str, ...] = setting(
        (), help="Networks of balancers, whose connections begin with a PROXY header (version 1 or 2)."
    )
    forwarders: tuple[str, ...] = setting(
        (), help="Networks of proxies that are believed when they say in a header whom a request comes from."
    )
    forwarded_header: str = setting(
        "x-forwarded-for",
        help="Header in which forwarders say it: x-forwarded-for or forwarded. They must write it themselves.",
    )
    head_s: float = setting(10.0, min=0.05, max=60, live=True, help="From a request's first byte to its last header.")
    request_s: float = setting(30.0, min=0.05, max=600, live=True, help="From a request's first byte to its last.")
    body_rate_min_bytes: int = setting(
        1024, min=1, max=MIB, live=True, help="Bytes a second of a body, after the grace time."
    )
    body_grace_s: float = setting(
        5.0, min=0.05, max=60, live=True, help="How long a body may be slower than that at its start."
    )
    idle_s: float = setting(75.0, min=0.05, max=3600, live=True, help="How long a connection is kept between requests.")
    write_s: float = setting(10.0, min=0.05, max=120, live=True, help="How long a client may leave our answer unread.")
    ack_s: float = setting(
        10.0, min=0.05, max=120, live=True, help="How long the journal may take; then 503, uncertain."
    )
    linger_s: float = setting(
        2.0, min=0.05, max=30, live=True, help="Reading on after a refusal, lest a reset swallow it."
    )
    sweep_s: float = setting(0.25, min=0.01, max=1, live=True, help="How often all those deadlines are looked at.")
    refresh_s: float = setting(
        1.0, min=0.01, max=10, live=True, help="How often the snapshot is compared with the store."
    )
    stale_s: float = setting(
        30.0, min=0.1, max=3600, live=True, help="Age of the snapshot from which its refusals become 503."
    )
    store_timeout_s: float = setting(
        2.0, min=0.05, max=2, live=True, help="How long the store may take to say what changed."
    )
    duplicates_max: int = setting(50_000, min=0, max=10_000_000, help="Dedupe keys remembered for the 200 answer.")
    look_ups_max: int = setting(64, min=1, max=1000, live=True, help="Reads of events and tickets at once.")
    look_ups_held_max: int = setting(
        1_000, min=0, max=100_000, live=True, help="Reads of tickets that wait for their reply (Prefer: wait) at once."
    )
    look_up_rate_per_s: float = setting(
        50.0,
        min=0,
        max=1_000_000,
        live=True,
        help="Reads of events and tickets a second by one address; 0: any number.",
    )
    look_up_burst: int = setting(
        200, min=1, max=1_000_000, live=True, help="Reads of events and tickets by one address at once, after a pause."
    )
    tenant_rate_per_s: float = setting(
        0.0, max=1_000_000, live=True, help="Events a second of one tenant; more are answered 429. 0: any number."
    )
    tenant_burst: int = setting(
        0, max=1_000_000, live=True, help="Events of one tenant at once, after a pause; 0: those of one second."
    )
    tenant_share: float = setting(
        0.75,
        min=0.01,
        max=1,
        live=True,
        help="Part of the journal's disk that events of one tenant may fill while they wait to be routed, where there "
        "are other tenants; more are answered 429. 1: all of it.",
    )
    source_share: float = setting(
        0.75, min=0.01, max=1, live=True, help="As `tenant_share`, of one source, where there are others."
    )  # fmt: skip
    share_min_bytes: int = setting(
        64 * MIB,
        min=0,
        max=2**40,
        live=True,
        help="So many bytes of each tenant and source may wait, whatever room the disk has.",
    )
    approve_s: float = setting(
        3.0, min=0.1, max=30, live=True, help="How long a page of an approval may ask the store, and decide."
    )
    look_up_s: float = setting(
        0.25, min=0.01, max=5, live=True, help="How long a read of an event or ticket may ask the store."
    )

    def __post_init__(self) -> None:
        problems = []
        if bool(self.tls_certificate) != bool(self.tls_key):
            problems.append("collector: tls_certificate and tls_key belong together")
        if self.forwarded_header not in HEADERS:
            problems.append(f"collector.forwarded_header = {self.forwarded_header!r}: must be {' or '.join(HEADERS)}")
        for name in ("proxies", "forwarders"):
            try:
                Networks(getattr(self, name))
            except ValueError as error:
                problems.append(f"collector.{name}: {error}: must be networks like 10.0.0.0/8")
        for name in ("look_up_rate_per_s", "tenant_rate_per_s"):
            if 0 < getattr(self, name) < RATE_MIN:
                problems.append(f"collector.{name} = {getattr(self, name)}: must be 0, or 1/86400 (one a day) or more")
        if problems:
            raise Misconfigured(problems)


class SignatureChoice(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A source's ``signature`` settings; their meaning is in kernel/signature/scheme.py."""

    tolerance_s: int = signature.DEFAULT.tolerance_s
    header: str = signature.DEFAULT.header
    algorithm: str = signature.DEFAULT.algorithm
    encoding: str = signature.DEFAULT.encoding
    prefix: str = signature.DEFAULT.prefix
    timestamp_header: str = signature.DEFAULT.timestamp_header


class Choice(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a source may choose; kept as JSON in its row."""

    body_bytes_max: int | None = None  # 1 to limit.BODY_BYTES_MAX; None: the collector's
    accepted_status: int = 202  # 200, 202 or 204
    accepted_body: str | None = None  # static text instead of our JSON; at most 4096 bytes
    accepted_content_type: str = "text/plain; charset=utf-8"  # of that text
    content_types: tuple[str, ...] = ()  # allowed media types, without parameters; (): any
    require_json: bool = False  # 422 for a body that isn't JSON
    wait_ms_max: int = 0  # 0: Prefer: wait is ignored; at most limit.WAIT_MS_MAX
    wait_over_status: int = 202  # what a wait without reply ends with: 202 and Location, or 504
    signature: SignatureChoice = SignatureChoice()
    dedupe: DedupeChoice = DedupeChoice()
    rate_per_s: float = 0.0  # events a second, one a day at least; more are answered 429; 0: any number
    burst: int = 0  # events at once, after a pause; 0: those of one second
    ordered: bool = False  # in Kafka in the order of acceptance, across an outage of it too


STATIC_BODY_BYTES_MAX = 4096
RATE_MAX = 1_000_000
_HEADER = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,100}")
_MEDIA_TYPE = re.compile(r"[A-Za-z0-9!#$&^_.+-]{1,127}/[A-Za-z0-9!#$&^_.+-]{1,127}")  # RFC 6838, 4.2: no wildcards
_VALUE = re.compile(r"[\x20-\x7e]{1,100}")


def choice(text: str) -> Choice:
    """A source's settings out of their JSON.

    Raises:
        ValueError: Unknown names, wrong types or values out of range; the message names all of the latter.
    """
    found = msgspec.json.decode(text, type=Choice)
    if problems := _problems(found):
        raise ValueError("; ".join(problems))
    # As they are compared (RFC 9110, 8.3.1: media types have no case).
    return msgspec.structs.replace(found, content_types=tuple(one.strip().lower() for one in found.content_types))


def _problems(c: Choice) -> list[str]:
    checks = (
        (c.body_bytes_max is None or 1 <= c.body_bytes_max <= limit.BODY_BYTES_MAX,
         f"body_bytes_max must be 1 to {limit.BODY_BYTES_MAX}"),
        (c.accepted_status in (200, 202, 204), "accepted_status must be 200, 202 or 204"),
        (c.accepted_body is None or len(c.accepted_body.encode()) <= STATIC_BODY_BYTES_MAX,
         f"accepted_body has at most {STATIC_BODY_BYTES_MAX} bytes"),
        (c.accepted_body is None or c.accepted_status != 204, "accepted_status 204 has no body"),
        (_VALUE.fullmatch(c.accepted_content_type), "accepted_content_type must be printable ASCII"),
        (len(c.content_types) <= 20, "content_types has at most 20 entries"),
        (all(_MEDIA_TYPE.fullmatch(one.strip()) for one in c.content_types),
         "content_types must be media types like application/json, without parameters"),
        (0 <= c.wait_ms_max <= limit.WAIT_MS_MAX, f"wait_ms_max must be 0 to {limit.WAIT_MS_MAX}"),
        (c.wait_over_status in (202, 504), "wait_over_status must be 202 or 504"),
        (1 <= c.signature.tolerance_s <= limit.REPLAY_S_MAX,
         f"signature.tolerance_s must be 1 to {limit.REPLAY_S_MAX}"),
        (c.signature.algorithm in ALGORITHMS, f"signature.algorithm must be one of {', '.join(ALGORITHMS)}"),
        (c.signature.encoding in ENCODINGS, f"signature.encoding must be one of {', '.join(ENCODINGS)}"),
        (_HEADER.fullmatch(c.signature.header), "signature.header must be a header's name"),
        (not c.signature.timestamp_header or _HEADER.fullmatch(c.signature.timestamp_header),
         "signature.timestamp_header must be a header's name"),
        (not c.signature.prefix or _VALUE.fullmatch(c.signature.prefix), "signature.prefix must be printable ASCII"),
        (not c.dedupe.header or _HEADER.fullmatch(c.dedupe.header), "dedupe.header must be a header's name"),
        (c.rate_per_s == 0 or RATE_MIN <= c.rate_per_s <= RATE_MAX,
         f"rate_per_s must be 0, or 1/86400 (one a day) to {RATE_MAX}"),
        (0 <= c.burst <= RATE_MAX and (not c.burst or c.rate_per_s),
         f"burst must be 0 to {RATE_MAX}, and needs a rate_per_s"),
        (len(c.dedupe.paths) <= PATHS_MAX, f"dedupe.paths has at most {PATHS_MAX} entries"),
        (all(map(_is_pointer, c.dedupe.paths)), "dedupe.paths must be JSON Pointers, like /data/id"),
    )  # fmt: skip
    return [problem for good, problem in checks if not good]


def rate_of(per_s: float, burst: int) -> Rate | None:
    """The rate that two settings say; None: no limit."""
    if not per_s:
        return None
    limit = burst or max(1, ceil(per_s))
    return Rate(limit, limit / per_s)


def _is_pointer(text: str) -> bool:
    try:
        return bool(pointer.steps(text))
    except ValueError:
        return False


def source_problems(*, name: str, kind: str, tenant: str, settings: str, secret: bytes | None) -> list[str]:
    """Everything that is wrong with a source that somebody wants to add, in words; empty when it is fine."""
    problems = [
        f"{what} must be 1 to {limit.NAME_CHARS_MAX} of the characters A-Z a-z 0-9 _ . -"
        for what, value in (("name", name), ("tenant", tenant))
        if re.fullmatch(rf"[A-Za-z0-9_.-]{{1,{limit.NAME_CHARS_MAX}}}", value) is None
    ]
    found = signature.KINDS.get(kind)
    if found is None:
        problems.append(f"kind {kind!r} is unknown; there are {', '.join(signature.KINDS)}")
    elif found.has_secret and secret is None:
        problems.append(f"a source of kind {kind} needs a secret")
    elif problem := found.secret_problem(secret or b""):
        problems.append(problem)
    try:
        choice(settings)
    except ValueError as error:
        problems.append(f"settings: {error}")
    return problems
