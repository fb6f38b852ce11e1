"""Names of element types in plans."""

from __future__ import annotations

import numpy as np
import pytest

from fusible.compiler.ir.types import DType
from fusible.runtime.signature import DTYPES


@pytest.mark.parametrize("dtype", list(DType))
def test_element_types_by_name_and_names_by_element_type(dtype: DType) -> None:
    assert dtype.value in DTYPES
    assert DTYPES.name_of(DTYPES[dtype.value]) == dtype.value
    assert DTYPES.get(dtype.value) is DTYPES[dtype.value]
    assert DTYPES.get("f7") is None
    with pytest.raises(KeyError):
        DTYPES.name_of(np.dtype("M8[s]"))


def test_element_types_are_all_told() -> None:
    assert set(DTYPES) == {dtype.value for dtype in DType} | {""}
    assert len(DTYPES) == len(DType) + 1
