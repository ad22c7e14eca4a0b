"""An installation for tests of targets: a server that answers as Seawall does, and faults that are files."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .platform_server import FakePlatform

SECRET = "whsec_c2Vhd2FsbC1zZWF3YWxsLXNlYXdhbGw="
LOOK = 'test -e "$0"'

Faults = Mapping[str, Mapping[str, Any]]


def fault(flag: Path, **more: Any) -> dict[str, Any]:
    """It is there while a file is."""
    return {"apply": ["touch", str(flag)], "verify": ["sh", "-c", LOOK, str(flag)], "revert": ["rm", str(flag)], **more}


def write(folder: Path, url: str, faults: Faults, **more: Any) -> Path:
    """Its file, with those that it names."""
    (folder / "token").write_text("secret\n")
    (folder / "lab.url").write_text(f"{url}/in/t\n")
    (folder / "lab.secret").write_text(SECRET)
    said: dict[str, Any] = {
        "name": "staging", "admin": url, "token_file": "token",
        "source": {"name": "lab", "url_file": "lab.url", "secret_file": "lab.secret"}, "fault": faults, **more,
    }  # fmt: skip
    path = folder / "staging.toml"
    path.write_text(toml(said))
    return path


def toml(said: Mapping[str, Any], *, name: str = "") -> str:
    """Tables of plain values."""
    lines = [f"[{name}]"] if name else []
    tables = []
    for key, value in said.items():
        if isinstance(value, Mapping):
            tables.append(toml(value, name=f"{name}.{json.dumps(key)}" if name else json.dumps(key)))
        else:
            lines.append(f"{json.dumps(key)} = {_value(value)}")
    return "\n".join([*lines, "", *tables])


def _value(value: Any) -> str:
    if isinstance(value, list):
        return f"[{', '.join(_value(each) for each in value)}]"
    if isinstance(value, Mapping):
        return f"{{{', '.join(f'{key} = {_value(each)}' for key, each in value.items())}}}"
    return json.dumps(value).replace("NaN", "nan") if isinstance(value, float) else json.dumps(value)


def installed(fake: FakePlatform) -> FakePlatform:
    """With the lab's own source in it."""
    fake.sources["lab"] = {"name": "lab", "kind": "standard"}
    fake.page = 500
    return fake
