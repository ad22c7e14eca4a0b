"""``http_request``: one HTTP request to the outside, that can't be turned against the inside."""

from __future__ import annotations

import base64
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC
from email.utils import parsedate_to_datetime
from typing import Any, Final, TypedDict, TypeVar

import msgspec

from seawall.guard.breaker import Cause
from seawall.kernel.json import parse as parse_json
from seawall.step.error import StepDeclined, StepRefused, StepUnavailable
from seawall.step.keyring import STRUCK, Secret, Strike
from seawall.step.shipped import step
from seawall.step.toolbox import Toolbox
from seawall.step.url import Target, parse
from seawall.step.wire import Answer, Ask

T = TypeVar("T")

METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
BODY_BYTES_MAX: Final = 4 << 20
HEADERS_MAX: Final = 64
HEADER_CHARS_MAX: Final = 8192
DEPTH_MAX: Final = 32
"""Of what is sent as JSON."""

TIMEOUT_S_MAX: Final = 55.0
"""Below the usual 60 s of ``ctx.step``, so that it is the step that says what was slow."""

OURS: Final = frozenset(
    {"host", "content-length", "transfer-encoding", "connection", "upgrade", "expect", "te", "trailer", "keep-alive",
     "accept-encoding", "proxy-authorization", "proxy-connection"}
)  # fmt: skip
"""Headers that frame the message or name its receiver."""

_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,128}")
_VALUE = re.compile(r"[\x21-\x7e\x80-\xff](?:[\t\x20-\x7e\x80-\xff]*[\x21-\x7e\x80-\xff])?|")
_SECRET_HEADER = re.compile(r"auth|cookie|token|secret|signature|password|credential|api-?key|session", re.IGNORECASE)
_JSON = re.compile(r"application/(?:[\w.+-]+\+)?json\b", re.IGNORECASE)
_TEXT = re.compile(r"text/|application/(?:[\w.+-]+\+)?(?:xml|x-www-form-urlencoded|javascript|yaml)\b", re.IGNORECASE)


class HTTPResult(TypedDict):
    """What is kept of an answer."""

    status: int
    headers: dict[str, str]  # names in lower case; those that may carry a secret are struck out
    kind: str  # of the body: "json", "text", "base64" or "empty"
    body: Any  # the JSON value, the text, or the bytes as base64; None when it is empty


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """A request whose secrets are in place, and what to strike out of its answer."""

    ask: Ask
    strike: Strike


Texts = Mapping[str, str | Secret]


def service_of(tools: Toolbox, method: str, url: str | Secret, **rest: Any) -> str:
    """Host and port, each of which has a breaker of its own; of a secret URL its secret's name. Raises StepRefused."""
    return url.name if isinstance(url, Secret) else _target(url).place


