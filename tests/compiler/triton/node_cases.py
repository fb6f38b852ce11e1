"""Nodes whose ops have a template of their own, with operands, and what their kernels must compute."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import ml_dtypes
import numpy as np

from fusible.compiler.backends.triton.gpu_targets import GpuTarget, gpu_target
from fusible.compiler.backends.triton.print_kernel import print_node
from fusible.compiler.backends.triton.printer import PrintedKernel
from fusible.compiler.ir.graph import Graph, Node
from fusible.compiler.ir.symbols import Symbol, SymInt
from fusible.compiler.ir.types import DType, TensorType
from fusible.compiler.region.region import Buffer
from tests.compiler.triton.checked import run_checked
from tests.tolerance import assert_close

__all__ = ["NODES", "NodeCase", "node_case"]

H100 = gpu_target("h100")


class NodeCase:
    """A node. named: sizes of operands that are symbols. meaning: what gives its results, by default the op's own."""

    def __init__(
        self, op: str, arrays: Sequence[np.ndarray | None], outputs: int, meaning: Callable[..., Any],
        named: dict[int, str] | None = None, terms: int = 1, **attrs: Any,
    ) -> None:  # fmt: skip
        self.arrays, self.meaning, self.attrs, self.terms = arrays, meaning, attrs, terms
        names = named or {}
        graph, values = Graph("node"), []
        for number, array in enumerate(arrays):
            if array is None:
                values.append(None)
                continue
            shape = tuple(SymInt.of(Symbol(names[d], 0, 4096)) if d in names else d for d in array.shape)
            values.append(graph.input(TensorType(DType.of(array.dtype), shape), f"x{number}"))
        self.node: Node = graph.add_node(op, values, attrs, outputs=outputs)
        self.env = {name: size for size, name in names.items()}

    def printed(self, gpu: GpuTarget = H100) -> PrintedKernel:
        kernel = print_node(self.node, gpu)
        assert kernel is not None
        return kernel

    def check(self, kernel: PrintedKernel | None = None) -> None:
        """Fail unless a kernel, or the node's own, computes what the op means."""
        outputs = []
        for value in self.node.outputs:
            assert isinstance(value.type, TensorType) and value.type.shape is not None
            outputs.append(Buffer(value.type.dtype, value.type.shape))
        given = [a for a in self.arrays if a is not None]
        got = run_checked(kernel or self.printed(), outputs, given, self.env)
        wanted = self.meaning(*self.arrays, **self.attrs)
        for array, reference in zip(got, wanted if isinstance(wanted, tuple) else (wanted,), strict=True):
            assert_close(array, reference, accumulation=self.terms)


NODES: dict[str, Callable[[np.random.Generator], NodeCase]] = {}


def node(build: Callable[[np.random.Generator], NodeCase]) -> Callable[[np.random.Generator], NodeCase]:
    NODES[build.__name__] = build
    return build


def node_case(name: str) -> NodeCase:
    """The case of a name."""
    return NODES[name](np.random.default_rng(len(name)))


def _top_k(x: np.ndarray, named: dict[int, str] | None = None, **attrs: Any) -> NodeCase:
    from fusible.kernels.numpy.selection import top_k

    return NodeCase("top_k", [x], 2, top_k, named, **attrs)


@node
def top_k_with_ties_and_nan(random: np.random.Generator) -> NodeCase:
    x = (random.integers(-4, 5, (3, 70, 5)) / 2).astype(np.float32)
    x[0, 3, :2] = np.nan
    x[1, 5] = -np.inf
    return _top_k(x, axis=1, k=9)


@node
def top_k_smallest_half(random: np.random.Generator) -> NodeCase:
    x = random.standard_normal((4, 131)).astype(np.float16)
    x[2, 7:9] = np.nan
    return _top_k(x, axis=-1, k=131, largest=False)


@node
def top_k_of_brain_floats(random: np.random.Generator) -> NodeCase:
    return _top_k(random.standard_normal((2, 40)).astype(ml_dtypes.bfloat16), k=1)


@node
def top_k_of_integers(random: np.random.Generator) -> NodeCase:
    return _top_k(random.integers(0, 2**64, (3, 33), dtype=np.uint64), k=4)


@node
def top_k_of_unknown_rows(random: np.random.Generator) -> NodeCase:
    return _top_k(random.integers(-9, 9, (6, 45)).astype(np.int64), {6: "rows", 45: "length"}, k=3)


