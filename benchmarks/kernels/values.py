"""Operands for a case: seeded, not zero, and valid for the op.

Indices lie in range, divisors are not zero, logarithms get positive numbers, boxes have corners in order. The numbers
are those of ordinary work: products of them neither overflow nor vanish, and denormals do not occur.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, TypeAlias

import numpy as np

from fusible.benchmarks.kernels.cases import Case
from fusible.compiler.ir.types import DType, SequenceType, TensorType
from fusible.errors import UsageError

__all__ = ["operand_values"]

SEQUENCE_LENGTH = 4
_WORDS = ("page", "Line", "a b c", "x1,y2", "Uebung", "seven letters", "Z", "tree,leaf")


@dataclass(frozen=True)
class _Draw:
    """What a rule may look at: the operand's type, the case, the operands before this one, and chance."""

    chance: np.random.Generator
    dtype: DType
    shape: tuple[int, ...]
    case: Case
    before: tuple[Any, ...]

    @property
    def attrs(self) -> Any:
        return self.case.attrs

    def uniform(self, low: float, high: float) -> np.ndarray:
        return self.chance.uniform(low, high, self.shape).astype(self.dtype.numpy)

    def integers(self, low: int, high: int) -> np.ndarray:
        """In [low, high)."""
        return self.chance.integers(low, max(high, low + 1), self.shape).astype(self.dtype.numpy)


_Rule: TypeAlias = Callable[[_Draw], np.ndarray]


def operand_values(case: Case, seed: int) -> list[Any]:
    """An array for each operand (a list for a sequence, None for one that is absent), the same at every call.

    Raises UsageError for an operand whose type is not fixed.
    """
    values: list[Any] = []
    for index, operand in enumerate(case.operands):
        chance = np.random.default_rng([seed, zlib.crc32(case.text.encode()), index])
        if operand is None:
            values.append(None)
        elif operand.array is not None:
            values.append(operand.array)
        elif isinstance(operand.type, SequenceType) and isinstance(operand.type.element, TensorType):
            element = operand.type.element
            values.append([_tensor(case, index, element, chance, tuple(values)) for _ in range(SEQUENCE_LENGTH)])
        elif isinstance(operand.type, TensorType):
            values.append(_tensor(case, index, operand.type, chance, tuple(values)))
        else:
            raise UsageError(f"case {case.text!r}: operands of type {operand.type} cannot be made up")
    return values


def _tensor(
    case: Case, index: int, type_: TensorType, chance: np.random.Generator, before: tuple[Any, ...]
) -> np.ndarray:
    shape = type_.static_shape
    if shape is None:
        raise UsageError(f"case {case.text!r}: the shape of operand {index} is not fixed")
    rules = _RULES.get(case.op, {})
    rule = rules.get(index, rules.get(-1, _ordinary))
    return np.ascontiguousarray(rule(_Draw(chance, type_.dtype, shape, case, before))).reshape(shape)


def _ordinary(draw: _Draw) -> np.ndarray:
    """Normal numbers; small whole ones; every value of eight bits and less."""
    dtype = draw.dtype
    if dtype is DType.STRING:
        return np.array([_WORDS[i] for i in draw.chance.integers(0, len(_WORDS), draw.shape).flat], object)
    if dtype is DType.BOOL:
        return draw.integers(0, 2)
    if dtype.is_integer:
        if dtype.numpy.kind not in "iu":  # of fewer than eight bits
            return draw.integers(0, 2 if dtype is DType.I2 else 4)
        info = np.iinfo(dtype.numpy)
        return draw.integers(max(info.min, -100), min(info.max, 255 if info.min == 0 else 100) + 1)
    if dtype.is_complex:
        return (draw.chance.standard_normal(draw.shape) + 1j * draw.chance.standard_normal(draw.shape)).astype(
            dtype.numpy
        )
    return draw.chance.standard_normal(draw.shape).astype(dtype.numpy)


# Rules for one operand


