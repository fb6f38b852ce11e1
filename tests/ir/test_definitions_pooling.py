"""Pools and images: types, definition and NumPy meaning agree; bad operands are refused."""

from __future__ import annotations

from itertools import product
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from fusible.compiler.ir.definition import Opaque, View
from fusible.compiler.ir.symbols import Symbol, SymInt
from fusible.errors import InvalidModel
from fusible.kernels.numpy.resize import COORDINATES, NEAREST_MODES
from tests.ir.single_op import add_op, check_definition

Attributes = dict[str, Any]


def normal(*shape: int, dtype: Any = np.float32) -> np.ndarray:
    return np.asarray(np.random.default_rng(shape).standard_normal(shape) * 3).astype(dtype)


WINDOWS: list[Attributes] = [
    {"kernel_shape": (3, 2)},
    {"kernel_shape": (3, 3), "strides": (2, 2), "pads": (1, 1, 1, 1)},
    {"kernel_shape": (2, 3), "strides": (2, 3), "dilations": (2, 1), "pads": (1, 0, 0, 2), "ceil_mode": True},
    {"kernel_shape": (3, 2), "strides": (2, 1), "auto_pad": "SAME_LOWER"},
]


@pytest.mark.parametrize("attributes", WINDOWS)
@pytest.mark.parametrize("dtype", [np.float32, np.float16, ml_dtypes.bfloat16])
@pytest.mark.parametrize("symbolic", [[], [(0, 0), (0, 2), (0, 3)]])
def test_window_pools(attributes: Attributes, dtype: Any, symbolic: list[tuple[int, int]]) -> None:
    x = normal(2, 3, 6, 7, dtype=dtype)
    check_definition("max_pool", [x], symbolic, **attributes)
    check_definition("average_pool", [x], symbolic, accumulation=9, **attributes)
    for p in (1, 2, 3):
        check_definition("lp_pool", [x], symbolic, accumulation=64, p=p, **attributes)
    if "ceil_mode" not in attributes:
        check_definition("average_pool", [x], symbolic, accumulation=9, count_include_pad=True, **attributes)
    node = add_op("max_pool_with_indices", [x], symbolic, outputs=2, **attributes)
    assert node.outputs[1].type.shape == node.outputs[0].type.shape  # type: ignore[union-attr]


@pytest.mark.parametrize("size", range(1, 12))
def test_number_of_windows_in_ceil_mode(size: int) -> None:
    """The symbolic count is that of the kernel for every size."""
    for kernel, stride, (before, after) in product((2, 3), (1, 2, 3), ((0, 0), (1, 0), (1, 1), (0, 1))):
        if size + before + after < kernel:
            continue
        attributes: Attributes = {"kernel_shape": (kernel,), "strides": (stride,), "pads": (before, after)}
        for ceil_mode in (False, True):
            check_definition("max_pool", [normal(1, 1, size)], [(0, 2)], ceil_mode=ceil_mode, **attributes)


@pytest.mark.parametrize("shape", [(2, 3, 4, 5), (1, 2, 7), (2, 0, 3), (2, 3)])
@pytest.mark.parametrize("dtype", [np.float32, ml_dtypes.bfloat16])
def test_global_pools(shape: tuple[int, ...], dtype: Any) -> None:
    x = normal(*shape, dtype=dtype)
    check_definition("global_average_pool", [x], accumulation=64)
    check_definition("global_max_pool", [x])
    check_definition("global_average_pool", [x], [(0, d) for d in range(len(shape))], accumulation=64)
    for p in (1, 2, 3):
        check_definition("global_lp_pool", [x], accumulation=64, p=p)


@pytest.mark.parametrize("mode", ["DCR", "CRD"])
@pytest.mark.parametrize("channels", [1, 2, 0])
def test_depth_and_space(mode: str, channels: int) -> None:
    deep, wide = normal(2, channels * 9, 2, 3), normal(2, channels, 6, 9)
    check_definition("depth_to_space", [deep], blocksize=3, mode=mode)
    check_definition("space_to_depth", [wide], blocksize=3, mode=mode)
    check_definition("depth_to_space", [deep], [(0, 0), (0, 2), (0, 3)], blocksize=3, mode=mode)
    check_definition("space_to_depth", [wide], [(0, 0), (0, 2), (0, 3)], blocksize=3, mode=mode)


@pytest.mark.parametrize("coordinates", [c for c in COORDINATES if c != "tf_crop_and_resize"])
@pytest.mark.parametrize("nearest", NEAREST_MODES)
def test_resize_to_a_multiple_is_a_view_or_says_why_not(coordinates: str, nearest: str) -> None:
    attributes: Attributes = {"coordinate_transformation_mode": coordinates, "nearest_mode": nearest}
    x = normal(1, 2, 3, 5)
    views = 0
    for factor in (1, 2, 3, 4):
        targets: list[Attributes] = [{"sizes": (1, 2, 3 * factor, 5)}, {"scales": (1.0, 1.0, float(factor), 1.0)}]
        for target in targets:
            for symbolic in ([], [(0, 0), (0, 3)]):
                node = (
                    add_op("resize", [x], symbolic, **attributes, **target)
                    if not symbolic or "scales" in target
                    else None
                )
                if node is not None and isinstance(node.op.definition(node), View):
                    check_definition("resize", [x], symbolic, **attributes, **target)
                    views += 1
    assert views > 2


