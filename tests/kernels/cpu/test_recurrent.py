"""recurrent.h against the NumPy layers in float64: every kind of layer, odd sizes, lengths, threads, guard pages."""

from __future__ import annotations

import ctypes
import functools
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest

from fusible.kernels.cpu.recurrent import pack_bias, pack_gates, pack_recurrent
from fusible.kernels.numpy import recurrent
from tests.kernels.cpu.layers import guarded, random
from tests.kernels.cpu.variants import VARIANTS, compile_variant
from tests.tolerance import assert_close, poisoned

SOURCE = """
#include "recurrent.h"
long scratch(struct recurrent *r, int gates, long threads) {
    recurrent_plan(r, threads);
    return gates == 4 ? recurrent_scratch_floats(r, 4) : gates == 3 ? recurrent_scratch_floats(r, 3)
                                                                    : recurrent_scratch_floats(r, 1);
}
int fits(const struct recurrent *r) { return recurrent_lengths_fit(r); }
void run(struct recurrent *r, int gates, float *scratch) {
    if (gates == 4) recurrent_run(r, 4, NULL, scratch);
    else if (gates == 3) recurrent_run(r, 3, NULL, scratch);
    else recurrent_run(r, 1, NULL, scratch);
}
"""
_POINTERS = ("weights", "recurrent", "bias", "peepholes", "lengths", "h", "c", "y", "y_h", "y_c")
_GATES = {"lstm": 4, "gru": 3, "rnn": 1}


class _Recurrent(ctypes.Structure):
    _fields_ = (
        [(n, ctypes.c_long) for n in ("steps", "rows", "width", "hidden", "directions")]
        + [("backward", ctypes.c_int), ("x", ctypes.c_void_p), ("x_step", ctypes.c_long), ("x_row", ctypes.c_long)]
        + [(n, ctypes.c_void_p) for n in _POINTERS]
        + [(n, ctypes.c_long) for n in ("y_step", "y_direction", "y_row", "state_direction", "state_row")]
        + [("clip", ctypes.c_float), ("input_forget", ctypes.c_int), ("linear_before_reset", ctypes.c_int)]
        + [("rows_per_item", ctypes.c_long), *((n, ctypes.c_void_p) for n in ("projected", "zeros", "gated"))]
    )


@functools.cache
def _library(variant: str) -> ctypes.CDLL:
    library = compile_variant(SOURCE, variant)
    library.scratch.restype = ctypes.c_long
    return library


@dataclass(frozen=True)
class _Case:
    """A layer: its kind and sizes, and the arguments of the NumPy function."""

    kind: str
    steps: int = 5
    rows: int = 3
    width: int = 7
    hidden: int = 19
    optional: tuple[str, ...] = ("B", "initial_h", "initial_c")
    lengths: tuple[int, ...] | None = None
    attributes: dict[str, Any] = field(default_factory=dict)

    @property
    def directions(self) -> int:
        return 2 if self.attributes.get("direction") == "bidirectional" else 1

    def operands(self) -> dict[str, np.ndarray]:
        """By the names of the standard, float32."""
        d, gates, h = self.directions, _GATES[self.kind], self.hidden
        state = (self.rows, d, h) if self.attributes.get("layout") else (d, self.rows, h)
        x = (
            (self.rows, self.steps, self.width)
            if self.attributes.get("layout")
            else (self.steps, self.rows, self.width)
        )
        found = {
            "X": random(x, 1),
            "W": random((d, gates * h, self.width), 2) / 3,
            "R": random((d, gates * h, h), 3) / 4,
        }
        made = {"B": random((d, 2 * gates * h), 4), "initial_h": random(state, 5)}
        if self.kind == "lstm":
            made |= {"initial_c": random(state, 6), "P": random((d, 3 * h), 7)}
        found |= {name: array for name, array in made.items() if name in self.optional}
        if self.lengths is not None:
            found["sequence_lens"] = np.asarray(self.lengths, np.int32)
        return found

    def expected(self) -> tuple[np.ndarray, ...]:
        """The results in float64."""
        given = {n: a if n == "sequence_lens" else a.astype(np.float64) for n, a in self.operands().items()}
        names = ["X", "W", "R", "B", "sequence_lens", "initial_h"] + (["initial_c", "P"] if self.kind == "lstm" else [])
        results = getattr(recurrent, self.kind)(*(given.get(n) for n in names), **self.attributes)
        return tuple(results)


def _strides(case: _Case) -> dict[str, int]:
    d, b, h = case.directions, case.rows, case.hidden
    if case.attributes.get("layout"):
        return {"x_step": case.width, "x_row": case.steps * case.width, "y_step": d * h, "y_direction": h,
                "y_row": case.steps * d * h, "state_direction": h, "state_row": d * h}  # fmt: skip
    return {"x_step": b * case.width, "x_row": case.width, "y_step": d * b * h, "y_direction": b * h, "y_row": h,
            "state_direction": b * h, "state_row": h}  # fmt: skip


