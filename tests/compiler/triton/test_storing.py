"""Constants in the order in which kernels read them."""

from __future__ import annotations

import itertools

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from fusible.compiler.backends.triton.storing import pending, transposed
from fusible.compiler.ir.constant import Constant
from fusible.compiler.ir.types import DType


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_tiles_give_what_a_transposition_does(data: st.DataObject) -> None:
    shape = data.draw(st.lists(st.sampled_from([0, 1, 3, 65]), min_size=0, max_size=2))
    shape += [data.draw(st.sampled_from([1, 7, 513]))] if shape else []
    order = tuple(data.draw(st.permutations(range(len(shape)))))
    array = np.arange(np.prod(shape, dtype=int), dtype=np.int32).reshape(shape)
    made = transposed(array, order)
    np.testing.assert_array_equal(made, array.transpose(order))
    assert made.flags.c_contiguous and made.flags.aligned
    inverse = tuple(int(d) for d in np.argsort(order))
    assert np.shares_memory(transposed(made.transpose(inverse), order), made) == bool(made.size)


def test_the_type_is_known_before_the_content() -> None:
    array = np.arange(24, dtype=np.uint8).reshape(2, 3, 4)
    for order in itertools.permutations(range(3)):
        waiting = pending(Constant(array), order, None)
        made = waiting.make()
        assert (made.shape, made.dtype, made.nbytes) == (waiting.shape, waiting.dtype, waiting.nbytes)
    codes = Constant((array % 16 - 8).astype(DType.I4.numpy))
    for dimension in (0, 2):
        waiting = pending(codes, (2, 1, 0), dimension)
        made = waiting.make()
        assert (made.shape, made.dtype) == (waiting.shape, waiting.dtype) and 2 * made.size == array.size
