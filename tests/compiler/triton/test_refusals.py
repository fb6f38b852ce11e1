"""What cannot be read, lowered or called is refused with the place and the reason."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from fusible.compiler.backends.triton.from_triton import ttir_of
from fusible.compiler.backends.triton.lower import lower_ttir
from fusible.compiler.backends.triton.ttir import Element, Pointer, Tensor, walk
from fusible.compiler.backends.triton.ttir_parse import parse_ttir
from fusible.errors import KernelBuildError, LoweringError, SignatureError, UsageError
from tests.compiler.triton import kernels
from tests.compiler.triton.harness import prepared

KINDS = {"x": "*fp32", "out": "*fp32", "n": "i32"}


def module(*lines: str) -> str:
    body = "\n".join(f"    {line}" for line in lines)
    return f"module {{\n  tt.func public @k(%p: !tt.ptr<f32>, %n: i32) {{\n{body}\n    tt.return\n  }}\n}}\n"


def refusal(text: str) -> str:
    with pytest.raises(LoweringError) as caught:
        lower_ttir(text)
    return str(caught.value)


def test_parsed_module() -> None:
    text = ttir_of(kernels.reads_beyond, KINDS, {"BLOCK": 32}, divisible=["x"])
    function = parse_ttir(text)
    assert (function.name, [value.name for value in function.arguments]) == ("reads_beyond", ["x", "out", "n"])
    assert function.arguments[0].type == Pointer(Element.F32)
    load = next(operation for operation in walk(function.body) if operation.name == "tt.load")
    assert load.results[0].type == Tensor((32,), Element.F32)
    assert load.location.startswith(f"{kernels.__file__}:")


def test_the_same_text_gives_the_same_c() -> None:
    halves = dict.fromkeys(("x", "gain", "bias", "out"), "*fp16")
    text = ttir_of(kernels.layer_norm, {**halves, "columns": "i32", "epsilon": "fp32"}, {"BLOCK": 64})
    assert lower_ttir(text, checked=True).source == lower_ttir(text, checked=True).source


def test_unknown_operation() -> None:
    text = ttir_of(kernels.with_assembly, {"x": "*fp32", "out": "*fp32"}, {"BLOCK": 32})
    line = next(k for k, each in enumerate(text.splitlines(), 1) if "tt.elementwise_inline_asm" in each)
    told = refusal(text)
    assert told.startswith(
        f"tt.elementwise_inline_asm in Triton kernel 'with_assembly', line {line} of its TTIR ({kernels.__file__}:"
    )
    assert told.endswith("cannot be lowered (triton-cpu: this operation is not known)")


@pytest.mark.parametrize(
    ("lines", "told"),
    [
        (["%0 = arith.addi %n, %q : i32"], "line 3: %q is used and nowhere defined before"),
        (["%0 = arith.constant 1 : i13"], "line 3: 'i13' is not a type that can be lowered"),
        (["%0 = arith.constant dense<1> : tensor<4x!tt.ptr<f32>>"], "a constant of a number"),
        (["%0 = arith.constant x1 : i32"], "expected a number of type i32, not 'x1'"),
        (["%0 = arith.constant 4294967296 : i32"], "expected a number of type i32"),
        (["nonsense"], "line 3: an operation, not 'nonsense'"),
        (["%0 = tt.splat (%n : i32"], "line 3: a bracket or a string without its end"),
        (["%0 = tt.splat " + "(" * 40 + ")" * 40 + " : i32"], "line 3: brackets nested more than 16 deep"),
        (["scf.if %n {"] * 200, "regions nested more than 64 deep"),
        (["%0 = tt.expand_dims %n : i32 -> tensor<1xi32>"], "it has a form that is not known (KeyError('axis'))"),
        (["%0 = arith.cmpi wrong, %n, %n : i32"], "the predicate 'wrong' is not known"),
        (["%0:3 = tt.many %n : i32 -> (i32, i32)"], "line 3: tt.many with 3 results has 2 result types"),
        (
            ['%0 = tt.extern_elementwise %n {libname = "", pure = true, symbol = "__nv_odd"} : (i32) -> i32'],
            "the function '__nv_odd' is not known",
        ),
        (["%0 = arith.addf %n, %n : i32"], "it is defined for floats, not for i32"),
    ],
)
def test_bad_text(lines: list[str], told: str) -> None:
    assert told in refusal(module(*lines))


def test_text_that_is_no_module() -> None:
    assert "its TTIR cannot be read: line 1: a module or a function, not 'hello'" in refusal("hello\n")
    assert "must hold one function and holds none" in refusal("module {\n}\n")


def test_any_cut_of_a_module_is_an_error_of_ours() -> None:
    kinds = {"x": "*fp32", "values": "*fp32", "indices": "*i32", "rows": "i32", "columns": "i32"}
    text = ttir_of(kernels.arg_max, kinds, {"R": 4, "C": 4, "AXIS": 1})
    end = text.index("tt.return")
    for cut in range(0, end, 61):
        with pytest.raises(LoweringError):
            lower_ttir(text[:cut])


def test_arguments_that_do_not_fit() -> None:
    arguments = {"x": np.ones(4, np.float32), "out": np.ones(4, np.float32), "n": 4}
    built = prepared(kernels.reads_beyond, arguments, {"BLOCK": 32})
    x, out, n = arguments.values()
    with pytest.raises(UsageError, match=r"'reads_beyond' takes \(x, out, n\), and was given 2 arguments"):
        built((1,), x, out)
    with pytest.raises(SignatureError, match="input 'x': expected an array of float32, got one of float64"):
        built((1,), np.ones(4), out, n)
    with pytest.raises(SignatureError, match="input 'x': expected an array of float32, got a int"):
        built((1,), 3, out, n)
    with pytest.raises(SignatureError, match="input 'n': expected a number of type i32, got 4294967296"):
        built((1,), x, out, 2**32)
    with pytest.raises(SignatureError, match=r"input 'n': expected a number of type i32, got 1\.5"):
        built((1,), x, out, 1.5)
    with pytest.raises(UsageError, match="a grid has 1 to 3 extents"):
        built((1, 1, 1, 1), x, out, n)
    with pytest.raises(UsageError, match="a grid has 1 to 3 extents"):
        built((-1,), x, out, n)


def test_parameters_that_do_not_fit() -> None:
    with pytest.raises(UsageError, match="parameters without type or value: n; unknown: m"):
        ttir_of(kernels.reads_beyond, {"x": "*fp32", "out": "*fp32", "m": "i32"}, {"BLOCK": 32})
    with pytest.raises(UsageError, match="n cannot be typed and constant at once"):
        ttir_of(kernels.reads_beyond, KINDS, {"BLOCK": 32, "n": 4})
    with pytest.raises(UsageError, match="BLOCK cannot be divisible"):
        ttir_of(kernels.reads_beyond, KINDS, {"BLOCK": 32}, divisible=["BLOCK"])
    with pytest.raises(UsageError, match=r"decorate it with @triton\.jit"):
        ttir_of(test_parsed_module, KINDS, {"BLOCK": 32})


def test_what_triton_refuses() -> None:
    with pytest.raises(KernelBuildError, match="arange's range must be a power of 2"):
        ttir_of(kernels.reads_beyond, KINDS, {"BLOCK": 33})


def test_without_triton() -> None:
    """`import fusible` and this package work without Triton; only a kernel needs it."""
    program = """
import sys
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "triton":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Absent())
import fusible
from fusible.compiler.backends.triton.from_triton import ttir_of
from fusible.compiler.backends.triton import kernel, lower
try:
    ttir_of(None, {}, {})
except fusible.FusibleError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "Triton kernels need Triton: pip install 'fusible[gpu]'"
