"""Templates used by themselves, as any Triton kernel is: run in checking mode, and as kernels that can be built."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from fusible.compiler.backends.triton.launch import AccessFact, Argument, LaunchRule
from fusible.compiler.backends.triton.printer import PrintedKernel
from fusible.compiler.ir.types import DType
from fusible.kernels.numpy.attention import attention as meaning
from fusible.kernels.triton.attention import attention
from fusible.kernels.triton.top_k import top_k
from tests.compiler.triton.harness import BF16, run, signature_of
from tests.tolerance import assert_close, poisoned

__all__ = ["ALONE", "built_alone"]

BATCH, HEADS, GROUP, QUERIES, KEYS, SIZE, WIDTH = 2, 4, 2, 13, 21, 20, 24
FLOATS = {"f32": np.dtype(np.float32), "f16": np.dtype(np.float16), "bf16": BF16}
ATTENTION = {
    "CAUSAL": True, "D": SIZE, "DV": WIDTH, "BLOCK_D": 32, "BLOCK_DV": 32, "ROWS": 16, "KEYS": 16, "PRECISION": "ieee",
}  # fmt: skip
TOP_K = {"LARGEST": True, "BLOCK": 16, "OTHERS": 32}


def _attention_arguments(dtype: np.dtype) -> dict[str, np.ndarray | int | float]:
    random = np.random.default_rng(1)
    shapes = ((HEADS, QUERIES, SIZE), (HEADS // GROUP, KEYS, SIZE), (HEADS // GROUP, KEYS, WIDTH))
    q, k, v = (random.standard_normal((BATCH, *shape)).astype(dtype) for shape in shapes)
    mask = random.standard_normal((QUERIES, KEYS)).astype(dtype)
    out = poisoned((BATCH, HEADS, QUERIES, WIDTH), dtype)
    steps = {
        f"{name}_{axis}": step
        for name, array in (("q", q), ("k", k), ("v", v), ("out", out))
        for axis, step in zip(("batch", "head", "row"), (s // dtype.itemsize for s in array.strides), strict=False)
    }
    given = {"q": q, "k": k, "v": v, "mask": mask, "out": out, "queries": QUERIES, "keys": KEYS, "heads": HEADS}
    given |= {"group": GROUP, "scale": 0.3, **steps, "mask_batch": 0, "mask_head": 0, "mask_row": KEYS}
    return {n: given[n] for n in attention.arg_names if n in given}


def check_attention(dtype: np.dtype) -> None:
    """Causal, with a mask, heads that share keys, and sizes that are no powers of two."""
    given = _attention_arguments(dtype)
    run(attention, (1, BATCH * HEADS), given, ATTENTION, checked=True)
    seen = np.arange(KEYS) <= np.arange(QUERIES)[:, None] + KEYS - QUERIES
    bias = np.where(seen, np.asarray(given["mask"]).astype(np.float64), -np.inf)
    wide = [np.asarray(given[n]).astype(np.float64) for n in "qkv"]
    assert_close(given["out"], meaning(*wide, bias, scale=0.3), accumulation=KEYS)


def _top_k_arguments(dtype: np.dtype) -> dict[str, np.ndarray | int | float]:
    x = np.random.default_rng(2).integers(-9, 9, (3, 50)).astype(dtype)
    results = {"values": poisoned((3, 4), dtype), "indices": poisoned((3, 4), np.int64)}
    return {"x": x, **results, "size": 50, "inner": 1, "k": 4}


def check_top_k(dtype: np.dtype) -> None:
    """Many ties."""
    given = _top_k_arguments(dtype)
    run(top_k, (3 * 4,), given, TOP_K, checked=True)
    x = np.asarray(given["x"])
    order = np.argsort(-x.astype(np.float64), axis=1, kind="stable")[:, :4]
    assert np.array_equal(np.asarray(given["indices"]), order)
    assert np.array_equal(np.asarray(given["values"]), np.take_along_axis(x, order, 1))


_KINDS = {"attention": (_attention_arguments, ATTENTION), "top_k": (_top_k_arguments, TOP_K)}
ALONE: dict[str, Callable[[], None]] = {
    **{f"attention {name}": lambda d=dtype: check_attention(d) for name, dtype in FLOATS.items()},  # type: ignore[misc]
    **{f"top_k {name}": lambda d=dtype: check_top_k(d) for name, dtype in FLOATS.items()},  # type: ignore[misc]
}
"""What runs and checks each."""


def built_alone(name: str) -> PrintedKernel:
    """A template as a kernel that can be built: a function that calls it with all that it takes."""
    template, kind = name.split()
    arguments, constants = _KINDS[template]
    types = signature_of(arguments(FLOATS[kind]))
    names = [*types, *constants]
    source = (
        f'"""One kernel: {template} by itself."""\n\nimport triton\nimport triton.language as tl\n\n'
        f"from fusible.kernels.triton.{template} import {template}\n\n\n@triton.jit\n"
        f"def kernel({', '.join([*types, *(f'{c}: tl.constexpr' for c in constants)])}):\n"
        f"    {template}({', '.join(names)})\n"
    )
    given = tuple(Argument(n, t, None, 16 if t[0] == "*" else 1) for n, t in types.items())
    dtype = DType.of(FLOATS[kind])
    facts = tuple(AccessFact(a.name, dtype, False, 1, True) for a in given if a.type[0] == "*")
    return PrintedKernel(source, LaunchRule("kernel", given, constants, facts, ((1, 1),), 4, 2))  # type: ignore[arg-type]
