"""All cases of Triton kernels by name: each runs in checking mode against a reference, and is built for a GPU."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache

import fusible
from fusible.compiler.backends.triton.aot import build
from fusible.compiler.backends.triton.gpu_targets import GpuTarget
from fusible.compiler.backends.triton.printer import PrintedKernel
from fusible.compiler.ir.types import DType
from fusible.errors import FusibleError
from tests.compiler.triton import low_precision
from tests.compiler.triton.contraction_cases import runs
from tests.compiler.triton.regions import check_sample, fusion_samples, made_sample, printed_sample
from tests.compiler.triton.templates import templates
from tests.compiler.triton.templates_alone import ALONE, built_alone

__all__ = ["TARGETS", "Proof", "Shown", "proofs"]

TARGETS = ("cuda:sm_80", "cuda:sm_90", "cuda:sm_100", "cuda:sm_120", "hip:gfx942")
REGIONS = 200


@dataclass(frozen=True, slots=True)
class Shown:
    """What a case is on a GPU: texts of its kernels, element types of what they read and write, how they work.

    wrong: why they cannot be built, or that they spill; "" if neither.
    """

    texts: tuple[str, ...]
    types: frozenset[str]
    ways: frozenset[str] = frozenset()
    wrong: str = ""


@dataclass(frozen=True, slots=True)
class Proof:
    """A case. run: raises AssertionError, or an error of ours; built: for a GPU. Both raise NotPrintable if refused.

    builds: for all targets, not for one only. Ways through the depth of a product are in one element type.
    """

    run: Callable[[], object]
    built: Callable[[GpuTarget], Shown]
    builds: bool = True


@cache
def proofs() -> dict[str, Proof]:
    """Everything, by name."""
    warnings.simplefilter("ignore")  # NumPy's, of numbers out of range
    return dict(_proofs())


def _proofs() -> Iterator[tuple[str, Proof]]:
    for name, run in runs():
        every = run.tile is None or " float16" in name
        yield f"contraction/{name}", Proof(run.check, lambda gpu, r=run: _built(r.printed(gpu), gpu), every)  # type: ignore[misc]
    for name, (printed, check) in templates():
        run_it = lambda p=printed, c=check: c(p())  # type: ignore[misc]  # noqa: E731
        yield name, Proof(run_it, lambda gpu, p=printed: _built(p(gpu), gpu))  # type: ignore[misc]
    for name, alone in ALONE.items():
        yield f"alone/{name}", Proof(alone, lambda gpu, n=name: _built(built_alone(n), gpu))  # type: ignore[misc]
    for name in low_precision.MODELS:
        yield (
            f"few bits/{name}",
            Proof(lambda n=name: low_precision.check(n), lambda gpu, n=name: _model(n, gpu)),  # type: ignore[misc]
        )
    for name, one in low_precision.BUILDS.items():
        yield f"few bits, large/{name}", Proof(lambda: None, lambda gpu, o=one: _product(o, gpu))  # type: ignore[misc]
    for seed in range(1, REGIONS + 1):
        yield f"region/{seed}", _region(seed)
    for name in dict(fusion_samples()):
        yield f"fusion/{name}", _region(name)


def _region(seed: int | str) -> Proof:
    made = cache(lambda: made_sample(seed) if isinstance(seed, int) else dict(fusion_samples())[seed])
    return Proof(
        lambda: check_sample(made(), printed_sample(made())),
        lambda gpu: _built(printed_sample(made(), gpu), gpu),
    )


def _built(kernel: PrintedKernel, gpu: GpuTarget) -> Shown:
    types = {_name(fact.dtype) for fact in kernel.rule.accesses}
    ways = {f"by descriptor ({side})" for side, how in kernel.rule.operands.items() if how == "by descriptor"}
    ways |= {"programs that share sums"} if kernel.rule.workspace else set()
    try:
        made = build(kernel, gpu)
    except FusibleError as error:
        return Shown((kernel.source,), frozenset(types), frozenset(ways), f"{gpu.target}: {error}")
    ways |= {"overlapping launches"} if made.overlaps else set()
    ways |= {"descriptors of the host's"} if made.maps else set()
    ways |= {name for name in made.report.matrix if name}
    return Shown((kernel.source,), frozenset(types), frozenset(ways), _spills(gpu, made.report.spilled))


def _spills(gpu: GpuTarget, spilled: int) -> str:
    return f"{gpu.target}: it spills {spilled}" if spilled else ""


def _name(dtype: DType) -> str:
    return dtype.value


def _model(name: str, gpu: GpuTarget) -> Shown:
    """The kernels of a model of few bits, compiled as users do."""
    made, output = low_precision.MODELS[name]()
    types = frozenset(DType.of(a.dtype).value for a in (*made.constants.values(), *made.inputs.values()))
    try:
        exe = fusible.compile(made.proto(output).SerializeToString(), target=gpu.target)
    except FusibleError as error:
        return Shown((), types, frozenset(), f"{gpu.target}: {error}")
    rows = exe.report.gpu["kernels"]
    matrix = frozenset(instruction for row in rows for instruction in row["matrix"])
    spilled = max((row["spilled"] for row in rows), default=0)
    return Shown(tuple(exe.sources.values()), types, matrix, _spills(gpu, spilled))


def _product(one: low_precision.Build, gpu: GpuTarget) -> Shown:
    """A large product, which must use the right instructions where `low_precision` says which."""
    types = frozenset({one.left.value, one.right.value, one.real.value})
    if gpu.target in low_precision.TARGETS and (wrong := low_precision.wrong_with(one, gpu.target)):
        return Shown((), types, frozenset(), f"{gpu.target}: {wrong}")
    try:
        made = low_precision.built(one, gpu.target)
    except FusibleError as error:
        return Shown((), types, frozenset(), f"{gpu.target}: {error}")
    return Shown((), types, frozenset(made.report.matrix), _spills(gpu, made.report.spilled))
