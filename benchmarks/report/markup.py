"""HTML by construction: text is escaped unless it is `Markup`, and only `tag` makes markup out of text."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape

from fusible.benchmarks.report.wording import visible

__all__ = ["Markup", "tag"]

_VOID = ("meta",)


class Markup(str):
    """Text that is HTML already."""

    __slots__ = ()


def tag(name: str, /, *children: str, attributes: Mapping[str, str] | None = None, **more: str) -> Markup:
    """An element. Children that are not `Markup` are escaped, control characters too; `class_` means `class`.

    attributes: those whose names are no Python names (`aria-label`).
    """
    pairs = {**{key.rstrip("_"): value for key, value in more.items()}, **(attributes or {})}
    opened = "".join(f' {key}="{escape(visible(value))}"' for key, value in pairs.items())
    if name in _VOID:
        return Markup(f"<{name}{opened}>")
    inner = "".join(child if isinstance(child, Markup) else escape(visible(child)) for child in children)
    return Markup(f"<{name}{opened}>{inner}</{name}>")
