"""Regions computed in float64: the reference for printed kernels."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import numpy as np

from fusible.compiler.ir.symbol_values import evaluate, symbols_of
from fusible.compiler.region.evaluate import run_region
from fusible.compiler.region.parse import parse_region
from fusible.compiler.region.region import Region
from fusible.compiler.region.text import region_text
from tests.tolerance import poisoned

__all__ = ["run_in_float64"]


def run_in_float64(
    region: Region, inputs: Sequence[np.ndarray], env: Mapping[str, int] | None = None, types: Sequence[str] = ("f32",)
) -> list[np.ndarray]:
    """What a region computes if everything of these types is float64. What it does not store stays poisoned."""
    names = re.compile(rf"\b({'|'.join(types)})\b")
    symbols = {s.name: s for b in (*region.inputs, *region.outputs) for d in b.shape for s in symbols_of(d)}
    wide = parse_region(names.sub("f64", region_text(region)), symbols)
    given = [x.astype(b.dtype.numpy) for x, b in zip(inputs, wide.inputs, strict=True)]
    known = dict(env or {})
    into = [poisoned(tuple(int(evaluate(d, known)) for d in b.shape), b.dtype.numpy) for b in wide.outputs]
    with np.errstate(all="ignore"):
        return run_region(wide, given, known, into)
