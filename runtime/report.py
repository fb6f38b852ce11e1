"""What a compilation did, for people and scripts: fusions, refusals, kernels, memory, cost."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from os import PathLike
from pathlib import Path
from typing import Any

__all__ = ["Report"]


@dataclass(frozen=True)
class Report:
    """Plain data (JSON types).

    fusions: rewrites and fusions that happened; refusals: those that did not, with reasons; kernels: one row per step;
    memory: bytes (arena expression or number, constants, peak for the fixed part); cost: counts, and the sums over
    steps; notes: anything loud; host: steps of a native target that call NumPy, with the reason; gpu: of a GPU target,
    what its kernels' code shows and predicted times, {} for others. `flops` and `bytes` of kernels and cost are static:
    a number, an expression over sizes as text, or None where operations are not known; `language` says what a kernel is
    written in: numpy, c or triton; views of the same memory have none. `configuration` is a Triton kernel's, `chosen`
    how it was: "measured" by a tuner, or by the "static" model; `key` is its name in tuning lockfiles. The row of an
    `if` or `loop` covers the rows of its sub-plans.
    """

    fusions: tuple[Mapping[str, Any], ...] = ()
    refusals: tuple[Mapping[str, Any], ...] = ()
    kernels: tuple[Mapping[str, Any], ...] = ()
    memory: Mapping[str, Any] = field(default_factory=dict)
    cost: Mapping[str, Any] = field(default_factory=dict)
    passes: tuple[Mapping[str, Any], ...] = ()
    notes: tuple[str, ...] = ()
    host: tuple[Mapping[str, Any], ...] = ()
    gpu: Mapping[str, Any] = field(default_factory=dict)

    def to_data(self) -> dict[str, Any]:
        """The fields by name, not copied: rows are JSON types already, and there are thousands."""
        return {entry.name: getattr(self, entry.name) for entry in fields(self)}

    def to_json(self) -> str:
        """Everything as one JSON text, keys sorted."""
        return json.dumps(self.to_data(), sort_keys=True, indent=1)

    def to_html(self, path: str | PathLike[str]) -> None:
        """Write one page with a table per section; it needs no network."""
        import html  # noqa: PLC0415 - a process that runs a model does not need it

        names = ("fusions", "refusals", "kernels", "host", "passes")
        sections = "".join(f"<h2>{name}</h2>{_table(getattr(self, name))}" for name in names)
        if self.gpu:
            sections += f"<h2>GPU: {html.escape(str(self.gpu['gpu']))}, predictions</h2>{_table(self.gpu['kernels'])}"
        facts = f"<h2>memory</h2>{_table((self.memory,))}<h2>cost</h2>{_table((self.cost,))}"
        notes = "".join(f"<li>{html.escape(n)}</li>" for n in self.notes)
        style = "body{font:14px sans-serif}table{border-collapse:collapse}td,th{border:1px solid #bbb;padding:2px 6px}"
        page = (
            f"<!doctype html><meta charset='utf-8'><title>Fusible report</title><style>{style}</style>"
            f"<h1>Fusible report</h1><ul>{notes}</ul>{facts}{sections}"
        )
        Path(path).write_text(page, encoding="utf-8")


def _table(rows: Sequence[Mapping[str, Any]]) -> str:
    import html  # noqa: PLC0415 - see above

    if not rows or not any(rows):
        return "<p>none</p>"
    columns = list(dict.fromkeys(key for row in rows for key in row))
    head = "".join(f"<th>{html.escape(c)}</th>" for c in columns)
    body = "".join(
        "<tr>" + "".join(f"<td>{html.escape(str(row.get(c, '')))}</td>" for c in columns) + "</tr>" for row in rows
    )
    return f"<table><tr>{head}</tr>{body}</table>"
