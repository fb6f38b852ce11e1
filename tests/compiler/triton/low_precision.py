"""Models with weights, activations and products of 4 and 8 bits. All of them, run and built, by a command of its own:

    python -m tests.compiler.triton.low_precision [WORD ...]

with WORDs only those whose names have them all: on triton-cpu in checking mode, against ONNX Runtime (against the
target numpy where it has no kernel), and built for sm_80, sm_89, sm_90 and gfx942. It takes minutes; tests run some.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import ml_dtypes
import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

import fusible
from fusible.compiler.backends.triton.aot import BuiltKernel, build
from fusible.compiler.backends.triton.gpu_targets import gpu_target
from fusible.compiler.backends.triton.print_kernel import print_kernel
from fusible.compiler.ir.types import DType
from fusible.errors import FusibleError
from tests import oracle
from tests.region.quantised import product
from tests.tolerance import assert_close

__all__ = ["BUILDS", "MODELS", "Quantised", "built", "check", "compiled", "wrong_with"]

F16, BF16 = np.dtype(np.float16), np.dtype(ml_dtypes.bfloat16)
E4, E5 = np.dtype(ml_dtypes.float8_e4m3fn), np.dtype(ml_dtypes.float8_e5m2)
I4, U4 = np.dtype(ml_dtypes.int4), np.dtype(ml_dtypes.uint4)
_CODES = {I4: (-8, 8), U4: (0, 16), np.dtype(np.int8): (-64, 64), np.dtype(np.uint8): (0, 128)}
"""Codes of weights; those of 8 bits have 7, since ONNX Runtime saturates where the processor lacks VNNI."""
_ZEROS = {I4: (-3, 4), U4: (5, 11), np.dtype(np.int8): (-9, 10), np.dtype(np.uint8): (50, 70)}


@dataclass
class Quantised:
    """A model under construction. terms: of a sum. word: what its kernel's text must contain. steps: of its plan."""

    terms: int
    word: str = "contraction("
    steps: int = 1
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    constants: dict[str, np.ndarray] = field(default_factory=dict)
    inputs: dict[str, np.ndarray] = field(default_factory=dict)
    random: np.random.Generator = field(default_factory=lambda: np.random.default_rng(0))

    def __call__(self, op: str, *inputs: str, outputs: int = 1, domain: str = "", **attributes: object) -> str:
        names = [f"v{len(self.nodes)}_{n}" for n in range(outputs)]
        self.nodes.append(
            helper.make_node(op, inputs, names, domain=domain, name=f"{op}{len(self.nodes)}", **attributes)
        )
        return names[0]

    def c(self, array: object, dtype: object = np.float32) -> str:
        """A constant."""
        name = f"c{len(self.constants)}"
        self.constants[name] = np.asarray(array).astype(np.dtype(dtype))  # type: ignore[call-overload]
        return name

    def x(self, *shape: int, dtype: object = np.float32) -> str:
        """An input."""
        name = f"x{len(self.inputs)}"
        self.inputs[name] = self.random.normal(0, 1, shape).astype(np.dtype(dtype))  # type: ignore[call-overload]
        return name

    def weight(
        self, shape: tuple[int, ...], dtype: object, real: object, axis: int | None, block: int = 0, zeros: bool = True
    ) -> str:
        """A dequantised constant."""
        kind = np.dtype(dtype)  # type: ignore[call-overload]
        whole = kind in _CODES
        codes = self.random.integers(*_CODES[kind], shape) if whole else self.random.normal(0, 1, shape)
        own: tuple[int, ...] = () if axis is None else (shape[axis],)
        if block and axis is not None:
            own = tuple(-(-d // block) if n == axis else d for n, d in enumerate(shape))
        inputs = [self.c(codes, kind), self.c(self.random.uniform(0.5, 1.5, own) * 0.02, real)]
        if zeros and whole:
            inputs.append(self.c(self.random.integers(*_ZEROS[kind], own), kind))
        attributes = {} if axis is None else {"axis": axis, **({"block_size": block} if block else {})}
        return self("DequantizeLinear", *inputs, **attributes)

    def proto(self, output: str) -> onnx.ModelProto:
        """The model."""
        types = {n: helper.np_dtype_to_tensor_dtype(a.dtype) for n, a in self.inputs.items()}
        given = [helper.make_tensor_value_info(n, types[n], a.shape) for n, a in self.inputs.items()]
        result = helper.make_tensor_value_info(output, TensorProto.UNDEFINED, None)
        result.type.CopyFrom(onnx.TypeProto())
        tensors = [numpy_helper.from_array(a, n) for n, a in self.constants.items()]
        graph = helper.make_graph(self.nodes, "quantised", given, [result], tensors)
        domains = [helper.make_opsetid("", 21), helper.make_opsetid("com.microsoft", 1)]
        return helper.make_model(graph, opset_imports=domains, ir_version=10)


Make = Callable[[], "tuple[Quantised, str]"]
MODELS: dict[str, Make] = {}


def model(make: Make) -> Make:
    """Register a model by its name."""
    MODELS[make.__name__] = make
    return make


def _weight_only(
    rows: int, real: object, dtype: object, axis: int | None, block: int = 0, zeros: bool = True, terms: int = 128,
    columns: int = 72, word: str = "contraction(",
) -> tuple[Quantised, str]:  # fmt: skip
    m = Quantised(terms, word)
    x = m.x(rows, terms, dtype=real)
    return m, m("MatMul", x, m.weight((terms, columns), dtype, real, axis, block, zeros))


@model
def int4_by_channel() -> tuple[Quantised, str]:
    return _weight_only(70, F16, I4, 1, word="halves(")


@model
def int4_by_tensor() -> tuple[Quantised, str]:
    return _weight_only(70, np.float32, I4, None, zeros=False, word="halves(")


@model
def uint4_in_blocks() -> tuple[Quantised, str]:
    return _weight_only(70, F16, U4, 0, 32, word="halves(")


@model
def int4_in_blocks_that_do_not_fit() -> tuple[Quantised, str]:
    return _weight_only(20, np.float32, I4, 0, 32, terms=90, word="halves(")


@model
def int4_of_an_odd_depth() -> tuple[Quantised, str]:
    return _weight_only(20, np.float32, I4, 1, terms=131)


@model
def int4_for_brain_floats() -> tuple[Quantised, str]:
    return _weight_only(20, BF16, I4, 0, 64, word="halves(")


@model
def int4_by_a_vector() -> tuple[Quantised, str]:
    return _weight_only(1, F16, U4, 0, 32, terms=256, word="tl.sum(")


@model
def int4_by_few_rows() -> tuple[Quantised, str]:
    return _weight_only(5, F16, I4, 0, 32, terms=256, word="halves(")


@model
def int8_by_channel() -> tuple[Quantised, str]:
    return _weight_only(70, F16, np.int8, 1)


@model
def uint8_in_blocks() -> tuple[Quantised, str]:
    return _weight_only(33, np.float32, np.uint8, 0, 32)


@model
def int8_by_a_vector() -> tuple[Quantised, str]:
    return _weight_only(1, np.float32, np.int8, 1, terms=256, word="tl.sum(")


@model
def float8_weight() -> tuple[Quantised, str]:
    return _weight_only(33, F16, E4, 1)


@model
def int4_gemm_with_a_bias() -> tuple[Quantised, str]:
    m = Quantised(128, "halves(")
    x = m.x(33, 128)
    y = m("Gemm", x, m.weight((40, 128), I4, np.float32, 1, 32), m.c(m.random.normal(0, 1, 40)), transB=1)
    return m, m("Relu", y)


@model
def n_bits() -> tuple[Quantised, str]:
    m = Quantised(96, "halves(")
    b, z = m.random.integers(0, 256, (40, 3, 16)), m.random.integers(0, 256, (40, 2))
    inputs = m.x(9, 96, dtype=F16), m.c(b, np.uint8), m.c(m.random.uniform(0.01, 0.03, (40, 3)), F16), m.c(z, np.uint8)
    return m, m("MatMulNBits", *inputs, domain="com.microsoft", N=40, K=96, bits=4, block_size=32)


@model
def n_bits_by_many_rows() -> tuple[Quantised, str]:
    """Large enough that the weight is dequantised by a kernel of its own."""
    m = Quantised(512, steps=2)
    b, z = m.random.integers(0, 256, (512, 16, 16)), m.random.integers(0, 256, (512, 8))
    inputs = m.x(1024, 512, dtype=F16), m.c(b, np.uint8), m.c(m.random.uniform(0.01, 0.03, (512, 16)), F16)
    return m, m("MatMulNBits", *inputs, m.c(z, np.uint8), domain="com.microsoft", N=512, K=512, bits=4, block_size=32)


@model
def uint4_in_blocks_by_many_rows() -> tuple[Quantised, str]:
    made, output = _weight_only(1024, np.float32, U4, 0, 64, terms=512, columns=512)
    made.steps = 2
    return made, output


@model
def int4_by_halves_of_a_window() -> tuple[Quantised, str]:
    """Channels are odd in number: the bytes' halves are neighbours in a window, of which padding has parts."""
    m = Quantised(65 * 16, "halves(", steps=2)
    kernel = m.c(m.random.normal(0, 0.5, (65, 3, 3, 3)))
    x = m("Relu", m("Conv", m.x(1, 3, 6, 6), kernel, pads=[1] * 4))
    return m, m("Conv", x, m.weight((32, 65, 4, 4), I4, np.float32, 0, zeros=False), pads=[1] * 4)


def _quantised(dtype: object, zero: int, *, zeros: bool = False) -> tuple[Quantised, str]:
    """Both operands and the result are quantised."""
    kind = np.dtype(dtype)  # type: ignore[call-overload]
    m = Quantised(72, steps=2)
    s, z = m.c(0.02), m.c(zero, kind)
    x = m("DequantizeLinear", m("QuantizeLinear", m.x(33, 72), s, z), s, z)
    y = m("MatMul", x, m.weight((72, 40), np.int8 if kind.kind in "iu" else kind, np.float32, 1, zeros=zeros))
    y = m("Add", y, m.c(m.random.normal(0, 1, 40)))
    t, q = m.c(0.05), m.c(zero, kind)
    return m, m("DequantizeLinear", m("QuantizeLinear", y, t, q), t, q)


@model
def int8_operands() -> tuple[Quantised, str]:
    return _quantised(np.int8, 0)


@model
def uint8_operands() -> tuple[Quantised, str]:
    return _quantised(np.uint8, 128)


@model
def uint8_operands_with_zero_points() -> tuple[Quantised, str]:
    return _quantised(np.uint8, 100, zeros=True)


@model
def float8_operands() -> tuple[Quantised, str]:
    return _quantised(E4, 0)


@model
def float8_operands_of_two_bits() -> tuple[Quantised, str]:
    return _quantised(E5, 0)


@model
def quantised_convolution() -> tuple[Quantised, str]:
    m = Quantised(16 * 9, steps=2)
    s, z = m.c(0.02), m.c(120, np.uint8)
    x = m("DequantizeLinear", m("QuantizeLinear", m.x(1, 16, 9, 7), s, z), s, z)
    y = m("Conv", x, m.weight((24, 16, 3, 3), np.int8, np.float32, 0, zeros=False), pads=[1] * 4)
    t, q = m.c(0.05), m.c(0, np.uint8)
    return m, m("DequantizeLinear", m("QuantizeLinear", m("Relu", y), t, q), t, q)


@model
def quantised_product() -> tuple[Quantised, str]:
    m = Quantised(64, steps=2)
    s, z, zero = m.c(0.02), m.c(113, np.uint8), m.c(0, np.int8)
    x = m("QuantizeLinear", m.x(33, 64), s, z)
    w = m.c(m.random.integers(-63, 64, (64, 40)), np.int8)
    return m, m("QLinearMatMul", x, s, z, w, m.c(0.01), zero, m.c(0.04), m.c(100, np.uint8))


@model
def quantised_product_of_float8() -> tuple[Quantised, str]:
    m = Quantised(64, "float8e4nv", steps=2)
    s, z = m.c(0.02), m.c(0, E4)
    x = m("QuantizeLinear", m.x(33, 64), s, z)
    return m, m("QLinearMatMul", x, s, z, m.c(m.random.normal(0, 1, (64, 40)), E4), m.c(0.3), z, m.c(0.04), z)


def _dynamic(shape: tuple[int, int], steps: int) -> tuple[Quantised, str]:
    m = Quantised(shape[1], steps=steps)
    x = m.x(*shape)
    q = m("DynamicQuantizeLinear", x, outputs=3)
    w, s = m.c(m.random.integers(-63, 64, (shape[1], 40)), np.int8), m.c(0.01)
    total = m("Cast", m("MatMulInteger", q, w, q[:-1] + "2", m.c(0, np.int8)), to=TensorProto.FLOAT)
    return m, m("Mul", total, m("Mul", q[:-1] + "1", s))


@model
def dynamically_quantised() -> tuple[Quantised, str]:
    return _dynamic((33, 64), 2)


@model
def dynamically_quantised_by_rows() -> tuple[Quantised, str]:
    return _dynamic((300, 256), 3)


def compiled(
    name: str, options: fusible.Options | None = None
) -> tuple[fusible.Executable, Quantised, onnx.ModelProto]:
    """A model by its name, compiled for triton-cpu; by default every access of its kernels is checked."""
    made, output = MODELS[name]()
    proto = made.proto(output)
    chosen = options or fusible.Options(verify="kernels")
    return fusible.compile(proto.SerializeToString(), target="triton-cpu", options=chosen), made, proto


def check(name: str) -> None:
    """Fail unless a model is so many Triton kernels, one of them of the kind that it should be, and right."""
    exe, made, proto = compiled(name)
    assert not exe.report.host and len(exe.report.kernels) == made.steps, exe.report.kernels
    assert any(made.word in text for text in exe.sources.values()), f"no kernel has {made.word!r}"
    try:
        wanted = oracle.run(proto, made.inputs)
    except Exception as error:  # noqa: BLE001  # of ONNX Runtime, which lacks kernels for bf16
        assert "NOT_IMPLEMENTED" in str(error)
        wanted = fusible.compile(proto.SerializeToString(), target="numpy").run(made.inputs)
    (got,), (reference,) = exe.run(made.inputs).values(), wanted.values()
    assert got.astype(np.float64).std() > 0.1
    assert_close(got, reference, accumulation=made.terms)


@dataclass(frozen=True, slots=True)
class Build:
    """A product that is built: its operands and sizes, and the operands of matrix instructions by kind of GPU."""

    left: DType
    right: DType
    real: DType = DType.F32
    block: int = 0
    zeros: tuple[bool, bool] = (False, False)
    sizes: tuple[int, int, int] = (256, 1024, 1024)
    multiplied: tuple[str, str, str] = ("f16.f16", "f16.f16", "f16")
    """On sm_90 (and sm_89), sm_80 and gfx942."""


_HALF = DType.F16
BUILDS = {
    "int4_by_channel": Build(_HALF, DType.I4, _HALF, zeros=(False, True)),
    "int4_in_blocks": Build(_HALF, DType.I4, _HALF, 128, zeros=(False, True)),
    "int4_in_short_blocks": Build(DType.BF16, DType.U4, DType.BF16, 32, multiplied=("bf16.bf16", "bf16.bf16", "bf16")),
    "int4_by_few_rows": Build(_HALF, DType.I4, _HALF, 128, sizes=(8, 1024, 1024)),
    "int8_weight": Build(_HALF, DType.I8, _HALF, zeros=(False, True)),
    "int8": Build(DType.I8, DType.I8, multiplied=("s8.s8", "s8.s8", "i8")),
    "uint8": Build(DType.U8, DType.I8, zeros=(True, False)),
    "e4m3": Build(DType.F8E4M3FN, DType.F8E4M3FN, multiplied=("e4m3.e4m3", "f16.f16", "f16")),
    "e5m2": Build(DType.F8E5M2, DType.F8E5M2, multiplied=("e5m2.e5m2", "f16.f16", "f16")),
}
TARGETS = {"cuda:sm_80": 1, "cuda:sm_89": 0, "cuda:sm_90": 0, "hip:gfx942": 2}


def built(one: Build, target: str) -> BuiltKernel:
    """The kernel of a product for a GPU."""
    region = product(one.left, one.right, one.sizes, real=one.real, block=one.block, zeros=one.zeros).region
    weights = range(2 if one.zeros[0] else 1, len(region.inputs))
    gpu = gpu_target(target)
    return build(print_kernel(region, gpu, weights), gpu)


def wrong_with(one: Build, target: str) -> str:
    """What is wrong with a product's code, or nothing: spills, no matrix instruction of the right kind, short loads."""
    found = built(one, target)
    operands = one.multiplied[TARGETS[target]]
    instruction = r"v_mfma_\w*" if target.startswith("hip") else r"(wgmma|mma)\.\S*"
    if found.report.spilled:
        return f"it spills {found.report.spilled}"
    if not re.search(f"{instruction}{operands}", found.assembly):
        return f"it has no matrix instruction of {operands}"
    whole = 128 in found.report.loads or "cp.async.bulk" in found.assembly
    return "" if whole else f"its loads have {sorted(found.report.loads)} bits"


def main(words: Sequence[str]) -> int:
    """Run and build those whose names have all the words; returns how many failed."""
    jobs: dict[str, Callable[[], str]] = {f"run {n}": lambda n=n: check(n) or "" for n in MODELS}  # type: ignore[misc]
    for name, one in BUILDS.items():
        jobs |= {f"build {name} {t}": lambda o=one, t=t: wrong_with(o, t) for t in TARGETS}  # type: ignore[misc]
    failed = 0
    for name, job in jobs.items():
        if not all(word in name for word in words):
            continue
        try:
            wrong = job()
        except (AssertionError, FusibleError) as error:
            wrong = f"{type(error).__name__}: {error}"
        failed += bool(wrong)
        sys.stdout.write(f"{'FAILED' if wrong else 'ok    '} {name} {wrong}\n")
        sys.stdout.flush()
    return failed


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]) > 0)
