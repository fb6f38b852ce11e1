"""attention.h against float64 NumPy: blocks, strides, groups of heads, causal and additive masks, decoding."""

from __future__ import annotations

import ctypes
import functools
import math
from dataclasses import dataclass, field

import numpy as np
import pytest

from tests.kernels.cpu.harness import pointer
from tests.kernels.cpu.layers import guarded, random
from tests.kernels.cpu.variants import VARIANTS, compile_variant
from tests.tolerance import assert_close, poisoned

# The score hook adds a mask [heads, queries, keys] if there is one; the output is [batch, queries, heads, size].
SOURCE = """
#include "attention.h"
struct output { const float *mask; float *y; long row, queries, keys, heads; };
struct item { const struct output *output; const float *mask; float *y; };
INLINE vf score(const void *context, vf value, long query, long key, long lanes) {
    const struct item *i = context;
    if (!i->mask) return value;
    for (long lane = 0; lane < lanes; lane++) value[lane] += i->mask[(query + lane) * i->output->keys + key];
    return value;
}
INLINE void finish(const void *context, vf value, long row, long column, long lanes) {
    const struct item *i = context;
    vf_store_first(i->y + row * i->output->row * i->output->heads + column, value, lanes);
}
long items(const struct attention *a) { return attention_items(a); }
long scratch(const struct attention *a) { return attention_scratch_size(a); }
void run(const struct attention *a, const struct output *o, float *scratch, long item) {
    long batch = attention_item_head(a, item) / o->heads, head = attention_item_head(a, item) % o->heads;
    struct item i = {o, o->mask ? o->mask + head * o->queries * o->keys : 0,
                     o->y + (batch * o->queries * o->heads + head) * o->row};
    attention_item(a, item, scratch, score, finish, &i);
}
"""


class _Attention(ctypes.Structure):
    _fields_ = [
        *((name, ctypes.c_long) for name in ("batch", "heads", "kv_heads", "queries", "keys", "size", "value_size")),
        *((name, ctypes.c_void_p) for name in "qkv"),
        *((f"{name}_strides", ctypes.c_long * 4) for name in "qkv"),
        ("scale", ctypes.c_float),
        ("causal", ctypes.c_int),
        ("causal_offset", ctypes.c_long),
    ]


class _Output(ctypes.Structure):
    _fields_ = [
        ("mask", ctypes.c_void_p),
        ("y", ctypes.c_void_p),
        *((name, ctypes.c_long) for name in ("row", "queries", "keys", "heads")),
    ]


@dataclass(frozen=True)
class _Case:
    """Sizes, the order of the axes (batch 0, head 1, row 2, column 3) in memory, and masks."""

    queries: int
    keys: int
    size: int
    value_size: int | None = None
    batch: int = 1
    heads: int = 2
    kv_heads: int | None = None
    layout: tuple[int, int, int, int] = (0, 1, 2, 3)
    causal: int | None = None
    mask: bool = False
    scale: float = field(default=0.3)

    def operands(self) -> list[np.ndarray]:
        kv_heads, value_size = self.kv_heads or self.heads, self.value_size or self.size
        return [
            random((self.batch, self.heads, self.queries, self.size)),
            random((self.batch, kv_heads, self.keys, self.size), seed=1),
            random((self.batch, kv_heads, self.keys, value_size), seed=2),
        ]

    def masks(self) -> np.ndarray:
        mask = random((self.heads, self.queries, self.keys), seed=3)
        mask[mask > 1] = -math.inf
        return mask