def _between(low: float, high: float) -> _Rule:
    return lambda draw: draw.uniform(low, high) if not draw.dtype.is_integer else draw.integers(int(low), int(high) + 1)


def _away_from_zero(draw: _Draw) -> np.ndarray:
    if draw.dtype.is_integer:
        return draw.integers(1, 10)
    sign = np.where(draw.chance.integers(0, 2, draw.shape), 1.0, -1.0)
    return np.asarray(sign * draw.chance.uniform(0.5, 2, draw.shape)).astype(draw.dtype.numpy)


def _few(draw: _Draw) -> np.ndarray:
    """Of few different values, so that equal ones meet."""
    if draw.dtype in (DType.STRING, DType.BOOL):
        return _ordinary(draw)
    return draw.integers(0, 4)


def _with_specials(draw: _Draw) -> np.ndarray:
    values = _ordinary(draw)
    special = np.array([np.nan, np.inf, -np.inf, 1.0])[draw.chance.integers(0, 4, draw.shape)]
    return np.where(draw.chance.random(draw.shape) < 0.1, special.astype(values.dtype), values)


def _half_zero(draw: _Draw) -> np.ndarray:
    return np.where(draw.chance.integers(0, 2, draw.shape), _ordinary(draw), np.zeros((), draw.dtype.numpy))


def _zero_point(draw: _Draw) -> np.ndarray:
    """Zero for 32 bits, which must be; else near the middle of the range."""
    if draw.dtype is DType.I32 or draw.dtype.numpy.kind not in "iu":
        return np.zeros(draw.shape, draw.dtype.numpy)
    return draw.integers(120, 136) if draw.dtype is DType.U8 else draw.integers(0, 4)


def _weights_of_bytes(draw: _Draw) -> np.ndarray:
    """Signed ones so small that two products fit 16 bits: on processors without VNNI ONNX Runtime saturates sums."""
    return draw.integers(-60, 61) if draw.dtype is DType.I8 else _ordinary(draw)


def _scale_of_result(draw: _Draw) -> np.ndarray:
    """So large that sums of products of bytes fill the range of the result and do not leave it."""
    x, w = draw.case.operands[0], draw.case.operands[3]
    assert x is not None and w is not None and isinstance(w.type, TensorType) and isinstance(x.type, TensorType)
    conv = draw.case.op == "qlinear_conv"
    terms = np.prod((w.type.static_shape or (1,))[1:]) if conv else (x.type.static_shape or (1,))[-1]
    deviation = 60 * 60 * float(np.sqrt(terms)) * float(np.max(draw.before[1])) * float(np.max(draw.before[4]))
    return np.full(draw.shape, max(deviation, 1e-6) / 40, draw.dtype.numpy)


def _length(draw: _Draw, index: int, axis: int) -> int:
    operand = draw.case.operands[index]
    assert operand is not None and isinstance(operand.type, TensorType) and operand.type.static_shape is not None
    return operand.type.static_shape[axis]


def _index_along(axis: str) -> _Rule:
    """Positions along the axis of operand 0 that an attribute names."""
    return lambda draw: draw.integers(0, _length(draw, 0, getattr(draw.attrs, axis)))


def _distinct_along_axis(draw: _Draw) -> np.ndarray:
    """Positions of which no two in one line are equal, so that the order of writing does not matter."""
    size, along = _length(draw, 0, draw.attrs.axis), draw.attrs.axis % len(draw.shape)
    lines = np.argsort(draw.chance.random((*draw.shape[:along], *draw.shape[along + 1 :], size)), axis=-1)
    return np.moveaxis(lines[..., : draw.shape[along]], -1, along).astype(draw.dtype.numpy)


def _rows_of_indices(batch_dims: int, distinct: bool) -> _Rule:
    """Index vectors along the last axis, for the dimensions of operand 0 after the batch."""

    def rule(draw: _Draw) -> np.ndarray:
        first = draw.case.operands[0]
        assert first is not None and isinstance(first.type, TensorType) and first.type.static_shape is not None
        skipped = getattr(draw.attrs, "batch_dims", batch_dims)
        extents = first.type.static_shape[skipped : skipped + draw.shape[-1]]
        places, rows = int(np.prod(extents)), int(np.prod(draw.shape[:-1]))
        flat = draw.chance.permutation(places)[:rows] if distinct else draw.chance.integers(0, places, rows)
        return np.stack(np.unravel_index(flat, extents), -1).astype(draw.dtype.numpy)

    return rule


