"""Element types and their NumPy storage, the texts of types, symbols in types."""

from __future__ import annotations

import numpy as np
import pytest

from fusible.compiler.ir.symbols import Symbol, SymInt
from fusible.compiler.ir.types import DType, OptionalType, SequenceType, TensorType, substitute_type, type_symbols

N = Symbol("N")


@pytest.mark.parametrize("dtype", list(DType))
def test_storage_and_back(dtype: DType) -> None:
    assert DType.of(dtype.numpy) is dtype
    assert sum([dtype.is_float, dtype.is_integer, dtype.is_complex, dtype in (DType.BOOL, DType.STRING)]) == 1


def test_foreign_dtype() -> None:
    with pytest.raises(ValueError, match="no ONNX element type"):
        DType.of(np.dtype("datetime64[s]"))


def test_texts() -> None:
    assert str(TensorType(DType.F32, (SymInt.of(N), 3))) == "f32[N, 3]"
    assert str(TensorType(DType.I4, None)) == "i4[?]"
    assert str(OptionalType(SequenceType(TensorType(DType.STRING, ())))) == "optional<seq<string[]>>"
    assert str(SequenceType(None)) == "seq<?>"


def test_sizes() -> None:
    type_ = TensorType(DType.F32, (SymInt.of(N), 3))
    assert type_.rank == 2 and type_.static_shape is None and str(type_.elements) == "3*N"
    assert TensorType(DType.F32, (2, 3)).static_shape == (2, 3)
    assert TensorType(DType.F32, None).elements is None


def test_symbols_and_substitution() -> None:
    type_ = SequenceType(TensorType(DType.F32, (SymInt.of(N) * 2, 3)))
    assert list(type_symbols(type_)) == [N]
    assert str(substitute_type(type_, {"N": 5})) == "seq<f32[10, 3]>"
    assert substitute_type(OptionalType(None), {"N": 5}) == OptionalType(None)