def _run(case: _Case, variant: str, threads: int) -> tuple[np.ndarray, ...]:
    library, gates, given = _library(variant), _GATES[case.kind], case.operands()
    before = bool(case.attributes.get("linear_before_reset"))
    arrays = {
        "x": given["X"],
        "weights": pack_recurrent(given["W"], gates),
        "recurrent": pack_recurrent(given["R"], gates),
    }
    if "B" in given:
        arrays["bias"] = pack_bias(given["B"], gates, linear_before_reset=before)
    if "P" in given:
        arrays["peepholes"] = pack_gates(given["P"], 3)
    for name, ours in (("sequence_lens", "lengths"), ("initial_h", "h"), ("initial_c", "c")):
        if name in given:
            arrays[ours] = given[name]
    shapes = [result.shape for result in case.expected()]
    arrays |= {n: poisoned(s, np.float32) for n, s in zip(("y", "y_h", "y_c"), shapes, strict=False)}
    held = {name: guarded(array) for name, array in arrays.items()}
    layer = _Recurrent(
        steps=case.steps, rows=case.rows, width=case.width, hidden=case.hidden, directions=case.directions,
        backward=case.attributes.get("direction") == "reverse", clip=case.attributes.get("clip", np.inf),
        input_forget=case.attributes.get("input_forget", 0), linear_before_reset=before,
        **_strides(case), **{name: array.ctypes.data for name, array in held.items()},
    )  # fmt: skip
    floats = library.scratch(ctypes.byref(layer), gates, ctypes.c_long(threads))
    scratch = guarded(poisoned((floats,), np.float32))
    assert library.fits(ctypes.byref(layer))
    library.run(ctypes.byref(layer), gates, ctypes.c_void_p(scratch.ctypes.data))
    return tuple(held[n].copy() for n in ("y", "y_h", "y_c") if n in held)


def _check(case: _Case, variant: str, threads: int = 1) -> None:
    for got, expected in zip(_run(case, variant, threads), case.expected(), strict=True):
        assert_close(got, expected, accumulation=case.steps * (case.width + case.hidden))


_DIRECTIONS = ("forward", "reverse", "bidirectional")
_KINDS = [("lstm", {}), ("gru", {}), ("gru", {"linear_before_reset": 1}), ("rnn", {})]


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize(("kind", "attributes"), _KINDS)
@pytest.mark.parametrize("steps", [1, 6])
def test_directions_and_rows(kind: str, attributes: dict[str, Any], steps: int, variant: str) -> None:
    for direction in _DIRECTIONS:
        for rows in (1, 4, 21):
            case = _Case(kind, steps=steps, rows=rows, attributes={**attributes, "direction": direction})
            _check(case, variant, threads=3)


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize(("kind", "attributes"), _KINDS)
@pytest.mark.parametrize("hidden", [1, 4, 15, 16, 33])
def test_hidden_sizes(kind: str, attributes: dict[str, Any], hidden: int, variant: str) -> None:
    for rows in (1, 5):
        _check(_Case(kind, rows=rows, width=3, hidden=hidden, attributes=attributes), variant)


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize(("kind", "attributes"), _KINDS)
@pytest.mark.parametrize("direction", _DIRECTIONS)
def test_lengths(kind: str, attributes: dict[str, Any], direction: str, variant: str) -> None:
    attributes = {**attributes, "direction": direction}
    _check(_Case(kind, rows=6, lengths=(5, 0, 3, 5, 1, 4), attributes=attributes), variant)
    _check(_Case(kind, steps=1, rows=2, lengths=(0, 1), attributes=attributes), variant)


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize(("kind", "attributes"), _KINDS)
def test_batch_first_and_nothing_optional(kind: str, attributes: dict[str, Any], variant: str) -> None:
    both = {**attributes, "layout": 1, "direction": "bidirectional"}
    _check(_Case(kind, rows=5, attributes=both), variant, threads=2)
    _check(_Case(kind, rows=5, optional=(), attributes=both), variant)
    _check(_Case(kind, steps=0, attributes=attributes), variant)
    _check(_Case(kind, steps=1, width=40, optional=("initial_h",), attributes=attributes), variant)


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("input_forget", [0, 1])
@pytest.mark.parametrize("clip", [None, 0.3])
def test_peepholes_coupled_gates_and_clipping(input_forget: int, clip: float | None, variant: str) -> None:
    attributes = {"input_forget": input_forget} | ({} if clip is None else {"clip": clip})
    _check(_Case("lstm", optional=("B", "P", "initial_c"), attributes=attributes), variant)
    if clip is not None:
        for kind, more in _KINDS[1:]:
            _check(_Case(kind, attributes={**more, "clip": clip}), variant)


def test_lengths_that_are_no_lengths_are_noticed() -> None:
    library = _library("native")
    for wrong in ((2, 6), (-1, 2)):
        lengths = np.asarray(wrong, np.int32)
        layer = _Recurrent(steps=5, rows=2, lengths=lengths.ctypes.data)
        assert not library.fits(ctypes.byref(layer))