def _resize(x: np.ndarray, named: dict[int, str] | None = None, **attrs: Any) -> NodeCase:
    from fusible.kernels.numpy.resize import resize

    def meaning(x: np.ndarray, **attrs: Any) -> np.ndarray:
        return resize(x.astype(np.float64) if x.dtype.kind == "f" else x, **attrs)

    return NodeCase("resize", [x], 1, meaning, named, terms=16, **attrs)


@node
def resize_linear(random: np.random.Generator) -> NodeCase:
    x = random.standard_normal((2, 3, 7, 5)).astype(np.float32)
    return _resize(x, mode="linear", scales=(1.0, 1.0, 2.0, 1.7))


@node
def resize_linear_aligned_half(random: np.random.Generator) -> NodeCase:
    x = random.standard_normal((1, 2, 9, 6)).astype(np.float16)
    how = "align_corners"
    return _resize(x, mode="linear", sizes=(4, 13), axes=(2, 3), coordinate_transformation_mode=how)


@node
def resize_cubic_of_channels_last(random: np.random.Generator) -> NodeCase:
    x = random.standard_normal((2, 6, 8, 3)).astype(np.float32)
    how = "half_pixel_symmetric"
    return _resize(x, mode="cubic", scales=(1.0, 1.5, 0.6, 1.0), coordinate_transformation_mode=how)


@node
def resize_of_unknown_length(random: np.random.Generator) -> NodeCase:
    x = random.standard_normal((3, 11)).astype(np.float32)
    attributes = {"mode": "linear", "scales": (1.0, 2.5), "coordinate_transformation_mode": "pytorch_half_pixel"}
    return _resize(x, {11: "length"}, **attributes)


@node
def resize_to_the_nearest(random: np.random.Generator) -> NodeCase:
    x = random.integers(-9, 9, (2, 5, 7)).astype(np.int64)
    return _resize(x, scales=(1.0, 1.3, 0.7), nearest_mode="ceil")


@node
def scatter_of_elements(random: np.random.Generator) -> NodeCase:
    from fusible.kernels.numpy.indexing import scatter_elements

    x, updates = random.standard_normal((3, 9, 5)).astype(np.float32), random.standard_normal((3, 4, 5))
    indices = random.integers(-9, 9, (3, 4, 5))
    return NodeCase("scatter_elements", [x, indices, updates.astype(np.float32)], 1, scatter_elements, axis=1)


@node
def scatter_of_elements_added(random: np.random.Generator) -> NodeCase:
    from fusible.kernels.numpy.indexing import scatter_elements

    x, updates = (random.standard_normal((n, 6)).astype(np.float16) for n in (4, 11))
    indices = random.integers(0, 4, (11, 6)).astype(np.int32)
    return NodeCase("scatter_elements", [x, indices, updates], 1, scatter_elements, {6: "n"}, 16, reduction="add")


@node
def scatter_of_rows(random: np.random.Generator) -> NodeCase:
    from fusible.kernels.numpy.indexing import scatter_nd

    x, updates = random.integers(-9, 9, (5, 7, 6)), random.integers(-9, 9, (2, 4, 6))
    indices = np.stack([random.integers(-5, 5, (2, 4)), random.integers(-7, 7, (2, 4))], -1)
    return NodeCase("scatter_nd", [x, indices, updates], 1, scatter_nd, reduction="max")


@node
def scatter_of_a_cache(random: np.random.Generator) -> NodeCase:
    from fusible.kernels.numpy.indexing import scatter_nd

    x, updates = (random.standard_normal((n, 300)).astype(np.float32) for n in (10, 3))
    return NodeCase("scatter_nd", [x, np.asarray([[4], [-1], [4]]), updates], 1, scatter_nd, {10: "capacity"})


def _quantised(x: np.ndarray, parts: bool, named: dict[int, str] | None = None) -> NodeCase:
    from fusible.kernels.numpy.quantization import dynamic_quantize_linear

    arrays = [x, x.min(-1), x.max(-1)] if parts else [x]
    return NodeCase("dynamic_quantize_linear", arrays, 3, dynamic_quantize_linear, named)


@node
def dynamic_quantisation(random: np.random.Generator) -> NodeCase:
    return _quantised(random.normal(0.3, 1, (3, 3001)).astype(np.float32), False)


@node
def dynamic_quantisation_of_zeros(random: np.random.Generator) -> NodeCase:
    return _quantised(np.zeros((3, 5), np.float32), False)


@node
def dynamic_quantisation_by_rows(random: np.random.Generator) -> NodeCase:
    return _quantised(random.normal(-2, 1, (1300, 7)).astype(np.float32), True, {1300: "rows"})


@node
def dynamic_quantisation_of_no_rows(random: np.random.Generator) -> NodeCase:
    return _quantised(np.zeros((0, 7), np.float32), True, {0: "rows"})