@step("http_request", version=1, service=service_of)
async def http_request(
    tools: Toolbox,
    method: str,
    url: str | Secret,
    *,
    headers: Texts | None = None,
    json: Any = None,
    body: bytes | str = b"",
    accept: Collection[int] = (),
    idempotency_key: str | None = None,
    idempotency_header: str = "Idempotency-Key",
    timeout_s: float = 10.0,
) -> HTTPResult:
    """Make one HTTP request, and keep its answer.

    Only http and https, to public addresses and those that `step.allow` opens, on `step.ports`. No proxy of the
    environment is used and **no redirect is followed**: a 3xx is declined like a 4xx.

    Args:
        method: GET, HEAD, POST, PUT, PATCH, DELETE or OPTIONS.
        url: Printable ASCII, without a user or password; or a ``secret(…)``, as those of chats' webhooks are.
        headers: A value may be a ``secret(…)``.
        json: Sent as the body, with its content type. A value in it may be a ``secret(…)``.
        body: Bytes or text, when it isn't JSON; at most 4 MiB.
        accept: Statuses beside 200 to 299 that are a result too, as 404 or 302.
        idempotency_key: Sent as header `idempotency_header`: ``ctx.idempotency_key("charge")`` is the same in each
            attempt, so that a service that knows it does it once.
        timeout_s: From the first look-up to the answer's last byte; 0.05 to 55.

    Returns:
        Status, headers and body. Secrets that were sent are struck out of it, should it echo them.

    Raises:
        StepRefused: Not sent: an argument, or the address.
        StepDeclined: The answer is 3xx, or 4xx other than 408 and 429; or too large (`step.response_bytes_max`).
        StepUnavailable: The answer is 408, 429 or 5xx, with its ``Retry-After`` as a floor under the next try; or
            none came whole.
    """
    if json is not None and body:
        raise StepRefused("http_request takes json or body, not both")
    given: dict[str, str | Secret] = dict(headers or {})
    hidden: list[str] = []
    if isinstance(url, Secret):
        url = url.prefix + await tools.secret(url)
        hidden += [url, url.partition("://")[2].partition("/")[2]]
    if json is not None:
        body = _encoded(await _filled(tools, json, hidden, DEPTH_MAX))
        given = {"content-type": "application/json", **{name.lower(): value for name, value in given.items()}}
    if idempotency_key is not None:
        given[idempotency_header] = idempotency_key
    asked = await prepared(tools, method, url, headers=given, body=body, timeout_s=timeout_s, hidden=hidden)
    answer = await tools.send(asked.ask)
    if not 200 <= answer.status < 300 and answer.status not in accept:
        raise failure(tools, asked.ask, answer)
    return _result(answer, asked.strike)


async def prepared(
    tools: Toolbox, method: str, url: str, *, headers: Texts, body: bytes | str, timeout_s: float,
    answer_bytes_max: int | None = None, hidden: Sequence[str] = (),
) -> Prepared:  # fmt: skip
    """A request that may be sent: everything about it but its address is checked here.

    Args:
        hidden: Secrets of its URL and its body.
        answer_bytes_max: For a step that keeps only a part of its answer; None: `step.response_bytes_max`.

    Raises:
        StepRefused: With what is wrong. No value of a header is quoted.
    """
    data = body.encode() if isinstance(body, str) else bytes(body)
    if method not in METHODS:
        raise StepRefused(f"the method must be one of {', '.join(sorted(METHODS))}")
    if len(data) > BODY_BYTES_MAX:
        raise StepRefused(f"the body is {len(data)} bytes, at most {BODY_BYTES_MAX} are sent")
    if not (isinstance(timeout_s, int | float) and 0.05 <= timeout_s <= TIMEOUT_S_MAX):
        raise StepRefused(f"timeout_s={timeout_s!r}: 0.05 to {TIMEOUT_S_MAX:g} seconds are needed")
    if len(headers) > HEADERS_MAX:
        raise StepRefused(f"{len(headers)} headers; at most {HEADERS_MAX} are sent")
    pairs, secrets = [(b"user-agent", b"seawall")], list(hidden)
    for name, value in headers.items():
        text, own = await _header(tools, name, value)
        if name.lower() == "user-agent":
            pairs.pop(0)
        pairs.append((name.encode("ascii"), text.encode("latin-1")))
        secrets += own
    ask = Ask(
        method=method, target=_target(url), headers=pairs, body=data, timeout_s=float(timeout_s),
        answer_bytes_max=answer_bytes_max or tools.settings.response_bytes_max,
    )  # fmt: skip
    return Prepared(ask=ask, strike=Strike(secrets))


async def _header(tools: Toolbox, name: str, value: str | Secret) -> tuple[str, list[str]]:
    """A header's value, and what of it is secret."""
    if not isinstance(name, str) or not _TOKEN.fullmatch(name):
        raise StepRefused("a header's name isn't one")
    if name.lower() in OURS:
        raise StepRefused(f"header {name.lower()} is set by Seawall alone")
    hidden: list[str] = []
    if isinstance(value, Secret):
        read = await tools.secret(value)
        hidden, text = [read], value.prefix + read
    elif isinstance(value, str):
        text = value
        if _SECRET_HEADER.search(name):
            hidden = [value, value.rpartition(" ")[2]]
    else:
        raise StepRefused(f"header {name.lower()} is neither a text nor a secret")
    if len(text) > HEADER_CHARS_MAX or not _VALUE.fullmatch(text):
        raise StepRefused(f"header {name.lower()} has characters that a header can't have, or too many of them")
    return text, hidden