def _lengths(operand: int, axis: Callable[[Any], int]) -> _Rule:
    """Lengths of sequences, of at least 1."""
    return lambda draw: draw.integers(1, _length(draw, operand, axis(draw.attrs)) + 1)


def _boxes(draw: _Draw) -> np.ndarray:
    """[batch, n, 4]: corners y1, x1, y2, x2 in the unit square."""
    corners = np.sort(draw.chance.uniform(0, 1, (*draw.shape[:2], 2, 2)), axis=2)
    return corners.reshape(draw.shape).astype(draw.dtype.numpy)


def _regions(draw: _Draw) -> np.ndarray:
    """[R, 4] or, with the number of an image before, [R, 5]: x1, y1, x2, y2 in an image of operand 0."""
    height, width = _length(draw, 0, 2), _length(draw, 0, 3)
    corners = np.sort(draw.chance.uniform(0, 1, (draw.shape[0], 2, 2)), axis=1) * (width, height)
    boxes = corners.reshape(draw.shape[0], 4) / getattr(draw.attrs, "spatial_scale", 1.0)
    if draw.shape[1] == 5:
        images = draw.chance.integers(0, _length(draw, 0, 0), (draw.shape[0], 1))
        boxes = np.concatenate([images, np.round(boxes)], axis=1)
    return np.asarray(boxes).astype(draw.dtype.numpy)


def _places_in_windows(draw: _Draw) -> np.ndarray:
    """What MaxPool gives as positions: the first element of each window, counted in the whole unpooled tensor."""
    kernel, strides = draw.attrs.kernel_shape, draw.attrs.strides or (1,) * len(draw.attrs.kernel_shape)
    pooled = draw.shape[2:]
    whole = [(n - 1) * s + k for n, s, k in zip(pooled, strides, kernel, strict=True)]
    grid = np.meshgrid(*(np.arange(n) * s for n, s in zip(pooled, strides, strict=True)), indexing="ij")
    places = np.ravel_multi_index(tuple(grid), tuple(whole))
    planes = np.arange(int(np.prod(draw.shape[:2]))).reshape(*draw.shape[:2], *(1,) * len(pooled))
    return np.asarray(planes * int(np.prod(whole)) + places).astype(draw.dtype.numpy)


def _decaying(draw: _Draw) -> np.ndarray:
    return draw.uniform(-0.5, -0.01)


def _each(ops: tuple[str, ...], rules: Mapping[int, _Rule]) -> dict[str, Mapping[int, _Rule]]:
    return {op: rules for op in ops}  # noqa: C420 - one table for all of them is what is meant


