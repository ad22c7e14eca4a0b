"""HTML and SVG that are escaped because of how they are made: whatever is no `Markup` becomes text."""

from __future__ import annotations

import html
from collections.abc import Iterable

from seawall.kernel.log import printable

VOID = frozenset({"meta", "br", "hr", "wbr"})


class Markup(str):
    """Characters that are markup already. Only this module makes them of anything but constants."""

    __slots__ = ()


Child = Markup | str | float | None | Iterable["Child"]
Attribute = str | float | bool | None


def text(value: str) -> Markup:
    """Escaped. Values come from outside (names of faults, alerts, answers): what isn't seen, or turns the direction of
    writing, is spelt out."""
    return Markup(html.escape("\n".join(printable(line) for line in value.split("\n"))))


def join(children: Iterable[Child]) -> Markup:
    """One after the other; a None is nothing."""
    return Markup("".join(_one(child) for child in children))


def tag(name: str, /, *children: Child, **attributes: Attribute) -> Markup:
    """One element.

    Args:
        attributes: ``class_`` is ``class``, ``stroke_width`` is ``stroke-width``; None and False are left out, True
            stands without a value.
    """
    said = "".join(_attribute(key, value) for key, value in attributes.items() if value is not None)
    if name in VOID:
        return Markup(f"<{name}{said}>")
    return Markup(f"<{name}{said}>{join(children)}</{name}>")


def _one(child: Child) -> str:
    if child is None:
        return ""
    if isinstance(child, Markup):
        return child
    if isinstance(child, str):
        return text(child)
    if isinstance(child, (int, float)):
        return text(short(child))
    return join(child)


def _attribute(key: str, value: Attribute) -> str:
    name = key.rstrip("_").replace("_", "-")
    if value is False:
        return ""
    if value is True:
        return f" {name}"
    return f' {name}="{text(value if isinstance(value, str) else short(value or 0))}"'


def short(value: float) -> str:
    """A number for coordinates and plain figures: two decimals at most, and no more than are needed."""
    return f"{value:.2f}".rstrip("0").rstrip(".") if isinstance(value, float) else str(value)
