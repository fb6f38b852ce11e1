"""Ops that move elements: inferred types, NumPy meaning and index maps agree, with symbolic dimensions too."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from fusible.compiler.ir.definition import Opaque, View
from fusible.compiler.ir.graph import Graph
from fusible.compiler.ir.symbols import Symbol
from fusible.compiler.ir.types import DType, TensorType
from fusible.compiler.region.index import axis
from fusible.errors import InvalidModel
from tests.ir.single_op import add_op, check_definition

I64 = np.int64
SIZES = st.lists(st.integers(0, 4), min_size=1, max_size=4).map(tuple)


def numbered(*shape: int, dtype: Any = np.float32) -> np.ndarray:
    return np.arange(1, 1 + int(np.prod(shape))).reshape(shape).astype(dtype)


def every_axis(x: np.ndarray, operand: int = 0) -> list[tuple[int, int]]:
    return [(operand, d) for d in range(x.ndim)]


@settings(max_examples=60)
@given(dims=st.lists(st.integers(1, 4), min_size=1, max_size=4), data=st.data())
def test_reshape(dims: list[int], data: st.DataObject) -> None:
    x = numbered(*dims)
    factors = data.draw(st.permutations([d for d in dims if d > 1]))
    merged, run = [], 1
    for factor in factors:
        run *= factor
        if data.draw(st.booleans()):
            merged, run = [*merged, run], 1
    check_definition("reshape", [x], shape=(*merged, run))


@pytest.mark.parametrize(
    ("old", "new"),
    [((0, 3), (3, 0)), ((2, 0), (0,)), ((1, 1), ()), ((), (1,)), ((2, 3, 4), (2, 12)), ((6, 4), (2, 3, 4))],
)
def test_reshape_of_odd_shapes(old: tuple[int, ...], new: tuple[int, ...]) -> None:
    check_definition("reshape", [numbered(*old)], shape=new)
    check_definition("reshape", [numbered(*old, dtype=ml_dtypes.bfloat16)], shape=new)


def test_unchanged_dimensions_of_a_reshape_map_to_themselves() -> None:
    g = Graph()
    n, s = g.symbols.add(Symbol("n")), g.symbols.add(Symbol("s"))
    x = g.input(TensorType(DType.F32, (n, s, 12, 64)), "x")
    node = g.add("reshape", x, shape=(n, s, 768)).producer
    assert node is not None
    definition = node.op.definition(node)
    assert isinstance(definition, View)
    assert definition.maps[0].components[:2] == (axis(0), axis(1))


@pytest.mark.parametrize("symbolic", [[], [(0, 0), (0, 2)]])
def test_reshape_with_symbolic_dimensions(symbolic: list[tuple[int, int]]) -> None:
    x = numbered(2, 3, 5, 4)
    node = add_op("identity", [x], symbolic)
    n, _, s, _ = node.outputs[0].type.shape  # type: ignore[union-attr]
    check_definition("reshape", [x], symbolic, shape=(n * 3, s, 4))
    check_definition("reshape", [x], symbolic, shape=(n, s * 12))
    check_definition("reshape", [x], symbolic, shape=(n * s * 12,))
    check_definition("reshape", [x], symbolic, shape=(n, 1, 3, s, 2, 2))
    check_definition("reshape", [x], symbolic, shape=(s, n, 12))


@pytest.mark.parametrize("perm", [(0, 1, 2), (2, 0, 1), (1, 0, 2), None])
def test_transpose(perm: tuple[int, ...] | None) -> None:
    x = numbered(2, 0, 5) if perm == (0, 1, 2) else numbered(2, 3, 5)
    check_definition("transpose", [x], perm=perm)
    check_definition("transpose", [x], every_axis(x), perm=perm)


@pytest.mark.parametrize("old", [(3, 1), (1, 1), (3, 4), (4,), (1,), (), (0, 1)])
def test_expand(old: tuple[int, ...]) -> None:
    x = numbered(*old)
    shape = (2, *old[:1], 4) if len(old) == 2 and old[0] != 1 else (2, 3, 4)
    check_definition("expand", [x], shape=shape)
    # Of a symbolic dimension it is not known whether it is 1.
    check_definition("expand", [x], every_axis(x), shape=shape)


@settings(max_examples=30)
@given(shape=SIZES, data=st.data())
def test_tile(shape: tuple[int, ...], data: st.DataObject) -> None:
    repeats = tuple(data.draw(st.integers(0, 3)) for _ in shape)
    x = numbered(*shape)
    check_definition("tile", [x], repeats=repeats)
    check_definition("tile", [x], every_axis(x), repeats=repeats)


BOUND = st.one_of(st.integers(-7, 7), st.sampled_from([-(2**63), 2**63 - 1, -(2**31), 2**31 - 1]))


@settings(max_examples=100)
@given(start=BOUND, end=BOUND, step=st.integers(-3, 3).filter(bool), size=st.integers(0, 6), open_=st.booleans())
def test_slice(start: int, end: int, step: int, size: int, open_: bool) -> None:
    x = numbered(2, size)
    symbolic = [(0, 1)] if open_ else []
    check_definition("slice", [x], symbolic, starts=(start,), ends=(end,), axes=(1,), steps=(step,))


@pytest.mark.parametrize("along", [0, 1, 2])
def test_concat_and_split(along: int) -> None:
    parts = []
    for size in (1, 0, 3):
        shape = [2, 3, 4]
        shape[along] = size
        parts.append(numbered(*shape))
    symbolic = [(k, along) for k in range(3)]
    check_definition("concat", parts, axis=along)
    (whole,) = check_definition("concat", parts, symbolic, axis=along)
    check_definition("split", [whole], axis=along, split=(1, 0, 3), outputs=3)
    check_definition("split", [whole], [(0, 1)], axis=along - 3, split=(1, 0, 3), outputs=3)


@settings(max_examples=80)
@given(
    mode=st.sampled_from(["constant", "edge", "reflect", "wrap"]),
    pads=st.tuples(*[st.integers(-2, 5)] * 4),
    sizes=st.tuples(st.integers(0, 4), st.integers(1, 4)),
    open_=st.booleans(),
)
def test_pad(mode: str, pads: tuple[int, ...], sizes: tuple[int, int], open_: bool) -> None:
    x = numbered(*sizes)
    left = [size + min(0, pads[d]) + min(0, pads[d + 2]) for d, size in enumerate(sizes)]
    assume(min(left) >= (0 if mode == "constant" else 1))
    symbolic = every_axis(x) if open_ else []
    check_definition("pad", [x], symbolic, pads=pads, mode=mode)
    if mode == "constant":
        check_definition("pad", [x, np.array(-3, np.float32)], symbolic, pads=pads)
        check_definition("pad", [x, np.array([-3], np.float32)], symbolic, pads=pads)


@pytest.mark.parametrize("upper", [True, False])
@pytest.mark.parametrize("k", [0, 2, -1, 9, -9, 2**63 - 1, -(2**62)])
@pytest.mark.parametrize("shape", [(3, 5), (2, 5, 3), (0, 3)])
def test_trilu(shape: tuple[int, ...], k: int, upper: bool) -> None:
    x = numbered(*shape)
    check_definition("trilu", [x], k=k, upper=upper)
    check_definition("trilu", [x], every_axis(x), k=k, upper=upper)


@pytest.mark.parametrize("batch_axis", [0, 1])
def test_reverse_sequence(batch_axis: int) -> None:
    x = numbered(3, 4, 2) if batch_axis == 0 else numbered(4, 3, 2)
    lengths = np.array([4, 0, 3])
    attributes = {"batch_axis": batch_axis, "time_axis": 1 - batch_axis}
    check_definition("reverse_sequence", [x, lengths], **attributes)
    check_definition("reverse_sequence", [x, lengths], every_axis(x), **attributes)


def test_identity() -> None:
    check_definition("identity", [numbered(2, 0, 3)])


@pytest.mark.parametrize(
    ("op", "shapes", "attributes"),
    [
        ("reshape", [(2, 3)], {"shape": (5,)}),
        ("reshape", [(2, 3)], {"shape": (-1,)}),
        ("transpose", [(2, 3)], {"perm": (0, 0)}),
        ("transpose", [(2, 3)], {"perm": (0, 1, 2)}),
        ("expand", [(2, 3)], {"shape": (2, 4)}),
        ("tile", [(2, 3)], {"repeats": (1,)}),
        ("tile", [(2, 3)], {"repeats": (1, -1)}),
        ("trilu", [(3,)], {}),
        ("concat", [(2, 3), (3, 3)], {"axis": 1}),
        ("concat", [(2, 3), (3,)], {"axis": 0}),
        ("concat", [(2, 3)], {"axis": 2}),
        ("split", [(5,)], {"axis": 0, "split": (2, 2), "outputs": 2}),
        ("split", [(5,)], {"axis": 0, "split": (6, -1), "outputs": 2}),
        ("slice", [(5,)], {"starts": (0,), "ends": (1,), "axes": (0,), "steps": (0,)}),
        ("slice", [(5,)], {"starts": (0, 0), "ends": (1, 1), "axes": (0, -1), "steps": (1, 1)}),
        ("slice", [()], {"starts": (0,), "ends": (1,), "axes": (0,), "steps": (1,)}),
        ("pad", [(5,)], {"pads": (1,)}),
        ("pad", [(5,)], {"pads": (-3, -3)}),
        ("pad", [(0,)], {"pads": (1, 1), "mode": "edge"}),
        ("pad", [(5,)], {"pads": (1, 1), "mode": "mirror"}),
        ("pad", [(5,), (2,)], {"pads": (1, 1)}),
        ("squeeze", [(2, 1)], {"axes": (0,)}),
        ("unsqueeze", [(2, 1)], {"axes": (0, 0)}),
        ("flatten", [(2, 1)], {"axis": 3}),
    ],
)
def test_what_types_can_tell_is_refused(op: str, shapes: list[tuple[int, ...]], attributes: dict[str, Any]) -> None:
    with pytest.raises(InvalidModel, match=op):
        add_op(op, [numbered(*shape) for shape in shapes], **attributes)


@pytest.mark.parametrize(
    ("op", "attributes"),
    [
        ("reshape", {"shape": (6,)}),
        ("transpose", {"perm": (1, 0)}),
        ("transpose", {}),
        ("expand", {"shape": (2, 3)}),
        ("tile", {"repeats": (1, 2)}),
        ("trilu", {}),
        ("slice", {"starts": (0,), "ends": (1,), "axes": (0,), "steps": (1,)}),
        ("pad", {"pads": (1, 1, 0, 0)}),
        ("split", {"axis": 0, "split": (1, 1), "outputs": 2}),
        ("concat", {"axis": 0}),
        ("squeeze", {"axes": (0,)}),
        ("unsqueeze", {"axes": (0,)}),
        ("flatten", {"axis": 1}),
    ],
)
def test_operands_of_unknown_rank(op: str, attributes: dict[str, Any]) -> None:
    g = Graph()
    outputs = attributes.pop("outputs", None) if "outputs" in (attributes := dict(attributes)) else None
    node = g.add_node(op, [g.input(TensorType(DType.F32, None), "x")], attributes, outputs=outputs)
    assert isinstance(node.op.definition(node), Opaque)
    if op == "reshape":
        assert node.output.type == TensorType(DType.F32, (6,))
