"""Templates used by themselves, as any Triton kernel is."""

from __future__ import annotations

import numpy as np

from fusible.kernels.numpy.attention import attention as meaning
from fusible.kernels.triton.attention import attention
from fusible.kernels.triton.top_k import top_k
from tests.compiler.triton.harness import run
from tests.tolerance import assert_close, poisoned

BATCH, HEADS, GROUP, QUERIES, KEYS, SIZE, WIDTH = 2, 4, 2, 13, 21, 20, 24


def test_attention() -> None:
    random = np.random.default_rng(1)
    shapes = ((HEADS, QUERIES, SIZE), (HEADS // GROUP, KEYS, SIZE), (HEADS // GROUP, KEYS, WIDTH))
    q, k, v = (random.standard_normal((BATCH, *shape)).astype(np.float32) for shape in shapes)
    mask = random.standard_normal((QUERIES, KEYS)).astype(np.float32)
    out = poisoned((BATCH, HEADS, QUERIES, WIDTH), np.float32)
    steps = {
        f"{name}_{axis}": step
        for name, array in (("q", q), ("k", k), ("v", v), ("out", out))
        for axis, step in zip(("batch", "head", "row"), (s // 4 for s in array.strides), strict=False)
    }
    given = {"q": q, "k": k, "v": v, "mask": mask, "out": out, "queries": QUERIES, "keys": KEYS, "heads": HEADS}
    given |= {"group": GROUP, "scale": 0.3, **steps, "mask_batch": 0, "mask_head": 0, "mask_row": KEYS}
    names = attention.arg_names
    constants = {"CAUSAL": True, "D": SIZE, "DV": WIDTH, "BLOCK_D": 32, "BLOCK_DV": 32, "ROWS": 16, "KEYS": 16}
    ordered = {n: given[n] for n in names if n in given}
    run(attention, (1, BATCH * HEADS), ordered, {**constants, "PRECISION": "ieee"}, checked=True)
    seen = np.arange(KEYS) <= np.arange(QUERIES)[:, None] + KEYS - QUERIES
    bias = np.where(seen, mask.astype(np.float64), -np.inf)
    wide = [x.astype(np.float64) for x in (q, k, v)]
    assert_close(out, meaning(*wide, bias, scale=0.3), accumulation=KEYS)


def test_top_k() -> None:
    x = np.random.default_rng(2).integers(-9, 9, (3, 50)).astype(np.float32)
    values, indices = poisoned((3, 4), np.float32), poisoned((3, 4), np.int64)
    given = {"x": x, "values": values, "indices": indices, "size": 50, "inner": 1, "k": 4}
    run(top_k, (3 * 4,), given, {"LARGEST": True, "BLOCK": 16, "OTHERS": 32}, checked=True)
    order = np.argsort(-x, axis=1, kind="stable")[:, :4]
    assert np.array_equal(indices, order) and np.array_equal(values, np.take_along_axis(x, order, 1))
