"""Shared by tests of convolution-like kernels: hooks in C, operands between guard pages, calls by a list of longs."""

from __future__ import annotations

import ctypes
import mmap
import platform

import numpy as np

from tests.kernels.cpu import harness
from tests.tolerance import poisoned

__all__ = ["HOOKS", "NO_VECTORS", "VARIANTS", "Layer", "guarded", "random"]

# The instruction sets of the harness, and 16 lanes lowered to what any machine has.
VARIANTS = (*harness.INSTRUCTION_SETS, "16 lanes")

# 16 lanes are lowered without AVX's intrinsics, whatever the compiler's default is.
NO_VECTORS = ("-mno-avx",) if platform.machine() == "x86_64" else ()

# The start hook adds a bias and, where given, a residual that lies as the output does; the finish hook stores.
HOOKS = """
struct layer { const float *bias, *residual; float *y; long columns; };
static vf start(const void *context, long row, long column, long lanes) {
    const struct layer *layer = context;
    vf value = vf_load_first(layer->bias + column, lanes);
    return layer->residual ? value + vf_load_first(layer->residual + row * layer->columns + column, lanes) : value;
}
static void finish(const void *context, vf value, long row, long column, long lanes) {
    const struct layer *layer = context;
    vf_store_first(layer->y + row * layer->columns + column, value, lanes);
}
"""

_libc = ctypes.CDLL(None, use_errno=True)


class Layer:
    """A C source with `long items(const long *sizes)`, `long scratch(const long *sizes)` and `void run(...)`."""

    def __init__(self, source: str, variant: str, flags: tuple[str, ...] = ()) -> None:
        wide = variant == "16 lanes"
        extra = ("-DVL=16", "-O1", *NO_VECTORS) if wide else flags
        self.library = harness.compile_c(source, "plain" if wide else variant, extra)
        for name in ("items", "scratch"):
            getattr(self.library, name).restype = ctypes.c_long

    def __call__(
        self,
        sizes: list[int],
        operands: list[np.ndarray],
        bias: np.ndarray,
        shape: tuple[int, ...],
        residual: np.ndarray | None = None,
    ) -> np.ndarray:
        """The output [rows, columns] of run(sizes, operands, bias, residual, y, scratch, item), last item first."""
        longs = (ctypes.c_long * len(sizes))(*sizes)
        held = [guarded(operand) for operand in operands]
        pointers = (ctypes.c_void_p * len(held))(*(operand.ctypes.data for operand in held))
        y, biases = guarded(poisoned(shape, np.float32)), guarded(bias)
        shortcut = guarded(residual) if residual is not None else None
        scratch = guarded(poisoned((self.library.scratch(longs) // 4 + 1,), np.float32), front=True)
        for item in reversed(range(self.library.items(longs))):
            self.library.run(
                longs,
                pointers,
                harness.pointer(biases),
                harness.pointer(shortcut) if shortcut is not None else None,
                harness.pointer(y),
                harness.pointer(scratch),
                ctypes.c_long(item),
            )
        return y.copy()


def guarded(array: np.ndarray, front: bool = False) -> np.ndarray:
    """A copy that ends where an unreadable page begins or, `front`, begins where one ends (and is aligned so)."""
    page = mmap.PAGESIZE
    size = -(-max(array.nbytes, 1) // page) * page
    memory = mmap.mmap(-1, size + 2 * page)
    start = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    for guard in (start, start + page + size):
        assert _libc.mprotect(ctypes.c_void_p(guard), ctypes.c_size_t(page), 0) == 0
    offset = page if front else page + size - array.nbytes
    copy = np.frombuffer(memory, array.dtype, array.size, offset).reshape(array.shape)
    copy[...] = array
    return copy


def random(shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    """Standard normal float32."""
    return np.random.default_rng([seed, *shape]).standard_normal(shape, dtype=np.float32)
