"""Convolutions against ONNX Runtime and against their own sums written out in float64."""

from __future__ import annotations

from itertools import product
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from fusible.kernels.numpy import convolution
from fusible.kernels.numpy.convolution import conv
from fusible.kernels.numpy.convolution_transpose import col2im, col2im_dynamic, conv_transpose
from fusible.kernels.numpy.deformable import deform_conv
from fusible.kernels.numpy.windows import boxes, run_of, windows
from tests.kernels.single_node import run_node
from tests.tolerance import assert_close, poisoned

Attributes = dict[str, Any]


def normal(*shape: int, dtype: Any = np.float32, seed: int = 0) -> np.ndarray:
    return np.asarray(np.random.default_rng([seed, *shape]).standard_normal(shape)).astype(dtype)


# image, kernel, attributes
CONVOLUTIONS: list[tuple[tuple[int, ...], tuple[int, ...], Attributes]] = [
    ((2, 3, 9, 8), (4, 3, 3, 3), {"pads": (1, 1, 1, 1)}),
    ((2, 4, 9, 8), (6, 2, 3, 2), {"group": 2, "strides": (2, 3), "pads": (1, 0, 2, 1), "dilations": (2, 1)}),
    ((1, 5, 9, 8), (5, 1, 3, 3), {"group": 5, "strides": (2, 1), "pads": (1, 1, 1, 1)}),
    ((2, 5, 9, 18), (10, 1, 5, 3), {"group": 5, "strides": (3, 2), "dilations": (1, 3), "pads": (2, 0, 3, 1)}),
    ((1, 4, 7), (4, 1, 3), {"group": 4, "strides": (2,), "dilations": (3,), "pads": (3, 4)}),
    ((2, 3, 11), (4, 3, 4), {"strides": (2,), "pads": (3, 0)}),
    ((1, 2, 5, 6, 7), (4, 1, 2, 3, 2), {"group": 2, "strides": (1, 2, 1), "pads": (0, 1, 0, 1, 0, 1)}),
    ((1, 2, 4, 5, 3), (2, 1, 3, 1, 2), {"group": 2, "pads": (1, 0, 1, 1, 0, 0), "strides": (2, 2, 1)}),
    ((2, 6, 5, 5), (4, 6, 1, 1), {"strides": (2, 2)}),
    ((2, 6, 5, 5), (4, 3, 1, 1), {"group": 2}),
    ((1, 3, 4, 4), (5, 3, 1, 1), {"pads": (1, 1, 1, 1)}),
    ((1, 3, 4, 4), (5, 3, 4, 4), {}),
    ((1, 3, 6, 7), (2, 3, 3, 3), {"auto_pad": "SAME_UPPER", "strides": (2, 2)}),
    ((1, 3, 6, 7), (2, 3, 4, 4), {"auto_pad": "SAME_LOWER", "strides": (1, 2)}),
    ((1, 3, 6, 7), (2, 3, 4, 4), {"auto_pad": "VALID", "strides": (1, 2)}),
    ((0, 3, 6, 7), (2, 3, 3, 3), {}),
]


@pytest.mark.parametrize(("image", "kernel", "attributes"), CONVOLUTIONS)
def test_conv(image: tuple[int, ...], kernel: tuple[int, ...], attributes: Attributes) -> None:
    x, w, b = normal(*image), normal(*kernel, seed=1), normal(kernel[0], seed=2)
    (expected,) = run_node("Conv", [x, w, b], **attributes)
    terms = int(np.prod(kernel[1:]))
    assert_close(conv(x, w, b, **attributes), expected, accumulation=terms)
    out = poisoned(expected.shape, np.float32)
    assert conv(x, w, b, out=out, **attributes) is out
    assert_close(out, expected, accumulation=terms)
    assert_close(conv(x, w, **attributes), expected - b.reshape(-1, *(1,) * (x.ndim - 2)), accumulation=4096)


