"""Secrets by name. A workflow says which one it means; what it is lies in a file of the installation, is read when it
is used, and is struck out of whatever comes back."""

from __future__ import annotations

import json
import os
import re
import stat
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

from seawall.step.error import StepRefused

BYTES_MAX = 16 * 1024
STRUCK = "[secret]"
SHORTEST = 4
"""Characters. Shorter ones are in everything, and striking them out would leave nothing."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}")


@dataclass(frozen=True, slots=True)
class Secret:
    """Stands for a secret where a step takes a text: ``headers={"authorization": secret("ci", prefix="Bearer ")}``."""

    name: str
    prefix: str = ""


def secret(name: str, *, prefix: str = "") -> Secret:
    """The secret of that name: the file ``name`` in the folder that ``step.secrets`` says.

    Args:
        prefix: What stands before it, as ``"Bearer "``.

    Raises:
        ValueError: It is no name of a file.
    """
    if not _NAME.fullmatch(name) or ".." in name:
        raise ValueError(f"secret({name!r}): 1 to 100 of letters, digits, _, - and . are needed")
    return Secret(name, prefix)


class Secrets:
    """Reads them.

    Args:
        folder: Where they lie; "" : nowhere.
        given: By name, in place of the folder: for tests.
    """

    def __init__(self, folder: str, given: Mapping[str, str] | None = None) -> None:
        self._folder = folder
        self._given = given

    def read(self, wanted: Secret) -> str:
        """A secret as it is now, without its prefix. Blocks: call it in a thread.

        Raises:
            StepRefused: It isn't there, or others than its owner may read it.
        """
        if self._given is not None:
            if wanted.name not in self._given:
                raise StepRefused(f"secret {wanted.name} isn't among those that were given")
            return self._given[wanted.name]
        if not self._folder:
            raise StepRefused(f"secret {wanted.name}: step.secrets says no folder to look for it")
        return _read(Path(self._folder) / wanted.name, wanted.name)


def _read(path: Path, name: str) -> str:
    try:
        # Non-blocking: a named pipe in its place must not hold the thread.
        with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise StepRefused(f"secret {name}: its file is no ordinary one")
            if status.st_mode & 0o077:
                raise StepRefused(f"secret {name}: others than its owner may open its file; run: chmod 600 {path}")
            raw = file.read(BYTES_MAX + 1)
    except OSError as error:
        raise StepRefused(f"secret {name}: its file can't be read: {error.strerror}") from error
    try:
        text = raw.decode().removesuffix("\n").removesuffix("\r")
    except UnicodeDecodeError:
        raise StepRefused(f"secret {name}: its file isn't UTF-8") from None
    if not text or len(raw) > BYTES_MAX or not text.isprintable():
        raise StepRefused(f"secret {name}: its file must hold one line, of at most {BYTES_MAX} bytes")
    return text


class Strike:
    """Takes known secrets out of what a service sent back: some echo what they were sent."""

    def __init__(self, secrets: Collection[str]) -> None:
        # As they are, and as JSON writes them. The longest first: one may be a part of another.
        forms = {form for one in secrets for form in (one, json.dumps(one)[1:-1]) if len(form) >= SHORTEST}
        self._forms = sorted(forms, key=len, reverse=True)

    def text(self, text: str) -> str:
        for form in self._forms:
            text = text.replace(form, STRUCK)
        return text

    def data(self, data: bytes) -> bytes:
        for form in self._forms:
            data = data.replace(form.encode(), STRUCK.encode())
        return data
