"""Attention and signals: types, definition and NumPy meaning agree; bad operands are refused."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import pytest

from fusible.compiler.ir.definition import Opaque
from fusible.compiler.ir.symbols import Symbol, SymInt
from fusible.compiler.ir.types import DType
from fusible.errors import InvalidModel
from tests.ir.single_op import add_op, check_definition

Attributes = dict[str, Any]
B, HQ, HK, S, T, D, DV = 2, 6, 3, 5, 7, 8, 4


def normal(*shape: int, dtype: Any = np.float32, seed: int = 0) -> np.ndarray:
    return np.asarray(np.random.default_rng([seed, *shape]).standard_normal(shape)).astype(dtype)


def operands(packed: bool, dtype: Any = np.float32, heads: int = HK) -> list[np.ndarray]:
    shapes = ((B, HQ, S, D), (B, heads, T, D), (B, heads, T, DV))
    found = [normal(*s, dtype=dtype, seed=k) for k, s in enumerate(shapes)]
    return [x.swapaxes(1, 2).reshape(B, x.shape[2], -1) for x in found] if packed else found


PAST = [normal(B, HK, 4, D, seed=5), normal(B, HK, 4, DV, seed=6)]


@pytest.mark.parametrize("dtype", [np.float32, np.float16, ml_dtypes.bfloat16])
@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("heads", [1, 3, 6])
def test_attention(heads: int, packed: bool, dtype: Any) -> None:
    numbers: Attributes = {"q_num_heads": HQ, "kv_num_heads": heads} if packed else {}
    given = operands(packed, dtype, heads)
    check_definition("attention", given, accumulation=64, softcap=2.0, scale=0.4, **numbers)
    open_sizes = [(0, 0), (1, 0), (2, 0), (0, 1 if packed else 2), (1, 1 if packed else 2), (2, 1 if packed else 2)]
    check_definition("attention", given, open_sizes, accumulation=64, is_causal=True, **numbers)


@pytest.mark.parametrize("kind", [bool, np.float32])
@pytest.mark.parametrize("shape", [(T + 4,), (S, T + 4), (HQ, 1, T + 4), (B, 1, S, T + 4)])
def test_masks_and_past(shape: tuple[int, ...], kind: Any) -> None:
    mask = normal(*shape, seed=9) > 0 if kind is bool else normal(*shape, seed=9)
    attributes: Attributes = {"outputs": 3, "left_window_size": 4, "right_window_size": 2, "is_causal": True}
    check_definition("attention_with_cache", [*operands(False), mask, *PAST], accumulation=64, **attributes)
    for mode in range(4):
        check_definition(
            "attention_with_scores", [*operands(False), mask, *PAST], accumulation=64, outputs=4,
            qk_matmul_output_mode=mode, softcap=1.5,
        )  # fmt: skip


def test_attention_that_has_no_definition() -> None:
    q, k, v = operands(False)
    for extra, attributes in (
        ([None, None, None, np.array([3, 7])], {}),
        ([np.ones((S, T - 1), bool)], {}),
        ([], {"softmax_precision": DType.F16}),
    ):
        node = add_op("attention", [q, k, v, *extra], **attributes)
        assert isinstance(node.op.definition(node), Opaque)


@pytest.mark.parametrize("interleaved", [False, True])
@pytest.mark.parametrize("dim", [0, 4])
@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_rotary_embedding(dim: int, interleaved: bool, dtype: Any) -> None:
    half = (dim or D) // 2
    table = [normal(9, half, dtype=dtype, seed=k) for k in (1, 2)]
    positions = np.random.default_rng(0).integers(0, 9, (B, S))
    attributes: Attributes = {"rotary_embedding_dim": dim, "interleaved": interleaved}
    x = normal(B, 3, S, D, dtype=dtype)
    check_definition("rotary_embedding", [x, *table, positions], accumulation=4, **attributes)
    packed = x.swapaxes(1, 2).reshape(B, S, -1)
    caches = [c[positions] for c in table]
    check_definition("rotary_embedding", [packed, *caches], accumulation=4, num_heads=3, **attributes)
    symbolic = [(0, 0), (0, 1), (1, 0), (1, 1), (2, 0), (2, 1)]
    check_definition("rotary_embedding", [packed, *caches], symbolic, accumulation=4, num_heads=3, **attributes)


def test_sizes_of_signals() -> None:
    x, length = normal(2, 30, 1), SymInt.of(Symbol("n"))
    assert str(add_op("dft", [x], axis=1, dft_length=length, onesided=True).output.type) == (
        "f32[2, floordiv(n, 2) + 1, 2]"
    )
    spectrum = normal(2, 16, 2)
    assert str(add_op("dft", [spectrum], axis=1, inverse=True, onesided=True).output.type) == "f32[2, 30, 1]"
    assert str(add_op("stft", [x], [(0, 1)], frame_step=4, frame_length=8).output.type) == (
        "f32[2, floordiv(n30, 4) - 1, 5, 2]"
    )
    assert str(add_op("hann_window", [], size=length, dtype=DType.F16).output.type) == "f16[n]"
    mel: Attributes = {"lower_edge_hertz": 0.0, "upper_edge_hertz": 8e3, "dtype": DType.F32, "sample_rate": 16000}
    assert str(add_op("mel_weight_matrix", [], num_mel_bins=8, dft_length=length, **mel).output.type) == (
        "f32[floordiv(n, 2) + 1, 8]"
    )


def shapes(*given: tuple[int, ...], dtype: Any = np.float32) -> list[np.ndarray]:
    return [np.zeros(s, dtype) for s in given]


Q, K, V = (2, 4, 5, 8), (2, 2, 7, 8), (2, 2, 7, 6)
LINEAR: Attributes = {"q_num_heads": 4, "kv_num_heads": 2, "outputs": 2}


@pytest.mark.parametrize(
    ("op", "given", "attributes"),
    [
        ("attention", shapes(Q, K, (2, 2, 6, 6)), {}),
        ("attention", shapes(Q, (2, 3, 7, 8), (2, 3, 7, 6)), {}),
        ("attention", shapes(Q, (2, 2, 7, 9), V), {}),
        ("attention", shapes(Q, K, V, (3, 4)), {}),
        ("attention", shapes(Q, K, V, (5, 8)), {}),
        ("attention", shapes((2, 5, 32), (2, 7, 16), (2, 7, 12)), {}),
        ("attention", shapes((2, 5, 32), (2, 7, 16), (2, 7, 12)), {"q_num_heads": 5, "kv_num_heads": 2}),
        ("attention", [*shapes(Q, K, V), None, *shapes((2, 2, 3, 8))], {}),
        ("attention", [*shapes(Q, K, V), None, *shapes((2, 2, 3, 8), (2, 1, 3, 6))], {}),
        ("attention", [*shapes(Q, K, V), None, None, None, np.zeros(3, np.int64)], {}),
        ("attention", shapes(Q, K, V), {"left_window_size": -2}),
        ("attention_with_scores", shapes(Q, K, V), {"qk_matmul_output_mode": 4, "outputs": 4}),
        ("rotary_embedding", shapes((2, 3, 5, 7), (9, 3), (9, 3)), {}),
        ("rotary_embedding", shapes((2, 3, 5, 8), (2, 5, 4), (2, 5, 3)), {}),
        ("rotary_embedding", shapes((2, 3, 5, 8), (2, 5, 5), (2, 5, 5)), {"rotary_embedding_dim": 10}),
        ("linear_attention", shapes((2, 5, 32), (2, 5, 16), (2, 5, 12)), LINEAR),
        ("linear_attention", shapes((2, 5, 32), (2, 6, 16), (2, 6, 12)), LINEAR | {"update_rule": "linear"}),
        ("linear_attention", shapes((2, 5, 32), (2, 5, 16), (2, 5, 12)), LINEAR | {"update_rule": "square"}),
        ("causal_conv_with_state", shapes((2, 3, 9), (4, 1, 3)), {"outputs": 2}),
        ("causal_conv_with_state", [*shapes((2, 3, 9), (3, 1, 3)), None, *shapes((2, 3, 3))], {"outputs": 2}),
        ("dft", shapes((2, 30, 3)), {}),
        ("dft", shapes((2, 30, 1)), {"axis": 2}),
        ("dft", shapes((2, 30, 1)), {"dft_length": 0}),
        ("dft", shapes((2, 0, 1)), {"axis": 1}),
        ("stft", shapes((2, 30, 1), (8,)), {"frame_step": 4, "frame_length": 9}),
        ("stft", shapes((2, 30, 1)), {"frame_step": 0, "frame_length": 9}),
        ("stft", shapes((2, 30, 2)), {"frame_step": 3, "frame_length": 9}),
        ("stft", shapes((2, 30, 1)), {"frame_step": 3, "frame_length": 31}),
        ("hann_window", [], {"size": -1, "dtype": DType.F32}),
        ("hann_window", [], {"size": 3, "dtype": DType.STRING}),
    ],
)
def test_bad_operands_are_refused(op: str, given: list[np.ndarray | None], attributes: Attributes) -> None:
    with pytest.raises(InvalidModel):
        add_op(op, given, **attributes)
