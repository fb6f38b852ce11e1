"""The panel format of constant matrices, in NumPy; `panels.h` is its twin in C and describes it."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import numpy.typing as npt

from fusible.kernels.aligned import aligned_zeros

__all__ = [
    "PANEL_COLUMNS",
    "pack_panels",
    "pack_panels_bf16",
    "pack_panels_bytes",
    "packed_size",
    "panel_offset",
    "panel_width",
    "unpack_panels",
]

PANEL_COLUMNS = 32
_GRANULE = 8  # the last panel's width is a multiple of it, so that 8-lane vectors need no tail

Floats = npt.NDArray[np.float32]
Bfloats = npt.NDArray[ml_dtypes.bfloat16]


def panel_width(columns: int, panel: int) -> int:
    """How many columns `panel` stores of a matrix with `columns` columns: 32, or 8, 16 or 24 for the last one.

    Raises `ValueError` if there is no such panel.
    """
    left = columns - panel * PANEL_COLUMNS
    if panel < 0 or left <= 0:
        raise ValueError(f"a matrix of {columns} columns has no panel {panel}")
    return min(PANEL_COLUMNS, -(-left // _GRANULE) * _GRANULE)


def panel_offset(depth: int, panel: int) -> int:
    """Where `panel` begins in the packed array of a [depth, N] matrix, in floats; all before it have 32 columns."""
    return depth * PANEL_COLUMNS * panel


def packed_size(depth: int, columns: int) -> int:
    """How many floats a packed [depth, columns] matrix has."""
    return depth * -(-columns // _GRANULE) * _GRANULE


def pack_panels(matrix: npt.ArrayLike) -> Floats:
    """Pack [..., K, N] float32 into [..., packed_size(K, N)] float32 at a cache line; leading axes are a batch.

    Raises `ValueError` for fewer than two axes and `TypeError` for another dtype: rounding is the caller's decision.
    """
    source = _checked(matrix)
    *batch, depth, columns = source.shape
    packed: Floats = aligned_zeros((*batch, packed_size(depth, columns)), np.float32)
    for panel in range(-(-columns // PANEL_COLUMNS)):
        part = source[..., panel * PANEL_COLUMNS : (panel + 1) * PANEL_COLUMNS]
        _panel(packed, depth, columns, panel)[..., : part.shape[-1]] = part
    return packed


def pack_panels_bf16(matrix: npt.ArrayLike) -> Bfloats:
    """Pack [..., K, N] float32 into [..., 2 * packed_size(ceil(K / 2), N)] bfloat16: panels of words, see `bf16.h`.

    Elements are rounded to nearest, ties to even. A word has two that are neighbours along K, and lies where
    `pack_panels` would put an element of a matrix with half as many rows; an odd K is filled up with zeros. Raises what
    `pack_panels` does.
    """
    source = _checked(matrix)
    *batch, depth, columns = source.shape
    pairs = -(-depth // 2)
    halves = np.zeros((*batch, pairs, columns, 2), ml_dtypes.bfloat16)
    for place in (0, 1):
        rows = source[..., place::2, :]
        halves[..., : rows.shape[-2], :, place] = rows
    words = pack_panels(halves.view(np.float32)[..., 0])
    packed: Bfloats = words.view(ml_dtypes.bfloat16)
    return packed


def pack_panels_bytes(matrix: npt.ArrayLike) -> Floats:
    """Pack [K, N] int8 into [packed_size(ceil(K / 4), N)] words typed as float32: panels of words, see `bytes.h`.

    A word has four that are neighbours along K, and lies where `pack_panels` would put an element of a matrix with a
    quarter of the rows; what K lacks is filled up with zeros. Raises `ValueError` for another rank, `TypeError` for
    another dtype.
    """
    source = np.asarray(matrix)
    if source.ndim != 2:
        raise ValueError(f"a matrix has two axes, got shape {source.shape}")
    if source.dtype != np.int8:
        raise TypeError(f"words hold int8, got {source.dtype}")
    depth, columns = source.shape
    fours = np.zeros((-(-depth // 4), columns, 4), np.int8)
    for place in range(4):
        rows = source[place::4]
        fours[: len(rows), :, place] = rows
    return pack_panels(fours.view(np.float32)[..., 0])


def unpack_panels(packed: npt.ArrayLike, depth: int, columns: int) -> Floats:
    """Undo `pack_panels`: [..., packed_size(depth, columns)] float32 to [..., depth, columns] float32.

    Raises `ValueError` if the size does not fit the shape, `TypeError` for another dtype.
    """
    source = np.asarray(packed)
    if source.dtype != np.float32:
        raise TypeError(f"panels hold float32, got {source.dtype}")
    if source.ndim < 1 or source.shape[-1] != packed_size(depth, columns):
        raise ValueError(f"panels of a [{depth}, {columns}] matrix have {packed_size(depth, columns)} floats")
    matrix = np.empty((*source.shape[:-1], depth, columns), dtype=np.float32)
    for panel in range(-(-columns // PANEL_COLUMNS)):
        part = matrix[..., panel * PANEL_COLUMNS : (panel + 1) * PANEL_COLUMNS]
        part[...] = _panel(source, depth, columns, panel)[..., : part.shape[-1]]
    return matrix


def _checked(matrix: npt.ArrayLike) -> Floats:
    source = np.asarray(matrix)
    if source.ndim < 2:
        raise ValueError(f"a matrix has at least two axes, got shape {source.shape}")
    if source.dtype != np.float32:
        raise TypeError(f"panels hold float32, got {source.dtype}")
    return source


def _panel(packed: Floats, depth: int, columns: int, panel: int) -> Floats:
    """The view [..., depth, width] of one panel."""
    width = panel_width(columns, panel)
    begin = panel_offset(depth, panel)
    return packed[..., begin : begin + depth * width].reshape(*packed.shape[:-1], depth, width)
