"""docs/api.md and the OpenAPI document say what the table of endpoints says."""

from __future__ import annotations

import inspect
import json
import re
from pathlib import Path
from typing import Any, cast

from seawall.console.openapi import document
from seawall.console.table import Endpoint, endpoints

PAGE = (Path(__file__).parents[2] / "docs" / "api.md").read_text()
SECTION = re.compile(r"^### `([A-Z]+ \S+)`$", re.MULTILINE)


class Anything:
    """Stands for handlers that nobody calls here."""

    def __getattr__(self, name: str) -> Any:
        return None


def table() -> tuple[Endpoint, ...]:
    return endpoints(*(cast("Any", Anything()) for _ in inspect.signature(endpoints).parameters))


def test_the_page_has_a_section_for_each_endpoint_and_no_other() -> None:
    assert SECTION.findall(PAGE) == [f"{e.method} {e.path}" for e in table()]


def test_the_page_names_every_parameter_field_and_state() -> None:
    parts = SECTION.split(PAGE)
    sections = dict(zip(parts[1::2], parts[2::2], strict=True))
    for endpoint in table():
        section = sections[f"{endpoint.method} {endpoint.path}"]
        taken = endpoint.takes.__struct_fields__ if endpoint.takes is not None else ()
        words = [word for param in endpoint.query for word in param.words]
        for name in (*(param.name for param in endpoint.query), *taken, *words):
            assert f"`{name}`" in section, (endpoint.path, name)


def test_the_openapi_document_has_every_operation_once_with_its_parameters() -> None:
    found = json.loads(document(table(), version="1"))
    operations = [o for path in found["paths"].values() for o in path.values()]
    assert len({o["operationId"] for o in operations}) == len(operations) == len(table())
    for endpoint in table():
        operation = found["paths"][endpoint.path][endpoint.method.lower()]
        named = [p["name"] for p in operation["parameters"]]
        assert named == [*re.findall(r"\{(\w+)\}", endpoint.path), *(p.name for p in endpoint.query)]
        assert ("requestBody" in operation) is (endpoint.takes is not None)
        assert "401" in operation["responses"]
