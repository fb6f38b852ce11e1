"""Texts of regions: every form comes back, and what is wrong is named with its line."""

from __future__ import annotations

import pytest

from fusible.compiler.ir.symbols import Symbol
from fusible.compiler.region.parse import parse_group, parse_region
from fusible.compiler.region.text import group_text, region_text
from fusible.compiler.region.verify import verify_group, verify_region
from fusible.errors import UsageError, VerifyError

EVERY_FORM = """\
region [i0=n, i1=7, i2=3]
  in x0: f32[n, 7]
  in x1: i64[n]
  in x2: bf16[9, 7]
  out y0: f32[n, 7]
  out y1: i64[n, 1]
  v0: f32 = load x0[i0, i1 + i2 - 1] where 0 <= i1 + i2 - 1 < 7 else -inf
  v1: f32 = reduce max over i2 of v0
  v2: i64 = load x1[i0]
  v3: bf16 = load x2[v2, i1]
  v4: i64 = index 2*floordiv(i1, 2) + n
  v5: bool = test 0 <= i1 < 4 and n <= v4 < 2*n
  v6: f32 = select(v5, mul(v1, 0.5), f32(v3))
  v7, v8: f32, i64 = reduce argmax_last over i1 of v6, v4
  v9: f32 = scan exclusive reverse sum over i1 of v6
  v10: f32 = contract over i1 of v1, v9
  v11: f32 = add(v9, mul(v10, -1e-05))
  v12: f32 = max(v7, v11)
  store y0[i0, i1] = v12
  store y1[i0, 0] = v8 where 0 <= i0 < n"""
SYMBOLS = {"n": Symbol("n")}


def test_every_form_comes_back() -> None:
    region = parse_region(EVERY_FORM, SYMBOLS)
    verify_region(region)
    assert region_text(region) == EVERY_FORM


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("v4: i64", "v5: i64", "line 11: values are numbered in order: expected v4"),
        ("argmax_last", "argbest", "line 14: unknown combiner 'argbest'"),
        ("mul(v1, 0.5)", "mull(v1, 0.5)", "line 13: no scalar function 'mull' of 2 arguments"),
        ("mul(v1, 0.5)", "mul(v1)", "line 13: no scalar function 'mul' of 1 arguments"),
        ("mul(v1, 0.5)", "__import__('os')", "line 13: not an expression"),
        ("bf16[9, 7]", "bf17[9, 7]", "line 4: unknown element type 'bf17'"),
        ("0 <= i1 < 4", "0 <= i1", "line 12: not a bound: '0 <= i1'"),
        ("[i0=n, i1=7", "[i0=n, i3=7", "line 1: axis 1 must be called i1, not 'i3'"),
        ("store y0", "put y0", "line 19: neither a buffer nor a stage nor a store: 'put y0"),
        ("in x1", "in x2", "line 3: buffers are numbered in order: expected 1, got 2"),
        ("of v1, v9", "of v1, w9", "line 16: expected names like v0"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_named(old: str, new: str, said: str) -> None:
    assert old in EVERY_FORM
    with pytest.raises(UsageError) as caught:
        parse_region(EVERY_FORM.replace(old, new, 1), SYMBOLS)
    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("reduce max over i2 of v0", "reduce max over i2 of v1", "invariant 1 (order): v1 reads v1"),
        ("reduce max over i2", "reduce max over i5", "invariant 2 (axes): axis i5 does not exist"),
        ("reduce max over i2", "reduce max over i2, i2", "invariant 2 (axes): an axis is folded twice"),
        ("load x1[i0]", "load x7[i0]", "invariant 3 (buffers): stage 2: buffer 7 does not exist"),
        ("load x1[i0]", "load x1[i0, i1]", "invariant 3 (buffers): the map has 2 components, the buffer 1"),
        ("load x2[v2, i1]", "load x2[v1, i1]", "invariant 4 (indices): v1 is no integer value"),
        ("argmax_last over i1 of v6, v4", "argmax_last over i1 of v6", "invariant 5 (types): argmax_last folds 2"),
        ("of v1, v9", "of v1, v3", "invariant 5 (types): the factors of a contraction must be of one type"),
        ("= v8 where", "= v7 where", "invariant 5 (types): v7 is f32, the output i64"),
        ("load x2[v2, i1]", "load x2[9, i1]", "invariant 7 (range): index 9 is outside a dimension of 9"),
        ("load x2[v2, i1]", "load x2[v2, -i1 - 1]", "invariant 7 (range): index -i1 - 1 is outside"),
        ("store y0[i0, i1]", "store y0[i0, 0]", "invariant 8 (places): v12 varies over i1"),
        ("max(v7, v11)", "abs(v7)", "invariant 9 (outputs): v11 is read by nothing"),
        ("store y1[i0, 0] = v8", "store y0[i0, 0] = v7", "invariant 9 (outputs): nothing is stored to y1"),
    ],
)  # fmt: skip
def test_every_invariant_is_checked(old: str, new: str, said: str) -> None:
    assert old in EVERY_FORM
    with pytest.raises(VerifyError) as caught:
        verify_region(parse_region(EVERY_FORM.replace(old, new, 1), SYMBOLS))
    assert said in str(caught.value)
    assert "^^^" in str(caught.value) or "stored to" in said or "stage 2" in said


GROUP = """\
group
  in b0: f32[5]
  out b1: f32[5]
  local b2: f32[5]
  step (b0) -> (b2)
    region [i0=5]
      in x0: f32[5]
      out y0: f32[5]
      v0: f32 = load x0[i0]
      v1: f32 = neg(v0)
      store y0[i0] = v1
  step (b2) -> (b1)
    region [i0=5]
      in x0: f32[5]
      out y0: f32[5]
      v0: f32 = load x0[i0]
      v1: f32 = abs(v0)
      store y0[i0] = v1"""


def test_groups_come_back() -> None:
    group = parse_group(GROUP)
    verify_group(group)
    assert group_text(group) == GROUP


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("step (b0) -> (b2)", "step (b0) -> (b1)", "step 1 reads b2, which nothing has written"),
        ("step (b0) -> (b2)", "step (b0) -> (b0)", "step 0 writes an input of the group"),
        ("step (b0) -> (b2)", "step (b0, b0) -> (b2)", "step 0 names 2 buffers, its region has 1"),
        ("local b2: f32[5]", "local b2: f32[6]", "step 0 sees buffer b2 as another type than the group"),
        ("local b2: f32[5]", "local b2: f32[5]\n  local b3: f32[5]", "b3 is never written"),
    ],
)
def test_groups_are_checked(old: str, new: str, said: str) -> None:
    with pytest.raises(VerifyError, match="invariant 10") as caught:
        verify_group(parse_group(GROUP.replace(old, new, 1)))
    assert said in str(caught.value)
