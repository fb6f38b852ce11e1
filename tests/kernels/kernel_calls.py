"""Calling a kernel the way every caller may: operands untouched, arrays back, `out` honoured."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from tests.tolerance import assert_close, poisoned

Kernel = Callable[..., Any]
SHAPES = [(), (7,), (3, 5), (2, 1, 3), (0,), (3, 0, 2)]


def call(kernel: Kernel, *inputs: np.ndarray | None, **attributes: Any) -> np.ndarray:
    """The result, which must be an array, the same with and without `out`, and leave the operands as they were."""
    before = [None if x is None else x.copy() for x in inputs]
    result = kernel(*inputs, **attributes)
    assert type(result) is np.ndarray
    if "out" in inspect.signature(kernel).parameters:
        out = poisoned(result.shape, result.dtype) if result.dtype != object else np.empty(result.shape, object)
        assert kernel(*inputs, out=out, **attributes) is out
        assert same_bits(out, result)
    for x, old in zip(inputs, before, strict=True):
        if x is not None and old is not None:
            assert same_bits(x, old), "the kernel changed an operand"
    return result


def same_bits(a: np.ndarray, b: np.ndarray) -> bool:
    """Equal dtypes, shapes and bytes (strings: elements)."""
    if a.dtype != b.dtype or a.shape != b.shape:
        return False
    return bool(np.array_equal(a, b)) if a.dtype == object else a.tobytes() == b.tobytes()


def agrees(
    got: np.ndarray, inputs: Sequence[np.ndarray], reference: Callable[..., Any], *, accumulation: int = 1
) -> None:
    """Fail unless `got` is, within its type's tolerance, the float64 `reference` of the inputs as they are."""
    with np.errstate(all="ignore"):
        expected = np.asarray(reference(*(x.astype(np.float64) for x in inputs)))
        if got.dtype in (np.float16, np.float32) or got.dtype.kind == "V":
            # What overflows the narrow type is an infinity in it.
            narrow = expected.astype(got.dtype).astype(np.float64)
            expected = np.where(np.isinf(narrow), narrow, expected)
    assert_close(got, expected, accumulation=accumulation)


def normal(*shape: int, dtype: Any = np.float32, scale: float = 1.0) -> np.ndarray:
    """Seeded normal numbers."""
    return np.asarray(np.random.default_rng([*shape, 17]).standard_normal(shape) * scale).astype(dtype)


def integers(*shape: int, dtype: Any = np.int32, low: int | None = None, high: int | None = None) -> np.ndarray:
    """Seeded integers over the whole range of the type, or [low, high)."""
    info = np.iinfo(dtype)
    rng = np.random.default_rng([*shape, 23])
    return rng.integers(info.min if low is None else low, info.max if high is None else high, shape, dtype=dtype)
