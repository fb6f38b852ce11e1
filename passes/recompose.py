"""Recompose: softmax, norms and activations that an exporter wrote out become single canonical ops again."""

from __future__ import annotations

from fusible.passes.driver import RewritePass
from fusible.passes.rules import compose_activations, compose_normalizations
from fusible.passes.rules.group_norms import grouped_instances

__all__ = ["recompose"]


def recompose() -> RewritePass:
    """The pass `recompose`."""
    return RewritePass("recompose", [*compose_activations.RULES, *compose_normalizations.RULES, grouped_instances])