@pytest.mark.parametrize("dtype", [np.float64, np.float16, ml_dtypes.bfloat16])
@pytest.mark.parametrize(("image", "kernel", "attributes"), CONVOLUTIONS[:4] + CONVOLUTIONS[8:9])
def test_conv_of_other_types(
    image: tuple[int, ...], kernel: tuple[int, ...], attributes: Attributes, dtype: Any
) -> None:
    x, w, b = (normal(*s, dtype=dtype, seed=k) for k, s in enumerate((image, kernel, kernel[:1])))
    expected = conv(*(v.astype(np.float64) for v in (x, w, b)), **attributes)
    got = conv(x, w, b, **attributes)
    assert got.dtype == dtype
    assert_close(got, expected, accumulation=int(np.prod(kernel[1:])))


def test_conv_is_the_sum_of_its_definition() -> None:
    x, w = normal(1, 2, 5, 6, dtype=np.float64), normal(3, 2, 3, 2, dtype=np.float64)
    got = conv(x, w, strides=(2, 1), pads=(1, 0, 1, 1), dilations=(1, 2))
    expected = np.zeros((1, 3, 3, 5))
    for m, oh, ow, c, kh, kw in product(range(3), range(3), range(5), range(2), range(3), range(2)):
        h, v = oh * 2 + kh - 1, ow + kw * 2
        if 0 <= h < 5 and 0 <= v < 6:
            expected[0, m, oh, ow] += x[0, c, h, v] * w[m, c, kh, kw]
    assert_close(got, expected, accumulation=12)


def test_columns_in_small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    x, w = normal(2, 4, 7, 9, 3), normal(6, 2, 2, 3, 2, seed=1)
    attributes: Attributes = {"group": 2, "pads": (1, 0, 1, 1, 1, 0), "strides": (1, 2, 1)}
    expected = conv(x, w, **attributes)
    for size in (1, 1000, 5000):
        monkeypatch.setattr(convolution, "COLUMN_BYTES", size)
        assert_close(conv(x, w, **attributes), expected, accumulation=24)


def test_boxes_tile_the_index_space() -> None:
    for limit in (1, 3, 7, 20, 1000):
        covered = [i for box in boxes((3, 4, 5), limit) for i in range(*run_of(box, (3, 4, 5)).indices(60))]
        assert covered == list(range(60))
        assert all(np.prod([s.stop - s.start for s in box]) <= limit for box in boxes((3, 4, 5), limit))


def test_infinities_stay_where_they_are_seen() -> None:
    x = normal(1, 2, 6, 6)
    x[0, 0, 2, 3] = np.inf
    w = np.abs(normal(2, 1, 3, 3)) + 0.1
    y = conv(x, w, group=2)
    assert np.isposinf(y[0, 0]).sum() == 9
    assert np.isfinite(y[0, 1]).all()


@pytest.mark.parametrize(
    ("image", "kernel", "attributes"),
    [
        ((1, 3, 5, 5), (4, 2, 3, 3), {}),
        ((1, 3, 5, 5), (4, 3, 3), {}),
        ((1, 4, 5, 5), (3, 2, 3, 3), {"group": 2}),
        ((1, 3, 5, 5), (4, 3, 3, 3), {"strides": (1,)}),
        ((1, 3, 5, 5), (4, 3, 3, 3), {"strides": (0, 1)}),
        ((1, 3, 2, 2), (4, 3, 9, 9), {}),
        ((1, 3, 5, 5), (4, 3, 3, 3), {"auto_pad": "SAME"}),
    ],
)
def test_conv_refuses(image: tuple[int, ...], kernel: tuple[int, ...], attributes: Attributes) -> None:
    with pytest.raises(ValueError, match=r"convolution|group|stride|window|auto_pad"):
        conv(normal(*image), normal(*kernel), **attributes)