@node
def dynamic_quantisation_of_positive_rows(random: np.random.Generator) -> NodeCase:
    return _quantised(random.uniform(5, 9, (40, 31)).astype(np.float32), True)


def _quantised_lstm(random: np.random.Generator, given: str, rows: int, columns: bool, **attrs: Any) -> NodeCase:
    from fusible.kernels.numpy.recurrent_quantized import dynamic_quantize_lstm

    steps, width, hidden, both = 4, 37, 19, 2 if attrs.get("direction") == "bidirectional" else 1
    weights = [random.integers(-128, 128, (both, n, 4 * hidden)).astype(np.int8) for n in (width, hidden)]
    state, line = (both, rows, hidden), (both, 4 * hidden) if columns else (both,)
    floats = {"bias": (both, 8 * hidden), "h": state, "c": state, "peepholes": (both, 3 * hidden)}
    found = {n: random.standard_normal(s).astype(np.float32) if n in given else None for n, s in floats.items()}
    scales = [random.uniform(0.001, 0.004, line).astype(np.float32) for _ in range(2)]
    zeros = [random.integers(-9, 9, line).astype(np.int8) for _ in range(2)]
    x = random.normal(0.2, 1, (steps, rows, width)).astype(np.float32)
    arrays = [x, *weights, found["bias"], None, found["h"], found["c"], found["peepholes"],
              scales[0], zeros[0], scales[1], zeros[1]]  # fmt: skip
    return NodeCase("dynamic_quantize_lstm", arrays, 3, dynamic_quantize_lstm, terms=steps * (width + hidden), **attrs)


@node
def quantised_lstm(random: np.random.Generator) -> NodeCase:
    return _quantised_lstm(random, "bias h c", 2, False, direction="bidirectional")


@node
def quantised_lstm_by_columns(random: np.random.Generator) -> NodeCase:
    return _quantised_lstm(random, "peepholes", 18, True, direction="reverse", clip=0.8, input_forget=1)


def _grid_sample(x: np.ndarray, grid: np.ndarray, named: dict[int, str] | None = None, **attrs: Any) -> NodeCase:
    from fusible.kernels.numpy.grid_sampling import grid_sample

    return NodeCase("grid_sample", [x, grid], 1, grid_sample, named, terms=64, **attrs)


@node
def grid_sample_linear(random: np.random.Generator) -> NodeCase:
    x = random.standard_normal((2, 3, 7, 9)).astype(np.float32)
    return _grid_sample(x, random.uniform(-1.3, 1.3, (2, 5, 11, 2)).astype(np.float32), {11: "n"})


@node
def grid_sample_cubic_reflected(random: np.random.Generator) -> NodeCase:
    x, grid = random.standard_normal((1, 2, 6, 5)).astype(np.float32), random.uniform(-3, 3, (1, 8, 9, 2))
    return _grid_sample(x, grid.astype(np.float32), mode="cubic", padding_mode="reflection")


@node
def grid_sample_cubic_border_half(random: np.random.Generator) -> NodeCase:
    x, grid = random.standard_normal((1, 2, 6, 5)).astype(np.float16), random.uniform(-2, 2, (1, 8, 9, 2))
    return _grid_sample(x, grid.astype(np.float16), mode="cubic", padding_mode="border", align_corners=True)


@node
def grid_sample_of_a_volume(random: np.random.Generator) -> NodeCase:
    x, grid = random.standard_normal((2, 2, 4, 5, 6)).astype(np.float32), random.uniform(-2, 2, (2, 3, 2, 7, 3))
    return _grid_sample(x, grid.astype(np.float32), padding_mode="reflection", align_corners=True)


@node
def grid_sample_nearest(random: np.random.Generator) -> NodeCase:
    x, grid = random.integers(-99, 99, (2, 3, 5, 6)), random.uniform(-1.6, 1.6, (2, 4, 7, 2))
    return _grid_sample(x, grid.astype(np.float32), mode="nearest", padding_mode="border")


def _grid_with_no_numbers(random: np.random.Generator) -> np.ndarray:
    """Places among which are NaN, infinities and very large numbers."""
    grid = random.uniform(-1.6, 1.6, (1, 4, 9, 2)).astype(np.float32)
    wrong = np.array([np.nan, np.inf, -np.inf, 1e30, -1e30], np.float32)
    grid.reshape(-1)[: 3 * 18] = np.where(np.arange(54) % 2, random.choice(wrong, 54), grid.reshape(-1)[:54])
    return grid


