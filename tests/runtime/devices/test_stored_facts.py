"""Facts of device code in an artifact: the way there and back, and each that is damaged is refused by name."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest

import fusible
from fusible.runtime.devices.code import DeviceCode, DeviceImage, DeviceKernel, TensorBlock, TensorMap
from fusible.runtime.devices.convolution import Placed, TorchConvolution
from fusible.runtime.devices.product import Matrix, TorchProduct
from fusible.runtime.devices.program import open_device_program
from fusible.runtime.devices.storage import device_facts, device_sections, open_stored

BLOCK = TensorBlock("t0", "x0", 8, (0, 64), (64, 1), (16, 32))
PRODUCT = TorchProduct(
    "float16", 1, 4, 6, 8, Matrix(0, 0, 0, 8, 1), Matrix(1, 2, 0, 6, 1), Matrix(2, 0, 24, 6, 1), scratch=48,
    added=Matrix(1, 0, 0, 0, 1),
)  # fmt: skip
CONVOLUTION = TorchConvolution(
    "float16", Placed(0, 3, (1, 4, 9), (36, 1, 4)), Placed(1, 0, (6, 2, 3), (6, 1, 2)),
    Placed(2, 0, (1, 6, 9), (54, 1, 6)), (1,), (1,), (1,), 2,
)  # fmt: skip
MAP = TensorMap(BLOCK, (16, 32), 6, 3, 2)
POINTERS = (("x0", "*fp16"), ("x1", "*fp16"), ("y0", "*fp16"))
CODE = DeviceCode(
    (
        DeviceKernel(
            "k0", "kernel", "text", (*POINTERS, ("workspace", "*fp32"), ("counters", "*i32"), ("n", "i32")),
            {"ROWS": 4, "SIGN": -1}, {"x0": 16},
            workspace=64, alone=2, fixed={"x1": 96}, tensors=(BLOCK,), sites=("add",),
        ),
        DeviceKernel("k1", "kernel", "behind it", POINTERS, serial=True, product=PRODUCT),
        DeviceKernel("k2", "kernel", "", POINTERS, product=CONVOLUTION),
    ),
    {"cuda:sm_90": {"k0": DeviceImage("kernel", b"cubin", 128, 64, (0, 8), True, (MAP,))}},
)  # fmt: skip
CONVOLVED = ("kernels", 2, "product")
KERNEL, PRODUCED, IMAGE = ("kernels", 0), ("kernels", 1, "product"), ("images", "cuda:sm_90", "k0")
GONE = object()
DAMAGE: list[tuple[tuple[str | int, ...], Any]] = [
    *(((*KERNEL, name), -1) for name in ("workspace", "alone", "warps", "stages", "scratch_bytes", "source")),
    *(((*KERNEL, name), None) for name in ("arguments", "constants", "divisibility", "fixed", "serial", "tensors")),
    *(((*KERNEL, name), GONE) for name in ("name", "entry", "workspace", "alone", "fixed", "tensors", "product")),
    ((*KERNEL, "source"), 7),
    ((*KERNEL, "warps"), 0),
    ((*KERNEL, "serial"), 1),
    ((*KERNEL, "unknown"), 1),
    ((*KERNEL, "fixed"), {"x9": 4}),
    ((*KERNEL, "fixed", "x1"), -4),
    ((*KERNEL, "divisibility", "x0"), 0),
    ((*KERNEL, "constants", "ROWS"), "4"),
    ((*KERNEL, "arguments", 0), ["x0"]),
    ((*KERNEL, "tensors", 0, "argument"), "n"),
    ((*KERNEL, "tensors", 0, "offset"), -8),
    ((*KERNEL, "tensors", 0, "strides"), [0, 1]),
    ((*KERNEL, "tensors", 0, "strides"), [64]),
    ((*KERNEL, "tensors", 0, "shape"), []),
    *(((*PRODUCED, name), 0) for name in ("batch", "rows", "columns", "depth")),
    ((*PRODUCED, "scratch"), -1),
    *(((*CONVOLVED, name), [0]) for name in ("strides", "dilations")),
    *(((*CONVOLVED, name), []) for name in ("strides", "pads")),
    *(((*CONVOLVED, name), None) for name in ("image", "weight", "result", "tf32")),
    ((*CONVOLVED, "groups"), 0),
    ((*CONVOLVED, "unknown"), 1),
    ((*CONVOLVED, "image", "argument"), 3),
    ((*CONVOLVED, "image", "steps"), [1, 1]),
    ((*CONVOLVED, "weight", "sizes"), [6, 0, 3]),
    ((*CONVOLVED, "dtype"), "float32"),
    ((*CONVOLVED, "dtype"), "float8_e4m3fn"),
    ((*CONVOLVED, "dtype"), "nn"),
    ((*CONVOLVED, "groups"), 1),
    ((*CONVOLVED, "groups"), 4),
    ((*CONVOLVED, "scratch"), 108),
    *(((*CONVOLVED, name), [wrong]) for name in ("strides", "dilations", "pads") for wrong in (2, 2**40)),
    *(((*CONVOLVED, name, "argument"), 2) for name in ("image", "weight")),
    ((*CONVOLVED, "result", "argument"), 0),
    ((*CONVOLVED, "result", "steps"), [54, 9, 1]),
    ((*CONVOLVED, "result", "steps"), [54, 0, 6]),
    ((*CONVOLVED, "result", "sizes"), [1, 6, 10]),
    ((*CONVOLVED, "result", "sizes"), [2, 6, 9]),
    ((*CONVOLVED, "image", "sizes"), [1, 4, 8]),
    ((*CONVOLVED, "image", "sizes"), [1, 2, 9]),
    ((*CONVOLVED, "weight", "sizes"), [6, 2, 4]),
    ((*CONVOLVED, "weight", "sizes"), [6, 2, 2**40]),
    ((*PRODUCED, "dtype"), "float32"),
    ((*PRODUCED, "dtype"), "Tensor"),
    ((*PRODUCED, "scratch"), 0),
    ((*PRODUCED, "scratch"), 2**50),
    ((*PRODUCED, "rows"), 5),
    ((*PRODUCED, "result", "rows"), 5),
    ((*PRODUCED, "result", "columns"), 0),
    ((*PRODUCED, "result", "argument"), 1),
    (("kernels", 1, "source"), 2),
    (("kernels", 1, "arguments", 0), ["x0", "*fp32"]),
    ((*PRODUCED, "tf32"), "no"),
    ((*PRODUCED, "added"), 1),
    ((*PRODUCED, "result"), None),
    *(((*PRODUCED, "left", "argument"), wrong) for wrong in (-1, 3, True, 1.0)),
    ((*PRODUCED, "right", "offset"), -2),
    *(((*IMAGE, name), -1) for name in ("threads", "shared", "offset", "nbytes")),
    ((*IMAGE, "threads"), 0),
    ((*IMAGE, "nbytes"), 6),
    ((*IMAGE, "scratch"), [0]),
    ((*IMAGE, "scratch"), [0, -8]),
    ((*IMAGE, "overlaps"), None),
    ((*IMAGE, "maps"), GONE),
    ((*IMAGE, "maps", 0, "itemsize"), 0),
    ((*IMAGE, "maps", 0, "box"), [16]),
    ((*IMAGE, "maps", 0, "tensor", "argument"), "x9"),
    (("images", "cuda:sm_90"), {"k9": {}}),
    (("images",), []),
    (("kernels",), {}),
    (("checked",), None),
]  # fmt: skip


def reopened(path: tuple[str | int, ...], wrong: Any, cache_dir: Path) -> DeviceCode:
    """The code as an artifact has it, with another fact at a place; GONE takes it away."""
    program = open_device_program(CODE, "cuda:sm_90", cache_dir=cache_dir)
    facts, sections = json.loads(json.dumps(device_facts(program))), device_sections(program)
    if path:
        at = facts = copy.deepcopy(facts)
        for key in path[:-1]:
            at = at[key]
        if wrong is GONE:
            del at[path[-1]]
        else:
            at[path[-1]] = wrong
    binaries = {"device images": memoryview(sections["device images"])}
    return open_stored(facts, sections["device sources"], binaries, "", cache_dir).code


def test_the_way_there_and_back(tmp_path: Path) -> None:
    assert reopened((), None, tmp_path) == CODE


@pytest.mark.parametrize(("path", "wrong"), DAMAGE)
def test_damage_is_refused(path: tuple[str | int, ...], wrong: Any, tmp_path: Path) -> None:
    with pytest.raises(fusible.ArtifactError, match=r"is damaged: .*; compile the model again"):
        reopened(path, wrong, tmp_path)
