"""Checking mode finds what is planted, and says where."""

from __future__ import annotations

import re

import numpy as np
import pytest

from fusible.errors import ExecutionError
from tests.compiler.triton import kernels
from tests.compiler.triton.harness import prepared, run
from tests.compiler.triton.test_elementwise import random
from tests.tolerance import poisoned

N = 100


def check(kernel: object, grid: tuple[int, ...], **changed: object) -> str:
    """What checking mode says of a kernel that takes x, out and n."""
    arguments = {"x": random(N), "out": poisoned((N,), np.float32), "n": N} | changed
    with pytest.raises(ExecutionError) as caught:
        run(kernel, grid, arguments, {"BLOCK": 32}, checked=True)  # type: ignore[arg-type]
    return str(caught.value)


def test_read_out_of_range() -> None:
    """The memory after the array is another array's: it is not enough that somebody owns it."""
    both = random(2 * N)
    text = check(kernels.reads_beyond, (4,), x=both[:N], out=both[N:].copy())
    assert "kernel 'reads_beyond': checking mode found 28 defects: program (3, 0, 0) at tt.load, line " in text
    assert text.endswith("reads element 100 of 'x', which has 100")
    assert re.search(r"kernels\.py:\d+\)", text)


def test_write_out_of_range() -> None:
    """Nothing is written there, and what lies behind stays as it was."""
    memory = np.zeros(2 * N, np.float32)
    text = check(kernels.writes_beyond, (4,), out=memory[:N])
    assert "28 defects: program (3, 0, 0) at tt.store, line " in text
    assert text.endswith("writes element 100 of 'out', which has 100")
    assert not memory[N:].any()


def test_two_programs_write_one_element() -> None:
    text = check(kernels.writes_twice, (3,))
    assert "found 2 defects: program (1, 0, 0) at tt.store, line " in text
    assert text.endswith("stores an element of 'out' that program (0, 0, 0) stored too")


def test_shared_writes_may_be_meant() -> None:
    arguments = {"x": random(N), "out": poisoned((N,), np.float32), "n": N}

    built = prepared(kernels.writes_twice, arguments, {"BLOCK": 32}, checked=True)
    built((3,), *arguments.values(), shared_writes=True)
    np.testing.assert_array_equal(arguments["out"][:94], arguments["x"][:94])


def test_use_of_what_a_mask_left_undefined() -> None:
    out = poisoned((1,), np.float32)
    run(kernels.uses_undefined, (1,), {"x": random(N), "out": out, "n": 5}, {"BLOCK": 32}, checked=True)
    assert np.isnan(out[0])


def test_descriptor_beyond_its_memory() -> None:
    text = check(kernels.descriptor_too_large, (1,), n=4, out=poisoned((32,), np.float32))
    assert "32 defects: program (0, 0, 0) at tt.descriptor_load, line " in text
    assert text.endswith("reads element 128 of 'x', which has 100")


def test_assertion() -> None:
    x = np.abs(random(N)) + 1
    x[[3, 7]] = -1
    text = check(kernels.asserts, (1,), x=x)
    assert "found 2 defects: program (0, 0, 0) at tt.assert, line " in text
    assert text.endswith("the assertion does not hold")