TRANSPOSED: list[tuple[tuple[int, ...], tuple[int, ...], Attributes]] = [
    ((2, 3, 5, 4), (3, 4, 3, 3), {"pads": (1, 1, 1, 1)}),
    (
        (2, 4, 5, 4),
        (4, 2, 3, 2),
        {"group": 2, "strides": (2, 3), "pads": (1, 0, 2, 1), "dilations": (2, 1), "output_padding": (1, 1)},
    ),
    ((1, 3, 6), (3, 2, 4), {"strides": (2,), "auto_pad": "SAME_UPPER"}),
    ((1, 3, 6), (3, 2, 3), {"strides": (2,), "auto_pad": "SAME_LOWER"}),
    ((1, 3, 6, 5), (3, 2, 3, 3), {"strides": (2, 2), "output_shape": (14, 9)}),
    ((1, 3, 6, 5), (3, 2, 3, 3), {"strides": (2, 2), "output_shape": (12, 10), "auto_pad": "SAME_UPPER"}),
    ((1, 3, 6, 5), (3, 2, 3, 3), {"strides": (2, 2), "output_shape": (12, 10), "output_padding": (1, 1)}),
    ((1, 3, 4, 5, 3), (3, 2, 2, 3, 2), {"strides": (2, 1, 2)}),
    ((1, 3, 6, 5), (3, 2, 3, 3), {"strides": (2, 2), "auto_pad": "VALID"}),
    ((2, 3, 4, 4), (3, 5, 2, 2), {"strides": (2, 2)}),
    ((0, 3, 4, 4), (3, 5, 2, 2), {}),
]


@pytest.mark.parametrize(("image", "kernel", "attributes"), TRANSPOSED)
def test_conv_transpose(image: tuple[int, ...], kernel: tuple[int, ...], attributes: Attributes) -> None:
    filters = kernel[1] * attributes.get("group", 1)
    x, w, b = normal(*image), normal(*kernel, seed=1), normal(filters, seed=2)
    (expected,) = run_node("ConvTranspose", [x, w, b], **attributes)
    assert_close(conv_transpose(x, w, b, **attributes), expected, accumulation=64)
    out = poisoned(expected.shape, np.float32)
    assert conv_transpose(x, w, b, out=out, **attributes) is out
    assert_close(out, expected, accumulation=64)
    half = conv_transpose(*(v.astype(np.float16) for v in (x, w, b)), **attributes)
    assert half.dtype == np.float16


def test_conv_transpose_is_the_adjoint_of_conv() -> None:
    attributes: Attributes = {"strides": (2, 1), "pads": (1, 0, 0, 2), "dilations": (1, 2), "group": 2}
    x, w = normal(1, 4, 7, 8, dtype=np.float64), normal(6, 2, 3, 2, dtype=np.float64)
    y = conv(x, w, **attributes)
    seen = normal(*y.shape, dtype=np.float64, seed=3)
    back = conv_transpose(seen, w, output_shape=(), output_padding=(1, 0), **attributes)[:, :, :7]
    assert back.shape[2:] == x.shape[2:]
    assert np.isclose((y * seen).sum(), (x * back).sum())


def test_conv_transpose_in_small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    x, w = normal(2, 4, 5, 6), normal(4, 3, 3, 2, seed=1)
    expected = conv_transpose(x, w, strides=(2, 2))
    monkeypatch.setattr("fusible.kernels.numpy.convolution_transpose.COLUMN_BYTES", 1)
    assert_close(conv_transpose(x, w, strides=(2, 2)), expected, accumulation=24)


