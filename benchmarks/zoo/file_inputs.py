"""Random inputs for any ONNX file, from its signature alone."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx

from fusible.compiler.frontend.load import load_model
from fusible.compiler.options import Limits
from fusible.errors import UsageError

__all__ = ["random_inputs", "signature"]

Dimension = int | str | None


def signature(path: Path) -> dict[str, tuple[np.dtype, tuple[Dimension, ...]]]:
    """Element type and shape of each input without a default; a dimension is a size, a symbol, or None.

    Raises InvalidModel if the file is no ONNX model, UsageError for an input that is no tensor of known rank.
    """
    graph = load_model(path, Limits()).proto.graph
    defaults = {tensor.name for tensor in graph.initializer}
    return {value.name: _tensor(path, value) for value in graph.input if value.name not in defaults}


def _tensor(path: Path, value: onnx.ValueInfoProto) -> tuple[np.dtype, tuple[Dimension, ...]]:
    tensor = value.type.tensor_type
    if value.type.WhichOneof("value") != "tensor_type" or not tensor.HasField("shape"):
        raise UsageError(f"{path}: input {value.name!r} is no tensor of known rank, so it gets no random values")
    return onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type), tuple(map(_dimension, tensor.shape.dim))


def _dimension(dim: onnx.TensorShapeProto.Dimension) -> Dimension:
    """Exporters write -1 for an unknown size."""
    if dim.HasField("dim_value") and dim.dim_value >= 0:
        return int(dim.dim_value)
    return dim.dim_param or None


def random_inputs(path: Path, shapes: Mapping[str, int], seed: int) -> dict[str, np.ndarray]:
    """Seeded arrays for the inputs of a file. shapes: sizes of symbols; every other open dimension is 1.

    Floats are normal. Integers are 0 or 1, for they may be indices; those called a mask are 1, for a mask of zeros
    would ask for the mean of nothing. Raises as `signature`, and UsageError for a symbol that no input has.
    """
    declared = signature(path)
    symbols = {dim for _, shape in declared.values() for dim in shape if isinstance(dim, str)}
    for symbol, size in shapes.items():
        if symbol not in symbols:
            raise UsageError(f"{path} has no symbol {symbol!r}; it has {', '.join(sorted(symbols)) or 'none'}")
        if size < 0:
            raise UsageError(f"{path}: symbol {symbol!r} cannot be {size}")
    generator = np.random.default_rng(seed)
    return {
        name: _random(generator, name, dtype, tuple(_size(dim, shapes) for dim in shape))
        for name, (dtype, shape) in declared.items()
    }


def _size(dim: Dimension, shapes: Mapping[str, int]) -> int:
    return dim if isinstance(dim, int) else shapes.get(dim or "", 1)


def _random(generator: np.random.Generator, name: str, dtype: np.dtype, shape: tuple[int, ...]) -> np.ndarray:
    if dtype == object:
        return np.full(shape, "text", dtype=object)
    if dtype.kind in "biu" and "mask" in name.lower():
        return np.ones(shape, dtype)
    if dtype.kind in "biu":
        return generator.integers(0, 2, shape).astype(dtype)
    if dtype.kind == "c":
        return (generator.standard_normal(shape) + 1j * generator.standard_normal(shape)).astype(dtype)
    return generator.standard_normal(shape).astype(dtype)
