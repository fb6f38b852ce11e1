"""Device code and executables made by hand: kernels through Triton's front end and C, plans written down."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path

import numpy as np

from fusible.compiler.backends.triton.from_triton import ttir_of
from fusible.compiler.backends.triton.kernel import TILE_HEADER
from fusible.compiler.backends.triton.lower import LoweredKernel, lower_ttir
from fusible.runtime.devices.code import DeviceCode, DeviceKernel
from fusible.runtime.devices.program import DeviceProgram, open_device_program
from fusible.runtime.executable import Executable
from fusible.runtime.native.cache import default_cache_dir
from fusible.runtime.native.program import NativeCode
from fusible.runtime.plan import Buffer, Plan, PlanValue, Step
from fusible.runtime.signature import DTYPES, TensorSpec
from tests.runtime.devices import kernels

SOURCE = Path(kernels.__file__).read_text(encoding="utf-8")

# By the name that plans use: function, pointers and numbers, constants.
KERNELS: dict[str, tuple[str, dict[str, str], dict[str, int]]] = {
    "twice": ("scale", {"x": "*fp32", "out": "*fp32", "n": "i32"}, {"FACTOR": 2, "BLOCK": 32}),
    "thrice": ("scale", {"x": "*fp32", "out": "*fp32", "n": "i32"}, {"FACTOR": 3, "BLOCK": 32}),
    "plus": ("add", {"x": "*fp32", "y": "*fp32", "out": "*fp32", "n": "i32"}, {"BLOCK": 32}),
    "row_sums": ("row_sums", {"x": "*fp32", "out": "*fp32", "columns": "i32"}, {"BLOCK": 64}),
    "shared_row_sums": (
        "shared_row_sums",
        {"x": "*fp32", "out": "*fp32", "workspace": "*fp32", "counters": "*i32", "columns": "i32"},
        {"PARTS": 5, "BLOCK": 16},
    ),
    "product": (
        "matmul",
        {"x": "*fp32", "w": "*fp32", "out": "*fp32", "m": "i32", "n": "i32", "k": "i32"},
        {"BM": 16, "BN": 16, "BK": 16},
    ),
    "reads_beyond": ("reads_beyond", {"x": "*fp32", "out": "*fp32", "n": "i32"}, {"BLOCK": 32}),
}


@cache
def _lowered(name: str, checked: bool) -> LoweredKernel:
    entry, signature, constants = KERNELS[name]
    text = ttir_of(getattr(kernels, entry), signature, dict(constants), assertions=checked)
    return lower_ttir(text, checked=checked, symbol=name)


@cache
def device_code(*, checked: bool = True) -> DeviceCode:
    """All kernels, lowered to one library."""
    found, sources = [], {"tile.h": TILE_HEADER.read_text(encoding="utf-8")}
    for name, (entry, signature, constants) in KERNELS.items():
        lowered = _lowered(name, checked)
        sources[f"{name}.c"] = lowered.source
        found.append(
            DeviceKernel(
                name, entry, SOURCE, tuple(signature.items()), constants,
                scratch_bytes=lowered.scratch_bytes, sites=lowered.site_texts,
                workspace=4 if "workspace" in signature else 0,
            )
        )  # fmt: skip
    return DeviceCode(tuple(found), host=NativeCode(sources, tuple(KERNELS)), checked=checked)


@cache
def program(*, checked: bool = True) -> DeviceProgram:
    """The kernels on the device triton-cpu, by two threads."""
    return open_device_program(
        device_code(checked=checked), "triton-cpu", threads=2, cache_dir=default_cache_dir(os.environ)
    )


def tensor(kind: str, *shape: int | str, dtype: str = "f32", index: int = -1, name: str = "") -> PlanValue:
    """A value of a plan."""
    return PlanValue(name, kind, dtype, tuple(shape), index)


def plan(
    values: Sequence[PlanValue],
    steps: Sequence[Step],
    inputs: Sequence[int],
    outputs: Sequence[int],
    bounds: Mapping[str, tuple[int, int | None]] | None = None,
) -> Plan:
    """A plan in which every buffer lives all the time."""
    sizes: dict[int, int | str] = {}
    for value in values:
        if value.kind == "arena":
            shape = value.whole or value.shape or ()
            sizes[value.index] = " * ".join([str(DTYPES[value.dtype].itemsize), *(f"({d})" for d in shape)])
    buffers = tuple(Buffer(sizes[n], 0, len(steps)) for n in range(len(sizes)))
    return Plan(tuple(values), buffers, tuple(inputs), tuple(outputs), tuple(steps), dict(bounds or {}))


def executable(
    made: Plan, *, constants: Sequence[np.ndarray] = (), source: str = "", device: DeviceProgram | None = None
) -> Executable:
    """An executable of a plan, whose inputs and outputs have the names of its values."""
    specs = [TensorSpec(v.name, DTYPES[v.dtype], v.shape) for v in made.values]
    inputs, outputs = (tuple(specs[n] for n in numbers) for numbers in (made.inputs, made.outputs))
    found = device or program()
    return Executable(inputs, outputs, made, tuple(constants), source, found.target, device=found)