def failure(tools: Toolbox, ask: Ask, answer: Answer) -> Exception:
    """What an answer's status means for the step. Nothing of the answer's body is said: it may hold anything."""
    status, what = answer.status, f"{ask.method} {ask.target.place} answered {answer.status}"
    if status >= 500 or status in (408, 429):
        cause = None if status == 429 else Cause.TIMEOUT if status == 408 else Cause.ERROR
        return StepUnavailable(
            what, cause=cause, sent=True, status=status, retry_after_s=_retry_after_s(answer, tools.clock.wall_us())
        )
    redirect = ", and redirects aren't followed" if 300 <= status < 400 else ""
    return StepDeclined(what + redirect, status=status)


def _retry_after_s(answer: Answer, now_us: int) -> float:
    """Seconds that the service asks us to wait; 0.0 when it says nothing that can be read."""
    text = next((value for name, value in answer.headers if name == "retry-after"), "").strip()
    if text.isascii() and text.isdigit():
        return float(text[:9])
    try:
        at = parsedate_to_datetime(text)
    except (ValueError, TypeError, OverflowError):
        return 0.0
    return max(0.0, (at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp() - now_us / 1_000_000)


def read_as(data: bytes, kind: type[T], what: str) -> T:
    """A JSON answer in the shape that its step needs.

    Raises:
        StepUnavailable: It has another one: a proxy's page, most often.
    """
    try:
        return msgspec.json.decode(data, type=kind)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise StepUnavailable(
            f"the answer of {what} isn't what was expected", cause=Cause.ERROR, sent=True, status=200
        ) from error


def _target(url: str) -> Target:
    found = parse(url)
    if isinstance(found, str):
        raise StepRefused(found)
    return found


async def _filled(tools: Toolbox, value: Any, hidden: list[str], depth: int) -> Any:
    """A JSON value with its secrets in place; they are noted in ``hidden``."""
    if isinstance(value, Secret):
        hidden.append(await tools.secret(value))
        return value.prefix + hidden[-1]
    if not isinstance(value, dict | list | tuple):
        return value
    if not depth:
        raise StepRefused(f"json= is deeper than {DEPTH_MAX}")
    if isinstance(value, dict):
        return {key: await _filled(tools, one, hidden, depth - 1) for key, one in value.items()}
    return [await _filled(tools, one, hidden, depth - 1) for one in value]


def _encoded(value: object) -> bytes:
    try:
        return msgspec.json.encode(value)
    except (TypeError, ValueError, OverflowError, RecursionError, msgspec.MsgspecError) as error:
        raise StepRefused(f"json= is no JSON: {error}") from error


def _result(answer: Answer, strike: Strike) -> HTTPResult:
    kept: dict[str, str] = {}
    for name, value in answer.headers:
        shown = STRUCK if _SECRET_HEADER.search(name) else strike.text(value)
        kept[name] = f"{kept[name]}, {shown}" if name in kept else shown
    kind, body = _body(kept.get("content-type", ""), strike.data(answer.body))
    return HTTPResult(status=answer.status, headers=kept, kind=kind, body=body)


def _body(content_type: str, data: bytes) -> tuple[str, Any]:
    if not data:
        return "empty", None
    if _JSON.match(content_type):
        value, wrong = parse_json(data)
        if wrong is None:
            return "json", value
    if _JSON.match(content_type) or _TEXT.match(content_type):
        try:
            return "text", data.decode()
        except UnicodeDecodeError:
            pass  # it isn't what it says: kept as the bytes that it is
    return "base64", base64.b64encode(data).decode()
