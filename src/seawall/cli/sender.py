"""Who sends: URLs and secrets of sources that were added with ``--remember``, in DIR/senders.json (0600).

The platform itself keeps neither: it has the token's hash and the sealed secret. This file is for trying things out.
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path

from seawall.cli.place import folder_of
from seawall.cli.say import MISUSED, NOT_FOUND, Failed
from seawall.machine.folder import replace_private

SECRET_BYTES_MAX = 4096


@dataclass(frozen=True, slots=True)
class Sender:
    """Where to send, and how to sign. ``kind`` None: not known."""

    url: str
    kind: str | None = None
    secret: bytes = b""


def find(target: str, data: str | None) -> Sender:
    """A URL as it is, or a remembered source.

    Raises:
        Failed: 3, the name isn't remembered.
    """
    if "://" in target:
        return Sender(target)
    path = _file(data)
    known = _known(path)
    if target not in known:
        raise Failed(
            NOT_FOUND,
            f"the URL of source {target!r} isn't remembered in {path}: the platform keeps no tokens. Give the URL that "
            "`seawall source add` printed, or add the source with --remember",
        )
    found = known[target]
    return Sender(found["url"], found["kind"], found["secret"].encode("utf-8", "surrogateescape"))


def remember(name: str, sender: Sender, data: str | None) -> Path:
    """Keep a source's URL and secret for ``seawall send NAME``; where."""
    path = _file(data)
    known = _known(path)
    known[name] = {
        "url": sender.url,
        "kind": sender.kind or "none",
        "secret": sender.secret.decode("utf-8", "surrogateescape"),
    }
    replace_private(path, json.dumps(known, indent=2) + "\n")
    return path


def renew(name: str, secret: bytes, data: str | None) -> bool:
    """Sign with another secret from now on; False: the name isn't remembered, and nothing is."""
    path = _file(data)
    known = _known(path)
    if name not in known:
        return False
    known[name]["secret"] = secret.decode("utf-8", "surrogateescape")
    replace_private(path, json.dumps(known, indent=2) + "\n")
    return True


def forget(name: str, data: str | None) -> None:
    """Harmless when it isn't known."""
    path = _file(data)
    known = _known(path)
    if known.pop(name, None) is not None:
        replace_private(path, json.dumps(known, indent=2) + "\n")


def read_secret(file: str) -> bytes:
    """A secret from a file or (``-``) standard input; one final newline isn't part of it.

    Raises:
        Failed: 2, it can't be read or is empty.
    """
    try:
        with sys.stdin.buffer if file == "-" else Path(file).open("rb") as source:
            text = source.read(SECRET_BYTES_MAX + 1)
    except OSError as error:
        raise Failed(MISUSED, f"--secret-file {file}: can't be read: {error.strerror}") from error
    if len(text) > SECRET_BYTES_MAX:
        raise Failed(MISUSED, f"--secret-file {file}: a secret has at most {SECRET_BYTES_MAX} bytes")
    secret = text.removesuffix(b"\r\n") if text.endswith(b"\r\n") else text.removesuffix(b"\n")
    if not secret:
        raise Failed(MISUSED, f"--secret-file {file}: is empty")
    return secret


def _file(data: str | None) -> Path:
    return folder_of(data).path / "senders.json"


def _known(path: Path) -> dict[str, dict[str, str]]:
    try:
        found = json.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise Failed(MISUSED, f"{path}: can't be read: {error}") from error
    return found if isinstance(found, dict) else {}
