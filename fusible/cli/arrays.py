"""Inputs and outputs of the commands: random arrays that fit a signature, and `.npz` files.

An `.npz` file holds one array a name. NumPy's format knows neither bfloat16 and its like (they are stored as raw bytes
and get their type back from the signature) nor objects without pickle (strings are stored as unicode, the elements of
a sequence `s` as `s.0`, `s.1`, ..., an empty optional is left out).
"""

from __future__ import annotations

import zipfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fusible.cli.console import progress
from fusible.errors import UsageError
from fusible.runtime.dims import evaluate_dim, single_symbol
from fusible.runtime.signature import TensorSpec

if TYPE_CHECKING:
    from fusible.runtime.executable import Executable

__all__ = ["random_inputs", "read_inputs", "write_outputs"]

# Inputs of other sizes than the first dimension's are often pictures or sequences: 64 survives six halvings.
FIRST_DIMENSION = 1
OTHER_DIMENSIONS = 64


def random_inputs(executable: Executable, seed: int) -> dict[str, np.ndarray]:
    """Return seeded arrays for an executable: normal floats, 0 or 1 as wide integers, any value of narrow ones.

    A symbol is 1 where it comes first in a shape, else 64, moved into its bounds. Raises UsageError for inputs whose
    rank is unknown and for sequences and optionals.
    """
    generator = np.random.default_rng(seed)
    plan = executable.plan
    bounds = plan.bounds
    # The plan's shapes: in the signature a symbol is spelt as the model spells it, which may be no expression.
    shapes = [plan.values[number].shape for number in plan.inputs]
    specs = [replace(spec, shape=shape) for spec, shape in zip(executable.inputs, shapes, strict=True)]
    sizes: dict[str, int] = {}
    for spec in specs:
        for place, dim in enumerate(_known_shape(spec)):
            symbol = single_symbol(dim)
            if symbol is not None and symbol not in sizes:
                sizes[symbol] = _clip(OTHER_DIMENSIONS if place else FIRST_DIMENSION, bounds.get(symbol, (0, None)))
    return {
        spec.name: _random(generator, spec, tuple(evaluate_dim(dim, sizes) for dim in _known_shape(spec)))
        for spec in specs
    }


def _known_shape(spec: TensorSpec) -> tuple[int | str, ...]:
    if spec.kind != "tensor":
        raise UsageError(f"input {spec.name!r} is of kind {spec.kind}; pass --inputs, random ones are tensors only")
    if spec.shape is None:
        raise UsageError(f"the rank of input {spec.name!r} is not known; give --shape {spec.name}=... or --inputs")
    return spec.shape


def _clip(size: int, bounds: tuple[int, int | None]) -> int:
    low, high = bounds
    return max(size, low) if high is None else min(max(size, low), high)


def _random(generator: np.random.Generator, spec: TensorSpec, shape: tuple[int, ...]) -> np.ndarray:
    dtype = spec.dtype
    if dtype == object:
        return np.full(shape, "text", dtype=object)
    if dtype.kind == "b" or (dtype.kind in "iu" and dtype.itemsize > 1):
        return generator.integers(0, 2, shape).astype(dtype)
    if dtype.kind in "iu":
        info = np.iinfo(dtype)
        return generator.integers(info.min, info.max, shape, dtype=dtype, endpoint=True)
    if dtype.kind == "c":
        return (generator.standard_normal(shape) + 1j * generator.standard_normal(shape)).astype(dtype)
    if dtype.kind == "f" or dtype.itemsize > 1:
        return generator.standard_normal(shape).astype(dtype)
    return generator.integers(0, 2, shape).astype(dtype)  # int4 and 8-bit floats all hold 0 and 1


def read_inputs(path: Path, specs: Sequence[TensorSpec]) -> dict[str, Any]:
    """Read the arrays of an `.npz` file for a signature. Raises UsageError if the file is no such file.

    Names, types and shapes are left to the executable to check.
    """
    try:
        with progress(f"reading {path}"), path.open("rb") as file:
            archive = np.load(file, allow_pickle=False)
            if not isinstance(archive, np.lib.npyio.NpzFile):
                raise UsageError(f"{path} holds one array; inputs come by name, in an .npz file")
            with archive:
                found: dict[str, Any] = {name: archive[name] for name in archive.files}
    except (OSError, ValueError, zipfile.BadZipFile, EOFError) as error:
        raise UsageError(f"{path} cannot be read as an .npz file of arrays: {error}") from error
    for spec in specs:
        if spec.kind == "tensor" and spec.name in found:
            found[spec.name] = _typed(found[spec.name], spec.dtype)
        elif spec.kind == "sequence":
            found[spec.name] = _take_elements(found, spec.name)
        elif spec.kind == "optional":
            found.setdefault(spec.name, None)
    return found


def _typed(array: np.ndarray, dtype: np.dtype) -> np.ndarray:
    if array.dtype.kind == "V" and array.dtype.itemsize == dtype.itemsize:
        return array.view(dtype)
    return array.astype(object) if dtype == object and array.dtype.kind in "US" else array


def _take_elements(found: dict[str, Any], name: str) -> list[np.ndarray]:
    elements: list[np.ndarray] = []
    while (key := f"{name}.{len(elements)}") in found:
        elements.append(found.pop(key))
    return elements


def write_outputs(path: Path, outputs: Mapping[str, Any]) -> None:
    """Write arrays by name as an `.npz` file, at exactly that path. Raises UsageError if it cannot be written."""
    arrays: dict[str, np.ndarray] = {}
    for name, value in outputs.items():
        if isinstance(value, list):
            arrays.update((f"{name}.{place}", _storable(element)) for place, element in enumerate(_arrays(value)))
        elif value is not None:
            arrays[name] = _storable(value)
    try:
        with zipfile.ZipFile(path, "w") as archive:  # np.savez takes no array called `file`
            for name, array in arrays.items():
                with archive.open(f"{name}.npy", "w", force_zip64=True) as entry:
                    np.lib.format.write_array(entry, array, allow_pickle=False)
    except (OSError, ValueError) as error:
        raise UsageError(f"{path} cannot be written: {error}") from error


def _arrays(values: Iterable[Any]) -> list[np.ndarray]:
    return [np.asarray(value) for value in values]


def _storable(array: np.ndarray) -> np.ndarray:
    if array.dtype == object:
        return array.astype(np.str_)
    return array if array.dtype.isbuiltin == 1 else array.view(f"V{array.dtype.itemsize}")
