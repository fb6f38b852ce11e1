"""Signatures: names, element types and shapes of inputs and outputs, and the checks of what is passed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from fusible.errors import BoundsError, SignatureError
from fusible.runtime.dims import DimText, evaluate_dim, single_symbol

__all__ = ["DTYPES", "TensorSpec", "bind_dims", "check_input"]

_OF_ML_DTYPES = {
    "bf16": "bfloat16", "f8e4m3fn": "float8_e4m3fn", "f8e4m3fnuz": "float8_e4m3fnuz", "f8e5m2": "float8_e5m2",
    "f8e5m2fnuz": "float8_e5m2fnuz", "f8e8m0": "float8_e8m0fnu", "f4e2m1": "float4_e2m1fn", "i4": "int4", "i2": "int2",
    "u4": "uint4", "u2": "uint2",
}  # fmt: skip


class _ElementTypes(Mapping[str, np.dtype]):
    """Those of ml_dtypes are made when they are first asked for: most processes need none, and start sooner."""

    def __init__(self, made: Mapping[str, np.dtype]) -> None:
        self._made = dict(made)
        self._names = (*made, *_OF_ML_DTYPES)

    def __getitem__(self, name: str) -> np.dtype:
        found = self._made.get(name)
        if found is None:
            attribute = _OF_ML_DTYPES[name]
            import ml_dtypes  # noqa: PLC0415

            found = self._made[name] = np.dtype(getattr(ml_dtypes, attribute))
        return found

    def __contains__(self, name: object) -> bool:
        return name in self._names

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)

    def name_of(self, dtype: np.dtype) -> str:
        """The name of an element type. Raises KeyError for one that no tensor has."""
        for name in self:
            if name and self[name] == dtype:
                return name
        raise KeyError(dtype)


DTYPES = _ElementTypes({
    "f64": np.dtype(np.float64), "f32": np.dtype(np.float32), "f16": np.dtype(np.float16), "i64": np.dtype(np.int64),
    "i32": np.dtype(np.int32), "i16": np.dtype(np.int16), "i8": np.dtype(np.int8), "u64": np.dtype(np.uint64),
    "u32": np.dtype(np.uint32), "u16": np.dtype(np.uint16), "u8": np.dtype(np.uint8), "c64": np.dtype(np.complex64),
    "c128": np.dtype(np.complex128), "bool": np.dtype(np.bool_), "string": np.dtype(object), "": np.dtype(object),
})  # fmt: skip
"""Element types by the names that plans use; "" is that of sequences and optionals."""


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """An input or output.

    name; dtype (object for strings, sequences and optionals); shape: ints and names of symbolic dimensions or
    expressions of them, None if even the rank is unknown. kind: tensor | sequence | optional.
    """

    name: str
    dtype: np.dtype
    shape: tuple[int | str, ...] | None
    kind: str = "tensor"

    def __str__(self) -> str:
        dims = "?" if self.shape is None else ", ".join(str(d) for d in self.shape)
        return f"{self.name}: {self.dtype}[{dims}]" if self.kind == "tensor" else f"{self.name}: {self.kind}"


def check_input(spec: TensorSpec, given: Any) -> Any:
    """An input as the array (list, None) that a plan takes. Raises SignatureError with what was expected."""
    if type(given) is np.ndarray and given.dtype is spec.dtype and given.dtype != object:
        if spec.shape is None or given.ndim == len(spec.shape):
            return given
    if spec.kind != "tensor":
        allowed = (list, tuple) if spec.kind == "sequence" else (list, tuple, np.ndarray, type(None))
        if not isinstance(given, allowed):
            raise SignatureError(spec.name, f"a {spec.kind}", type(given).__name__)
        return [np.asarray(g) for g in given] if isinstance(given, (list, tuple)) else given
    if isinstance(given, (list, dict, str, bytes)) or given is None:
        raise SignatureError(spec.name, f"a numpy array {spec}", type(given).__name__)
    array = np.asarray(given)
    if spec.dtype == object:
        if array.dtype.kind not in "OUST":
            raise SignatureError(spec.name, "an array of strings", str(array.dtype))
        array = array if array.dtype == object else array.astype(object)
    elif array.dtype != spec.dtype:
        raise SignatureError(spec.name, f"dtype {spec.dtype}", f"dtype {array.dtype}")
    if spec.shape is not None and array.ndim != len(spec.shape):
        raise SignatureError(spec.name, f"rank {len(spec.shape)} ({_dims(spec.shape)})", f"shape {array.shape}")
    return array


def _dims(shape: Sequence[int | str]) -> str:
    return f"[{', '.join(str(d) for d in shape)}]"


def bind_dims(
    name: str,
    shape: Sequence[DimText],
    extents: Sequence[int],
    env: dict[str, int],
    bounds: Mapping[str, tuple[int, int | None]],
) -> None:
    """Give values to the symbols of an input's shape; check literals, repeats and bounds."""
    for axis, (dim, extent) in enumerate(zip(shape, extents, strict=True)):
        symbol = single_symbol(dim)
        if symbol is not None and symbol not in env:
            low, high = bounds.get(symbol, (0, None))
            if extent < low or (high is not None and extent > high):
                raise BoundsError(symbol, extent, (low, high))
            env[symbol] = extent
            continue
        wanted = evaluate_dim(dim, env)
        if wanted != extent:
            label = str(dim) if isinstance(dim, int) else f"{dim} = {wanted}"
            raise SignatureError(name, f"dimension {axis} to be {label}", f"shape {tuple(extents)}")
