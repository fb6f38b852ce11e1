"""Weights of few bits that are dequantised by a kernel of their own: when they are, and what is built then."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from fusible.compiler.backends.triton.aot import build
from fusible.compiler.backends.triton.dequantised_apart import dequantising_seconds
from fusible.compiler.backends.triton.gpu_targets import gpu_target
from fusible.compiler.backends.triton.print_kernel import print_kernel
from fusible.compiler.ir.graph import Graph
from fusible.compiler.ir.symbols import Dim, Symbol, SymInt
from fusible.compiler.ir.types import DType, TensorType
from fusible.compiler.region.parse import parse_region
from fusible.passes.base import PassContext
from fusible.passes.fuse_regions import FuseRegions
from fusible.passes.packed_weights import DEQUANTISING, READS_PACKED, why_apart

H100 = gpu_target("h100")
WEIGHT = """region [i0=4096, i1=4096]
  in x0: i4[4096, 4096]
  in x1: f16[4096, 128]
  out y0: f16[4096, 4096]
  v0: i4 = load x0[i0, i1]
  v1: f16 = load x1[i0, floordiv(i1, 32)]
  v2: f16 = f16(mul(f32(v0), f32(v1)))
  store y0[i0, i1] = v2
"""
PRODUCT = """region [i0=512, i1=4096, i2=4096]
  in x0: f16[4096, 4096]
  in x1: f16[512, 4096]
  out y0: f16[512, 4096]
  v0: f16 = load x1[i0, i2]
  v1: f16 = load x0[i1, i2]
  v2: f32 = contract over i2 of v0, v1
  v3: f16 = f16(v2)
  store y0[i0, i1] = v3
"""


def seconds(rows: Sequence[int], dtype: DType = DType.F16, precision: str = "ieee") -> tuple[float, float] | None:
    products = [(r, 4096, 4096) for r in rows]
    return dequantising_seconds(products, 9 << 20, dtype, target=H100, precision=precision)


def test_seconds_of_both_ways() -> None:
    large = seconds([512])
    assert large is not None and large[0] == pytest.approx(235e-6, rel=0.02)  # as measured on an H200
    assert 35e-6 < large[1] < 60e-6
    assert seconds([63]) is None and seconds([]) is None and seconds([512, 1]) is None
    few, more = seconds([64]), seconds([128])
    assert few is not None and few[0] < few[1] and more is not None and more[0] > more[1]
    both, floats = seconds([512, 512]), seconds([512], DType.F32, "tf32x3")
    assert both is not None and both[0] == pytest.approx(2 * large[0]) and large[1] < both[1] < 2 * large[1]
    assert floats is not None and floats[0] - floats[1] < large[0] - large[1], "twice the bytes to write and to read"


def model(rows: Dim, dtype: DType = DType.I4, block: int = 32, *, left: bool = False, read: bool = False) -> Graph:
    """x @ dequantised', or the other way round; read: x is dequantised, too."""
    graph = Graph("g")
    x = graph.input(TensorType(DType.I8 if read else DType.F16, (rows, 2048)), "x")
    if read:
        x = graph.add("dequantize_linear", x, graph.constant(np.float16(0.5)), output_dtype=DType.F16)
    codes = graph.constant(np.zeros((2048, 2048), dtype.numpy))
    scales = graph.constant(np.ones((2048, 2048 // block) if block else 2048, np.float16))
    weight = graph.add("dequantize_linear", codes, scales, output_dtype=DType.F16, axis=1, block_size=block)
    other = graph.add("exp", x)
    turned = graph.add("transpose", weight, perm=(1, 0))
    operands = (weight, graph.add("transpose", x, perm=(1, 0))) if left else (x if read else other, turned)
    graph.set_outputs([graph.add("matmul", *operands)])
    return graph


def facts() -> dict[str, object]:
    def ask(products: Sequence[tuple[int, int, int]], stored: int, dtype: DType) -> tuple[float, float] | None:
        return dequantising_seconds(products, stored, dtype, target=H100)

    return {"name": "cuda:sm_90", READS_PACKED: True, DEQUANTISING: ask, "printable": lambda nodes, outputs: None}


def reason(graph: Graph) -> str | None:
    nodes = [n for n in graph if n.op.name == "dequantize_linear"]
    return why_apart(nodes[-1], facts())  # the first may be x


def test_what_is_dequantised_apart() -> None:
    rows = [SymInt.of(Symbol("rows", low, high)) for low, high in ((1, 8192), (512, None))]
    assert "by a kernel of its own before them" in (reason(model(512)) or "")
    assert reason(model(512, DType.U4, 0)) and reason(model(512, DType.I8, 64)) and reason(model(rows[1]))
    assert reason(model(16)) is None and reason(model(rows[0])) is None, "few rows, or perhaps few"
    assert reason(model(512, DType.I8, 0)) is None and reason(model(512, read=True)) is None, "bytes may be multiplied"
    assert reason(model(512, left=True)) is None
    assert why_apart(next(n for n in model(512) if n.op.name == "dequantize_linear"), {READS_PACKED: True}) is None


def test_it_is_a_group_of_its_own_before_its_reader() -> None:
    graph = model(512)
    FuseRegions().run(graph, PassContext(target=facts()))
    chains = [[inner.op.name for inner in node.subgraphs[0]] for node in graph if node.op.name == "fused"]
    assert chains[0] == ["dequantize_linear"] and [n for c in chains[1:] for n in c].count("dequantize_linear") == 0
    nodes = list(graph)
    weight = next(n for n in nodes if n.op.name == "fused" and [i.op.name for i in n.subgraphs[0]] == chains[0])
    assert nodes[nodes.index(weight) + 1] in weight.outputs[0].users
    few = model(16)
    FuseRegions().run(few, PassContext(target=facts()))
    assert "dequantize_linear" in [n.op.name for node in few if node.op.name == "fused" for n in node.subgraphs[0]]


def test_both_kernels_on_hopper() -> None:
    """The weight in whole accesses, two of its elements in a byte; the product as any of fp16."""
    made = print_kernel(parse_region(WEIGHT), H100, [0, 1])
    found = build(made, H100)
    assert made.packed == {0: 1} and set(found.report.stores) == {128} and 64 in found.report.loads
    product = build(print_kernel(parse_region(PRODUCT), H100), H100)
    assert "wgmma.mma_async" in product.assembly and "cp.async.bulk.tensor" in product.assembly
    assert not found.report.spilled and not product.report.spilled
