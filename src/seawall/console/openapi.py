"""The OpenAPI 3.1 document, made from the table of endpoints and the shapes themselves: it can't say anything else."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, Final

import msgspec

from seawall.console.answer import PROBLEM, Problem
from seawall.console.ask import LIMIT, Param
from seawall.console.table import Endpoint
from seawall.store.report import PAGE_MAX

_NAMES: Final = re.compile(r"\{(\w+)\}")
_PROBLEMS: Final = {
    "400": "The body isn't JSON, or holds what can't be stored.",
    "401": "The admin token is missing or wrong.",
    "404": "There is no such thing (yet).",
    "409": "It contradicts what is there.",
    "413": "The body is too large.",
    "422": "A parameter or field isn't known, or has a wrong value; the detail says what is allowed.",
    "503": "The store doesn't answer, or too much is asked at once; repeat after Retry-After.",
    "504": "A change may have happened; look before you repeat it.",
}
_READS: Final = ("401", "404", "422", "503")


def document(endpoints: Sequence[Endpoint], *, version: str) -> bytes:
    """The document as JSON."""
    kinds = {kind for e in endpoints for kind in (e.returns, e.takes) if kind is not None} | {Problem}
    ordered = sorted(kinds, key=lambda kind: kind.__name__)
    _, components = msgspec.json.schema_components(ordered, ref_template="#/components/schemas/{name}")
    paths: dict[str, dict[str, Any]] = {}
    for endpoint in endpoints:
        paths.setdefault(endpoint.path, {})[endpoint.method.lower()] = _operation(endpoint)
    return msgspec.json.encode(
        {
            "openapi": "3.1.0",
            "info": {"title": "Seawall admin API", "version": version},
            "paths": paths,
            "components": {"schemas": components, "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}}},
            "security": [{"token": []}],
        }
    )


def _operation(endpoint: Endpoint) -> dict[str, Any]:
    schema: dict[str, Any] = {} if endpoint.returns is None else _reference(endpoint.returns)
    found: dict[str, Any] = {
        "summary": endpoint.summary,
        "operationId": _operation_id(endpoint),
        "parameters": [
            *({"name": n, "in": "path", "required": True, "schema": {"type": "string"}} for n in _names(endpoint)),
            *(_parameter(param) for param in endpoint.query),
        ],
        "responses": {
            str(endpoint.status): {"description": "Done.", "content": {endpoint.content_type: {"schema": schema}}},
            **{
                status: {"description": why, "content": {PROBLEM: {"schema": _reference(Problem)}}}
                for status, why in _PROBLEMS.items()
                if endpoint.method != "GET" or status in _READS
            },
        },
    }
    if endpoint.takes is not None:
        content = {"application/json": {"schema": _reference(endpoint.takes)}}
        found["requestBody"] = {"required": True, "content": content}
    return found


def _operation_id(endpoint: Endpoint) -> str:
    words = [part.strip("{}") for part in endpoint.path.split("/")[2:]]
    return "_".join([endpoint.method.lower(), *words])


def _names(endpoint: Endpoint) -> list[str]:
    return _NAMES.findall(endpoint.path)


def _parameter(param: Param) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": "string"}
    if param is LIMIT:
        schema = {"type": "integer", "minimum": 1, "maximum": PAGE_MAX}
    elif param.words:
        schema = {"type": "string", "enum": list(param.words)}
    return {"name": param.name, "in": "query", "description": param.help, "schema": schema}


def _reference(kind: type[msgspec.Struct]) -> dict[str, str]:
    return {"$ref": f"#/components/schemas/{kind.__name__}"}