@node
def grid_sample_cubic_at_no_number(random: np.random.Generator) -> NodeCase:
    x = random.standard_normal((1, 2, 6, 5)).astype(np.float32)
    return _grid_sample(x, _grid_with_no_numbers(random), mode="cubic", align_corners=True)


@node
def grid_sample_cubic_border_at_no_number(random: np.random.Generator) -> NodeCase:
    x = random.standard_normal((1, 2, 6, 5)).astype(np.float32)
    return _grid_sample(x, _grid_with_no_numbers(random)[..., ::-1].copy(), mode="cubic", padding_mode="border")


@node
def grid_sample_linear_at_no_number(random: np.random.Generator) -> NodeCase:
    x = random.standard_normal((1, 2, 6, 5)).astype(np.float32)
    return _grid_sample(x, _grid_with_no_numbers(random), padding_mode="border")


@node
def grid_sample_nearest_at_no_number(random: np.random.Generator) -> NodeCase:
    x = random.standard_normal((1, 2, 6, 5)).astype(np.float32)
    return _grid_sample(x, _grid_with_no_numbers(random), mode="nearest", padding_mode="reflection")


def _roi_align(random: np.random.Generator, kind: Any, reach: float = 18, **attrs: Any) -> NodeCase:
    from fusible.kernels.numpy.roi import roi_align

    x, corners = random.standard_normal((3, 2, 9, 11)).astype(kind), random.uniform(-reach / 9, reach, (13, 2, 2))
    rois = np.concatenate([corners.min(1), corners.max(1)], 1).astype(np.float32)
    rois[2] = rois[2, [2, 3, 0, 1]]  # of negative size
    numbers, sizes = random.integers(0, 3, 13), {"output_height": 3, "output_width": 2}
    return NodeCase("roi_align", [x, rois, numbers], 1, roi_align, {13: "regions"}, 64, **sizes, **attrs)


@node
def roi_align_of_all_pixels(random: np.random.Generator) -> NodeCase:
    return _roi_align(random, np.float32, spatial_scale=0.6)


@node
def roi_align_of_boxes_beyond_images(random: np.random.Generator) -> NodeCase:
    return _roi_align(random, np.float32, 3000)


@node
def roi_align_of_the_largest(random: np.random.Generator) -> NodeCase:
    how = "output_half_pixel"
    return _roi_align(random, np.float16, sampling_ratio=2, mode="max", coordinate_transformation_mode=how)


# The same ops on other element types


@node
def top_k_of_doubles(random: np.random.Generator) -> NodeCase:
    return _top_k(random.standard_normal((2, 70)), k=5, largest=False)


@node
def top_k_of_bytes(random: np.random.Generator) -> NodeCase:
    return _top_k(random.integers(-128, 128, (3, 5, 37)).astype(np.int8), axis=-1, k=7)


@node
def resize_linear_of_brain_floats(random: np.random.Generator) -> NodeCase:
    x = random.standard_normal((1, 7, 5, 3)).astype(ml_dtypes.bfloat16)
    return _resize(x, mode="linear", scales=(1.0, 0.7, 2.2, 1.0), coordinate_transformation_mode="asymmetric")


@node
def resize_of_bytes_to_the_nearest(random: np.random.Generator) -> NodeCase:
    x = random.integers(0, 256, (2, 9, 7)).astype(np.uint8)
    return _resize(x, scales=(1.0, 0.6, 1.9), nearest_mode="round_prefer_ceil")


@node
def resize_of_halves_to_the_nearest(random: np.random.Generator) -> NodeCase:
    x = random.standard_normal((3, 5, 11)).astype(np.float16)
    return _resize(x, scales=(1.0, 2.0, 1.5), nearest_mode="floor", coordinate_transformation_mode="asymmetric")


@node
def scatter_of_brain_floats(random: np.random.Generator) -> NodeCase:
    from fusible.kernels.numpy.indexing import scatter_elements

    x, updates = (random.standard_normal((n, 7)).astype(ml_dtypes.bfloat16) for n in (5, 9))
    indices = random.integers(-5, 5, (9, 7))
    return NodeCase("scatter_elements", [x, indices, updates], 1, scatter_elements, reduction="min")


@node
def scatter_of_bytes_multiplied(random: np.random.Generator) -> NodeCase:
    from fusible.kernels.numpy.indexing import scatter_nd

    x, updates = (random.integers(0, 5, shape).astype(np.uint8) for shape in ((6, 7), (4, 7)))
    indices = np.asarray([[1], [-1], [1], [3]])
    return NodeCase("scatter_nd", [x, indices, updates], 1, scatter_nd, reduction="mul")
