"""Errors say what the caller may do next.

Fields come first and the message is built from them, so that code never parses text. The room that owns a driver
translates that driver's errors into these. Only these types cross a seam.
"""

from __future__ import annotations

from collections.abc import Sequence

UNSAID = "(it can't be said: its own text raises)"


def said(error: BaseException) -> str:
    """``Type: text`` of any exception. Never raises: a user's ``__str__`` may, and so may the name of its class."""
    name, text = "exception", UNSAID
    try:
        # Exact strings from here on: a subclass could raise later, wherever it is put into a line.
        name = str.__str__(type(error).__name__)
        text = str.__str__(str(error))
    except BaseException:  # noqa: BLE001, S110
        # User code: whatever it raises, SystemExit too, must not take the place of the failure that is being said.
        pass
    return f"{name}: {text}"


class SeawallError(Exception):
    """Base of everything that Seawall raises on purpose."""


class Rejected(SeawallError):
    """The input is wrong: nothing was kept, and repeating it unchanged can't help.

    Args:
        status: HTTP status of 400-499 that says it.
        title: A short name of the problem, the same for every occurrence.
        detail: What is wrong with this one, and what to do.
    """

    def __init__(self, status: int, title: str, detail: str = "") -> None:
        self.status = status
        self.title = title
        self.detail = detail
        super().__init__(f"{title}: {detail}" if detail else title)


class Overloaded(SeawallError):
    """Refused before anything was kept; the same request may succeed after ``retry_after_s`` seconds."""

    def __init__(self, what: str, *, retry_after_s: float = 1.0) -> None:
        self.what = what
        self.retry_after_s = retry_after_s
        super().__init__(f"{what}; try again in {retry_after_s:g} s")


class Unavailable(SeawallError):
    """A dependency failed before it did anything; repeating is safe."""

    def __init__(self, dependency: str, cause: str) -> None:
        self.dependency = dependency
        self.cause = cause
        super().__init__(f"{dependency} is unavailable: {cause}")


class Uncertain(SeawallError):
    """It may have happened. Repeat only with the same id, so that a second copy can be collapsed."""

    def __init__(self, what: str, *, operation_id: str = "") -> None:
        self.what = what
        self.operation_id = operation_id
        super().__init__(f"{what} (it may have happened)")


class Corrupt(SeawallError):
    """Bytes disagree with their checksum. They are kept aside; a person should look."""

    def __init__(self, where: str, detail: str) -> None:
        self.where = where
        self.detail = detail
        super().__init__(f"{where}: {detail}")


class Unstorable(SeawallError):
    """The store refused a value itself, so repeating can't help: halve the batch until the culprit is alone."""

    def __init__(self, detail: str) -> None:
        self.detail = detail
        super().__init__(f"the store refused a value: {detail}")


class Fenced(SeawallError):
    """Somebody else owns this now (a newer epoch, or a position that moved). Nothing was written; let go of it."""

    def __init__(self, what: str) -> None:
        self.what = what
        super().__init__(f"{what} is owned by another process now")


class Misconfigured(SeawallError):
    """Found at start: each problem names its setting, its value and what is allowed. Exit status 2."""

    def __init__(self, problems: Sequence[str]) -> None:
        self.problems = tuple(problems)
        super().__init__("; ".join(self.problems))
