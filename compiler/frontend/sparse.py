"""Sparse initialisers become dense constants."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx

from fusible.compiler.frontend.load import tensor_constant
from fusible.compiler.ir.constant import Constant
from fusible.compiler.options import Limits
from fusible.errors import InvalidModel, LimitExceeded

__all__ = ["sparse_constant"]


def sparse_constant(sparse: onnx.SparseTensorProto, folder: Path | None, limits: Limits, where: str) -> Constant:
    """The dense tensor of a SparseTensorProto in linear or coordinate form (at most `fold` limits in size)."""
    values = tensor_constant(sparse.values, folder, limits, where)
    indices = tensor_constant(sparse.indices, folder, limits, where).array
    shape = tuple(int(d) for d in sparse.dims)
    if any(d < 0 for d in shape) or len(shape) > 64:
        raise InvalidModel(f"{where}: bad shape {list(shape)}")
    size = int(np.prod(shape, dtype=object)) if shape else 1
    if size * values.dtype.itemsize > min(limits.tensor_bytes, 2**30):
        raise LimitExceeded("tensor_bytes", size * values.dtype.itemsize, min(limits.tensor_bytes, 2**30), where)
    if indices.dtype != np.int64 or len(values.shape) != 1:
        raise InvalidModel(f"{where}: indices must be int64 and values one-dimensional")
    if indices.shape == (values.size, len(shape)) and indices.ndim == 2:
        if np.any(indices < 0) or np.any(indices >= np.asarray(shape)):
            raise InvalidModel(f"{where}: an index is outside the shape {list(shape)}")
        linear = np.ravel_multi_index(tuple(indices.T), shape) if values.size else np.zeros(0, np.int64)
    elif indices.shape == (values.size,):
        linear = indices
    else:
        raise InvalidModel(f"{where}: {values.size} values but indices of shape {list(indices.shape)}")
    if np.any(linear < 0) or np.any(linear >= size):
        raise InvalidModel(f"{where}: an index is outside the {size} elements")
    dense = np.zeros(size, values.dtype)
    dense[linear] = values.array
    return Constant(dense.reshape(shape))
