"""Attention as graphs write it: regions and arrays, and what their kernels must compute."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache

import ml_dtypes
import numpy as np
import numpy.typing as npt

from fusible.compiler.backends.triton.attention import print_attention
from fusible.compiler.backends.triton.gpu_targets import GpuTarget
from fusible.compiler.backends.triton.printer import PrintedKernel
from fusible.compiler.backends.triton.schedule_attention import AttentionSchedule
from fusible.compiler.ir.graph import Graph, Value
from fusible.compiler.ir.symbols import Symbol, SymInt
from fusible.compiler.ir.types import DType, TensorType
from fusible.compiler.region.build import build_region
from fusible.compiler.region.group import home_of
from fusible.compiler.region.region import Region
from tests.compiler.triton.checked import run_checked
from tests.compiler.triton.in_float64 import run_in_float64
from tests.region.fusion_cases import CASES, _Maker
from tests.tolerance import assert_close

__all__ = ["FORMS", "NAMES", "Form", "cached", "check_attention", "in_parts", "made", "with_lengths"]

FLOATS = ("f32", "f16", "bf16")
KEYS = 128  # at most, in these forms


@dataclass(frozen=True)
class Form:
    """A region and arrays for its inputs."""

    region: Region
    arrays: Sequence[np.ndarray]
    env: dict[str, int]


FORMS: dict[str, Callable[[_Maker], Value]] = {}


def form(build: Callable[[_Maker], Value]) -> Callable[[_Maker], Value]:
    FORMS[build.__name__] = build
    return build


@form
def causal_gqa_softcap(m: _Maker) -> Value:
    return m("attention", m.x(2, 6, 37, 20), m.x(2, 2, 41, 20), m.x(2, 2, 41, 24), is_causal=True, softcap=2.0)


@form
def window_of_nine_keys(m: _Maker) -> Value:
    q, k, v = m.x(1, 2, 70, 16), m.x(1, 2, 67, 16), m.x(1, 2, 67, 16)
    return m("attention", q, k, v, is_causal=True, left_window_size=8)


@form
def mask_from_places(m: _Maker) -> Value:
    """What says that keys are seen are data: places of queries and keys."""
    q, k, v = m.x(1, 2, 35, 16), m.x(1, 2, 83, 16), m.x(1, 2, 83, 16)
    queries, keys = (m.graph.constant(np.arange(n)) for n in (35, 83))
    places = m("unsqueeze", m("add", queries, m.c(48, np.int64)), axes=(1,))
    seen = m("less_or_equal", keys, places)
    scores = m("where", seen, m("matmul", q, m("transpose", k, perm=(0, 1, 3, 2))), m.c(-np.inf))
    return m("matmul", m("softmax", scores), v)


@form
def causal_half(m: _Maker) -> Value:
    q, k, v = (m.x(2, 3, n, 80, dtype=np.float16) for n in (33, 33, 33))
    return m("attention", q, k, v, is_causal=True)


@form
def bool_mask(m: _Maker) -> Value:
    """One query attends nothing: zeros."""
    q, k, v = (m.x(1, 4, n, d, dtype=ml_dtypes.bfloat16) for n, d in ((17, 40), (65, 40), (65, 48)))
    mask = m.random.random((1, 1, 17, 65)) < 0.6
    mask[..., 3, :] = False
    return m("attention", q, k, v, m.given(mask))


@form
def additive_mask_of_a_batch(m: _Maker) -> Value:
    return m("attention", m.x(3, 2, 19, 33), m.x(3, 2, 23, 33), m.x(3, 2, 23, 7), m.x(3, 1, 1, 23), scale=0.5)


@form
def masked_by_the_least_float(m: _Maker) -> Value:
    """As exporters mask: a query that attends nothing takes the mean of all values; others take nothing masked."""
    mask = np.where(m.random.random((1, 1, 20, 40)) < 0.4, np.finfo(np.float32).min, 0).astype(np.float32)
    mask[..., 7, :] = np.finfo(np.float32).min
    q, k, v = m.x(1, 2, 20, 16), m.x(1, 2, 40, 16), m.x(1, 2, 40, 16)
    scores = m("mul", m("matmul", q, m("transpose", k, perm=(0, 1, 3, 2))), m.c(0.25))
    return m("matmul", m("softmax", m("add", scores, m.given(mask))), v)


@form
def unguarded(m: _Maker) -> Value:
    """As exporters write it in float16, with roundings; a query that attends nothing gives NaN."""
    q, k, v = (m.x(2, 6, n, d, dtype=np.float16) for n, d in ((21, 64), (48, 64), (48, 32)))
    scores = m("mul", m("matmul", q, m("transpose", k, perm=(0, 1, 3, 2))), m.c(8**-0.5, np.float16))
    mask = np.where(m.random.random((2, 1, 21, 48)) < 0.3, -np.inf, 0).astype(np.float16)
    mask[1, :, 5] = -np.inf
    return m("matmul", m("softmax", m("add", scores, m.given(mask))), v)


@form
def guarded_by_nan_with_epilogue(m: _Maker) -> Value:
    """Scaled on both sides; the heads are merged, and a residual is added."""
    q, k, v = m.x(1, 3, 18, 16), m.x(1, 3, 16, 18), m.x(1, 3, 18, 16)
    scale, zero = m.c(0.5), m.c(0.0)
    mask = np.tril(np.ones((18, 18), bool))[None, None]
    mask[..., 2, :] = False
    bias = m("where", m.given(mask), zero, m.c(-np.inf))
    soft = m("softmax", m("add", m("matmul", m("mul", q, scale), m("mul", k, scale)), bias))
    seen = m("matmul", m("where", m("is_nan", soft), zero, soft), v)
    merged = m("reshape", m("transpose", seen, perm=(0, 2, 1, 3)), shape=(1, 18, 48))
    return m("add", m("mul", merged, m.c(2.0)), m.x(1, 18, 48))


@form
def one_query(m: _Maker) -> Value:
    return m("attention", m.x(2, 4, 1, 64), m.x(2, 2, 77, 64), m.x(2, 2, 77, 64), is_causal=False)


@form
def one_query_of_heads_that_share(m: _Maker) -> Value:
    """The heads are the rows."""
    q, k, v = (m.x(2, h, n, 24, dtype=np.float16) for h, n in ((6, 1), (1, 50), (1, 50)))
    scores = m("mul", m("matmul", q, m("transpose", k, perm=(0, 1, 3, 2))), m.c(0.25, np.float16))
    return m("matmul", m("softmax", scores), v)


@form
def heads_side_by_side(m: _Maker) -> Value:
    """Operands of three axes, heads within the last."""
    q, k, v = (m.x(2, n, heads * 24, dtype=np.float16) for n, heads in ((19, 4), (45, 2), (45, 2)))
    return m("attention", q, k, v, q_num_heads=4, kv_num_heads=2, is_causal=True)


@form
def gqa_softcap_half(m: _Maker) -> Value:
    q, k, v = (m.x(2, h, n, 40, dtype=np.float16) for h, n in ((6, 21), (2, 35), (2, 35)))
    return m("attention", q, k, v, softcap=3.0)


@form
def gqa_softcap_of_brain_floats(m: _Maker) -> Value:
    q, k, v = (m.x(1, h, n, 72, dtype=ml_dtypes.bfloat16) for h, n in ((4, 35), (1, 67), (1, 67)))
    return m("attention", q, k, v, is_causal=True, softcap=5.0, scale=0.2)


@form
def one_query_of_brain_floats(m: _Maker) -> Value:
    """A step of decoding: heads that share keys, and a mask of those that are there."""
    q, k, v = (m.x(3, h, n, 64, dtype=ml_dtypes.bfloat16) for h, n in ((4, 1), (2, 77), (2, 77)))
    lengths = np.asarray([77, 5, 40])[:, None, None, None]
    return m("attention", q, k, v, m.given(np.arange(77) < lengths))


@form
def largest_head(m: _Maker) -> Value:
    return m("attention", m.x(1, 1, 40, 256), m.x(1, 1, 40, 256), m.x(1, 1, 40, 200))


@cache
def made(name: str) -> Form:
    m = _Maker(len(name))
    if name in CASES:
        case = CASES[name]()
        nodes, outputs, arrays = case.partition[0], case.outputs, case.arrays
    else:
        y = FORMS[name](m)
        nodes, outputs, arrays = list(m.graph), [y], m.arrays
    built = build_region(nodes, outputs, home=home_of(nodes, outputs), inline_scalars=True)
    constants = {v: v.constant.array for v in built.inputs if v.constant is not None}
    return Form(built.region, [{**constants, **arrays}[v] for v in built.inputs], {})


def cached(queries: int, keys: int, heads: int = 4, shared: int = 2, dtype: npt.DTypeLike = np.float16) -> Form:
    """A few queries of `heads` heads, and many keys of which `heads / shared` heads have some each."""
    m = _Maker(queries)
    q, k, v = (m.x(1, h, n, 32, dtype=dtype) for h, n in ((heads, queries), *2 * ((heads // shared, keys),)))
    y = m("attention", q, k, v)
    region = build_region(list(m.graph), [y], inputs=[q, k, v], inline_scalars=True).region
    return Form(region, [m.arrays[x] for x in (q, k, v)], {})


def with_lengths(queries: int, keys: int) -> Form:
    """Lengths that only a run tells."""
    graph, random = Graph("lengths"), np.random.default_rng(queries)
    s, t = (SymInt.of(Symbol(name, 0, 4096)) for name in ("queries", "keys"))
    values = [graph.input(TensorType(DType.F32, (2, 3, n, 12)), name) for n, name in ((s, "q"), (t, "k"), (t, "v"))]
    y = graph.add("attention", *values, is_causal=True)
    region = build_region(list(graph), [y], inputs=values, inline_scalars=True).region
    arrays = [random.standard_normal((2, 3, n, 12)).astype(np.float32) for n in (queries, keys, keys)]
    return Form(region, arrays, {"queries": queries, "keys": keys})


def in_parts(region: Region, gpu: GpuTarget, split: int) -> PrintedKernel:
    """The kernel whose programs share keys, so many a block of queries, in short steps."""
    return print_attention(region, gpu, AttentionSchedule(16, 16, 4, 2, split))


def check_attention(one: Form, kernel: PrintedKernel) -> None:
    """Run a kernel in checking mode; fail unless it agrees with float64."""
    wanted = run_in_float64(one.region, one.arrays, one.env, FLOATS)
    got = run_checked(kernel, one.region.outputs, one.arrays, one.env)
    for array, reference in zip(got, wanted, strict=True):
        assert_close(array, reference, accumulation=KEYS)


NAMES = [*FORMS, "attention_gqa_score_hook", "attention_from_packed_projection"]