_INDEXED: Mapping[str, Mapping[int, _Rule]] = {
    "array_feature_extractor": {1: lambda draw: draw.integers(0, _length(draw, 0, -1))},
    "gather": {1: _index_along("axis")},
    "gather_elements": {1: _index_along("axis")},
    "gather_nd": {1: _rows_of_indices(0, distinct=False)},
    "scatter_elements": {1: _distinct_along_axis},
    "scatter_nd": {1: _rows_of_indices(0, distinct=True)},
    "one_hot": {0: lambda draw: draw.integers(0, draw.attrs.depth)},
    "one_hot_dynamic": {0: lambda draw: draw.integers(0, 10)},
    "tensor_scatter": {2: lambda draw: draw.integers(0, _length(draw, 0, 2) - _length(draw, 1, 2) + 1)},
    "reverse_sequence": {1: _lengths(0, lambda attrs: attrs.time_axis)},
    "max_unpool": {1: _places_in_windows},
    "max_unpool_dynamic": {1: _places_in_windows},
    "rotary_embedding": {3: lambda draw: draw.integers(0, _length(draw, 1, 0))},
    "roi_align": {1: _regions, 2: lambda draw: draw.integers(0, _length(draw, 0, 0))},
    "max_roi_pool": {1: _regions},
    "non_max_suppression": {0: _boxes, 1: _between(0, 1)},
    "non_max_suppression_dynamic": {0: _boxes, 1: _between(0, 1)},
}
_RECURRENT: Mapping[str, Mapping[int, _Rule]] = {
    # Weights of the size that training leaves, so that states neither explode nor saturate.
    name: {
        1: _between(-0.2, 0.2), 2: _between(-0.2, 0.2), 3: _between(-0.2, 0.2),
        4: _lengths(0, lambda attrs: 1 if getattr(attrs, "layout", 0) else 0),
    }
    for name in ("rnn", "gru", "lstm")
}  # fmt: skip
_QUANTISED: Mapping[str, Mapping[int, _Rule]] = {
    "quantize_linear": {1: _between(0.02, 0.05), 2: _zero_point},
    "dequantize_linear": {1: _between(0.02, 0.05), 2: _zero_point},
    **_each(("matmul_integer", "conv_integer"), {1: _weights_of_bytes, 2: _zero_point, 3: _zero_point}),
    **_each(
        ("qlinear_matmul", "qlinear_conv"),
        {
            1: _between(0.02, 0.03), 2: _zero_point, 3: _weights_of_bytes, 4: _between(0.01, 0.02), 5: _zero_point,
            6: _scale_of_result, 7: _zero_point,
        },
    ),
    "dynamic_quantize_lstm": {
        1: _weights_of_bytes, 2: _weights_of_bytes, 3: _between(-0.2, 0.2), 8: _between(0.001, 0.002), 9: _zero_point,
        10: _between(0.001, 0.002), 11: _zero_point,
    },
}  # fmt: skip
_DOMAINS: Mapping[str, Mapping[int, _Rule]] = {
    **_each(("log", "sqrt", "reduce_log_sum"), {-1: _between(0.1, 4)}),
    **_each(("acos", "asin", "atanh", "tan"), {-1: _between(-0.95, 0.95)}),
    **_each(("reduce_prod", "cum_prod", "cum_prod_dynamic"), {0: _between(0.9, 1.1)}),
    **_each(("is_nan", "is_inf", "imputer"), {0: _with_specials}),
    **_each(("equal", "unique"), {-1: _few}),
    **_each(("div", "mod"), {1: _away_from_zero}),
    "acosh": {-1: _between(1.05, 4)},
    "reciprocal": {-1: _away_from_zero},
    "pow": {0: _between(0.1, 3), 1: _between(-2, 2)},
    "bit_shift": {1: lambda draw: draw.integers(0, 8)},
    "non_zero": {-1: _half_zero},
    "batch_normalization": {1: _between(0.5, 1.5), 4: _between(0.5, 1.5)},
    "batch_normalization_training": {1: _between(0.5, 1.5), 4: _between(0.5, 1.5)},
    "bernoulli": {-1: _between(0, 1)},
    "grid_sample": {1: _between(-1.1, 1.1)},
    "deform_conv": {4: _between(0, 1)},
    "linear_attention": {1: _between(-0.1, 0.1), 4: _decaying, 5: _between(0, 1)},
    "rotary_embedding": {1: _between(-1, 1), 2: _between(-1, 1)},
    "dropout": {1: _between(0.3, 0.3)},
}


def _joined(*tables: Mapping[str, Mapping[int, _Rule]]) -> Mapping[str, Mapping[int, _Rule]]:
    """Rules of all tables: by op, then by the number of the operand (-1: every one)."""
    found: dict[str, dict[int, _Rule]] = {}
    for table in tables:
        for op, rules in table.items():
            found[op] = {**found.get(op, {}), **rules}
    return MappingProxyType(found)


_RULES = _joined(_INDEXED, _RECURRENT, _QUANTISED, _DOMAINS)
