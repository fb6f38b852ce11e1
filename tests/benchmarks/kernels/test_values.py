"""Operands are the same at every call, not zero, and valid: the kernel takes them and gives ordinary numbers."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from fusible.benchmarks.kernels.cases import BUILT_IN, Case, load_cases, parse_case
from fusible.benchmarks.kernels.subjects import Subject, subjects_of
from fusible.benchmarks.kernels.values import operand_values
from fusible.benchmarks.kernels.written import written_cases
from fusible.errors import UsageError

SMALL = 200_000  # elements of an operand


def _elements(case: Case) -> int:
    types = [o.type for o in case.operands if o is not None]
    return max((getattr(t, "elements", 0) or 0 for t in types), default=0)


def _values(text: str) -> list[Any]:
    return operand_values(parse_case(text), 0)


def test_a_seed_decides_everything() -> None:
    case = parse_case("add(f32[40], f32[40])")
    a, b, other = operand_values(case, 1), operand_values(case, 1), operand_values(case, 2)
    assert all(np.array_equal(x, y) for x, y in zip(a, b, strict=True))
    assert not np.array_equal(a[0], other[0])
    assert not np.array_equal(a[0], a[1])


def test_every_operand_has_its_type_and_some_variety() -> None:
    for case in load_cases(BUILT_IN):
        for operand, value in zip(case.operands, operand_values(case, 0), strict=True):
            if operand is None:
                assert value is None
            elif isinstance(value, np.ndarray):
                assert f"{value.shape}" == f"{operand.type.static_shape}"  # type: ignore[union-attr]
                assert value.dtype == operand.type.dtype.numpy  # type: ignore[union-attr]
                if value.dtype.kind == "f" and value.size > 8 and not operand.elements:
                    assert np.count_nonzero(value) > value.size / 3
                    assert len(np.unique(value)) > 4


def test_domains() -> None:
    assert (_values("log(f32[500])")[0] > 0).all()
    assert (np.abs(_values("acos(f32[500])")[0]) < 1).all()
    assert (_values("acosh(f32[500])")[0] > 1).all()
    assert (_values("div(i32[500], i32[500])")[1] != 0).all()
    assert (np.abs(_values("div(f32[500], f32[500])")[1]) >= 0.5).all()
    assert (_values("batch_normalization(f32[2, 3], f32[3], f32[3], f32[3], f32[3])")[4] > 0).all()
    assert set(np.unique(_values("not(bool[500])")[0])) == {False, True}
    bytes_ = _values("quantize_linear(f32[500], f32[], u8[]) {output_dtype=u8}")
    assert bytes_[1] > 0


def test_indices_are_in_range_and_writes_do_not_meet() -> None:
    assert 0 <= _values("gather(f32[7, 3], i64[50])")[1].min() <= _values("gather(f32[7, 3], i64[50])")[1].max() < 7
    rows = _values("scatter_nd(f32[50, 4], i64[20, 1], f32[20, 4])")[1]
    assert len(np.unique(rows)) == 20
    lines = _values("scatter_elements(f32[5, 50], i64[5, 20], f32[5, 20]) {axis=1}")[1]
    assert all(len(np.unique(line)) == 20 for line in lines)
    lengths = _values("reverse_sequence(f32[9, 50], i64[50])")[1]
    assert 1 <= lengths.min() <= lengths.max() <= 9
    limits = "max_output_boxes_per_class=3, iou_threshold=0.5"
    boxes = _values(f"non_max_suppression(f32[1, 30, 4], f32[1, 2, 30]) {{{limits}}}")
    assert (boxes[0][..., 0] < boxes[0][..., 2]).all()


def test_signed_weights_do_not_saturate_sixteen_bits() -> None:
    """Two products of a byte and a weight must fit: see `benchmarks/reference.py`."""
    weights = _values("matmul_integer(u8[4, 64], const i8[64, 64], u8[], const i8[])")[1]
    assert np.abs(weights.astype(int)).max() * 255 * 2 < 2**15


def test_fixed_elements_stand() -> None:
    assert _values("clip(f32[3], const f32[] = [0.5])")[1] == np.float32(0.5)


def test_sequences_are_lists() -> None:
    (values,) = _values("sequence_length(seq<f32[3, 2]>)")
    assert [v.shape for v in values] == [(3, 2)] * 4


def test_open_shapes_are_refused() -> None:
    with pytest.raises(UsageError, match="not fixed"):
        _values("abs(f32[?])")


def _check_runs(case: Case) -> None:
    values = operand_values(case, 0)
    before = [v.copy() if isinstance(v, np.ndarray) else v for v in values]
    subject = subjects_of(case, values)[0]
    assert isinstance(subject, Subject)
    with np.errstate(all="ignore"):
        results = subject.results()
    for result in results:
        if isinstance(result, np.ndarray) and result.dtype.kind == "f" and result.size and case.op not in SPECIAL:
            assert np.isfinite(result).all(), case.text
    for value, old in zip(values, before, strict=True):
        if isinstance(value, np.ndarray):
            assert np.array_equal(value, old, equal_nan=value.dtype.kind == "f"), case.text


SPECIAL = {"is_nan", "is_inf", "imputer"}  # NaN and infinities are what they are about


def test_kernels_take_what_is_made_up() -> None:
    for case in [*written_cases(), *load_cases(BUILT_IN)][::3]:
        if _elements(case) <= SMALL:
            _check_runs(case)


@pytest.mark.slow
@pytest.mark.parametrize("case", load_cases(BUILT_IN), ids=lambda case: case.text[:80])
def test_every_kernel_takes_what_is_made_up(case: Case) -> None:
    _check_runs(case)
