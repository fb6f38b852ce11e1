"""Element-wise ops, activations and casts: types, definition and NumPy meaning agree; bad operands are refused."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import pytest

from fusible.compiler.ir.definition import Elementwise, Opaque
from fusible.compiler.ir.ops import OPS
from fusible.compiler.ir.types import DType
from fusible.errors import InvalidModel
from tests.ir.single_op import add_op, check_definition
from tests.kernels.kernel_calls import integers, normal

FLOATS = [np.float64, np.float32, np.float16, ml_dtypes.bfloat16]
SHAPES = [(), (3, 5), (2, 1, 3), (3, 0, 2)]
PAIRS = [((3, 5), (3, 5)), ((3, 5), ()), ((4, 1, 3), (2, 1)), ((0, 3), (3,))]

UNARY = [
    "abs", "neg", "sign", "ceil", "floor", "round", "reciprocal", "exp", "erf", "sin", "cos", "tan", "atan",
    "sinh", "cosh", "tanh", "asinh", "relu", "sigmoid", "softplus", "softsign", "hard_swish", "mish",
]  # fmt: skip
POSITIVE_UNARY = ["sqrt", "log"]
UNIT_UNARY = ["asin", "acos", "atanh"]
PARAMETRIC: list[tuple[str, dict[str, Any]]] = [
    ("leaky_relu", {"alpha": 0.3}),
    ("thresholded_relu", {"alpha": 0.3}),
    ("elu", {"alpha": 1.5}),
    ("selu", {}),
    ("celu", {"alpha": 0.7}),
    ("hard_sigmoid", {"alpha": 0.3, "beta": 0.4}),
    ("swish", {"alpha": 1.5}),
    ("gelu", {}),
    ("gelu", {"approximate": "tanh"}),
    ("shrink", {"bias": 0.2, "lambd": 0.4}),
]


@pytest.mark.parametrize("op", UNARY)
@pytest.mark.parametrize("dtype", FLOATS)
def test_unary(op: str, dtype: Any) -> None:
    for shape in SHAPES:
        symbolic = [(0, 0)] if shape else []
        check_definition(op, [normal(*shape, dtype=dtype, scale=3)], symbolic)


@pytest.mark.parametrize(("op", "attributes"), PARAMETRIC)
@pytest.mark.parametrize("dtype", FLOATS)
def test_parametric(op: str, attributes: dict[str, Any], dtype: Any) -> None:
    for shape in SHAPES:
        check_definition(op, [normal(*shape, dtype=dtype, scale=3)], **attributes)


@pytest.mark.parametrize("op", [*POSITIVE_UNARY, *UNIT_UNARY, "acosh"])
@pytest.mark.parametrize("dtype", FLOATS)
def test_unary_of_bounded_domain(op: str, dtype: Any) -> None:
    x = np.random.default_rng(4).uniform(0, 1, (3, 4)) + (op == "acosh")
    check_definition(op, [x.astype(dtype)])


@pytest.mark.parametrize("op", [*UNARY, *(name for name, _ in PARAMETRIC), "sqrt", "log", "acosh"])
def test_special_values(op: str) -> None:
    x = np.array([np.nan, np.inf, -np.inf, 0, -0.0, 1e30, -1e30, 1e-40], np.float32)
    attributes = dict(PARAMETRIC).get(op, {})
    if op in ("sin", "cos", "tan"):
        x = x[:-3]
    check_definition(op, [x], **attributes)


@pytest.mark.parametrize("op", ["add", "sub", "mul", "div"])
@pytest.mark.parametrize("dtype", [*FLOATS, np.int8, np.int32, np.uint8, np.int64])
def test_arithmetic(op: str, dtype: Any) -> None:
    for left, right in PAIRS:
        a, b = operands(dtype, left, right)
        check_definition(op, [a, b], [(0, 0)] if left else [])


def operands(dtype: Any, left: tuple[int, ...], right: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    if dtype in FLOATS:
        return normal(*left, dtype=dtype), normal(*right, 1, dtype=dtype).reshape(right)
    return integers(*left, dtype=dtype), integers(*right, 1, dtype=dtype).reshape(right)


@pytest.mark.parametrize("fmod", [False, True])
@pytest.mark.parametrize("dtype", [*FLOATS, np.int16, np.uint32])
def test_mod(fmod: bool, dtype: Any) -> None:
    a, b = operands(dtype, (4, 5), (5,))
    check_definition("mod", [a, b], fmod=fmod)


@pytest.mark.parametrize(
    ("base", "exponent"),
    [
        (np.float32, np.float32),
        (np.float32, np.int64),
        (np.int32, np.uint8),
        (np.int64, np.int8),
        (np.float16, np.float32),
    ],
)
def test_pow(base: Any, exponent: Any) -> None:
    a = np.array([[1, 2, 3], [4, 1, 2]]).astype(base)
    for b in (np.array([0, 1, 3]), np.array(2), np.array([3])):
        check_definition("pow", [a, b.astype(exponent)])
    if np.dtype(exponent).kind == "i" and np.dtype(base).kind == "i":
        check_definition("pow", [a - 2, np.array([-1, -2, -3]).astype(exponent)])


@pytest.mark.parametrize("op", ["max", "min", "sum", "mean"])
@pytest.mark.parametrize("dtype", FLOATS)
def test_lists(op: str, dtype: Any) -> None:
    inputs = [normal(3, 4, dtype=dtype), normal(4, dtype=dtype), normal(3, 1, dtype=dtype)]
    for count in (1, 2, 3):
        check_definition(op, list(inputs[:count]), accumulation=count)


@pytest.mark.parametrize("op", ["equal", "less", "less_or_equal", "greater", "greater_or_equal"])
def test_comparisons(op: str) -> None:
    for dtype in (*FLOATS, np.int8, np.uint64):
        a, b = np.arange(6).astype(dtype)[:, None], np.arange(2, 8).astype(dtype)
        check_definition(op, [a, b], [(0, 0)])
    x = np.array([np.nan, 0.0, -0.0, np.inf])
    check_definition(op, [x, x[:, None]])


def test_logic_bits_and_predicates() -> None:
    a, b = np.array([[True], [False]]), np.array([True, False])
    for op in ("and", "or", "xor", "equal"):
        check_definition(op, [a, b])
    check_definition("not", [a])
    for dtype in (np.int8, np.uint16, np.int64):
        x, y = integers(4, 3, dtype=dtype), integers(3, dtype=dtype)
        for op in ("bitwise_and", "bitwise_or", "bitwise_xor"):
            check_definition(op, [x, y])
        check_definition("bitwise_not", [x])
        shifts = np.array([0, 1, 200 if dtype != np.int8 else 100], dtype)
        for direction in ("LEFT", "RIGHT"):
            check_definition("bit_shift", [x, shifts], direction=direction)
    special = np.array([np.nan, np.inf, -np.inf, 1])
    for dtype in (*FLOATS, ml_dtypes.float8_e5m2):
        check_definition("is_nan", [special.astype(dtype)])
        for negative in (False, True):
            for positive in (False, True):
                flags = {"detect_negative": negative, "detect_positive": positive}
                check_definition("is_inf", [special.astype(dtype)], **flags)


@pytest.mark.parametrize("dtype", [*FLOATS, np.int8, np.bool_, np.int64])
def test_where(dtype: Any) -> None:
    condition = np.array([[True], [False], [True]])
    check_definition("where", [condition, np.array([1, 0]).astype(dtype), np.asarray(1).astype(dtype)], [(0, 0)])


@pytest.mark.parametrize("dtype", [*FLOATS, np.int8, np.uint8])
def test_clip(dtype: Any) -> None:
    x = np.arange(12).reshape(3, 4).astype(dtype)
    low, high = np.asarray(3).astype(dtype), np.asarray(7).astype(dtype)
    for bounds in ([low, high], [low], [None, high], []):
        check_definition("clip", [x, *bounds])


@pytest.mark.parametrize("dtype", [*FLOATS, np.int32])
def test_two_operand_activations(dtype: Any) -> None:
    x = (normal(2, 3, 4, dtype=np.float64) * 4).astype(dtype)
    check_definition("prelu", [x, np.array([[2], [3], [0]]).astype(dtype)], [(0, 0)])
    if dtype in FLOATS:
        check_definition("swiglu", [x, x[::-1]], alpha=1.5)


PLAIN = [*FLOATS, np.bool_, np.int8, np.uint8, np.int32, np.int64, np.uint16]


@pytest.mark.parametrize("source", PLAIN)
def test_casts(source: Any) -> None:
    x = np.array([[0, 1, 100], [3, 77, 2]]).astype(source)
    for target in PLAIN:
        check_definition("cast", [x], [(0, 0)], dtype=DType.of(target))
    if np.dtype(source).kind != "b":
        check_definition("cast", [(x.astype(np.float64) + 0.75).astype(source)], dtype=DType.I32)


def test_what_is_no_expression_says_why() -> None:
    strings = np.array(["a", "b"], object)
    for op, given in (
        ("equal", [strings, strings]),
        ("where", [np.array([True, False]), strings, strings]),
        ("shrink", [np.arange(3)]),
        ("erf", [np.arange(3)]),
    ):
        node = add_op(op, given)
        assert isinstance(node.op.definition(node), Opaque)
    for source, target in ((np.float32, DType.F8E5M2FNUZ), (np.float32, DType.I4), (object, DType.F32)):
        node = add_op("cast", [np.zeros(2).astype(source)], dtype=target)
        assert isinstance(node.op.definition(node), Opaque)


def test_every_commutative_op_commutes() -> None:
    a, b = np.array([3, -5, 7], np.int32), np.array([2, 4, -1], np.int32)
    for op in OPS:
        if op.commutative and op.kernel is not None:
            pair = (a > 0, b > 0) if op.name in ("and", "or", "xor") else (a, b)
            if op.name in ("mean", "sum"):
                pair = (a.astype(np.float32), b.astype(np.float32))
            assert np.array_equal(op.numpy(*pair), op.numpy(*reversed(pair))), op.name


F32, F16 = normal(2, 3), normal(2, 3, dtype=np.float16)
REFUSED: list[tuple[str, list[Any], dict[str, Any], str]] = [
    ("add", [F32, normal(4)], {}, "broadcast"),
    ("add", [F32, F16], {}, "element types"),
    ("max", [F32, F32, F16], {}, "element types"),
    ("equal", [F32, F16], {}, "element types"),
    ("where", [F32, F32, F32], {}, "condition"),
    ("where", [np.array(True), F32, F16], {}, "element types"),
    ("clip", [F32, normal(2)], {}, "one number"),
    ("clip", [F32, np.asarray(1)], {}, "element types"),
    ("prelu", [F32, normal(2)], {}, "broadcast"),
    ("prelu", [F32, normal(2, 2, 3)], {}, "broadcast"),
    ("swiglu", [F32, normal(3)], {}, "one shape"),
    ("gelu", [F32], {"approximate": "magic"}, "approximate"),
    ("celu", [F32], {"alpha": 0.0}, "alpha"),
    ("cast", [F32], {"dtype": DType.F8E8M0, "round_mode": "even"}, "round_mode"),
    ("cast", [F32], {"dtype": DType.C64}, "complex"),
    ("bit_cast", [F32], {"dtype": DType.F64}, "width"),
    ("bit_cast", [F32], {"dtype": DType.STRING}, "strings"),
]


@pytest.mark.parametrize(("op", "given", "attributes", "message"), REFUSED, ids=[f"{r[0]}-{r[3]}" for r in REFUSED])
def test_refused(op: str, given: list[Any], attributes: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidModel, match=message):
        add_op(op, given, **attributes)


def test_definitions_are_expressions() -> None:
    for op in (*UNARY, *(name for name, _ in PARAMETRIC)):
        node = add_op(op, [F32])
        assert isinstance(node.op.definition(node), Elementwise), op


def test_swiglu_takes_floats() -> None:
    with pytest.raises(InvalidModel, match="takes floats, got i64"):
        add_op("swiglu", [np.ones(3, np.int64), np.ones(3, np.int64)])
