"""Answers, and errors as problem documents (RFC 9457). Nothing here tells more of an error than its own words."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Final

import msgspec

from seawall.kernel.error import Overloaded, Rejected, SeawallError, Unavailable, Uncertain, Unstorable

JSON: Final = "application/json"
PROBLEM: Final = "application/problem+json"
BYTES: Final = "application/octet-stream"
RETRY_AFTER_S: Final = 2


@dataclass(frozen=True, slots=True)
class Answer:
    """One HTTP answer."""

    status: int
    content_type: str
    body: bytes
    headers: Mapping[str, str] = field(default_factory=dict)


class Problem(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What went wrong. ``title`` is the same for every occurrence, ``detail`` is about this one."""

    title: str
    status: int
    detail: str = ""


def json(value: object, status: int = 200) -> Answer:
    return Answer(status, JSON, msgspec.json.encode(value))


def problem(status: int, title: str, detail: str = "", headers: Mapping[str, str] | None = None) -> Answer:
    said = Problem(title=title or HTTPStatus(status).phrase, status=status, detail=detail)
    return Answer(status, PROBLEM, msgspec.json.encode(said), headers or {})


def problem_of(error: SeawallError) -> Answer:
    """What a caller is told of our error."""
    match error:
        case Rejected():
            return problem(error.status, error.title, error.detail)
        case Unstorable():
            return problem(400, "Unstorable", error.detail)
        case Overloaded():
            return problem(503, "Overloaded", str(error), {"Retry-After": str(math.ceil(error.retry_after_s))})
        case Unavailable():
            return problem(503, "Unavailable", str(error), {"Retry-After": str(RETRY_AFTER_S)})
        case Uncertain():
            return problem(504, "Uncertain", f"{error}; look before you repeat it")
        case _:
            return problem(500, "Internal error", str(error))