def _reference(case: _Case, operands: list[np.ndarray]) -> np.ndarray:
    q, k, v = (x.astype(np.float64) for x in operands)
    k, v = (np.repeat(x, case.heads // x.shape[1], axis=1) for x in (k, v))
    scores = case.scale * q @ k.swapaxes(2, 3)
    if case.mask:
        scores = scores + case.masks()
    if case.causal is not None:
        unseen = np.arange(case.keys) > np.arange(case.queries)[:, None] + case.causal
        scores = np.where(unseen, -math.inf, scores)
    largest = scores.max(axis=3, keepdims=True)
    weights = np.exp(scores - np.where(np.isneginf(largest), 0, largest))
    total = weights.sum(axis=3, keepdims=True)
    return (weights / np.where(total == 0, 1, total) @ v).transpose(0, 2, 1, 3)


def _run(case: _Case, operands: list[np.ndarray], variant: str) -> np.ndarray:
    """[batch, queries, heads, value_size]; the last item runs first."""
    library = _library(variant)
    back = tuple(np.argsort(case.layout))
    views = [guarded(np.ascontiguousarray(x.transpose(case.layout))).transpose(back) for x in operands]
    strides = [(ctypes.c_long * 4)(*(s // 4 for s in x.strides)) for x in views]
    _, k, v = operands
    sizes = (case.batch, case.heads, k.shape[1], case.queries, case.keys, case.size, v.shape[3])
    arguments = _Attention(
        *sizes, *(x.ctypes.data for x in views), *strides, case.scale, case.causal is not None, case.causal or 0
    )
    y = guarded(poisoned((case.batch, case.queries, case.heads, v.shape[3]), np.float32))
    mask = guarded(case.masks())
    output = _Output(
        mask.ctypes.data if case.mask else None, y.ctypes.data, v.shape[3], case.queries, case.keys, case.heads
    )
    for item in reversed(range(library.items(ctypes.byref(arguments)))):
        scratch = guarded(poisoned((library.scratch(ctypes.byref(arguments)),), np.float32))
        library.run(ctypes.byref(arguments), ctypes.byref(output), pointer(scratch), ctypes.c_long(item))
    return y.copy()


@functools.cache
def _library(variant: str) -> ctypes.CDLL:
    library = compile_variant(SOURCE, variant)
    library.items.restype = library.scratch.restype = ctypes.c_long
    return library


CASES = {
    "one block": _Case(33, 29, 24),
    "odd everything": _Case(7, 13, 5, 3),
    "two queries": _Case(2, 70, 16, 20),
    "several blocks of both": _Case(197, 197, 64, heads=1),
    "a value size with a tail": _Case(65, 130, 40, 36, heads=1),
    "heads of 256": _Case(19, 67, 256),
    "[S, H, d]": _Case(50, 66, 32, batch=2, heads=3, layout=(0, 2, 1, 3)),
    "transposed heads": _Case(18, 67, 16, layout=(0, 1, 3, 2)),
    "grouped heads": _Case(37, 41, 16, batch=2, heads=6, kv_heads=2),
    "causal": _Case(131, 131, 32, causal=0),
    "causal with a cache": _Case(21, 90, 32, causal=69),
    "causal before the first key": _Case(40, 30, 8, causal=-5),
    "masked": _Case(70, 75, 16, mask=True),
    "masked and causal": _Case(70, 75, 16, causal=3, mask=True),
    "decoding": _Case(1, 517, 64, batch=2, heads=3, layout=(0, 2, 1, 3)),
    "decoding, odd sizes": _Case(1, 259, 37, 21),
    "decoding, grouped, masked": _Case(1, 61, 16, 72, heads=4, kv_heads=1, mask=True),
    "decoding, transposed": _Case(1, 61, 16, layout=(0, 1, 3, 2)),
    "decoding, causal": _Case(1, 300, 16, causal=280),
    "one key": _Case(5, 1, 8),
}


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("name", CASES)
def test_attention(name: str, variant: str) -> None:
    case = CASES[name]
    operands = case.operands()
    assert_close(_run(case, operands, variant), _reference(case, operands), accumulation=case.keys + case.size)


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("queries", [1, 35])
def test_scores_that_grow_from_block_to_block_rescale_the_output(queries: int, variant: str) -> None:
    case = _Case(queries, 600, 8, heads=1, scale=1.0)
    q, k, v = case.operands()
    k += np.linspace(0, 30, 600, dtype=np.float32)[:, None] * np.sign(q.mean(axis=2, keepdims=True))
    assert_close(_run(case, [q, k, v], variant), _reference(case, [q, k, v]), accumulation=608)


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("queries", [1, 20])
def test_a_nan_key_spoils_every_query_and_huge_scores_do_not(queries: int, variant: str) -> None:
    case = _Case(queries, 70, 8, heads=1)
    q, k, v = case.operands()
    assert np.isfinite(_run(case, [q * np.float32(1e18), k * np.float32(1e18), v], variant)).all()
    k[0, 0, 66] = np.nan
    assert np.isnan(_run(case, [q, k, v], variant)).all()