@pytest.mark.parametrize(
    ("image", "block", "attributes"),
    [
        ((5, 6), (2, 3), {}),
        ((5, 6), (2, 2), {"strides": (2, 1), "pads": (1, 0, 0, 1), "dilations": (2, 1)}),
        ((4, 5, 3), (2, 2, 3), {"pads": (0, 1, 1, 0, 0, 0)}),
    ],
)
def test_col2im(image: tuple[int, ...], block: tuple[int, ...], attributes: Attributes) -> None:
    places = windows(image, block, *(attributes.get(k, ()) for k in ("strides", "pads", "dilations")))
    columns = normal(2, 3 * int(np.prod(block)), int(np.prod([w.count for w in places])))
    shapes = [np.array(image, np.int64), np.array(block, np.int64)]
    if len(image) == 2:
        (expected,) = run_node("Col2Im", [columns, *shapes], **attributes)
        assert_close(col2im_dynamic(columns, *shapes, **attributes), expected, accumulation=16)
    # Counting how often each pixel is covered is a convolution of ones turned round.
    cover = conv_transpose(
        np.ones((1, 1, *(w.count for w in places)), np.float32), np.ones((1, 1, *block), np.float32), **attributes,
        output_shape=(), output_padding=tuple(w.size - _reached(w) for w in places),
    )  # fmt: skip
    ones = col2im(np.ones((1, *columns.shape[1:]), np.float32), image_shape=image, block_shape=block, **attributes)
    assert np.array_equal(ones[:, :1], cover)
    assert np.array_equal(
        col2im((columns * 4).astype(np.int32), image_shape=image, block_shape=block, **attributes).sum(dtype=np.int64),
        (np.broadcast_to((columns * 4).astype(np.int32), columns.shape) * _inside(places, columns.shape)).sum(),
    )


def _reached(w: Any) -> int:
    return int((w.count - 1) * w.stride + w.span - w.before - w.after)


def _inside(places: list[Any], shape: tuple[int, ...]) -> np.ndarray:
    """Which elements of the columns land in the image rather than in its padding."""
    masks = []
    for w in places:
        position = np.arange(w.kernel)[:, None] * w.dilation + np.arange(w.count) * w.stride - w.before
        masks.append((position >= 0) & (position < w.size))
    letters = [("abc"[i], "xyz"[i]) for i in range(len(masks))]
    equation = (
        ",".join(a + b for a, b in letters) + "->" + "".join(a for a, _ in letters) + "".join(b for _, b in letters)
    )
    taps = int(np.prod([w.kernel for w in places]))
    one = np.einsum(equation, *(m.astype(int) for m in masks)).reshape(1, taps, -1)
    return np.tile(one, (1, shape[1] // taps, 1))


@pytest.mark.parametrize(
    ("attributes", "masked"),
    [
        ({"pads": (1, 1, 1, 1)}, False),
        ({"pads": (1, 0, 2, 1), "strides": (2, 1), "dilations": (1, 2), "group": 2, "offset_group": 2}, True),
        ({"strides": (2, 2), "offset_group": 2}, True),
    ],
)
def test_deform_conv(attributes: Attributes, masked: bool) -> None:
    x, b = normal(2, 4, 8, 9), normal(6, seed=2)
    w = normal(6, 4 // attributes.get("group", 1), 3, 2, seed=1)
    counts = [
        p.count for p in windows((8, 9), (3, 2), *(attributes.get(k, ()) for k in ("strides", "pads", "dilations")))
    ]
    groups = attributes.get("offset_group", 1)
    offset = normal(2, groups * 12, *counts, seed=3) * 2
    mask = normal(2, groups * 6, *counts, seed=4) if masked else None
    (expected,) = run_node("DeformConv", [x, w, offset, b, mask][: 5 if masked else 4], **attributes)
    assert_close(deform_conv(x, w, offset, b, mask, **attributes), expected, accumulation=200)


def test_deform_conv_without_offsets_is_conv() -> None:
    x, w = normal(1, 4, 5, 6, 4), normal(2, 2, 2, 3, 2, seed=1)
    attributes: Attributes = {"pads": (1, 0, 1, 0, 1, 0), "group": 2}
    expected = conv(x, w, **attributes)
    offset = np.zeros((1, 12 * 3, *expected.shape[2:]), np.float32)
    assert_close(deform_conv(x, w, offset, **attributes), expected, accumulation=24)