def test_resize_of_symbolic_sizes() -> None:
    x = normal(1, 2, 4, 6)
    plain: Attributes = {"coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
    check_definition("resize", [x], [(0, 2), (0, 3)], scales=(1.0, 1.0, 2.0, 2.0), **plain)
    node = add_op("resize", [x], [(0, 2), (0, 3)], scales=(1.0, 1.0, 0.5, 1.25), **plain)
    assert str(node.output.type) == "f32[1, 2, floordiv(n4, 2), floordiv(5*n6, 4)]"
    assert isinstance(node.op.definition(node), Opaque)
    with pytest.raises(InvalidModel, match="resize_dynamic"):
        add_op("resize", [x], [(0, 2)], scales=(1.0, 1.0, 1.7, 1.0))
    size = SymInt.of(Symbol("h"))
    node = add_op("resize", [x], sizes=(1, 2, size, 12), mode="linear")
    assert str(node.output.type) == "f32[1, 2, h, 12]"


def shapes(*given: tuple[int, ...], dtype: Any = np.float32) -> list[np.ndarray]:
    return [np.zeros(s, dtype) for s in given]


IMAGE = (1, 4, 6, 8)


@pytest.mark.parametrize(
    ("op", "operands", "attributes"),
    [
        ("max_pool", shapes(IMAGE), {"kernel_shape": (3,)}),
        ("max_pool", shapes(IMAGE), {"kernel_shape": (3, 0)}),
        ("max_pool", shapes(IMAGE), {"kernel_shape": (9, 9)}),
        ("max_pool", shapes(IMAGE), {"kernel_shape": (2, 2), "pads": (2, 0, 0, 0)}),
        ("max_pool", shapes(IMAGE), {"kernel_shape": (2**31, 2)}),
        ("average_pool", shapes(IMAGE, dtype=np.int8), {"kernel_shape": (3, 3)}),
        ("average_pool", shapes(IMAGE), {"kernel_shape": ()}),
        ("lp_pool", shapes(IMAGE), {"kernel_shape": (3, 3), "strides": (1,)}),
        ("global_max_pool", shapes((1, 4, 0)), {}),
        ("global_average_pool", shapes((4,)), {}),
        ("depth_to_space", shapes(IMAGE), {"blocksize": 3}),
        ("depth_to_space", shapes(IMAGE), {"blocksize": 0}),
        ("depth_to_space", shapes(IMAGE), {"blocksize": 2, "mode": "RDC"}),
        ("space_to_depth", shapes(IMAGE), {"blocksize": 4}),
        ("space_to_depth", shapes((4, 6, 8)), {"blocksize": 2}),
        ("resize", shapes(IMAGE), {}),
        ("resize", shapes(IMAGE), {"scales": (1.0, 2.0)}),
        ("resize", shapes(IMAGE), {"scales": (1.0, 1.0, 0.0, 1.0)}),
        ("resize", shapes(IMAGE), {"scales": (1.0, 1.0, float("nan"), 1.0)}),
        ("resize", shapes(IMAGE), {"sizes": (1, 4, -6, 8)}),
        ("resize", shapes((1, 4, 0, 8)), {"sizes": (1, 4, 6, 8)}),
        ("resize", shapes(IMAGE), {"sizes": (6, 8), "axes": (2, 2)}),
        ("resize", shapes(IMAGE), {"sizes": (6, 8), "axes": (2, 4)}),
        ("resize", shapes(IMAGE), {"sizes": IMAGE, "mode": "area"}),
        ("resize", shapes(IMAGE), {"sizes": IMAGE, "coordinate_transformation_mode": "tf_crop_and_resize"}),
        ("grid_sample", shapes(IMAGE, (1, 3, 3, 3)), {}),
        ("grid_sample", shapes(IMAGE, (2, 3, 3, 2)), {}),
        ("grid_sample", shapes(IMAGE, (1, 3, 3, 2)), {"mode": "bilinear"}),
        ("affine_grid", shapes((1, 2, 3)), {"size": (1, 4, 6, 8, 2)}),
        ("affine_grid", shapes((1, 2, 3)), {"size": (1, 4, 6)}),
        ("max_roi_pool", shapes(IMAGE, (3, 4)), {"pooled_shape": (2, 2)}),
        ("max_roi_pool", shapes(IMAGE, (3, 5)), {"pooled_shape": (0, 2)}),
        ("roi_align", [*shapes(IMAGE, (3, 4)), np.zeros(2, np.int64)], {}),
        ("roi_align", [*shapes(IMAGE, (3, 4)), np.zeros(3, np.int64)], {"mode": "min"}),
        ("roi_align", [*shapes(IMAGE, (3, 4)), np.zeros(3, np.int64)], {"sampling_ratio": 10**9}),
        ("max_unpool", [*shapes(IMAGE), np.zeros((1, 4, 6, 7), np.int64)], {"kernel_shape": (2, 2)}),
        ("max_unpool", [*shapes(IMAGE), np.zeros(IMAGE, np.int64)], {"kernel_shape": (2, 2), "output_shape": (9, 9)}),
    ],
)
def test_bad_operands_are_refused(op: str, operands: list[np.ndarray], attributes: Attributes) -> None:
    with pytest.raises(InvalidModel):
        add_op(op, operands, **attributes)
