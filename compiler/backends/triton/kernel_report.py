"""The static report of a kernel on a GPU, and of all launches of a model: plain data for people and scripts.

`kernel_report` joins what the code shows (`StaticReport`), what a launch does (operations and bytes, by `Costs`) and
what the GPU is: occupancy, the roofline's time, a predicted time, and findings. A finding is a deviation from what is
expected of kernels: nothing spills; products whose m, n and k are at least 64 use the matrix units; pointwise kernels
and reductions on aligned data use 128-bit accesses. One with a reason is an exception, one without a defect.

Times are predictions everywhere: nothing here was measured.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from enum import Enum
from types import MappingProxyType
from typing import Any

from fusible.compiler.backends.triton.gpu_targets import GpuTarget, MatrixType
from fusible.compiler.backends.triton.launch import AccessFact, LaunchRule
from fusible.compiler.backends.triton.occupancy import Occupancy, occupancy
from fusible.compiler.backends.triton.overlap import can_overlap
from fusible.compiler.backends.triton.roofline import (
    Bound,
    Prediction,
    Work,
    model_seconds,
    predict,
    roofline_seconds,
)
from fusible.compiler.backends.triton.static_report import StaticReport

__all__ = [
    "Expectation",
    "Finding",
    "FindingKind",
    "KernelReport",
    "check",
    "expectation",
    "gpu_section",
    "kernel_report",
]

WIDE = 128
_FEW = 4  # programs for each multiprocessor: with more, tiles need not have been made smaller
_LITTLE = 64  # bytes of a thread that may be spilled where there is a reason
LEAST = 64  # rows, columns and terms of products that matrix units are expected for
_INSTRUCTION = {"cuda:sm_90": "wgmma", "cuda:sm_100": "tcgen05", "hip:gfx942": "mfma"}


class FindingKind(Enum):
    """What a kernel does not do that is expected of it."""

    SPILLS = "spills"
    NO_MATRIX_UNITS = "no matrix units"
    SERIALISED = "matrix units wait"
    NARROW = "narrow accesses"
    NOT_RESIDENT = "does not fit"


@dataclass(frozen=True, slots=True)
class Finding:
    """A deviation. reason: why it has to be so; "" for a defect."""

    kind: FindingKind
    what: str
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Expectation:
    """What is known of a kernel beside its code.

    product: m, n and k of its contraction, if it has one; rows: of a program's tile of it. kind: what matrix units are
    given; None for vector units. narrow_loads, narrow_stores: why they may be narrower than 128 bits, if that is so.
    spills: why it may spill a little.
    """

    product: tuple[int, int, int] | None = None
    rows: int = 0
    kind: MatrixType | None = None
    narrow_loads: str = ""
    narrow_stores: str = ""
    spills: str = ""


@dataclass(frozen=True, slots=True)
class KernelReport:
    """One launch of a kernel on a GPU. seconds: predicted; roofline: the least that the peaks leave.

    operations: None where they are not known; then they count as none. bound: what the predicted time is decided by.
    operands: how those of a product are fetched, and why not by descriptor.
    """

    kernel: str
    gpu: str
    registers: int
    spilled: int
    shared: int
    threads: int
    programs: int
    occupancy: Occupancy
    loads: Mapping[int, int]
    stores: Mapping[int, int]
    matrix: Mapping[str, int]
    bulk_copies: int
    operations: float | None
    bytes: float
    roofline: float
    seconds: float
    bound: Bound
    findings: tuple[Finding, ...] = ()
    operands: Mapping[str, str] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """JSON types only; times in microseconds."""
        found = asdict(self)
        found["occupancy"] = asdict(self.occupancy) | {"limits": list(self.occupancy.limits)}
        found["loads"], found["stores"] = _named(self.loads), _named(self.stores)
        found["matrix"], found["operands"] = dict(self.matrix), dict(self.operands)
        found["roofline_us"], found["predicted_us"] = _micro(found.pop("roofline")), _micro(found.pop("seconds"))
        found["bound"] = self.bound.value
        found["findings"] = [
            {"kind": finding.kind.value, "what": finding.what, "reason": finding.reason} for finding in self.findings
        ]
        return found


def kernel_report(
    kernel: str,
    report: StaticReport,
    gpu: GpuTarget,
    *,
    threads: int,
    programs: int,
    operations: float | None,
    nbytes: float,
    cached: float = 0.0,
    expected: Expectation = Expectation(),
    predicted: Prediction | None = None,
    operands: Mapping[str, str] = MappingProxyType({}),
) -> KernelReport:
    """The report of one launch. threads: of a program; nbytes: that the launch reads and writes, each once.

    cached: those of them that the level 2 cache has or keeps. `Costs` gives operations and bytes. predicted: where more
    is known than that, as for the tiles of products (`predict_product`).
    """
    kind = expected.kind if report.matrix else None
    resident = occupancy(gpu.sm, threads, report.registers, report.shared)
    work = Work(operations or 0.0, max(nbytes - cached, 0.0), cached, kind=kind)
    made = predict(gpu, work, programs, resident.blocks) if predicted is None else predicted
    found = KernelReport(
        kernel, gpu.name, report.registers, report.spilled, report.shared, threads, programs, resident, report.loads,
        report.stores, report.matrix, report.bulk_loads + report.bulk_stores, operations, nbytes,
        roofline_seconds(gpu, operations or 0.0, nbytes, kind), made.seconds, made.bound,
    )  # fmt: skip
    return replace(found, findings=tuple(check(report, gpu, resident, expected)), operands=dict(operands))


def check(report: StaticReport, gpu: GpuTarget, resident: Occupancy, expected: Expectation) -> list[Finding]:
    """The deviations of a kernel from what is expected of it."""
    found = []
    if resident.blocks == 0:
        limits = " and ".join(resident.limits)
        found.append(Finding(FindingKind.NOT_RESIDENT, f"one program alone needs more {limits} than {gpu.name} has"))
    if report.spilled:
        unit = "bytes" if gpu.backend == "cuda" else "registers"
        reason = expected.spills if report.spilled <= _LITTLE else ""
        found.append(Finding(FindingKind.SPILLS, f"{report.spilled} {unit} of a thread", reason))
    if report.serialised:
        found.append(Finding(FindingKind.SERIALISED, "ptxas makes each product of wgmma wait for the one before"))
    if expected.product is not None:
        found += _matrix_findings(report, gpu, expected, expected.product)
    else:
        sides = ("loads", report.loads, expected.narrow_loads), ("stores", report.stores, expected.narrow_stores)
        for side, widths, reason in sides:
            narrow = ", ".join(f"{count} of {bits} bits" for bits, count in widths.items() if bits < WIDE)
            found += [Finding(FindingKind.NARROW, f"{side}: {narrow}", reason)] if narrow else []
    return found


def _matrix_findings(
    report: StaticReport, gpu: GpuTarget, expected: Expectation, product: tuple[int, int, int]
) -> list[Finding]:
    """Products large enough use the instructions that the architecture is built for."""
    size = " x ".join(map(str, product))
    if expected.kind is None or gpu.matrix_peak(expected.kind) is None or min(product) < LEAST:
        return []
    if not report.matrix:
        return [Finding(FindingKind.NO_MATRIX_UNITS, f"a product of {size} on {expected.kind.value}")]
    wanted = _INSTRUCTION.get(gpu.target, "mma")
    if wanted in report.matrix:
        return []
    what = f"a product of {size} uses {', '.join(report.matrix)} where {gpu.target} has {wanted}"
    reason = f"its tiles have {expected.rows} rows, {wanted} takes {LEAST}" if 0 < expected.rows < LEAST else ""
    return [Finding(FindingKind.NO_MATRIX_UNITS, what, reason)]


def expectation(rule: LaunchRule, gpu: GpuTarget, programs: int) -> Expectation:
    """What can be expected of a kernel without contractions, by its launch rule: why its accesses may be narrow."""
    threads, rows, columns = rule.warps * gpu.warp, rule.constants.get("ROWS", 1), rule.constants.get("COLUMNS", 1)
    reasons: dict[bool, dict[str, None]] = {False: {}, True: {}}
    for fact in rule.accesses:
        if why := _why_narrow(fact):
            reasons[fact.stores][why] = None
        elif fact.folded and rows * fact.dtype.numpy.itemsize * 8 < WIDE * threads:
            verb = "written" if fact.stores else "read"
            reasons[fact.stores][f"{fact.argument} is {verb} once a row, of which {threads} threads have {rows}"] = None
        elif fact.repeated and columns * fact.dtype.numpy.itemsize * 8 < WIDE * threads:
            why = f"{fact.argument} is the same for all rows, and {threads} threads have {columns} columns"
            reasons[fact.stores][why] = None
    sizes = {fact.dtype.numpy.itemsize for fact in rule.accesses if fact.step == 1}
    for found in reasons.values():
        if rule.workspace:
            found[f"programs hand each other a value a row, of which {threads} threads have {rows}"] = None
        if len(sizes) > 1:
            found["its buffers have elements of different sizes, of which a thread takes as many of each"] = None
        points = rows * columns
        if sizes and points * min(sizes) * 8 < WIDE * threads and programs <= _FEW * gpu.multiprocessors:
            found[f"a thread has {points / threads:g} points, so that there are {programs} programs"] = None
    return Expectation(narrow_loads="; ".join(reasons[False]), narrow_stores="; ".join(reasons[True]))


def _why_narrow(fact: AccessFact) -> str:
    name = f"{fact.argument} is {'written' if fact.stores else 'read'}"
    match fact.step:
        case 1 if (run := fact.run) is not None:
            bits = run * fact.dtype.numpy.itemsize * 8
            return f"{name} in runs of {run} elements, which are not whole 128 bits" if bits % WIDE else ""
        case 1:
            return f"{name} under a mask, whose edge need not lie at 128 bits" if fact.masked else ""
        case 0:
            return f"{name} at one place by all neighbours"
        case None:
            return f"{name} where data or a division say"
    return f"{name} with {fact.step} elements between neighbours"


def gpu_section(gpu: GpuTarget, launches: Sequence[KernelReport], host: Sequence[str] = ()) -> dict[str, Any]:
    """The report of a model on a GPU, in JSON types. launches: in the plan's order; host: steps that are not on it.

    The predicted latency is that of the launches alone: what the host computes between them is not in it.
    """
    seconds = [launch.seconds for launch in launches]
    overlaps = can_overlap(gpu) and any(launch.matrix for launch in launches)  # others are mostly serial
    findings = Counter(
        (finding.kind.value, "exception" if finding.reason else "defect")
        for launch in launches
        for finding in launch.findings
    )
    return {
        "gpu": gpu.name,
        "target": gpu.target,
        "note": "times are predictions of a model, nothing was measured",
        "launches": len(launches),
        "predicted_us": {
            "graph": _micro(model_seconds(seconds, graph=True, overlaps=overlaps)),
            "launches": _micro(model_seconds(seconds, graph=False)),
            "kernels": _micro(sum(seconds)),
            "roofline": _micro(sum(launch.roofline for launch in launches)),
        },
        "host_steps": list(host),
        "findings": [{"kind": k, "verdict": v, "count": n} for (k, v), n in sorted(findings.items())],
        "kernels": [launch.to_json() for launch in launches],
    }


def _named(widths: Mapping[int, int]) -> dict[str, int]:
    return {str(bits): count for bits, count in widths.items()}


def _micro(seconds: float) -> float:
    return round(seconds * 1e6, 3)
